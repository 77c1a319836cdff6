//! Settings in etcd.
//!
//! | key below the prefix | value |
//! |---|---|
//! | `settings/<name>` | the text of the setting |
//! | `settings.by/<name>` | `set <who>` or `unset <who>`, written in the same change by a master |
//!
//! Somebody who writes a setting with a tool of etcd leaves the second key as it is: then the two were not changed
//! together, and nobody is named. A few bytes that are no text, in a key or in a value, are shown as far as they can be.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::settings::{SETTINGS_MAX, shown_text};
use millrace_core::{GivenSetting, SettingsAccount};
use millrace_store::{GenerationError, Store, query::QueryError};
use thiserror::Error;

use super::ANYBODY;
use crate::election::{Etcd, EtcdError, EtcdId, Range};

/// Keys that are read at once: each setting has two, and some that are gone have one for a moment.
const KEYS_MAX: usize = 3 * SETTINGS_MAX;

/// Why settings cannot be read or written; those in force stay.
#[derive(Debug, Error)]
pub(crate) enum KeepError {
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error("the database does not say which etcd this cluster belongs to")]
    Database(#[source] GenerationError),
    #[error("the settings in force cannot be read")]
    Store(#[source] QueryError),
    #[error(
        "etcd {0} is not the one that this cluster belongs to; if it is the right one, run `masterctl cluster adopt-etcd`"
    )]
    UnknownEtcd(EtcdId),
    #[error("there are more than {SETTINGS_MAX} keys below `{0}`: delete those that are no settings")]
    TooMany(String),
}

/// Reads and writes settings in etcd. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EtcdKeeper {
    etcd: Etcd,
    store: Store,
    prefix: Arc<str>,
}

impl EtcdKeeper {
    pub(crate) fn new(etcd: Etcd, store: Store, prefix: &str) -> Self {
        Self { etcd, store, prefix: prefix.into() }
    }

    fn values(&self) -> String {
        format!("{}/settings/", self.prefix)
    }

    fn writers(&self) -> String {
        format!("{}/settings.by/", self.prefix)
    }

    /// Returns what comes after all keys of both kinds, of which writers are the first.
    fn end(&self) -> String {
        format!("{}/settings0", self.prefix)
    }

    /// Reads all settings, from the etcd that this cluster belongs to: another one may know nothing of them.
    pub(crate) async fn read(&self) -> Result<SettingsAccount, KeepError> {
        let limit = i64::try_from(KEYS_MAX).unwrap_or(i64::MAX);
        let range = self.etcd.range(&self.writers(), &self.end(), limit).await?;
        let known = self.store.generation().await.map_err(KeepError::Database)?.service;
        if known.as_deref() != Some(&*range.etcd.to_string()) {
            return Err(KeepError::UnknownEtcd(range.etcd));
        }
        let account = account(&range, &self.values(), &self.writers());
        if range.is_more || account.given.len() > SETTINGS_MAX {
            return Err(KeepError::TooMany(self.values()));
        }
        Ok(account)
    }

    /// Waits until something changed after an account, or may have.
    pub(super) async fn changed(&self, account_revision: u64) {
        let revision = i64::try_from(account_revision).unwrap_or(i64::MAX - 1);
        self.etcd.range_changed(&self.writers(), &self.end(), revision).await;
    }

    /// Sets a setting, or unsets it. After an error it may have been done all the same.
    pub(crate) async fn write(&self, name: &str, text: Option<&str>, by: &str) -> Result<(), KeepError> {
        let verb = if text.is_some() { "set" } else { "unset" };
        let value = (format!("{}{name}", self.values()), text.map(str::to_owned));
        let writer = (format!("{}{name}", self.writers()), Some(format!("{verb} {by}")));
        Ok(self.etcd.write_all(&[value, writer]).await?)
    }

    /// Forgets who unset a setting, once that is recorded.
    pub(crate) async fn forget_writer(&self, name: &str, revision: u64) -> Result<(), KeepError> {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        let key = format!("{}{name}", self.writers());
        Ok(self.etcd.delete_if_modified_at(&key, revision).await?)
    }

