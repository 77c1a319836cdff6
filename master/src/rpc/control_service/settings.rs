//! Live settings: what any master reads of them, and how the leader sets one.
//!
//! What is read is what the leader committed. A set value is looked at before it reaches etcd; when the answer leaves, the
//! scheduler has taken it in. In between lies etcd, so that a caller may be told that the value is there and not in force
//! yet; whoever follows etcd brings it into force.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{
    settings::{self, SettingError},
    term::Term,
    time::Timestamp,
};
use millrace_core::{Answer, Request as Ask, SetSetting, SettingRow};
use millrace_proto::v1;
use millrace_runtime::Chain;
use millrace_store::query::{SettingChange, SettingChangeKey};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{Control, ReplyStream, not_answered, read::page_token, watch::farewell};
use crate::{
    rpc::status,
    settings::{EtcdKeeper, KeepError, Keeper, name_of},
};

/// Rows of a page of the history where the caller does not say.
const PAGE_ROWS: u32 = 50;
/// Lists that wait for a slow reader; it then sees fewer of them.
const LISTS_MAX: usize = 1;

impl Control {
    /// Returns all settings, or one.
    pub(super) async fn read_settings(&self, name: &str) -> Result<v1::ListSettingsResponse, Status> {
        let rows = self.store.settings().await.map_err(|error| status::of_query(&error))?;
        let rows: BTreeMap<&str, &SettingRow> = rows.iter().map(|row| (&*row.name, row)).collect();
        if name.is_empty() {
            let mut names: Vec<&str> = self.statics.iter().map(|(name, _)| name).collect();
            names.extend(rows.keys());
            names.sort_unstable();
            names.dedup();
            let settings = names.into_iter().map(|name| self.view(name, rows.get(name).copied()));
            return Ok(v1::ListSettingsResponse { settings: settings.collect() });
        }
        let row = rows.get(name).copied();
        if let (None, Err(error)) = (row, settings::allowed(name)) {
            return Err(status::not_found(error.to_string()));
        }
        Ok(v1::ListSettingsResponse { settings: vec![self.view(name, row)] })
    }

    fn view(&self, name: &str, row: Option<&SettingRow>) -> v1::SettingView {
        let own = self.statics.get(name).map(str::to_owned);
        let own_source = if own.is_some() { "static" } else { "" };
        let value = row.and_then(|row| row.value.as_ref());
        let kept_in = match self.settings {
            Keeper::Etcd(_) => "etcd",
            Keeper::Store => "database",
        };
        let refused = row.and_then(|row| row.refused.as_ref()).map(|refused| v1::RefusedSetting {
            value: refused.text.to_string(),
            reason: refused.reason.to_string(),
            at: refused.at.as_micros(),
            by: refused.by.to_string(),
        });
        v1::SettingView {
            name: name.to_owned(),
            value: value.map(|value| value.text.to_string()).or(own),
            source: value.map_or(own_source, |_| kept_in).to_owned(),
            since: value.map(|value| value.at.as_micros()),
            by: value.map_or_else(String::new, |value| value.by.to_string()),
            refused,
            allowed: settings::allowed(name).unwrap_or_default().to_owned(),
        }
    }

    /// Sets a setting, or unsets it, and waits until it is in force.
    pub(super) async fn change_setting(
        &self,
        request: v1::SetSettingRequest,
    ) -> Result<v1::SetSettingResponse, Status> {
        let v1::SetSettingRequest { name, value, by } = request;
        let before = self.setting_row(&name).await?;
        let text = checked(&name, value.as_deref(), before.is_some())
            .map_err(|error| status::invalid(error.to_string()))?;
        let by = Some(name_of(&by)).filter(|by| !by.is_empty()).unwrap_or_else(|| "somebody".to_owned());
        match self.settings.clone() {
            Keeper::Store => self.set_in_store(&name, text, &by).await?,
            Keeper::Etcd(keeper) => {
                let control = self.clone();
                let name = name.clone();
                // By itself: a caller that goes away does not leave it half-way.
                let set =
                    self.tasks.spawn(async move { control.set_in_etcd(&keeper, &name, text, &by).await });
                set.await.map_err(|_| status::stopping())??;
            }
        }
        let after = self.setting_row(&name).await?;
        let setting = Some(self.view(&name, after.as_ref()));
        Ok(v1::SetSettingResponse { changed: before != after, setting })
    }

    async fn setting_row(&self, name: &str) -> Result<Option<SettingRow>, Status> {
        let rows = self.store.settings().await.map_err(|error| status::of_query(&error))?;
        Ok(rows.into_iter().find(|row| &*row.name == name))
    }

    async fn set_in_store(&self, name: &str, text: Option<String>, by: &str) -> Result<(), Status> {
        let set = SetSetting { name: name.into(), text: text.map(Into::into), by: by.into() };
        match self.ask(Ask::SetSetting(set)).await? {
            Answer::SettingTaken { .. } => Ok(()),
            other => Err(not_answered(&other)),
        }
    }

