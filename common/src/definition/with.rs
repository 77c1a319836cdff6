//! Parameters of a task against the JSON Schema of its kind.
//!
//! The schemas come from the parameter types themselves, so there is one truth; this checker knows the part of JSON Schema
//! that they use, and says where in the document a value does not fit. A text that holds a template is taken for any
//! scalar, because what it becomes is known at the attempt only.

mod shell;

use std::sync::OnceLock;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

use super::{
    node::{Content, Node},
    problem::{Problems, Span},
    read::{expected, parsed, short, suggestion},
};
use crate::{
    id::KindName,
    kind::{aoi::AoiWith, backup::BackupWith, datax::DataxWith, shell::ShellWith},
    limits::PROBLEMS_MAX,
    nearest::nearest,
    template::is_template,
};

/// The schemas of the built-in kinds.
#[derive(Debug)]
pub(super) struct Kinds {
    /// Schema of each kind's `with`, by name.
    pub(super) with: Vec<(&'static str, Value)>,
    /// What they refer to.
    pub(super) defs: Map<String, Value>,
}

impl Kinds {
    /// Tells whether a schema has keys that must be there.
    pub(super) fn needs_with(&self, schema: &Value) -> bool {
        let schema = Checker { defs: &self.defs }.target(schema);
        strings(schema, "required").next().is_some()
    }
}

/// Returns the schemas, made once.
pub(super) fn kinds() -> &'static Kinds {
    static KINDS: OnceLock<Kinds> = OnceLock::new();
    KINDS.get_or_init(|| {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let with = vec![
            ("aoi", schema_of::<AoiWith>(&mut generator)),
            ("backup", schema_of::<BackupWith>(&mut generator)),
            ("datax", schema_of::<DataxWith>(&mut generator)),
            ("shell", schema_of::<ShellWith>(&mut generator)),
        ];
        Kinds { with, defs: generator.take_definitions(true).into_iter().collect() }
    })
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// Reads the kind of a task. A kind that is not built in is declared by executors; one that is nearly built in is a slip.
pub(super) fn kind(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<KindName> {
    let name: KindName = parsed(node, problems)?;
    let mut known = kinds().with.iter().map(|(kind, _)| *kind);
    if !known.clone().any(|kind| kind == name.as_str()) {
        // Two slips explain a long name; in a short one they make another word.
        let is_near = |kind: &&str| {
            let distance_max = if kind.len() > 3 { 2 } else { 1 };
            strsim::osa_distance(kind, name.as_str()) <= distance_max
        };
        if let Some(near) = known.find(is_near) {
            let message = format!("there is no kind `{name}`");
            problems.add_with_hint(node.span, message, format!("did you mean `{near}`?"));
            return None;
        }
    }
    Some(name)
}

/// Checks the parameters of a task whose name stands at `at`.
pub(super) fn check<'t>(kind: &KindName, with: Option<&Node<'t>>, at: Span, problems: &mut Problems<'t>) {
    let kinds = kinds();
    let Some((_, schema)) = kinds.with.iter().find(|(name, _)| *name == kind.as_str()) else {
        if let Some(node) = with.filter(|node| node.as_map().is_none()) {
            expected("a map", node, problems);
        }
        return;
    };
    let checker = Checker { defs: &kinds.defs };
    let mut faults = Vec::new();
    match with {
        Some(node) => checker.check(node, at, schema, &mut faults),
        None => checker.absent(at, schema, &mut faults),
    }
    if faults.is_empty() && kind.as_str() == "shell" {
        shell::check(with, at, &mut faults);
    }
    for Fault { at, message, hint } in faults {
        match hint {
            Some(hint) => problems.add_with_hint(at, message, hint),
            None => problems.add(at, message),
        }
    }
}

/// A problem that may turn out to be none, where another alternative fits.
#[derive(Debug)]
struct Fault {
    at: Span,
    message: String,
    hint: Option<String>,
}

type Faults = Vec<Fault>;

fn add(faults: &mut Faults, at: Span, message: impl Into<String>) {
    faults.push(Fault { at, message: message.into(), hint: None });
}

fn strings<'s>(schema: &'s Value, key: &str) -> impl Iterator<Item = &'s str> + use<'s> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Returns the types that a schema allows; none where it does not say.
fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let one = schema.get("type").and_then(Value::as_str);
    one.into_iter().chain(strings(schema, "type"))
}

fn options(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
}

/// Returns the words that a schema allows as constants.
fn words(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("const").and_then(Value::as_str).into_iter().chain(strings(schema, "enum"))
}

