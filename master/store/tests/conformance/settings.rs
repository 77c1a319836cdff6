//! Live settings: what is in force, what is refused, and what was done.

use std::sync::Arc;

use millrace_core::{Change, RefusedValue, SettingChanged, SettingRow, SettingValue};
use millrace_store::{CommitError, Pruned, Retention};

use crate::{
    place::Place,
    sample::{at, lead},
};

fn value(text: &str, seconds: i64) -> SettingValue {
    SettingValue { text: text.into(), by: "王芳@plant-1".into(), at: at(seconds) }
}

fn refused(text: &str, seconds: i64) -> RefusedValue {
    let reason = format!("`pools.mes` is {text:?}; it must be a number").into();
    RefusedValue { text: text.into(), reason, by: "etcd".into(), at: at(seconds) }
}

fn row(name: &str, value: Option<SettingValue>, refused: Option<RefusedValue>, revision: u64) -> SettingRow {
    SettingRow { name: name.into(), value, refused, revision }
}

/// Returns the change from one row to the next, as the scheduler would make it.
fn changed(before: Option<&SettingRow>, now: Option<&SettingRow>, seconds: i64) -> Change {
    let name: Arc<str> = before.or(now).map(|row| Arc::clone(&row.name)).unwrap();
    let refused = now.and_then(|row| row.refused.as_ref());
    let value = now.and_then(|row| row.value.as_ref());
    Change::SettingChanged(Box::new(SettingChanged {
        name,
        before: before.cloned(),
        now: now.cloned(),
        given: refused.map(|refused| &refused.text).or(value.map(|value| &value.text)).cloned(),
        refusal: refused.map(|refused| Arc::clone(&refused.reason)),
        by: "王芳@plant-1".into(),
        at: at(seconds),
    }))
}

pub(crate) async fn settings_are_kept_with_what_was_refused_and_done(place: Place) {
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let four = row("pools.mes", Some(value("4", 1)), None, 7);
    let rubbish = row("pools.mes", Some(value("4", 1)), Some(refused("\u{fffd}?", 2)), 9);
    let unknown = row("retenton", None, Some(refused("30d", 2)), 8);
    let log = row("log", Some(value("info,millrace_store=debug", 3)), None, 0);
    writer.commit_changes(&[changed(None, Some(&four), 1)]).await.unwrap();
    let second = [changed(Some(&four), Some(&rubbish), 2), changed(None, Some(&unknown), 2)];
    writer.commit_changes(&second).await.unwrap();
    writer.commit_changes(&[changed(None, Some(&log), 3)]).await.unwrap();

    let all = [log.clone(), rubbish.clone(), unknown.clone()];
    assert_eq!(store.settings().await.unwrap(), all, "by name");
    assert_eq!(store.load().await.unwrap().snapshot.settings, all, "a new leader begins with them");

    // Set and unset in one batch leave nothing but the history, and what is gone can come again.
    let third =
        [changed(Some(&unknown), None, 4), changed(Some(&log), None, 4), changed(None, Some(&log), 5)];
    writer.commit_changes(&third).await.unwrap();
    assert_eq!(store.settings().await.unwrap(), [log.clone(), rubbish.clone()]);
    writer.commit_changes(&[changed(Some(&log), None, 6), changed(Some(&rubbish), None, 6)]).await.unwrap();
    assert_eq!(store.settings().await.unwrap(), []);

    let first = store.setting_changes(None, None, 5).await.unwrap();
    let told = |page: &[millrace_store::query::SettingChange]| -> Vec<(String, Option<Arc<str>>)> {
        page.iter().map(|change| (change.name.to_string(), change.given.clone())).collect()
    };
    let given = Some("info,millrace_store=debug".into());
    let newest =
        [("pools.mes", None), ("log", None), ("log", given.clone()), ("log", None), ("retenton", None)];
    assert_eq!(told(&first.rows), newest.map(|(name, given)| (name.to_owned(), given)), "newest first");
    let rest = store.setting_changes(None, first.next, 5).await.unwrap();
    assert_eq!((rest.rows.len(), rest.next), (4, None));
    let oldest = rest.rows.last().unwrap();
    assert_eq!((&oldest.old, oldest.given.as_deref(), oldest.at), (&None, Some("4"), at(1)));
    assert_eq!(&*oldest.by, "王芳@plant-1");
    let of_one = store.setting_changes(Some("pools.mes"), None, 10).await.unwrap().rows;
    let refusals: Vec<_> =
        of_one.iter().map(|change| (change.old.as_deref(), change.refusal.is_some())).collect();
    assert_eq!(refusals, [(Some("4"), false), (Some("4"), true), (None, false)]);
}

pub(crate) async fn a_setting_that_is_not_what_the_leader_thinks_stops_the_batch(place: Place) {
    let store = place.open().await;
    let four = row("pools.mes", Some(value("4", 1)), None, 0);
    let five = row("pools.mes", Some(value("5", 2)), None, 0);
    let mut writer = lead(&store, "first").await;
    let refusal = writer.commit_changes(&[changed(Some(&four), Some(&five), 2)]).await.unwrap_err();
    assert!(
        matches!(&refusal, CommitError::Guard { what } if what.contains("setting pools.mes")),
        "{refusal}"
    );
    let mut writer = lead(&store, "second").await;
    writer.commit_changes(&[changed(None, Some(&four), 1)]).await.unwrap();
    let refusal = writer.commit_changes(&[changed(None, Some(&four), 1)]).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Duplicate { .. }), "{refusal}");
    let mut writer = lead(&store, "third").await;
    let apart = [changed(Some(&four), Some(&five), 2), changed(Some(&four), None, 3)];
    let refusal = writer.commit_changes(&apart).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Guard { .. }), "{refusal}");
    assert_eq!(store.settings().await.unwrap(), [four]);
}

pub(crate) async fn the_history_of_settings_is_bounded(place: Place) {
    const KEPT: usize = 10_000;
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let rows: Vec<SettingRow> = (0..i64::try_from(KEPT).unwrap() + 3)
        .map(|seconds| row("pools.mes", Some(value(&seconds.to_string(), seconds)), None, 0))
        .collect();
    let mut changes = vec![changed(None, rows.first(), 0)];
    let steps = rows.windows(2).zip(1..);
    changes.extend(steps.map(|(pair, seconds)| changed(Some(&pair[0]), Some(&pair[1]), seconds)));
    writer.commit_changes(&changes).await.unwrap();
    let pruned = writer.prune(Retention::default(), at(0)).await.unwrap();
    assert_eq!(pruned, Pruned::default(), "no run went");
    assert_eq!(place.number("SELECT COUNT(*) FROM setting_change").await, i64::try_from(KEPT).unwrap());
    assert_eq!(place.number("SELECT COUNT(*) FROM setting_change WHERE given_text = '2'").await, 0);
    assert_eq!(store.settings().await.unwrap(), rows[rows.len() - 1..]);
    let seq = writer.seq();
    writer.prune(Retention::default(), at(0)).await.unwrap();
    assert_eq!(writer.seq(), seq, "nothing more to do");
}
