//! The conversion matrix: which type becomes which, and how.
//!
//! | from \ to | string | long | double | date | bool | bytes |
//! |---|---|---|---|---|---|---|
//! | long | digits | as it is | as it is | epoch milliseconds | not zero | no |
//! | double | as it is | integer part | as it is | no | no | no |
//! | string | as it is | integer part | if a number | by the formats | `true`, `false` | by the encoding |
//! | date | by its kind | epoch milliseconds | no | as it is | no | no |
//! | bool | `true`, `false` | 1, 0 | 1, 0 | no | as it is | no |
//! | bytes | by the encoding | no | no | no | no | as it is |
//!
//! A null stays null. What is refused makes its record dirty; nothing is rounded or replaced silently.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};

use crate::{
    column::{Column, Kind},
    limits::SHOWN_VALUE_CHARS,
    moment::{Moment, Zone},
    number,
    pattern::Pattern,
};

/// A value that cannot become what its target needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {value:?} cannot become {}", from.name(), to.name())]
pub(crate) struct ConvertError {
    from: Kind,
    to: Kind,
    value: String,
}

/// How dates and bytes become text and back; `common.column` of a definition.
#[derive(Debug, Clone)]
pub(crate) struct Conversion {
    pub(crate) zone: Zone,
    pub(crate) date_time: Pattern,
    pub(crate) date: Pattern,
    pub(crate) time: Pattern,
    pub(crate) extra: Vec<Pattern>,
    pub(crate) encoding: &'static Encoding,
}

type Converted<T> = Result<Option<T>, ConvertError>;

