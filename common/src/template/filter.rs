//! The filters of templates. Each bounds what it makes before it makes it.

use std::{borrow::Cow, fmt::Write};

use chrono::{
    DateTime, Datelike, Days, FixedOffset, NaiveDate, NaiveTime,
    format::{Item, StrftimeItems},
};
use minijinja::{Environment, Error, ErrorKind, Value, filters, value::ValueKind};

use super::too_large;
use crate::{limits::TEMPLATE_OUTPUT_BYTES_MAX, nearest::nearest};

/// Decimal places that `round` keeps at most; a double has no more.
const PLACES_MAX: i64 = 17;
/// Days that `ds_add` moves a date at most: a thousand years.
const DAYS_MAX: i64 = 365_000;

/// A constant in an expression, as far as its check needs it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Constant {
    Text(String),
    Int(i64),
    Float,
    Bool,
}

#[derive(Debug, Clone, Copy)]
enum Argument {
    Any,
    Text,
    /// A text that is not empty.
    Pattern,
    /// A format of dates.
    Format,
    Places,
    Days,
}

struct Filter {
    name: &'static str,
    needed: &'static [Argument],
    optional: &'static [Argument],
}

const fn filter(name: &'static str, needed: &'static [Argument], optional: &'static [Argument]) -> Filter {
    Filter { name, needed, optional }
}

const FILTERS: &[Filter] = &[
    filter("default", &[Argument::Any], &[]),
    filter("lower", &[], &[]),
    filter("upper", &[], &[]),
    filter("trim", &[], &[]),
    filter("replace", &[Argument::Pattern, Argument::Text], &[]),
    filter("join", &[], &[Argument::Text]),
    filter("length", &[], &[]),
    filter("int", &[], &[]),
    filter("float", &[], &[]),
    filter("string", &[], &[]),
    filter("round", &[], &[Argument::Places]),
    filter("first", &[], &[]),
    filter("last", &[], &[]),
    filter("abs", &[], &[]),
    filter("tojson", &[], &[]),
    filter("ds_add", &[Argument::Days], &[]),
    filter("ds_nodash", &[], &[]),
    filter("date_format", &[Argument::Format], &[]),
    filter("quote", &[], &[]),
];

/// Checks the name and the constants of a filter; gives a message and a hint.
pub(super) fn check(name: &str, constants: &[Constant]) -> Result<(), (String, Option<String>)> {
    let Some(filter) = FILTERS.iter().find(|filter| filter.name == name) else {
        let names = FILTERS.iter().map(|filter| filter.name);
        let hint = match nearest(name, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known filters: {}", names.collect::<Vec<_>>().join(", ")),
        };
        return Err((format!("`{name}` is not a known filter"), Some(hint)));
    };
    let most = filter.needed.len() + filter.optional.len();
    if constants.len() < filter.needed.len() || constants.len() > most {
        let count = if filter.optional.is_empty() { most.to_string() } else { format!("at most {most}") };
        return Err((format!("the filter `{name}` takes {count} constants, not {}", constants.len()), None));
    }
    let kinds = filter.needed.iter().chain(filter.optional);
    match kinds.zip(constants).find(|(kind, constant)| !kind.accepts(constant)) {
        Some((kind, _)) => Err((format!("the filter `{name}` needs {}", kind.expected()), None)),
        None => Ok(()),
    }
}

impl Argument {
    fn accepts(self, constant: &Constant) -> bool {
        match (self, constant) {
            (Self::Any, _) | (Self::Text, Constant::Text(_)) => true,
            (Self::Pattern, Constant::Text(text)) => !text.is_empty(),
            (Self::Format, Constant::Text(text)) => {
                !text.is_empty() && StrftimeItems::new(text).all(|item| !matches!(item, Item::Error))
            }
            (Self::Places, Constant::Int(places)) => (0..=PLACES_MAX).contains(places),
            (Self::Days, Constant::Int(days)) => days.unsigned_abs() <= DAYS_MAX.unsigned_abs(),
            _ => false,
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Any => "a constant",
            Self::Text => "a text",
            Self::Pattern => "a text that is not empty",
            Self::Format => "a format such as '%Y/%m/%d'",
            Self::Places => "a number of places between 0 and 17",
            Self::Days => "a whole number of days",
        }
    }
}