fn is_constant(schema: &Value) -> bool {
    schema.get("const").is_some() || schema.get("enum").is_some()
}

fn is_templated(node: &Node<'_>) -> bool {
    node.as_text().is_some_and(is_template)
}

fn has_type(node: &Node<'_>, name: &str) -> bool {
    match &node.content {
        _ if is_templated(node) => matches!(name, "string" | "number" | "integer" | "boolean"),
        Content::Null => name == "null",
        Content::Bool(_) => name == "boolean",
        Content::Number(number) => name == "number" || name == "integer" && !number.is_f64(),
        Content::Text(_) => name == "string",
        Content::List(_) => name == "array",
        Content::Map(_) => name == "object",
    }
}

fn type_words(name: &str) -> Option<&'static str> {
    match name {
        "string" => Some("a text"),
        "integer" => Some("a whole number"),
        "number" => Some("a number"),
        "boolean" => Some("true or false"),
        "array" => Some("a list"),
        "object" => Some("a map"),
        _ => None,
    }
}

struct Checker<'k> {
    defs: &'k Map<String, Value>,
}

impl<'k> Checker<'k> {
    fn target<'s>(&self, schema: &'s Value) -> &'s Value
    where
        'k: 's,
    {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
        name.and_then(|name| self.defs.get(name)).unwrap_or(schema)
    }

    fn check(&self, node: &Node<'_>, at: Span, schema: &'k Value, faults: &mut Faults) {
        let schema = self.target(schema);
        if let Some(options) = options(schema) {
            return self.alternatives(node, at, options, faults);
        }
        if !types(schema).any(|name| has_type(node, name)) && types(schema).next().is_some() {
            return self.wrong_type(node, &[schema], faults);
        }
        if is_templated(node) {
            return;
        }
        if is_constant(schema) && !fits_constant(node, schema) {
            return self.wrong_type(node, &[schema], faults);
        }
        match &node.content {
            Content::Number(number) => bounds(node, number.as_f64().unwrap_or(f64::NAN), schema, faults),
            Content::Text(text) => {
                length(node, text.chars().count(), ["minLength", "maxLength"], schema, faults);
            }
            Content::List(items) => {
                length(node, items.len(), ["minItems", "maxItems"], schema, faults);
                if let Some(of) = schema.get("items") {
                    items.iter().for_each(|item| self.check(item, item.span, of, faults));
                }
            }
            Content::Map(_) => self.map(node, at, schema, faults),
            Content::Null | Content::Bool(_) => {}
        }
    }

    fn map(&self, node: &Node<'_>, at: Span, schema: &'k Value, faults: &mut Faults) {
        let entries = node.as_map().unwrap_or_default();
        let properties = schema.get("properties").and_then(Value::as_object);
        let rest = schema.get("additionalProperties");
        for entry in entries {
            if faults.len() >= PROBLEMS_MAX {
                return;
            }
            let (key, at) = (entry.key.text.as_ref(), entry.key.span);
            if let Some(of) = properties.and_then(|properties| properties.get(key)) {
                self.check(&entry.value, at, of, faults);
            } else if rest == Some(&Value::Bool(false)) {
                let known: Vec<&str> =
                    properties.into_iter().flat_map(|p| p.keys().map(String::as_str)).collect();
                let message = format!("unknown key `{}`", short(key));
                faults.push(Fault { at, message, hint: Some(suggestion(key, &known)) });
            } else if let Some(of) = rest {
                self.check(&entry.value, at, of, faults);
            }
        }
        for key in strings(schema, "required") {
            if !entries.iter().any(|entry| entry.key.text == key) {
                add(faults, at, format!("the key `{key}` is missing"));
            }
        }
    }

    /// A task without `with` lacks all that is required.
    fn absent(&self, at: Span, schema: &'k Value, faults: &mut Faults) {
        let keys: Vec<_> = strings(self.target(schema), "required").collect();
        if !keys.is_empty() {
            add(faults, at, format!("the key `with` is missing, it needs `{}`", keys.join("`, `")));
        }
    }

    /// One of several schemas must fit. Those whose outer shape fits are tried; the nearest one says what is wrong.
    fn alternatives(&self, node: &Node<'_>, at: Span, options: &'k [Value], faults: &mut Faults) {
        let mut nearest: Option<Faults> = None;
        for option in options.iter().filter(|option| self.has_shape(node, option)) {
            let mut own = Vec::new();
            self.check(node, at, option, &mut own);
            if own.is_empty() {
                return;
            }
            if nearest.as_ref().is_none_or(|nearest| own.len() < nearest.len()) {
                nearest = Some(own);
            }
        }
        if let Some(nearest) = nearest {
            return faults.extend(nearest);
        }
        let options: Vec<&Value> = options.iter().map(|option| self.target(option)).collect();
        let mut maps = options.iter().filter(|option| types(option).any(|name| name == "object"));
        match (node.as_map(), maps.next(), maps.next()) {
            // There is one way to write a map, so what is wrong with this one can be said.
            (Some(_), Some(only), None) => self.map(node, node.span, only, faults),
            _ => self.wrong_type(node, &options, faults),
        }
    }

    fn has_shape(&self, node: &Node<'_>, schema: &'k Value) -> bool {
        let schema = self.target(schema);
        if let Some(options) = options(schema) {
            return options.iter().any(|option| self.has_shape(node, option));
        }
        let is_type = types(schema).next().is_none() || types(schema).any(|name| has_type(node, name));
        let has_keys = node.as_map().is_none_or(|entries| {
            strings(schema, "required").all(|key| entries.iter().any(|entry| entry.key.text == key))
        });
        is_type && has_keys && (!is_constant(schema) || is_templated(node) || fits_constant(node, schema))
    }

    /// Reports that none of the schemas fits the outer shape of a value.
    fn wrong_type(&self, node: &Node<'_>, schemas: &[&'k Value], faults: &mut Faults) {
        let mut known: Vec<&str> = Vec::new();
        let mut wanted = Vec::new();
        schemas.iter().for_each(|schema| self.collect(schema, &mut known, &mut wanted));
        wanted.dedup();
        let near = match node.as_map().and_then(<[_]>::first) {
            Some(entry) => {
                nearest(&entry.key.text, schemas.iter().flat_map(|schema| strings(schema, "required")))
            }
            None => node.as_text().and_then(|text| nearest(text, known.iter().copied())),
        };
        let mut hint = near.map(|near| format!("did you mean `{near}`?"));
        match known.as_slice() {
            [] => {}
            [only] => wanted.insert(0, format!("`{only}`")),
            several => wanted.insert(0, format!("one of {}", several.join(", "))),
        }
        let wants_text = wanted.iter().any(|wanted| wanted == "a text");
        if wants_text && matches!(node.content, Content::Number(_) | Content::Bool(_)) {
            hint = Some("put it in quotes".to_owned());
        }
        if wanted == ["a list"] && node.as_text().is_some_and(|text| !is_template(text)) {
            hint = Some("put it in brackets, one element for each word".to_owned());
        }
        let found = match node.as_text() {
            Some(text) if is_template(text) => "a template, which gives a text".to_owned(),
            Some(text) => format!("`{}`", short(text)),
            None => node.kind().to_owned(),
        };
        let message = format!("{} is expected here, not {found}", wanted.join(" or "));
        faults.push(Fault { at: node.span, message, hint });
    }

    fn collect(&self, schema: &'k Value, known: &mut Vec<&'k str>, wanted: &mut Vec<String>) {
        let schema = self.target(schema);
        if let Some(options) = options(schema) {
            return options.iter().for_each(|option| self.collect(option, known, wanted));
        }
        if is_constant(schema) {
            return known.extend(words(schema));
        }
        let keys: Vec<_> = strings(schema, "required").collect();
        for name in types(schema).filter_map(type_words) {
            wanted.push(match keys.as_slice() {
                [] => name.to_owned(),
                keys => format!("{name} with `{}`", keys.join("`, `")),
            });
        }
    }
}

fn fits_constant(node: &Node<'_>, schema: &Value) -> bool {
    let value = node.to_json();
    let allowed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    schema.get("const").into_iter().chain(allowed).any(|constant| *constant == value)
}

fn bounds(node: &Node<'_>, number: f64, schema: &Value, faults: &mut Faults) {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    if let Some(least) = bound("minimum").filter(|least| number < *least) {
        add(faults, node.span, format!("a number of at least {least} is expected here"));
    }
    if let Some(most) = bound("maximum").filter(|most| number > *most) {
        add(faults, node.span, format!("a number of at most {most} is expected here"));
    }
}

fn length(node: &Node<'_>, length: usize, keys: [&str; 2], schema: &Value, faults: &mut Faults) {
    let [least, most] = keys.map(|key| schema.get(key).and_then(Value::as_u64));
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    if let Some(least) = least.filter(|least| length < *least) {
        add(faults, node.span, format!("{} is too short here, at least {least}", node.kind()));
    }
    if let Some(most) = most.filter(|most| length > *most) {
        add(faults, node.span, format!("{} is too long here, at most {most}", node.kind()));
    }
}