impl Conversion {
    /// `asString`.
    pub(crate) fn text<'a>(&self, column: &'a Column) -> Converted<Cow<'a, str>> {
        Ok(match column {
            Column::Long(value) | Column::Double(value) | Column::String(value) => {
                value.as_deref().map(Cow::Borrowed)
            }
            Column::Date(value) => value.map(|moment| Cow::Owned(self.date_text(moment))),
            Column::Bool(value) => value.map(|value| Cow::Borrowed(if value { "true" } else { "false" })),
            Column::Bytes(Some(bytes)) => {
                let text = self.encoding.decode_without_bom_handling_and_without_replacement(bytes);
                Some(text.ok_or_else(|| refused(column, Kind::String))?)
            }
            Column::Bytes(None) => None,
        })
    }

    /// `asLong`: the integer part, in digits.
    pub(crate) fn long(&self, column: &Column) -> Converted<String> {
        let long = match column {
            Column::Long(value) => return Ok(value.clone()),
            _ if column.is_null() => return Ok(None),
            Column::Double(Some(text)) | Column::String(Some(text)) => number::integer_part(text),
            Column::Date(Some(moment)) => moment.unix_millis(self.zone).map(|millis| millis.to_string()),
            Column::Bool(Some(value)) => Some(u8::from(*value).to_string()),
            _ => None,
        };
        long.map(Some).ok_or_else(|| refused(column, Kind::Long))
    }

    /// `asDouble`: a number as text.
    pub(crate) fn double(&self, column: &Column) -> Converted<String> {
        let double = match column {
            Column::Double(value) | Column::Long(value) => return Ok(value.clone()),
            _ if column.is_null() => return Ok(None),
            Column::String(Some(text)) => number::is_number(text).then(|| text.clone()),
            Column::Bool(Some(value)) => Some(u8::from(*value).to_string()),
            _ => None,
        };
        double.map(Some).ok_or_else(|| refused(column, Kind::Double))
    }

    /// `asBoolean`.
    pub(crate) fn boolean(&self, column: &Column) -> Converted<bool> {
        let boolean = match column {
            Column::Bool(value) => return Ok(*value),
            _ if column.is_null() => return Ok(None),
            Column::Long(Some(digits)) => Some(!number::is_zero(digits)),
            Column::String(Some(text)) if text.eq_ignore_ascii_case("true") => Some(true),
            Column::String(Some(text)) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        };
        boolean.map(Some).ok_or_else(|| refused(column, Kind::Bool))
    }

    /// `asDate`.
    pub(crate) fn moment(&self, column: &Column) -> Converted<Moment> {
        let moment = match column {
            Column::Date(value) => return Ok(*value),
            _ if column.is_null() => return Ok(None),
            Column::Long(Some(digits)) => {
                digits.parse().ok().and_then(|millis| Moment::from_unix_millis(millis, self.zone))
            }
            Column::String(Some(text)) => self.read_date(text),
            _ => None,
        };
        moment.map(Some).ok_or_else(|| refused(column, Kind::Date))
    }

    /// `asBytes`.
    pub(crate) fn bytes<'a>(&self, column: &'a Column) -> Converted<Cow<'a, [u8]>> {
        match column {
            Column::Bytes(value) => Ok(value.as_deref().map(Cow::Borrowed)),
            _ if column.is_null() => Ok(None),
            Column::String(Some(text)) => {
                let (bytes, _, unmappable) = self.encoding.encode(text);
                if unmappable { Err(refused(column, Kind::Bytes)) } else { Ok(Some(bytes)) }
            }
            _ => Err(refused(column, Kind::Bytes)),
        }
    }

    /// The value as `kind`, for columns that a definition declares.
    pub(crate) fn cast(&self, column: &Column, kind: Kind) -> Result<Column, ConvertError> {
        Ok(match kind {
            Kind::Long => Column::Long(self.long(column)?),
            Kind::Double => Column::Double(self.double(column)?),
            Kind::String => Column::String(self.text(column)?.map(Cow::into_owned)),
            Kind::Date => Column::Date(self.moment(column)?),
            Kind::Bool => Column::Bool(self.boolean(column)?),
            Kind::Bytes => Column::Bytes(self.bytes(column)?.map(Cow::into_owned)),
        })
    }

    /// The text of a moment by its kind. A span beyond a day has no pattern, only SQL's own text.
    fn date_text(&self, moment: Moment) -> String {
        let pattern = match moment {
            Moment::Date(_) => &self.date,
            Moment::Time(_) => &self.time,
            Moment::DateTime(_) => &self.date_time,
        };
        match moment.date_time() {
            Some(at) if !matches!(moment, Moment::Time(micros) if !crate::moment::is_time_of_day(micros)) => {
                pattern.format(at)
            }
            _ => moment.sql_text(),
        }
    }

    fn read_date(&self, text: &str) -> Option<Moment> {
        [&self.date_time, &self.date, &self.time]
            .into_iter()
            .chain(&self.extra)
            .find_map(|pattern| pattern.read(text))
    }
}

impl Default for Conversion {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the default patterns are constants that a test parses")]
        let pattern = |text| Pattern::parse(text).expect("a constant pattern parses");
        #[expect(clippy::expect_used, reason = "the default zone is a constant that a test parses")]
        let zone = Zone::parse(Zone::DEFAULT).expect("the constant zone parses");
        Self {
            zone,
            date_time: pattern("yyyy-MM-dd HH:mm:ss"),
            date: pattern("yyyy-MM-dd"),
            time: pattern("HH:mm:ss"),
            extra: vec![pattern("yyyyMMdd")],
            encoding: UTF_8,
        }
    }
}

