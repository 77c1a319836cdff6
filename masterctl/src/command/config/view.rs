//! How live settings are printed.

use std::fmt::Write as _;

use millrace_proto::v1;
use serde_json::{Value, json};

use crate::{
    command::workflow::with_next,
    output::{Printable, one_line, table, time, time_value},
};

/// All settings, or one.
pub(super) struct Settings(pub(super) v1::ListSettingsResponse);

impl Printable for Settings {
    fn value(&self) -> Value {
        json!({ "settings": self.0.settings.iter().map(value_of).collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let rows = self.0.settings.iter().map(|setting| {
            vec![
                setting.name.clone(),
                setting.value.clone().unwrap_or_default(),
                setting.source.clone(),
                time(setting.since),
                setting.by.clone(),
                setting.refused.as_ref().map_or_else(String::new, refusal_of),
            ]
        });
        table(&["setting", "value", "source", "since", "by", "refused"], &["by", "since"], rows.collect())
    }
}

fn value_of(setting: &v1::SettingView) -> Value {
    let refused = setting.refused.as_ref().map(|refused| {
        json!({
            "value": refused.value,
            "reason": refused.reason,
            "at": time_value(Some(refused.at)),
            "by": refused.by,
        })
    });
    json!({
        "setting": setting.name,
        "value": setting.value,
        "source": setting.source,
        "since": time_value(setting.since),
        "by": setting.by,
        "refused": refused,
        "allowed": setting.allowed,
    })
}

/// The reason repeats the name and the offending text.
fn refusal_of(refused: &v1::RefusedSetting) -> String {
    format!("{} (since {}, {})", refused.reason, time(Some(refused.at)), refused.by)
}

/// A setting that was set or unset.
pub(super) struct Set(pub(super) v1::SetSettingResponse);

impl Printable for Set {
    fn value(&self) -> Value {
        json!({ "changed": self.0.changed, "setting": self.0.setting.as_ref().map(value_of) })
    }

    fn text(&self) -> String {
        let Some(setting) = &self.0.setting else { return String::new() };
        let unchanged = if self.0.changed { "" } else { "; nothing changed" };
        format!("{}{unchanged}\n", said(setting))
    }
}

/// A setting that is different now.
pub(super) struct News(pub(super) v1::SettingView);

impl Printable for News {
    fn value(&self) -> Value {
        value_of(&self.0)
    }

    fn text(&self) -> String {
        format!("{}\n", said(&self.0))
    }
}

fn said(setting: &v1::SettingView) -> String {
    let mut text = match &setting.value {
        Some(value) => format!("{} is {} ({})", setting.name, one_line(value), setting.source),
        None => format!("{} has no value", setting.name),
    };
    if let Some(refused) = &setting.refused {
        // Writing to a text cannot fail.
        let _ = write!(text, "; refused: {}", one_line(&refusal_of(refused)));
    }
    text
}

/// What was done to settings.
pub(super) struct Changes(pub(super) v1::ListSettingChangesResponse);

impl Printable for Changes {
    fn value(&self) -> Value {
        let one = |change: &v1::SettingChangeView| {
            json!({
                "setting": change.name,
                "at": time_value(Some(change.at)),
                "by": change.by,
                "old": change.old,
                "new": change.given,
                "refusal": Some(&change.refusal).filter(|refusal| !refusal.is_empty()),
            })
        };
        let changes: Vec<Value> = self.0.changes.iter().map(one).collect();
        json!({ "changes": changes, "next": self.0.next_page_token })
    }

    fn text(&self) -> String {
        let rows = self.0.changes.iter().map(|change| {
            vec![
                time(Some(change.at)),
                change.name.clone(),
                change.old.clone().unwrap_or_default(),
                change.given.clone().unwrap_or_default(),
                change.by.clone(),
                change.refusal.clone(),
            ]
        });
        let text = table(&["at", "setting", "old", "new", "by", "refused"], &["by"], rows.collect());
        with_next(text, &self.0.next_page_token)
    }
}
