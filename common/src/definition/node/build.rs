//! From events to the tree, without recursion and within the bounds.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    rc::Rc,
};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::{Content, Entry, Key, Node, place::Place, scalar::number};
use crate::{
    definition::{
        problem::{Problems, Span},
        read::short,
    },
    limits::{ALIAS_VALUES_MAX, DOCUMENT_BYTES_MAX, DOCUMENT_VALUES_MAX, NESTING_MAX},
};

/// The document was given up; the reason is among the problems.
#[derive(Debug)]
struct GivenUp;

/// Reads the one value of a document; `None` where the problems say why not.
pub(in crate::definition) fn read<'t>(text: &'t str, problems: &mut Problems<'t>) -> Option<Node<'t>> {
    if text.len() > DOCUMENT_BYTES_MAX {
        let message = format!("the document has {} bytes, at most {DOCUMENT_BYTES_MAX} are read", text.len());
        problems.add(Span::default(), message);
        return None;
    }
    let mut builder = Builder {
        problems,
        place: Place::start(text),
        open: Vec::new(),
        items: Vec::new(),
        entries: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        documents: 0,
        values: 0,
        alias_values: 0,
        alias_bytes: 0,
    };
    builder.run(text).ok()?;
    let root = builder.root;
    if root.is_none() {
        problems.add(Span::default(), "the document is empty");
    }
    root
}

/// A list or map that has begun.
struct Open<'t> {
    span: Span,
    anchor: usize,
    kind: Kind<'t>,
}

enum Kind<'t> {
    /// What it holds begins at this position of `items`.
    List(usize),
    /// What it holds begins at this position of `entries`; the key waits for its value.
    Map(usize, Option<Key<'t>>),
}

struct Builder<'p, 't> {
    problems: &'p mut Problems<'t>,
    place: Place<'t>,
    open: Vec<Open<'t>>,
    /// Elements of all open lists and entries of all open maps: each container is allocated once, at its end.
    items: Vec<Node<'t>>,
    entries: Vec<Entry<'t>>,
    root: Option<Node<'t>>,
    anchors: HashMap<usize, Node<'t>>,
    documents: usize,
    values: usize,
    alias_values: usize,
    alias_bytes: usize,
}