pub(crate) fn refused(column: &Column, to: Kind) -> ConvertError {
    let value = match column {
        Column::Bytes(Some(bytes)) => format!("{} bytes", bytes.len()),
        Column::Date(Some(moment)) => moment.sql_text(),
        Column::Bool(Some(value)) => value.to_string(),
        Column::Long(Some(text)) | Column::Double(Some(text)) | Column::String(Some(text)) => {
            text.chars().take(SHOWN_VALUE_CHARS).collect()
        }
        _ => String::new(),
    };
    ConvertError { from: column.kind(), to, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Column {
        Column::String(Some(text.into()))
    }

    fn samples() -> [Column; 6] {
        [
            Column::Long(Some("1709181296789".into())),
            Column::Double(Some("1.50".into())),
            string("2024-02-29 12:34:56"),
            Column::Date(Moment::from_unix_millis(1_709_181_296_789, Conversion::default().zone)),
            Column::Bool(Some(true)),
            Column::Bytes(Some(b"abc".to_vec())),
        ]
    }

    /// One row of the matrix in the documentation of this module, as text; `-` is refused.
    fn row(column: &Column) -> String {
        let kinds = [Kind::String, Kind::Long, Kind::Double, Kind::Date, Kind::Bool, Kind::Bytes];
        let conversion = Conversion::default();
        let cell = |kind| match conversion.cast(column, kind) {
            Err(_) => "-".to_owned(),
            Ok(Column::Bytes(Some(bytes))) => format!("{} bytes", bytes.len()),
            Ok(Column::Date(Some(moment))) => moment.sql_text(),
            Ok(Column::Bool(Some(value))) => format!("{value}"),
            Ok(Column::Long(Some(text)) | Column::Double(Some(text)) | Column::String(Some(text))) => text,
            Ok(other) => format!("{other:?}"),
        };
        kinds.map(cell).join(" | ")
    }

    #[test]
    fn matrix_is_that_of_datax() {
        let [long, double, text, date, boolean, bytes] = samples();
        assert_eq!(
            row(&long),
            "1709181296789 | 1709181296789 | 1709181296789 | 2024-02-29 12:34:56.789 | true | -"
        );
        assert_eq!(row(&double), "1.50 | 1 | 1.50 | - | - | -");
        assert_eq!(row(&text), "2024-02-29 12:34:56 | - | - | 2024-02-29 12:34:56 | - | 19 bytes");
        assert_eq!(row(&date), "2024-02-29 12:34:56 | 1709181296789 | - | 2024-02-29 12:34:56.789 | - | -");
        assert_eq!(row(&boolean), "true | 1 | 1 | - | true | -");
        assert_eq!(row(&bytes), "abc | - | - | - | - | 3 bytes");
    }

    #[test]
    fn nulls_stay_null_of_the_new_type() {
        let conversion = Conversion::default();
        let kinds = [Kind::Long, Kind::Double, Kind::String, Kind::Date, Kind::Bool, Kind::Bytes];
        for from in kinds {
            for to in kinds {
                assert_eq!(conversion.cast(&from.null(), to), Ok(to.null()), "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn strings_become_what_they_say() {
        let conversion = Conversion::default();
        assert_eq!(conversion.boolean(&string("TRUE")), Ok(Some(true)));
        assert!(conversion.boolean(&string("1")).is_err());
        assert_eq!(conversion.long(&string("12.9")), Ok(Some("12".into())));
        assert!(conversion.long(&string("")).is_err());
        assert_eq!(conversion.double(&string("1e-3")), Ok(Some("1e-3".into())));
        for text in ["2024-02-29", "20240229", "2024-02-29 00:00:00"] {
            let date = conversion.moment(&string(text)).ok().flatten().and_then(Moment::date);
            assert_eq!(date.map(|date| date.to_string()).as_deref(), Some("2024-02-29"), "{text}");
        }
    }

    #[test]
    fn numbers_are_never_rounded() {
        let digits = "123456789012345678901234567890.123456789";
        let column = Column::Double(Some(digits.into()));
        assert_eq!(Conversion::default().text(&column), Ok(Some(Cow::Borrowed(digits))));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let error = Conversion::default().text(&Column::Bytes(Some(vec![0xff, 0xfe]))).err();
        let shown = error.map(|error| error.to_string());
        assert_eq!(shown.as_deref(), Some("BYTES \"2 bytes\" cannot become STRING"));
    }
}
