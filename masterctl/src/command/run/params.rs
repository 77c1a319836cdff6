//! Parameters of a run, as a person writes them: `name=value`.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use millrace_common::{
    id::ParamName,
    workflow::{Param, ParamKind},
};
use serde_json::{Map, Value};

/// Splits `name=value` pairs.
pub(super) fn split(pairs: &[String]) -> anyhow::Result<Vec<(&str, &str)>> {
    let mut params: Vec<(&str, &str)> = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let (name, value) = pair.split_once('=').with_context(|| format!("{pair:?} is not NAME=VALUE"))?;
        if params.iter().any(|(other, _)| *other == name) {
            return Err(anyhow!("parameter {name} is given twice"));
        }
        params.push((name, value));
    }
    Ok(params)
}

/// Returns the parameters as a JSON object. A value is what the declaration says; without one, JSON where it is JSON and
/// text otherwise. What does not fit is left to the master, which says why.
pub(super) fn object(params: &[(&str, &str)], declared: &BTreeMap<ParamName, Param>) -> String {
    let value = |name: &str, text: &str| {
        let text_alone = || Value::String(text.to_owned());
        let read = serde_json::from_str(text).unwrap_or_else(|_| text_alone());
        match declared.get(name).map(|param| param.kind) {
            // So that 7 and true can be texts; "7" in quotes is one anyway.
            Some(ParamKind::String | ParamKind::Date) if !read.is_string() => text_alone(),
            _ => read,
        }
    };
    let object: Map<String, Value> =
        params.iter().map(|(name, text)| ((*name).to_owned(), value(name, text))).collect();
    Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use millrace_common::definition;

    use super::*;

    fn given(pairs: &[&str]) -> Vec<String> {
        pairs.iter().map(|pair| (*pair).to_owned()).collect()
    }

    #[test]
    fn values_are_what_the_workflow_declares() {
        let text = "workflow: w\nparams: { lot: x, day: { type: date }, n: 1, flag: false }\ntasks: { a: { kind: shell, with: { command: [x] } } }\n";
        let workflow = definition::parse(text).unwrap();
        let pairs = given(&["lot=007", "day=2026-01-31", "n=3", "flag=true", "other=5"]);
        assert_eq!(
            object(&split(&pairs).unwrap(), &workflow.params),
            r#"{"lot":"007","day":"2026-01-31","n":3,"flag":true,"other":5}"#
        );
        let pairs = given(&["lot=7", "n=seven"]);
        assert_eq!(object(&split(&pairs).unwrap(), &workflow.params), r#"{"lot":"7","n":"seven"}"#);
        let pairs = given(&["lot=\"7\""]);
        assert_eq!(object(&split(&pairs).unwrap(), &workflow.params), r#"{"lot":"7"}"#);
    }

    #[test]
    fn without_a_declaration_values_are_json_where_they_can_be() {
        let pairs = given(&["n=3", "day=2026-01-31", "text=a=b", "flag=true"]);
        assert_eq!(
            object(&split(&pairs).unwrap(), &BTreeMap::new()),
            r#"{"n":3,"day":"2026-01-31","text":"a=b","flag":true}"#
        );
    }

    #[test]
    fn what_is_no_pair_or_stands_twice_is_refused() {
        assert!(split(&given(&["n"])).unwrap_err().to_string().contains("NAME=VALUE"));
        assert!(split(&given(&["n=1", "n=2"])).unwrap_err().to_string().contains("twice"));
    }
}