/// Gives an environment the filters of [`FILTERS`].
pub(super) fn add_all(environment: &mut Environment<'static>) {
    environment.add_filter("default", default);
    environment.add_filter("lower", |value: Value| bounded(text_of(&value)?.to_lowercase()));
    environment.add_filter("upper", |value: Value| bounded(text_of(&value)?.to_uppercase()));
    environment.add_filter("trim", |value: Value| text_of(&value).map(|text| text.trim().to_owned()));
    environment.add_filter("replace", replace);
    environment.add_filter("join", join);
    environment.add_filter("length", |value: Value| filters::length(&defined(value)?));
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("string", |value: Value| as_text(&defined(value)?).and_then(bounded));
    environment.add_filter("round", round);
    environment.add_filter("first", |value: Value| end_of(value, End::First));
    environment.add_filter("last", |value: Value| end_of(value, End::Last));
    environment.add_filter("abs", |value: Value| filters::abs(defined(value)?));
    environment.add_filter("tojson", |value: Value| json_text(&defined(value)?).and_then(bounded));
    environment.add_filter("ds_add", ds_add);
    environment.add_filter("ds_nodash", ds_nodash);
    environment.add_filter("date_format", date_format);
    environment.add_filter("quote", |value: Value| bounded(quote(&text_of(&value)?)));
}

fn cannot(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Refuses a text that is too long to go on.
pub(super) fn bounded(text: String) -> Result<String, Error> {
    if text.len() > TEMPLATE_OUTPUT_BYTES_MAX { Err(cannot(too_large())) } else { Ok(text) }
}

fn defined(value: Value) -> Result<Value, Error> {
    if value.is_undefined() || value.is_none() { Err(ErrorKind::UndefinedError.into()) } else { Ok(value) }
}

/// Returns a value as an expression shows it: texts as they are, lists and maps as JSON.
pub(super) fn as_text(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => json_text(value),
    }
}

fn json_text(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| cannot("the value has no JSON form").with_source(error))
}

fn text_of(value: &Value) -> Result<Cow<'_, str>, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or_default().into()),
        ValueKind::Number | ValueKind::Bool => as_text(value).map(Cow::Owned),
        ValueKind::Undefined | ValueKind::None => Err(ErrorKind::UndefinedError.into()),
        other => Err(cannot(format!("a text is needed, not a {other}"))),
    }
}

/// Unlike Jinja's, it also replaces null: a value that is not there has both forms.
fn default(value: Value, fallback: Value) -> Value {
    if value.is_undefined() || value.is_none() { fallback } else { value }
}

fn replace(value: &Value, from: &str, to: &str) -> Result<String, Error> {
    let text = text_of(value)?;
    let count = text.matches(from).count();
    if text.len() + count.saturating_mul(to.len()) > TEMPLATE_OUTPUT_BYTES_MAX + count * from.len() {
        return Err(cannot(too_large()));
    }
    Ok(text.replace(from, to))
}

fn join(value: &Value, separator: Option<&str>) -> Result<String, Error> {
    if !matches!(value.kind(), ValueKind::Seq) {
        defined(value.clone())?;
        return Err(cannot("`join` needs a list"));
    }
    let mut joined = String::new();
    for (at, item) in value.try_iter()?.enumerate() {
        if at > 0 {
            joined.push_str(separator.unwrap_or_default());
        }
        joined.push_str(&text_of(&item)?);
        if joined.len() > TEMPLATE_OUTPUT_BYTES_MAX {
            return Err(cannot(too_large()));
        }
    }
    Ok(joined)
}

fn int(value: &Value) -> Result<Value, Error> {
    let text = text_of(value)?;
    let text = text.trim();
    let whole = text.parse::<i64>().ok();
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    let cut = || text.parse::<f64>().ok().filter(|number| number.abs() < 9e15).map(|number| number as i64);
    let truth = || text.parse::<bool>().ok().map(i64::from);
    match whole.or_else(cut).or_else(truth) {
        Some(number) => Ok(number.into()),
        None => Err(cannot("`int` needs a number")),
    }
}

