//! A YAML or JSON document as a tree whose values know their place.
//!
//! The tree is built from the events of the parser without recursion, and given up at the first bound that is passed:
//! nesting, number of values, values and bytes that aliases add. An alias shares what it refers to, so a bomb costs
//! nothing before it is counted. Scalars are those of YAML 1.2, except that `True` and `TRUE` are texts.

mod build;
mod place;
mod scalar;

use std::{borrow::Cow, rc::Rc};

use serde_json::{Map, Number, Value};

pub(super) use self::build::read;
use super::problem::Span;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node<'t> {
    pub(super) span: Span,
    pub(super) content: Content<'t>,
    weight: Weight,
}

#[derive(Debug, Clone)]
pub(super) enum Content<'t> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'t, str>),
    List(Rc<[Node<'t>]>),
    Map(Rc<[Entry<'t>]>),
}

/// A key with its value, in the order of the document.
#[derive(Debug, Clone)]
pub(super) struct Entry<'t> {
    pub(super) key: Key<'t>,
    pub(super) value: Node<'t>,
}

#[derive(Debug, Clone)]
pub(super) struct Key<'t> {
    pub(super) text: Cow<'t, str>,
    pub(super) span: Span,
    is_merge: bool,
}

/// What a value costs where it is repeated, aliases inside it expanded. Bounded by the limits, so that 32 bits do.
#[derive(Debug, Clone, Copy)]
struct Weight {
    values: u32,
    bytes: u32,
    height: u8,
}

impl<'t> Node<'t> {
    fn scalar(span: Span, content: Content<'t>) -> Self {
        let bytes = if let Content::Text(text) = &content { narrow(text.len()) } else { 8 };
        Self { span, content, weight: Weight { values: 1, bytes, height: 0 } }
    }

    fn list(span: Span, items: Rc<[Self]>) -> Self {
        let weight = Weight::around(items.iter().map(|item| (0, item.weight)));
        Self { span, content: Content::List(items), weight }
    }

    fn map(span: Span, entries: Rc<[Entry<'t>]>) -> Self {
        let weight =
            Weight::around(entries.iter().map(|entry| (narrow(entry.key.text.len()), entry.value.weight)));
        Self { span, content: Content::Map(entries), weight }
    }

    /// Returns what stands here in words, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "a boolean",
            Content::Number(_) => "a number",
            Content::Text(_) => "a text",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.content, Content::Null)
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Content::Text(text) = &self.content { Some(text) } else { None }
    }

    pub(super) fn as_list(&self) -> Option<&[Self]> {
        if let Content::List(items) = &self.content { Some(items) } else { None }
    }

    pub(super) fn as_map(&self) -> Option<&[Entry<'t>]> {
        if let Content::Map(entries) = &self.content { Some(entries) } else { None }
    }

    pub(super) fn to_json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(truth) => Value::Bool(*truth),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone().into_owned()),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for Entry { key, value } in entries.iter() {
                    map.insert(key.text.clone().into_owned(), value.to_json());
                }
                Value::Object(map)
            }
        }
    }
}

impl Weight {
    fn around(parts: impl Iterator<Item = (u32, Self)>) -> Self {
        parts.fold(Self { values: 1, bytes: 0, height: 0 }, |sum, (key, part)| Self {
            values: sum.values.saturating_add(part.values),
            bytes: sum.bytes.saturating_add(key).saturating_add(part.bytes),
            height: sum.height.max(part.height.saturating_add(1)),
        })
    }
}

fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