    async fn set_in_etcd(
        &self,
        keeper: &EtcdKeeper,
        name: &str,
        text: Option<String>,
        by: &str,
    ) -> Result<(), Status> {
        keeper.write(name, text.as_deref(), by).await.map_err(|error| {
            of_keeper("etcd did not say that it has the setting; `masterctl config get` tells", &error)
        })?;
        let later = "etcd has the setting, and it comes into force later";
        let account = keeper.read().await.map_err(|error| of_keeper(later, &error))?;
        let unset_at = account.unset.get(name).map(|(_, revision)| *revision);
        match self.ask(Ask::TakeSettings(Box::new(account))).await {
            Ok(Answer::SettingsTaken) => {}
            Ok(other) => return Err(not_answered(&other)),
            Err(error) => return Err(status::of(error.code(), format!("{later}: {}", error.message()))),
        }
        if let Some(revision) = unset_at
            && let Err(error) = keeper.forget_writer(name, revision).await
        {
            // It stays until the setting is set again, and means nothing.
            tracing::debug!(error = %Chain(&error), "who unset a setting could not be taken out of etcd");
        }
        Ok(())
    }

    /// Streams all settings, or one, whenever one of them changed.
    pub(super) async fn stream_settings(
        &self,
        name: String,
    ) -> Result<ReplyStream<v1::ListSettingsResponse>, Status> {
        let place = self.place()?;
        // Subscribed before the first read: nothing falls between the two.
        let mut changes = self.feed.watch_settings();
        let mut list = self.read_settings(&name).await?;
        let (sender, receiver) = mpsc::channel(LISTS_MAX);
        let control = self.clone();
        self.tasks.spawn(async move {
            let sending = async {
                loop {
                    if sender.send(Ok(list)).await.is_err() || changes.changed().await.is_err() {
                        return Ok(());
                    }
                    list = control.read_settings(&name).await?;
                }
            };
            let end: Result<(), Status> = tokio::select! {
                biased;
                () = sender.closed() => return,
                () = control.stop.cancelled() => Err(status::stopping()),
                end = sending => end,
            };
            if let Err(status) = end {
                farewell(&sender, status).await;
            }
            drop(place);
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    /// Returns what was done to settings, newest first.
    pub(super) async fn read_setting_changes(
        &self,
        request: &v1::ListSettingChangesRequest,
    ) -> Result<v1::ListSettingChangesResponse, Status> {
        let before = page_token(&request.page_token, page_key)?;
        let name = Some(&*request.name).filter(|name| !name.is_empty());
        let rows = if request.page_size == 0 { PAGE_ROWS } else { request.page_size };
        let page = self.store.setting_changes(name, before, rows).await;
        let page = page.map_err(|error| status::of_query(&error))?;
        let token = |key: SettingChangeKey| format!("{}.{}.{}", key.term.0, key.seq, key.position);
        Ok(v1::ListSettingChangesResponse {
            changes: page.rows.into_iter().map(change_view).collect(),
            next_page_token: page.next.map_or_else(String::new, token),
        })
    }
}

/// Looks at a value before anybody writes it down; returns it as it is kept. What is known to the store may be unset, even
/// where it is no setting.
fn checked(name: &str, value: Option<&str>, is_there: bool) -> Result<Option<String>, SettingError> {
    match value {
        Some(value) => settings::read(name, value.as_bytes()).map(|setting| Some(setting.to_string())),
        None if is_there => Ok(None),
        None => settings::allowed(name).map(|_| None),
    }
}

fn of_keeper(what: &str, error: &KeepError) -> Status {
    tracing::warn!(error = %Chain(error), "a live setting could not be set or taken in");
    status::of(Code::Unavailable, format!("{what}: {}", Chain(error)))
}

fn page_key(token: &str) -> Option<SettingChangeKey> {
    let mut parts = token.split('.').map(str::parse::<u64>);
    let mut next = || parts.next().and_then(Result::ok);
    let (term, seq, position) = (Term(next()?), next()?, u32::try_from(next()?).ok()?);
    Some(SettingChangeKey { term, seq, position })
}

fn change_view(change: SettingChange) -> v1::SettingChangeView {
    let text = |text: Option<Arc<str>>| text.map(|text| text.to_string());
    v1::SettingChangeView {
        name: change.name.to_string(),
        at: Timestamp::as_micros(change.at),
        by: change.by.to_string(),
        old: text(change.old),
        given: text(change.given),
        refusal: text(change.refusal).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_can_be_unset_though_it_is_no_setting() {
        assert_eq!(checked("pools.a", Some(" 04 "), false), Ok(Some("4".to_owned())));
        assert_eq!(checked("retenton", None, true), Ok(None));
        assert!(checked("retenton", None, false).is_err());
        assert!(checked("retenton", Some("30d"), true).is_err());
    }

    #[test]
    fn tokens_of_pages_are_checked() {
        let key = SettingChangeKey { term: Term(7), seq: 3, position: 0 };
        assert_eq!(page_key("7.3.0"), Some(key));
        for wrong in ["", "7", "7.3", "7.3.x", "7.3.99999999999"] {
            assert_eq!(page_key(wrong), None, "{wrong}");
        }
    }
}