fn float(value: &Value) -> Result<Value, Error> {
    let number = text_of(value)?.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    number.map(Value::from).ok_or_else(|| cannot("`float` needs a number"))
}

/// Rounds half to even, as writing a number does; whole numbers stay whole.
fn round(value: Value, places: Option<usize>) -> Result<Value, Error> {
    let value = defined(value)?;
    if value.kind() != ValueKind::Number {
        return Err(cannot("`round` needs a number"));
    }
    if value.is_integer() {
        return Ok(value);
    }
    let number = f64::try_from(value).map_err(|_| cannot("`round` needs a number"))?;
    let places = places.unwrap_or(0);
    let rounded: f64 = format!("{number:.places$}").parse().map_err(|_| cannot("`round` needs a number"))?;
    Ok(rounded.into())
}

#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

fn end_of(value: Value, end: End) -> Result<Value, Error> {
    let value = defined(value)?;
    if let Some(text) = value.as_str() {
        let mut chars = text.chars();
        let found = match end {
            End::First => chars.next(),
            End::Last => chars.next_back(),
        };
        return Ok(found.map(|c| Value::from(c.to_string())).unwrap_or_default());
    }
    if !matches!(value.kind(), ValueKind::Seq) {
        return Err(cannot("`first` and `last` need a list or a text"));
    }
    let len = value.len().unwrap_or(0);
    let at = match end {
        End::First => 0,
        End::Last => len.saturating_sub(1),
    };
    value.get_item_by_index(at)
}

/// A date, and how it was written.
enum Moment {
    Day(NaiveDate, &'static str),
    Time(DateTime<FixedOffset>),
}

fn moment(value: &Value) -> Result<Moment, Error> {
    let text = text_of(value)?;
    let day = |format| NaiveDate::parse_from_str(&text, format).ok().map(|day| Moment::Day(day, format));
    let is_compact = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let found = if is_compact { day("%Y%m%d") } else { day("%Y-%m-%d") };
    let time = || DateTime::parse_from_rfc3339(&text).ok().map(Moment::Time);
    found.or_else(time).ok_or_else(|| cannot("a date such as 2026-01-31 or an RFC 3339 time is needed"))
}

fn format_day(day: NaiveDate, format: &str) -> Result<String, Error> {
    written(|output| write!(output, "{}", day.and_time(NaiveTime::MIN).and_utc().format(format)))
}

/// A format can ask for what a value lacks; then writing fails, where `to_string` would panic.
fn written(write: impl FnOnce(&mut String) -> std::fmt::Result) -> Result<String, Error> {
    let mut output = String::new();
    write(&mut output).map_err(|_| cannot("the date cannot be shown in this format"))?;
    bounded(output)
}

fn ds_add(value: &Value, days: i64) -> Result<String, Error> {
    let (day, format) = match moment(value)? {
        Moment::Day(day, format) => (day, format),
        Moment::Time(time) => (time.date_naive(), "%Y-%m-%d"),
    };
    let distance = Days::new(days.unsigned_abs());
    let moved = if days < 0 { day.checked_sub_days(distance) } else { day.checked_add_days(distance) };
    // Years of more than four digits could not be read back.
    let moved = moved.filter(|day| (0..=9_999).contains(&day.year()));
    format_day(moved.ok_or_else(|| cannot("the date is out of range"))?, format)
}

fn ds_nodash(value: &Value) -> Result<String, Error> {
    match moment(value)? {
        Moment::Day(day, _) => format_day(day, "%Y%m%d"),
        Moment::Time(time) => format_day(time.date_naive(), "%Y%m%d"),
    }
}

fn date_format(value: &Value, format: &str) -> Result<String, Error> {
    match moment(value)? {
        Moment::Day(day, _) => format_day(day, format),
        Moment::Time(time) => written(|output| write!(output, "{}", time.format(format))),
    }
}

/// Returns a text as one word of a POSIX shell.
fn quote(text: &str) -> String {
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | '@' | '%');
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r#"'"'"'"#))
}
