//! Rows of `MySQL`'s binary protocol, decoded by hand so that every value keeps all its digits.
//!
//! Zero dates are null, as the JDBC driver is told to read them; a date with a zero month or day
//! cannot be represented and makes its record dirty. NULL of a bit field stays NULL.

use chrono::NaiveDate;
use sqlx::{
    Column as _, Decode, MySql, Row as _, Type, TypeInfo, ValueRef,
    mysql::{MySqlRow, MySqlTypeInfo},
};

use super::link::Row;
use crate::{
    column::{Column, Kind, Record},
    dirty::{DirtyRecord, Side},
    moment::Moment,
    number::double_text,
};

/// How the bytes of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Signed,
    Unsigned,
    Float,
    Double,
    Decimal,
    Date,
    DateTime,
    Time,
    /// One bit, which is a truth value.
    Flag,
    /// Several bits, which are a number.
    Bits,
    Text,
    Bytes,
}

/// Decodes rows of one result, whose columns are looked at once.
#[derive(Debug, Default)]
pub(crate) struct RowDecoder {
    wires: Vec<Wire>,
}

impl RowDecoder {
    pub(crate) fn decode(&mut self, row: &MySqlRow) -> Row {
        if self.wires.len() != row.len() {
            self.wires = row.columns().iter().map(|column| Wire::of(column.type_info())).collect();
        }
        let mut record = Record::with_capacity(row.len());
        let mut refused = None;
        for (index, wire) in self.wires.iter().enumerate() {
            match raw(row, index) {
                None => record.push(wire.kind().null()),
                Some(bytes) => match wire.decode(bytes) {
                    Some(column) => record.push(column),
                    None => {
                        refused = Some(row.columns()[index].name().to_owned());
                        record.push(Column::Bytes(Some(bytes.to_vec())));
                    }
                },
            }
        }
        match refused {
            None => Ok(record),
            Some(name) => {
                let message = format!("column {name} holds a value that cannot be represented");
                Err(DirtyRecord { side: Side::Reader, record, message })
            }
        }
    }
}

