//! Parameters of a workflow: their declaration in a document, and the check of what a run gives.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    node::{Content, Entry, Node},
    problem::Problems,
    read::{Fields, expected, one_of, short, text},
};
use crate::{
    id::ParamName,
    limits::PARAMS_BYTES_MAX,
    nearest::nearest,
    workflow::{Param, ParamKind, Workflow},
};

pub(super) const KEYS: &[&str] = &["type", "default", "enum", "description"];

/// The types of parameters, as documents write them.
pub(super) const KINDS: &[(&str, ParamKind)] = &[
    ("string", ParamKind::String),
    ("integer", ParamKind::Integer),
    ("number", ParamKind::Number),
    ("boolean", ParamKind::Boolean),
    ("date", ParamKind::Date),
];

/// Parameters of one workflow; more cannot be given by hand.
const PARAMS_MAX: usize = 200;

/// Why a run cannot have these parameters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParamError {
    /// The workflow has no such parameter.
    #[error("the workflow has no parameter {name:?}{}", hint(.near.as_deref()))]
    Unknown {
        /// What was given.
        name: String,
        /// What was probably meant.
        near: Option<String>,
    },
    /// It has no default and was not given.
    #[error("the parameter {0} has no default and must be given")]
    Missing(ParamName),
    /// The value has another type.
    #[error("the parameter {name} must be {kind}, not {found}")]
    Type {
        /// The parameter.
        name: ParamName,
        /// What it takes.
        kind: &'static str,
        /// What was given.
        found: String,
    },
    /// The value is not among those allowed.
    #[error("the parameter {name} must be one of {allowed}, not {found}")]
    NotAllowed {
        /// The parameter.
        name: ParamName,
        /// The values allowed, as JSON.
        allowed: String,
        /// What was given.
        found: String,
    },
    /// All parameters together are too large.
    #[error("the parameters have {0} bytes, at most {PARAMS_BYTES_MAX} are kept")]
    TooLarge(usize),
}

fn hint(near: Option<&str>) -> String {
    near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default()
}

/// Checks the parameters that a run gives, and adds the defaults of the others.
///
/// # Errors
/// All that is wrong with them.
pub fn resolve_params(
    workflow: &Workflow,
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, Vec<ParamError>> {
    let known = || workflow.params.keys().map(ParamName::as_str);
    let mut errors: Vec<ParamError> = given
        .keys()
        .filter(|name| !workflow.params.contains_key(name.as_str()))
        .map(|name| ParamError::Unknown {
            name: short(name),
            near: nearest(name, known()).map(str::to_owned),
        })
        .collect();
    let mut resolved = Map::new();
    for (name, param) in &workflow.params {
        match given.get(name.as_str()).or(param.default.as_ref()) {
            None => errors.push(ParamError::Missing(name.clone())),
            Some(value) => match check(name, param, value) {
                Ok(()) => drop(resolved.insert(name.to_string(), value.clone())),
                Err(error) => errors.push(error),
            },
        }
    }
    let bytes = json_bytes(&resolved);
    if bytes > PARAMS_BYTES_MAX {
        errors.push(ParamError::TooLarge(bytes));
    }
    if errors.is_empty() { Ok(resolved) } else { Err(errors) }
}

fn json_bytes(values: &impl serde::Serialize) -> usize {
    serde_json::to_string(values).map_or(0, |text| text.len())
}

fn check(name: &ParamName, param: &Param, value: &Value) -> Result<(), ParamError> {
    let name = || name.clone();
    let found = || short(&value.to_string());
    if !accepts(param.kind, value) {
        return Err(ParamError::Type { name: name(), kind: words(param.kind), found: found() });
    }
    if !param.one_of.is_empty() && !param.one_of.contains(value) {
        let allowed = short(&Value::from(param.one_of.clone()).to_string());
        return Err(ParamError::NotAllowed { name: name(), allowed, found: found() });
    }
    Ok(())
}

fn accepts(kind: ParamKind, value: &Value) -> bool {
    match (kind, value) {
        (ParamKind::String, Value::String(_))
        | (ParamKind::Boolean, Value::Bool(_))
        | (ParamKind::Number, Value::Number(_)) => true,
        (ParamKind::Integer, Value::Number(number)) => number.is_i64() || number.is_u64(),
        (ParamKind::Date, Value::String(text)) => {
            text.len() == 10 && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
        }
        _ => false,
    }
}

const fn words(kind: ParamKind) -> &'static str {
    match kind {
        ParamKind::String => "a text",
        ParamKind::Integer => "a whole number",
        ParamKind::Number => "a number",
        ParamKind::Boolean => "true or false",
        ParamKind::Date => "a date such as 2026-01-31",
    }
}

/// Reads the declarations of a document.
pub(super) fn read_all<'t>(
    node: &Node<'t>,
    problems: &mut Problems<'t>,
) -> Option<BTreeMap<ParamName, Param>> {
    let Some(entries) = node.as_map() else {
        expected("a map of parameters", node, problems);
        return None;
    };
    if entries.len() > PARAMS_MAX {
        problems.add(node.span, format!("a workflow has at most {PARAMS_MAX} parameters"));
        return None;
    }
    let mut params = BTreeMap::new();
    for entry in entries {
        let name = entry.key.text.parse::<ParamName>();
        if let Err(error) = &name {
            problems.add(entry.key.span, error.to_string());
        }
        if let (Some(param), Ok(name)) = (read(entry, problems), name) {
            params.insert(name, param);
        }
    }
    let defaults = params.iter().filter_map(|(name, param)| Some((name.as_str(), param.default.as_ref()?)));
    let bytes = json_bytes(&defaults.collect::<BTreeMap<_, _>>());
    if bytes > PARAMS_BYTES_MAX {
        let message =
            format!("the defaults have {bytes} bytes, a run has parameters of at most {PARAMS_BYTES_MAX}");
        problems.add(node.span, message);
    }
    Some(params)
}

