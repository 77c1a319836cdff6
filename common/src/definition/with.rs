//! Parameters of a task against the JSON Schema of its kind.
//!
//! The schemas come from the parameter types themselves, so there is one truth; this checker knows the part of JSON Schema
//! that they use, and says where in the document a value does not fit. A text that holds a template is taken for any
//! scalar, because what it becomes is known at the attempt only.

mod shape;
mod shell;

use std::sync::OnceLock;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

use self::shape::{Length, Reader, Rest, Shape, ShapeId, Shapes, Type};
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
    /// The shape of each, by name.
    roots: Vec<(&'static str, ShapeId)>,
    shapes: Shapes,
}

impl Kinds {
    fn new(with: Vec<(&'static str, Value)>, defs: Map<String, Value>) -> Self {
        let mut reader = Reader::new(&defs);
        let roots = with.iter().map(|(kind, schema)| (*kind, reader.read(schema))).collect();
        let shapes = reader.finish();
        Self { with, defs, roots, shapes }
    }

    fn shape(&self, kind: &str) -> Option<&Shape> {
        self.roots.iter().find(|(name, _)| *name == kind).map(|(_, root)| self.shapes.get(*root))
    }

    /// Tells whether a kind has parameters that must be there.
    pub(super) fn needs_with(&self, kind: &str) -> bool {
        self.shape(kind).is_some_and(|shape| !shape.required.is_empty())
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
        Kinds::new(with, generator.take_definitions(true).into_iter().collect())
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
    let Some(shape) = kinds.shape(kind.as_str()) else {
        if let Some(node) = with.filter(|node| node.as_map().is_none()) {
            expected("a map", node, problems);
        }
        return;
    };
    let checker = Checker { shapes: &kinds.shapes };
    let mut faults = Vec::new();
    match with {
        Some(node) => checker.check(node, at, shape, &mut faults),
        None => absent(at, shape, &mut faults),
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

/// A task without `with` lacks all that is required.
fn absent(at: Span, shape: &Shape, faults: &mut Faults) {
    if !shape.required.is_empty() {
        add(faults, at, format!("the key `with` is missing, it needs `{}`", shape.required.join("`, `")));
    }
}

struct Checker<'k> {
    shapes: &'k Shapes,
}

impl<'k> Checker<'k> {
    fn options(&self, shape: &'k Shape) -> impl Iterator<Item = &'k Shape> + use<'k> {
        let shapes = self.shapes;
        shape.options.iter().map(move |option| shapes.get(*option))
    }

    fn check(&self, node: &Node<'_>, at: Span, shape: &'k Shape, faults: &mut Faults) {
        if !shape.options.is_empty() {
            return self.alternatives(node, at, shape, faults);
        }
        if !shape.takes(Type::of_node(node)) {
            return self.wrong_type(node, &[shape], faults);
        }
        if node.as_text().is_some_and(is_template) {
            return;
        }
        if !shape.fits_constant(node) {
            return self.wrong_type(node, &[shape], faults);
        }
        match &node.content {
            Content::Number(number) => bounds(node, number.as_f64().unwrap_or(f64::NAN), shape, faults),
            Content::Text(text) => length(node, || text.chars().count(), shape.text_length, faults),
            Content::List(items) => {
                length(node, || items.len(), shape.list_length, faults);
                if let Some(of) = shape.items {
                    let of = self.shapes.get(of);
                    items.iter().for_each(|item| self.check(item, item.span, of, faults));
                }
            }
            Content::Map(_) => self.map(node, at, shape, faults),
            Content::Null | Content::Bool(_) => {}
        }
    }

    fn map(&self, node: &Node<'_>, at: Span, shape: &'k Shape, faults: &mut Faults) {
        let entries = node.as_map().unwrap_or_default();
        for entry in entries {
            if faults.len() >= PROBLEMS_MAX {
                return;
            }
            let (key, at) = (entry.key.text.as_ref(), entry.key.span);
            match (shape.property(key), &shape.rest) {
                (Some(of), _) | (None, Rest::Like(of)) => {
                    self.check(&entry.value, at, self.shapes.get(*of), faults);
                }
                (None, Rest::Refused) => {
                    let known: Vec<&str> = shape.properties.iter().map(|(name, _)| name.as_str()).collect();
                    let message = format!("unknown key `{}`", short(key));
                    faults.push(Fault { at, message, hint: Some(suggestion(key, &known)) });
                }
                (None, Rest::Free) => {}
            }
        }
        for key in &shape.required {
            if !entries.iter().any(|entry| entry.key.text == *key) {
                add(faults, at, format!("the key `{key}` is missing"));
            }
        }
    }

    /// One of several shapes must fit. Those whose outer shape fits are tried; the nearest one says what is wrong.
    fn alternatives(&self, node: &Node<'_>, at: Span, shape: &'k Shape, faults: &mut Faults) {
        let mut nearest: Option<Faults> = None;
        for option in self.options(shape).filter(|option| self.has_shape(node, option)) {
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
        let options: Vec<&Shape> = self.options(shape).collect();
        let mut maps = options.iter().filter(|option| option.types.contains(&Type::Map));
        match (node.as_map(), maps.next(), maps.next()) {
            // There is one way to write a map, so what is wrong with this one can be said.
            (Some(_), Some(only), None) => self.map(node, node.span, only, faults),
            _ => self.wrong_type(node, &options, faults),
        }
    }

    fn has_shape(&self, node: &Node<'_>, shape: &'k Shape) -> bool {
        if !shape.options.is_empty() {
            return self.options(shape).any(|option| self.has_shape(node, option));
        }
        shape.takes(Type::of_node(node))
            && shape.has_required(node)
            && (node.as_text().is_some_and(is_template) || shape.fits_constant(node))
    }

    /// Reports that none of the shapes fits a value.
    fn wrong_type(&self, node: &Node<'_>, shapes: &[&'k Shape], faults: &mut Faults) {
        let mut known: Vec<&str> = Vec::new();
        let mut wanted = Vec::new();
        shapes.iter().for_each(|shape| self.collect(shape, &mut known, &mut wanted));
        wanted.dedup();
        let near = match node.as_map().and_then(<[_]>::first) {
            Some(entry) => {
                let required = shapes.iter().flat_map(|shape| shape.required.iter().map(String::as_str));
                nearest(&entry.key.text, required)
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

    fn collect(&self, shape: &'k Shape, known: &mut Vec<&'k str>, wanted: &mut Vec<String>) {
        if !shape.options.is_empty() {
            return self.options(shape).for_each(|option| self.collect(option, known, wanted));
        }
        if !shape.constants.is_empty() {
            return known.extend(shape.constants.iter().filter_map(Value::as_str));
        }
        for name in shape.types.iter().filter_map(|own| own.words()) {
            wanted.push(match shape.required.as_slice() {
                [] => name.to_owned(),
                keys => format!("{name} with `{}`", keys.join("`, `")),
            });
        }
    }
}

fn bounds(node: &Node<'_>, number: f64, shape: &Shape, faults: &mut Faults) {
    if let Some(least) = shape.minimum.filter(|least| number < *least) {
        add(faults, node.span, format!("a number of at least {least} is expected here"));
    }
    if let Some(most) = shape.maximum.filter(|most| number > *most) {
        add(faults, node.span, format!("a number of at most {most} is expected here"));
    }
}

/// Checks a length, which is counted only where it matters.
fn length(node: &Node<'_>, count: impl Fn() -> usize, bounds: Length, faults: &mut Faults) {
    let counted = || u64::try_from(count()).unwrap_or(u64::MAX);
    if let Some(least) = bounds.least.filter(|least| counted() < *least) {
        add(faults, node.span, format!("{} is too short here, at least {least}", node.kind()));
    }
    if let Some(most) = bounds.most.filter(|most| counted() > *most) {
        add(faults, node.span, format!("{} is too long here, at most {most}", node.kind()));
    }
}