/// The bytes of a value; nothing for NULL and for zero dates.
fn raw(row: &MySqlRow, index: usize) -> Option<&[u8]> {
    let value = row.try_get_raw(index).ok()?;
    if value.is_null() { None } else { <&[u8] as Decode<'_, MySql>>::decode(value).ok() }
}

impl Wire {
    fn of(info: &MySqlTypeInfo) -> Self {
        match info.name() {
            "FLOAT" => Self::Float,
            "DOUBLE" => Self::Double,
            "DECIMAL" => Self::Decimal,
            "DATE" => Self::Date,
            "DATETIME" | "TIMESTAMP" => Self::DateTime,
            "TIME" => Self::Time,
            "BIT" if is_one_wide(info) => Self::Flag,
            "BIT" => Self::Bits,
            "YEAR" => Self::Unsigned,
            // The name of a TINYINT(1) does not say whether it has a sign.
            "BOOLEAN" if <u8 as Type<MySql>>::compatible(info) => Self::Unsigned,
            "BOOLEAN" => Self::Signed,
            name if name.ends_with("UNSIGNED") => Self::Unsigned,
            name if name.ends_with("INT") => Self::Signed,
            "GEOMETRY" => Self::Bytes,
            "ENUM" | "SET" | "JSON" | "NULL" => Self::Text,
            // Only the collation tells a BLOB from a text whose collation compares bytes.
            _ if <str as Type<MySql>>::compatible(info) => Self::Text,
            _ => Self::Bytes,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Signed | Self::Unsigned | Self::Bits => Kind::Long,
            Self::Float | Self::Double | Self::Decimal => Kind::Double,
            Self::Date | Self::DateTime | Self::Time => Kind::Date,
            Self::Flag => Kind::Bool,
            Self::Text => Kind::String,
            Self::Bytes => Kind::Bytes,
        }
    }

    fn decode(self, bytes: &[u8]) -> Option<Column> {
        let text = || String::from_utf8(bytes.to_vec()).ok();
        Some(match self {
            Self::Signed => Column::Long(Some(signed(bytes)?.to_string())),
            Self::Unsigned => Column::Long(Some(unsigned(bytes.iter().rev())?.to_string())),
            Self::Bits => Column::Long(Some(unsigned(bytes.iter())?.to_string())),
            Self::Flag => Column::Bool(Some(bytes.iter().any(|byte| *byte != 0))),
            Self::Float => Column::Double(Some(float_text(f32::from_le_bytes(bytes.try_into().ok()?)))),
            Self::Double => Column::Double(Some(double_text(f64::from_le_bytes(bytes.try_into().ok()?)))),
            Self::Decimal => Column::Double(Some(text()?)),
            Self::Date | Self::DateTime | Self::Time => return self.decode_moment(bytes),
            Self::Text => Column::String(Some(text()?)),
            Self::Bytes => Column::Bytes(Some(bytes.to_vec())),
        })
    }

    /// The bytes start with their number, which says how many of the parts are there.
    fn decode_moment(self, bytes: &[u8]) -> Option<Column> {
        let fields = bytes.get(1..)?;
        if self != Self::Time && fields.iter().all(|byte| *byte == 0) {
            return Some(Column::Date(None));
        }
        let moment = match self {
            Self::Date => Moment::Date(date(fields)?),
            Self::DateTime => {
                let clock = clock_micros(fields.get(4..)?)?;
                let time = chrono::TimeDelta::microseconds(clock);
                Moment::DateTime(date(fields)?.and_time(chrono::NaiveTime::MIN) + time)
            }
            _ => Moment::Time(span(fields)?),
        };
        Some(Column::Date(Some(moment)))
    }
}

/// Says whether the column is BIT(1). The width is not part of the public type, only of what it
/// prints for debugging; a test with a real server notices if that changes.
fn is_one_wide(info: &MySqlTypeInfo) -> bool {
    format!("{info:?}").contains("max_size: Some(1)")
}

/// The shortest digits that give the same 32 bits: not those of the same number in 64 bits, except
/// at the very end of the range, where the shortest digits are a larger number that servers refuse.
fn float_text(value: f32) -> String {
    let size = value.abs();
    let plain = size == 0.0 || (1e-5..1e15).contains(&size);
    let text = if plain { format!("{value}") } else { format!("{value:e}") };
    let fits = text.parse::<f64>().is_ok_and(|number| number.abs() <= f64::from(f32::MAX));
    if fits { text } else { double_text(value.into()) }
}

fn signed(bytes: &[u8]) -> Option<i64> {
    let bits = unsigned(bytes.iter().rev())?;
    let unused = 64 - u32::try_from(bytes.len()).ok()?.checked_mul(8)?;
    Some((bits << unused).cast_signed() >> unused)
}

fn unsigned<'a>(most_significant_first: impl ExactSizeIterator<Item = &'a u8>) -> Option<u64> {
    let length = most_significant_first.len();
    let fold = |bits: u64, byte: &u8| bits << 8 | u64::from(*byte);
    (1..=8).contains(&length).then(|| most_significant_first.fold(0, fold))
}

fn date(fields: &[u8]) -> Option<NaiveDate> {
    let [year_low, year_high, month, day, ..] = fields else { return None };
    let year = u16::from_le_bytes([*year_low, *year_high]);
    NaiveDate::from_ymd_opt(year.into(), (*month).into(), (*day).into())
}

/// Hour, minute, second and microseconds, as many as there are.
fn clock_micros(fields: &[u8]) -> Option<i64> {
    let micros = match fields.get(3..7) {
        Some(bytes) => u32::from_le_bytes(bytes.try_into().ok()?),
        None => 0,
    };
    let seconds = match fields {
        [] => 0,
        [hour, minute, second, ..] => i64::from(*hour) * 3600 + i64::from(*minute) * 60 + i64::from(*second),
        _ => return None,
    };
    Some(seconds * 1_000_000 + i64::from(micros))
}