fn read<'t>(entry: &Entry<'t>, problems: &mut Problems<'t>) -> Option<Param> {
    let node = &entry.value;
    match &node.content {
        Content::List(_) => {
            problems.add_with_hint(node.span, "a parameter cannot be a list", "hand on a text");
            None
        }
        Content::Null => Some(plain(ParamKind::String, None)),
        Content::Map(_) => declared(entry, problems),
        _ => {
            let default = node.to_json();
            Some(plain(kind_of(&default), Some(default)))
        }
    }
}

const fn plain(kind: ParamKind, default: Option<Value>) -> Param {
    Param { kind, default, one_of: Vec::new(), description: String::new() }
}

fn kind_of(value: &Value) -> ParamKind {
    match value {
        Value::Bool(_) => ParamKind::Boolean,
        Value::Number(number) if number.is_f64() => ParamKind::Number,
        Value::Number(_) => ParamKind::Integer,
        _ => ParamKind::String,
    }
}

fn declared<'t>(entry: &Entry<'t>, problems: &mut Problems<'t>) -> Option<Param> {
    let fields = Fields::open(&entry.value, entry.key.span, KEYS, problems)?;
    let one_of_node = fields.get("enum");
    let choices = one_of_node.and_then(|node| choices(node, problems));
    let default = fields.get("default");
    let kind = match fields.get("type") {
        Some(node) => one_of(node, KINDS, problems)?,
        // Without a type it follows from the first value that is given.
        None => default.or(choices?.first()).map_or(ParamKind::String, |node| kind_of(&node.to_json())),
    };
    for node in choices.unwrap_or_default().iter().chain(default) {
        if !accepts(kind, &node.to_json()) {
            problems.add(node.span, format!("the parameter is {}, not {}", words(kind), node.kind()));
        }
    }
    let one_of: Vec<Value> = choices.unwrap_or_default().iter().map(Node::to_json).collect();
    if let Some(node) = default
        && !one_of.is_empty()
        && !one_of.contains(&node.to_json())
    {
        problems.add(node.span, "the default is not among the values of `enum`");
    }
    let description = fields.read("description", problems, text).unwrap_or_default().to_owned();
    Some(Param { kind, default: default.map(Node::to_json), one_of, description })
}

fn choices<'n, 't>(node: &'n Node<'t>, problems: &mut Problems<'t>) -> Option<&'n [Node<'t>]> {
    match node.as_list() {
        Some([]) => {
            problems.add(node.span, "`enum` needs at least one value");
            None
        }
        Some(items) => Some(items),
        None => {
            expected("a list of values", node, problems);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::definition::parse;

    fn resolved(given: &Value) -> Result<Value, Vec<String>> {
        let workflow = parse(
            "
            workflow: w
            params:
              region: { default: north, enum: [north, south] }
              count: 5
              ratio: { type: number, default: 1 }
              day: { type: date, default: 2026-01-31 }
              must: { type: boolean }
            tasks: { a: { kind: custom } }
            ",
        )
        .unwrap();
        let resolved = resolve_params(&workflow, given.as_object().unwrap());
        resolved.map(Value::Object).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_fill_what_a_run_does_not_give() {
        let expected =
            json!({ "region": "south", "count": 5, "ratio": 1, "day": "2026-01-31", "must": true });
        assert_eq!(resolved(&json!({ "region": "south", "must": true })), Ok(expected));
    }

    #[test]
    fn defaults_that_no_run_could_have_are_refused_with_the_document() {
        let document = |bytes: usize| {
            let value = "x".repeat(bytes / 2);
            format!("workflow: w\nparams: {{ a: {value}, b: {value} }}\ntasks: {{ a: {{ kind: custom }} }}\n")
        };
        assert!(parse(&document(PARAMS_BYTES_MAX - 100)).is_ok());
        let rejected = parse(&document(PARAMS_BYTES_MAX)).unwrap_err().to_string();
        assert!(rejected.contains("a run has parameters of at most 65536"), "{rejected}");
    }

    #[test]
    fn all_that_is_wrong_is_said() {
        let given =
            json!({ "regin": "x", "region": "west", "count": "5", "ratio": true, "day": "2026-1-31" });
        assert_eq!(
            resolved(&given).unwrap_err(),
            [
                "the workflow has no parameter \"regin\", did you mean \"region\"?",
                "the parameter count must be a whole number, not \"5\"",
                "the parameter day must be a date such as 2026-01-31, not \"2026-1-31\"",
                "the parameter must has no default and must be given",
                "the parameter ratio must be a number, not true",
                "the parameter region must be one of [\"north\",\"south\"], not \"west\"",
            ]
        );
        let large = json!({ "must": true, "region": "x".repeat(70_000) });
        assert!(resolved(&large).unwrap_err().iter().all(|error| error.len() < 300));
    }
}
