//! Schemas of the kinds in the form that checking asks for.
//!
//! A schema is JSON: to ask it anything is to look for words in maps, a dozen times for each value of a document. Each is
//! therefore read once, into a [`Shape`]. Shapes refer to each other by position, so that a schema may hold itself.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::{
    definition::node::{Content, Node},
    template::is_template,
};

/// What a value must be like. A part that is absent asks for nothing.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// Shapes of which one must fit; where there are any, nothing else is asked.
    pub(super) options: Vec<ShapeId>,
    pub(super) types: Vec<Type>,
    pub(super) constants: Vec<Value>,
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) text_length: Length,
    pub(super) list_length: Length,
    pub(super) items: Option<ShapeId>,
    pub(super) properties: Vec<(String, ShapeId)>,
    pub(super) rest: Rest,
    pub(super) required: Vec<String>,
}

/// The position of a shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShapeId(usize);

/// Bounds of a length.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Length {
    pub(super) least: Option<u64>,
    pub(super) most: Option<u64>,
}

/// What values under keys that are not named must be like.
#[derive(Debug, Default)]
pub(super) enum Rest {
    #[default]
    Free,
    Refused,
    Like(ShapeId),
}

/// A type of JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    Text,
    List,
    Map,
}

impl Type {
    fn of(word: &str) -> Option<Self> {
        match word {
            "null" => Some(Self::Null),
            "boolean" => Some(Self::Boolean),
            "integer" => Some(Self::Integer),
            "number" => Some(Self::Number),
            "string" => Some(Self::Text),
            "array" => Some(Self::List),
            "object" => Some(Self::Map),
            _ => None,
        }
    }

    /// Returns the type in words, for messages. Nobody is asked to write nothing.
    pub(super) const fn words(self) -> Option<&'static str> {
        match self {
            Self::Null => None,
            Self::Boolean => Some("true or false"),
            Self::Integer => Some("a whole number"),
            Self::Number => Some("a number"),
            Self::Text => Some("a text"),
            Self::List => Some("a list"),
            Self::Map => Some("a map"),
        }
    }

    /// Returns the types that a value has. What a template becomes is not known: it may be any scalar.
    pub(super) fn of_node(node: &Node<'_>) -> &'static [Self] {
        match &node.content {
            Content::Null => &[Self::Null],
            Content::Bool(_) => &[Self::Boolean],
            Content::Number(number) if number.is_f64() => &[Self::Number],
            Content::Number(_) => &[Self::Integer, Self::Number],
            Content::Text(text) if is_template(text) => {
                &[Self::Text, Self::Integer, Self::Number, Self::Boolean]
            }
            Content::Text(_) => &[Self::Text],
            Content::List(_) => &[Self::List],
            Content::Map(_) => &[Self::Map],
        }
    }
}

impl Shape {
    /// Tells whether a value of one of these types is taken.
    pub(super) fn takes(&self, types: &[Type]) -> bool {
        self.types.is_empty() || self.types.iter().any(|own| types.contains(own))
    }

    /// Tells whether all keys that must be there are.
    pub(super) fn has_required(&self, node: &Node<'_>) -> bool {
        node.as_map().is_none_or(|entries| {
            self.required.iter().all(|key| entries.iter().any(|entry| entry.key.text == *key))
        })
    }

    /// Tells whether a value is one of the constants, where only constants are taken.
    pub(super) fn fits_constant(&self, node: &Node<'_>) -> bool {
        self.constants.is_empty() || self.constants.contains(&node.to_json())
    }

    pub(super) fn property(&self, key: &str) -> Option<&ShapeId> {
        self.properties.iter().find(|(name, _)| name == key).map(|(_, of)| of)
    }
}

/// All shapes.
#[derive(Debug, Default)]
pub(super) struct Shapes(Vec<Shape>);

impl Shapes {
    pub(super) fn get(&self, id: ShapeId) -> &Shape {
        &self.0[id.0]
    }
}

/// Reads schemas that refer to `defs`.
#[derive(Debug)]
pub(super) struct Reader<'s> {
    defs: &'s Map<String, Value>,
    named: HashMap<&'s str, ShapeId>,
    shapes: Vec<Shape>,
}

impl<'s> Reader<'s> {
    pub(super) fn new(defs: &'s Map<String, Value>) -> Self {
        Self { defs, named: HashMap::new(), shapes: Vec::new() }
    }

    pub(super) fn finish(self) -> Shapes {
        Shapes(self.shapes)
    }

    pub(super) fn read(&mut self, schema: &'s Value) -> ShapeId {
        let defs = self.defs;
        let path = schema.get("$ref").and_then(Value::as_str);
        let name = path.and_then(|path| path.strip_prefix("#/$defs/"));
        let target = name.and_then(|name| Some((name, defs.get(name)?)));
        if let Some(known) = target.and_then(|(name, _)| self.named.get(name)) {
            return *known;
        }
        let id = ShapeId(self.shapes.len());
        self.shapes.push(Shape::default());
        let schema = target.map_or(schema, |(name, schema)| {
            self.named.insert(name, id);
            schema
        });
        self.shapes[id.0] = self.shape(schema);
        id
    }

    fn shape(&mut self, schema: &'s Value) -> Shape {
        let options = schema.get("anyOf").or_else(|| schema.get("oneOf"));
        let named = schema.get("properties").and_then(Value::as_object);
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let length = |least: &str, most: &str| Length {
            least: schema.get(least).and_then(Value::as_u64),
            most: schema.get(most).and_then(Value::as_u64),
        };
        Shape {
            options: elements(options).map(|option| self.read(option)).collect(),
            types: words(schema.get("type")).filter_map(Type::of).collect(),
            constants: schema.get("const").into_iter().chain(elements(schema.get("enum"))).cloned().collect(),
            minimum: bound("minimum"),
            maximum: bound("maximum"),
            text_length: length("minLength", "maxLength"),
            list_length: length("minItems", "maxItems"),
            items: schema.get("items").map(|items| self.read(items)),
            properties: named.into_iter().flatten().map(|(key, of)| (key.clone(), self.read(of))).collect(),
            rest: match schema.get("additionalProperties") {
                None => Rest::Free,
                Some(Value::Bool(false)) => Rest::Refused,
                Some(of) => Rest::Like(self.read(of)),
            },
            required: words(schema.get("required")).map(str::to_owned).collect(),
        }
    }
}

fn elements(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

/// Returns a word, or the words of a list.
fn words(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value.and_then(Value::as_str).into_iter().chain(elements(value).filter_map(Value::as_str))
}