/// Sign, days and a clock.
fn span(fields: &[u8]) -> Option<i64> {
    let [negative, rest @ ..] = fields else { return Some(0) };
    let days = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
    let micros = i64::from(days).checked_mul(86_400_000_000)?.checked_add(clock_micros(rest.get(4..)?)?)?;
    Some(if *negative == 1 { -micros } else { micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(wire: Wire, bytes: &[u8]) -> Option<String> {
        match wire.decode(bytes) {
            Some(Column::Long(value)) => value,
            _ => None,
        }
    }

    #[test]
    fn integers_of_every_width_are_read() {
        assert_eq!(long(Wire::Signed, &[0xff]).as_deref(), Some("-1"));
        assert_eq!(long(Wire::Unsigned, &[0xff]).as_deref(), Some("255"));
        assert_eq!(long(Wire::Signed, &i64::MIN.to_le_bytes()), Some(i64::MIN.to_string()));
        assert_eq!(long(Wire::Unsigned, &u64::MAX.to_le_bytes()), Some(u64::MAX.to_string()));
        assert_eq!(long(Wire::Bits, &[0x01, 0x00]).as_deref(), Some("256"));
        assert_eq!(long(Wire::Signed, &[]), None);
        assert_eq!(long(Wire::Signed, &[0; 9]), None);
    }

    #[test]
    fn moments_are_read_with_as_many_parts_as_there_are() {
        let text = |wire: Wire, bytes: &[u8]| match wire.decode(bytes) {
            Some(Column::Date(moment)) => moment.map(Moment::sql_text),
            other => Some(format!("{other:?}")),
        };
        let date = [0xe8, 0x07, 2, 29];
        let bytes = |length: u8, rest: &[u8]| [&[length], date.as_slice(), rest].concat();
        assert_eq!(text(Wire::Date, &bytes(4, &[])).as_deref(), Some("2024-02-29"));
        assert_eq!(text(Wire::DateTime, &bytes(4, &[])).as_deref(), Some("2024-02-29 00:00:00"));
        assert_eq!(text(Wire::DateTime, &bytes(7, &[1, 2, 3])).as_deref(), Some("2024-02-29 01:02:03"));
        assert_eq!(
            text(Wire::DateTime, &bytes(11, &[1, 2, 3, 1, 0, 0, 0])).as_deref(),
            Some("2024-02-29 01:02:03.000001")
        );
        assert_eq!(text(Wire::Time, &[0]).as_deref(), Some("00:00:00"));
        assert_eq!(text(Wire::Time, &[8, 1, 34, 0, 0, 0, 22, 59, 59]).as_deref(), Some("-838:59:59"));
        assert_eq!(text(Wire::Date, &[0]), None);
        assert_eq!(Wire::Date.decode(&[4, 0xe8, 0x07, 0, 0]), None, "a month of zero");
        assert_eq!(
            Wire::Time.decode(&[8, 0, 0, 0, 0, 7, 0, 0, 0]),
            None,
            "more days than microseconds count"
        );
    }

    #[test]
    fn floats_show_the_digits_that_were_stored() {
        assert_eq!(Wire::Float.decode(&0.1_f32.to_le_bytes()), Some(Column::Double(Some("0.1".into()))));
        assert_eq!(
            Wire::Float.decode(&16_777_217_f32.to_le_bytes()),
            Some(Column::Double(Some("16777216".into())))
        );
        assert_eq!(float_text(f32::MAX), "3.4028234663852886e38");
        assert_eq!(float_text(-1e30), "-1e30");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            for wire in [Wire::Signed, Wire::Date, Wire::DateTime, Wire::Time, Wire::Bits, Wire::Float, Wire::Text] {
                wire.decode(&bytes);
            }
        }
    }
}