impl<'t> Builder<'_, 't> {
    fn run(&mut self, text: &'t str) -> Result<(), GivenUp> {
        let mut parser = Parser::new_from_str(text);
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|error| self.unreadable(&error))?;
            self.event(event, to_span(span))?;
        }
        Ok(())
    }

    fn unreadable(&mut self, error: &ScanError) -> GivenUp {
        let at = u32::try_from(error.marker().index()).unwrap_or(u32::MAX);
        let message = match error.info() {
            "recursion limit exceeded" => too_deep(),
            info => format!("this is not YAML: {info}"),
        };
        self.give_up(Span { start: at, end: at.saturating_add(1) }, message)
    }

    fn give_up(&mut self, at: Span, message: impl Into<String>) -> GivenUp {
        self.problems.add(at, message);
        GivenUp
    }

    fn event(&mut self, event: Event<'t>, span: Span) -> Result<(), GivenUp> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message =
                        "the file holds several documents, put each workflow into a file of its own";
                    return Err(self.give_up(span, message));
                }
                Ok(())
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                let text = self.place.borrowed(span.start, text);
                self.scalar(text, style, anchor, tag.as_deref(), span)
            }
            Event::SequenceStart(anchor, tag) => {
                let kind = Kind::List(self.items.len());
                self.begin(tag.as_deref(), Open { span, anchor, kind })
            }
            Event::MappingStart(anchor, tag) => {
                let kind = Kind::Map(self.entries.len(), None);
                self.begin(tag.as_deref(), Open { span, anchor, kind })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, tag: Option<&Tag>, open: Open<'t>) -> Result<(), GivenUp> {
        if let Some(tag) = tag {
            return Err(self.tagged(tag, open.span));
        }
        if self.waiting_key().is_some_and(|key| key.is_none()) {
            return Err(self.give_up(open.span, "a key must be a text"));
        }
        if self.open.len() >= NESTING_MAX {
            return Err(self.give_up(open.span, too_deep()));
        }
        self.open.push(open);
        Ok(())
    }

    /// Returns the place of the next key, where a map is open.
    fn waiting_key(&mut self) -> Option<&mut Option<Key<'t>>> {
        match &mut self.open.last_mut()?.kind {
            Kind::Map(_, key) => Some(key),
            Kind::List(_) => None,
        }
    }

    fn end(&mut self, end: Span) -> Result<(), GivenUp> {
        let Some(Open { span, anchor, kind }) = self.open.pop() else { return Ok(()) };
        let span = join(span, end);
        let node = match kind {
            Kind::List(start) => Node::list(span, self.items.drain(start..).collect()),
            Kind::Map(start, _) => Node::map(span, self.map_from(start)),
        };
        self.attach(node, anchor)
    }

    fn map_from(&mut self, start: usize) -> Rc<[Entry<'t>]> {
        let entries = &self.entries[start..];
        let repeated = repeated(entries);
        if repeated.is_empty() && !entries.iter().any(|entry| entry.key.is_merge) {
            return self.entries.drain(start..).collect();
        }
        let entries = self.entries.drain(start..).collect();
        let entries = self.without(&repeated, entries);
        self.merged(entries).into()
    }

    fn scalar(
        &mut self,
        text: Cow<'t, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), GivenUp> {
        let is_text = match tag {
            None => style != ScalarStyle::Plain,
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => true,
            Some(tag) => return Err(self.tagged(tag, span)),
        };
        if let Some(key @ None) = self.waiting_key() {
            let is_merge = !is_text && text == "<<";
            *key = Some(Key { text: text.clone(), span, is_merge });
            if anchor > 0 {
                self.anchors.insert(anchor, Node::scalar(span, Content::Text(text)));
            }
            return Ok(());
        }
        let content = if is_text { Content::Text(text) } else { self.resolved(text, span) };
        self.attach(Node::scalar(span, content), anchor)
    }

    /// Finds out what a scalar without quotes is.
    fn resolved(&mut self, text: Cow<'t, str>, span: Span) -> Content<'t> {
        match text.as_ref() {
            "" | "~" | "null" | "Null" | "NULL" => return Content::Null,
            "true" => return Content::Bool(true),
            "false" => return Content::Bool(false),
            _ => {}
        }
        match number(&text) {
            None => Content::Text(text),
            Some(Some(number)) => Content::Number(number),
            Some(None) => {
                let hint = "put it in quotes to keep it as a text";
                self.problems.add_with_hint(span, "the number does not fit into 64 bits", hint);
                Content::Text(text)
            }
        }
    }

    fn tagged(&mut self, tag: &Tag, span: Span) -> GivenUp {
        self.give_up(span, format!("the tag {tag} is not supported, remove it"))
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), GivenUp> {
        let Some(known) = self.anchors.get(&anchor) else {
            return Err(self.give_up(span, "the alias refers to a value that it is a part of"));
        };
        let node = Node { span, ..known.clone() };
        self.alias_values += node.weight.values as usize;
        self.alias_bytes += node.weight.bytes as usize;
        if self.alias_values > ALIAS_VALUES_MAX || self.alias_bytes > DOCUMENT_BYTES_MAX {
            let message = format!(
                "aliases repeat too much, at most {ALIAS_VALUES_MAX} values and {DOCUMENT_BYTES_MAX} bytes"
            );
            return Err(self.give_up(span, message));
        }
        if let Some(key @ None) = self.waiting_key() {
            let Content::Text(text) = node.content else {
                return Err(self.give_up(span, "a key must be a text"));
            };
            *key = Some(Key { text, span, is_merge: false });
            return Ok(());
        }
        if self.open.len() + node.weight.height as usize > NESTING_MAX {
            return Err(self.give_up(span, too_deep()));
        }
        self.values += node.weight.values as usize - 1;
        self.attach(node, 0)
    }

    fn attach(&mut self, node: Node<'t>, anchor: usize) -> Result<(), GivenUp> {
        self.values += 1;
        if self.values > DOCUMENT_VALUES_MAX {
            let message = format!("the document has more than {DOCUMENT_VALUES_MAX} values");
            return Err(self.give_up(node.span, message));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Kind::List(_)) => self.items.push(node),
            Some(Kind::Map(_, key)) => match key.take() {
                Some(key) => self.entries.push(Entry { key, value: node }),
                None => return Err(self.give_up(node.span, "a key must be a text")),
            },
        }
        Ok(())
    }

    /// Reports entries whose key was there before and drops them.
    fn without(&mut self, repeated: &[(usize, usize)], entries: Vec<Entry<'t>>) -> Vec<Entry<'t>> {
        for (at, first) in repeated {
            let Key { text, span, .. } = &entries[*at].key;
            let line = self.problems.line_of(entries[*first].key.span);
            let message = format!("the key `{}` is given twice, first in line {line}", short(text));
            self.problems.add(*span, message);
        }
        let is_repeated: HashSet<usize> = repeated.iter().map(|(at, _)| *at).collect();
        let kept = entries.into_iter().enumerate().filter(|(at, _)| !is_repeated.contains(at));
        kept.map(|(_, entry)| entry).collect()
    }

    /// Adds what the merge key `<<` refers to; what is written out wins, then what comes first.
    fn merged(&mut self, entries: Vec<Entry<'t>>) -> Vec<Entry<'t>> {
        let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.key.is_merge);
        let mut names: HashSet<Cow<'t, str>> = own.iter().map(|entry| entry.key.text.clone()).collect();
        for merge in merges {
            let sources = merge.value.as_list().unwrap_or(std::slice::from_ref(&merge.value));
            for source in sources {
                let Some(entries) = source.as_map() else {
                    self.problems.add(source.span, "`<<` needs a map or a list of maps");
                    continue;
                };
                own.extend(entries.iter().filter(|e| names.insert(e.key.text.clone())).cloned());
            }
        }
        own
    }
}

/// Finds entries whose key was there before: position and first position.
fn repeated(entries: &[Entry<'_>]) -> Vec<(usize, usize)> {
    /// Entries up to which comparing all pairs is cheaper than hashing.
    const PAIRS_MAX: usize = 8;
    if entries.len() <= PAIRS_MAX {
        let first = |at: usize| entries[..at].iter().position(|entry| entry.key.text == entries[at].key.text);
        return (1..entries.len()).filter_map(|at| first(at).map(|first| (at, first))).collect();
    }
    let mut firsts: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
    let mut found = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let first = *firsts.entry(&entry.key.text).or_insert(at);
        if first != at {
            found.push((at, first));
        }
    }
    found
}

fn to_span(span: saphyr_parser::Span) -> Span {
    let narrow = |index| u32::try_from(index).unwrap_or(u32::MAX);
    Span { start: narrow(span.start.index()), end: narrow(span.end.index()) }
}

fn join(start: Span, end: Span) -> Span {
    Span { start: start.start, end: end.end.max(start.end) }
}

fn too_deep() -> String {
    format!("the document is nested deeper than {NESTING_MAX} levels")
}
