//! Parameters of the `datax` kind: one transfer, described as DataX describes it.
//!
//! What stands in a job file is DataX's business; here is only how it is run: with which parameters, by which engine,
//! and how many lost records still count as success.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Number, Value};

/// Runs a DataX job file: natively where all its plugins are native, else by the executor's DataX.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataxWith {
    /// Path of a job file: absolute, or below the executor's folder of job files.
    pub job: Option<String>,
    /// What a job file would hold (`{ job: { setting, content } }`), in place of `job`.
    pub content: Option<Map<String, Value>>,
    /// Values for `$name` and `${name}` in the text of the job file; DataX's `-p "-Dname=value"`.
    #[serde(default)]
    pub params: BTreeMap<String, Scalar>,
    /// Arguments of the Java machine, after those of the executor; an external DataX only.
    pub jvm: Option<Words>,
    /// How many records may fail: a number, `true` for any, `false` for none. Where absent, the job's `errorLimit` decides,
    /// and a job without one fails when a record fails, although DataX calls that success.
    pub allow_failed_records: Option<AllowFailed>,
    /// Whether the native engine is used; `auto` where absent.
    #[serde(default)]
    pub native: Native,
    /// How much an external DataX writes to its log; `info` where absent.
    #[serde(default)]
    pub log_level: LogLevel,
}

/// A value that is text in the end: parameters are often written as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text, a number, true or false")]
pub enum Scalar {
    /// `true` or `false`.
    Flag(bool),
    /// A number, as it was written.
    Number(Number),
    /// A text.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Arguments: a list, or one text that is split at white space and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text or a list of texts")]
pub enum Words {
    /// Such as `-Xms4g -Xmx4g`.
    Text(String),
    /// Such as `[-Xms4g, -Xmx4g]`.
    List(Vec<String>),
}

impl Words {
    /// Returns the arguments one by one.
    #[must_use]
    pub fn to_list(&self) -> Vec<String> {
        match self {
            Self::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
            Self::List(words) => words.clone(),
        }
    }
}

/// How many records may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum AllowFailed {
    /// `true`: any number; `false`: none.
    Any(bool),
    /// At most so many.
    AtMost(u64),
}

/// By hand, because a template gives a text: one that is exactly a truth value or a number stands for it.
impl<'de> Deserialize<'de> for AllowFailed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AllowFailedVisitor)
    }
}

struct AllowFailedVisitor;

impl de::Visitor<'_> for AllowFailedVisitor {
    type Value = AllowFailed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or a number of records")
    }

    fn visit_bool<E: de::Error>(self, any: bool) -> Result<AllowFailed, E> {
        Ok(AllowFailed::Any(any))
    }

    fn visit_u64<E: de::Error>(self, records: u64) -> Result<AllowFailed, E> {
        Ok(AllowFailed::AtMost(records))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<AllowFailed, E> {
        let is_number = text == "0" || !text.starts_with(['0', '+']);
        match (text, text.parse()) {
            ("true", _) => Ok(AllowFailed::Any(true)),
            ("false", _) => Ok(AllowFailed::Any(false)),
            (_, Ok(records)) if is_number => Ok(AllowFailed::AtMost(records)),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

/// Whether the native engine is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Native {
    /// Natively where all plugins of the job are native, else by the executor's DataX.
    #[default]
    Auto,
    /// By the executor's DataX.
    Never,
    /// Natively; a job with a plugin that is not native fails.
    Always,
}

/// How much an external DataX writes. Less than `info` is not offered: it would hide how many records were moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What happened.
    #[default]
    Info,
    /// And why.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// Returns the word that DataX knows it by.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(with: Value) -> Result<DataxWith, serde_json::Error> {
        serde_json::from_value(with)
    }

    #[test]
    fn a_job_and_parameters_of_any_scalar_are_enough() {
        let with = read(
            json!({ "job": "a.json", "params": { "day": 20181121, "on": true, "who": "Bob", "rate": 0.10 } }),
        )
        .expect("parameters");
        let shown: Vec<_> = with.params.values().map(Scalar::to_string).collect();
        assert_eq!(shown, ["20181121", "true", "0.1", "Bob"]);
        assert_eq!(
            (with.native, with.log_level, with.allow_failed_records),
            (Native::Auto, LogLevel::Info, None)
        );
    }

    #[test]
    fn arguments_are_a_text_or_a_list() {
        let text =
            read(json!({ "job": "a", "jvm": " -Xms1g  -Xmx2g" })).expect("a text").jvm.expect("arguments");
        let list = read(json!({ "job": "a", "jvm": ["-Dx=a b"] })).expect("a list").jvm.expect("arguments");
        assert_eq!(
            (text.to_list(), list.to_list()),
            (vec!["-Xms1g".to_owned(), "-Xmx2g".into()], vec!["-Dx=a b".to_owned()])
        );
    }

    #[test]
    fn failed_records_are_allowed_by_flag_or_number() {
        let allow = |value| {
            read(json!({ "job": "a", "allow_failed_records": value })).map(|with| with.allow_failed_records)
        };
        assert_eq!(allow(json!(true)).expect("a flag"), Some(AllowFailed::Any(true)));
        assert_eq!(allow(json!(5)).expect("a number"), Some(AllowFailed::AtMost(5)));
        assert_eq!(allow(json!("5")).expect("a rendered number"), Some(AllowFailed::AtMost(5)));
        assert_eq!(allow(json!("false")).expect("a rendered flag"), Some(AllowFailed::Any(false)));
        for wrong in [json!(-1), json!(0.5), json!("05"), json!("+5"), json!("5 "), json!("")] {
            assert!(allow(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(
            allow(json!("many"))
                .expect_err("a text")
                .to_string()
                .contains("true, false or a number of records")
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(read(json!({ "job": "a", "param": {} })).expect_err("unknown").to_string().contains("param"));
        assert!(read(json!({ "job": "a", "params": { "a": [1] } })).is_err());
        assert!(read(json!({ "job": "a", "native": "sometimes" })).is_err());
    }

    #[test]
    fn the_schema_documents_every_parameter() {
        let schema = serde_json::to_value(schemars::schema_for!(DataxWith)).expect("a schema");
        let properties = schema["properties"].as_object().expect("properties");
        assert_eq!(properties.len(), 7);
        assert!(properties.values().all(|property| property["description"].is_string()), "{schema:#}");
    }
}