    /// Writes the settings in force that are not there, before an etcd that never was this cluster's is taken as such: the
    /// cluster would lose them otherwise.
    pub(crate) async fn carry_over(&self) -> Result<(), KeepError> {
        for row in self.store.settings().await.map_err(KeepError::Store)? {
            let Some(value) = row.value else { continue };
            let key = format!("{}{}", self.values(), row.name);
            self.etcd.write_if_absent(&key, &value.text).await?;
        }
        Ok(())
    }
}

/// Puts what was read into the account that the scheduler looks at.
fn account(range: &Range, values: &str, writers: &str) -> SettingsAccount {
    let unsigned = |revision: i64| u64::try_from(revision).unwrap_or(0);
    let mut written: BTreeMap<&[u8], (&[u8], i64)> = BTreeMap::new();
    let mut given = BTreeMap::new();
    // Writers come first: `.` is before `/`.
    for entry in &range.entries {
        if let Some(name) = entry.key.strip_prefix(writers.as_bytes()) {
            written.insert(name, (&entry.value, entry.modified_at));
        } else if let Some(name) = entry.key.strip_prefix(values.as_bytes()) {
            let writer = written.remove(name).filter(|(_, at)| *at == entry.modified_at);
            let by =
                writer.and_then(|(said, _)| said.strip_prefix(b"set ")).map_or(ANYBODY.into(), shown_text);
            let name: Arc<str> = shown_text(name).into();
            let (text, revision) = (entry.value.as_slice().into(), unsigned(entry.modified_at));
            given.insert(Arc::clone(&name), GivenSetting { name, text, by: by.into(), revision });
        }
    }
    let unset = written.into_iter().filter_map(|(name, (said, at))| {
        let by = shown_text(said.strip_prefix(b"unset ")?);
        Some((shown_text(name).into(), (by.into(), unsigned(at))))
    });
    SettingsAccount {
        revision: unsigned(range.revision),
        unset: unset.collect(),
        given: given.into_values().collect(),
        anybody: ANYBODY.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::Entry;

    fn range(entries: &[(&str, &[u8], i64)]) -> Range {
        let entry = |(key, value, modified_at): &(&str, &[u8], i64)| Entry {
            key: key.as_bytes().to_vec(),
            value: value.to_vec(),
            modified_at: *modified_at,
        };
        let entries = entries.iter().map(entry).collect();
        Range { entries, is_more: false, revision: 90, etcd: EtcdId(1) }
    }

    fn read(entries: &[(&str, &[u8], i64)]) -> SettingsAccount {
        account(&range(entries), "/m/settings/", "/m/settings.by/")
    }

    #[test]
    fn who_set_a_key_is_named_only_where_both_were_written_together() {
        let found = read(&[
            ("/m/settings.by/log", b"set alice@plant-1", 5),
            ("/m/settings.by/pools.a", b"set alice@plant-1", 5),
            ("/m/settings.by/retention", b"unset bob@plant-2", 7),
            ("/m/settings.by/retention_runs", b"set alice@plant-1", 7),
            ("/m/settings.other/x", b"1", 8),
            ("/m/settings/log", b"info", 5),
            ("/m/settings/pools.a", b"4", 6),
            ("/m/settings/pools.b", b"\xff", 6),
        ]);
        let given: Vec<_> =
            found.given.iter().map(|given| (&*given.name, &*given.by, given.revision)).collect();
        assert_eq!(given, [("log", "alice@plant-1", 5), ("pools.a", ANYBODY, 6), ("pools.b", ANYBODY, 6)]);
        assert_eq!(&*found.given[2].text, b"\xff");
        assert_eq!(found.unset, [("retention".into(), ("bob@plant-2".into(), 7))].into());
        assert_eq!(found.revision, 90);
    }

    #[test]
    fn keys_that_look_alike_when_shown_are_one() {
        let mut entries = range(&[("/m/settings/a", b"1", 5), ("/m/settings/b", b"2", 6)]);
        entries.entries[0].key = b"/m/settings/\xff".to_vec();
        entries.entries[1].key = b"/m/settings/\xfe".to_vec();
        let found = account(&entries, "/m/settings/", "/m/settings.by/");
        assert_eq!(found.given.len(), 1);
        assert_eq!(&*found.given[0].name, "\u{fffd}");
    }
}
