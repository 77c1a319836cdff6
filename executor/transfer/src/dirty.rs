//! Records that could not be read or written, and how the log shows them.

use serde_json::{Map, Value, json};

use crate::{
    column::{Column, Record, byte_size},
    limits::SHOWN_VALUE_CHARS,
    moment::Zone,
};

/// Where a record was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Reader,
    Writer,
}

/// A refused record with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirtyRecord {
    pub(crate) side: Side,
    pub(crate) record: Record,
    pub(crate) message: String,
}

impl DirtyRecord {
    pub(crate) fn byte_size(&self) -> u64 {
        byte_size(&self.record)
    }

    /// The object that `DataX`'s log holds after `脏数据:`.
    pub(crate) fn json(&self, zone: Zone) -> Value {
        let side = match self.side {
            Side::Reader => "reader",
            Side::Writer => "writer",
        };
        let record: Vec<_> = self.record.iter().map(|column| column_json(column, zone)).collect();
        json!({"exception": self.message, "record": record, "type": side})
    }
}

fn column_json(column: &Column, zone: Zone) -> Value {
    let raw = match column {
        Column::Long(value) | Column::Double(value) | Column::String(value) => value.clone(),
        Column::Date(value) => {
            value.and_then(|moment| moment.unix_millis(zone)).map(|millis| millis.to_string())
        }
        Column::Bool(value) => value.map(|value| value.to_string()),
        Column::Bytes(value) => value.as_deref().map(hex),
    };
    let mut map = Map::from_iter([("byteSize".to_owned(), column.byte_size().into())]);
    if let Some(raw) = raw {
        map.insert("rawData".to_owned(), raw.chars().take(SHOWN_VALUE_CHARS).collect::<String>().into());
    }
    map.insert("type".to_owned(), column.kind().name().into());
    Value::Object(map)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(SHOWN_VALUE_CHARS / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_looks_as_in_the_recorded_logs() {
        let Some(zone) = Zone::parse(Zone::DEFAULT) else { panic!("default zone") };
        let dirty = DirtyRecord {
            side: Side::Writer,
            record: vec![
                Column::Long(Some("27".into())),
                Column::String(Some("a,b\"c".into())),
                Column::Double(None),
                Column::Date(crate::moment::Moment::from_unix_millis(1_709_136_000_000, zone)),
                Column::Bool(Some(false)),
            ],
            message: "Data too long".into(),
        };
        assert_eq!(
            dirty.json(zone).to_string(),
            r#"{"exception":"Data too long","record":[{"byteSize":2,"rawData":"27","type":"LONG"},{"byteSize":5,"rawData":"a,b\"c","type":"STRING"},{"byteSize":0,"type":"DOUBLE"},{"byteSize":8,"rawData":"1709136000000","type":"DATE"},{"byteSize":5,"rawData":"false","type":"BOOL"}],"type":"writer"}"#
                .replace("\"byteSize\":5,\"rawData\":\"false\"", "\"byteSize\":1,\"rawData\":\"false\"")
        );
        assert_eq!(dirty.byte_size(), 2 + 5 + 8 + 1);
    }
}
