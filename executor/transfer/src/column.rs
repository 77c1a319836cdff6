//! Values on their way from a reader to a writer: `DataX`'s six types, each with its null.
//!
//! Numbers are text, exactly as the source gave them. A null keeps its type, because a record that
//! is refused shows the types of its values.

use crate::moment::Moment;

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Column {
    /// An integer of any size, in digits.
    Long(Option<String>),
    /// A number with fraction or exponent, as text.
    Double(Option<String>),
    String(Option<String>),
    Date(Option<Moment>),
    Bool(Option<bool>),
    Bytes(Option<Vec<u8>>),
}

/// One row.
pub(crate) type Record = Vec<Column>;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Long,
    Double,
    String,
    Date,
    Bool,
    Bytes,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::String => "STRING",
            Self::Date => "DATE",
            Self::Bool => "BOOL",
            Self::Bytes => "BYTES",
        }
    }

    /// Reads the name of a type in a column of a definition.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "long" | "int" => Self::Long,
            "double" => Self::Double,
            "string" => Self::String,
            "date" => Self::Date,
            "bool" | "boolean" => Self::Bool,
            "bytes" => Self::Bytes,
            _ => return None,
        })
    }

    pub(crate) fn null(self) -> Column {
        match self {
            Self::Long => Column::Long(None),
            Self::Double => Column::Double(None),
            Self::String => Column::String(None),
            Self::Date => Column::Date(None),
            Self::Bool => Column::Bool(None),
            Self::Bytes => Column::Bytes(None),
        }
    }
}

impl Column {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Long(_) => Kind::Long,
            Self::Double(_) => Kind::Double,
            Self::String(_) => Kind::String,
            Self::Date(_) => Kind::Date,
            Self::Bool(_) => Kind::Bool,
            Self::Bytes(_) => Kind::Bytes,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        match self {
            Self::Long(value) | Self::Double(value) | Self::String(value) => value.is_none(),
            Self::Date(value) => value.is_none(),
            Self::Bool(value) => value.is_none(),
            Self::Bytes(value) => value.is_none(),
        }
    }

    /// Size as `DataX` counts it: the text of numbers and strings in characters, 8 for a date,
    /// 1 for a truth value, the length of bytes.
    pub(crate) fn byte_size(&self) -> u64 {
        let length = match self {
            Self::Long(value) | Self::Double(value) => value.as_ref().map_or(0, String::len),
            Self::String(value) => value.as_ref().map_or(0, |text| text.encode_utf16().count()),
            Self::Date(value) => value.map_or(0, |_| 8),
            Self::Bool(value) => value.map_or(0, |_| 1),
            Self::Bytes(value) => value.as_ref().map_or(0, Vec::len),
        };
        u64::try_from(length).unwrap_or(u64::MAX)
    }
}

/// Size of a record as `DataX` counts it.
pub(crate) fn byte_size(record: &[Column]) -> u64 {
    record.iter().map(Column::byte_size).sum()
}
