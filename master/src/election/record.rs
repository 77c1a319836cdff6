//! What the leader's key says: who leads and where it listens. Every master and, through them, every executor reads it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::etcd::LeaseId;

/// The form of the value; a master reads the forms it knows and takes nothing from others.
const VERSION: u32 = 1;

/// A master, as it is written under the leader's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// Its configured name.
    pub(crate) name: String,
    /// Where others reach it, such as `http://10.0.0.1:7070`.
    pub(crate) address: String,
    /// Its process: another one after each start.
    pub(crate) instance: String,
}

impl Record {
    pub(crate) const fn new(name: String, address: String, instance: String) -> Self {
        Self { version: VERSION, name, address, instance }
    }

    /// Returns the value for the key.
    pub(crate) fn to_value(&self) -> String {
        // Texts and a number always have a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn from_value(value: &[u8]) -> Result<Self, ReadError> {
        let record: Self = serde_json::from_slice(value).map_err(ReadError::Syntax)?;
        if record.version == VERSION { Ok(record) } else { Err(ReadError::Version(record.version)) }
    }
}

/// Why a value cannot be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error("the value is not a master's")]
    Syntax(#[source] serde_json::Error),
    #[error("the value has form {0}, this program knows form {VERSION}")]
    Version(u32),
}

/// The key while somebody holds it.
#[derive(Debug)]
pub(crate) struct Held {
    /// Who; a value that cannot be read still holds the key.
    pub(crate) record: Result<Record, ReadError>,
    /// The change that created it: no other leadership has the same.
    pub(crate) created_at: i64,
    /// What keeps it there; none where somebody wrote it by hand.
    pub(crate) lease: Option<LeaseId>,
}

impl Held {
    pub(crate) fn read(entry: &millrace_proto::etcd::KeyValue) -> Self {
        Self {
            record: Record::from_value(&entry.value),
            created_at: entry.create_revision,
            lease: (entry.lease != 0).then_some(LeaseId(entry.lease)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_way_through_etcd() {
        let record = Record::new("m1".to_owned(), "http://10.0.0.1:7070".to_owned(), "ab12".to_owned());
        assert_eq!(
            record.to_value(),
            r#"{"version":1,"name":"m1","address":"http://10.0.0.1:7070","instance":"ab12"}"#
        );
        assert_eq!(Record::from_value(record.to_value().as_bytes()).unwrap(), record);
    }

    #[test]
    fn what_a_later_program_wrote_is_not_guessed_at() {
        let later = r#"{"version":2,"name":"m1","address":"x","instance":"y","more":1}"#;
        assert!(matches!(Record::from_value(later.as_bytes()), Err(ReadError::Version(2))));
        assert!(matches!(Record::from_value(b"m1"), Err(ReadError::Syntax(_))));
    }
}
