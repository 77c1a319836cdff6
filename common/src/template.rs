//! Templates: texts of a task's parameters that refer to what is known when an attempt starts.
//!
//! The language is a small part of Jinja: `{{ name.key | filter(constant) }}`, with the names of [`Variables`] and the
//! filters of `template/filter.rs`. There are no statements, operators, calls or loops. The grammar is checked here before
//! minijinja sees an expression, because its fuel bounds steps and not memory; every value that a filter makes is bounded
//! by [`TEMPLATE_OUTPUT_BYTES_MAX`]. Texts stay texts: `"{{ params.n }}"` gives `"5"`, never `5`.

mod filter;
mod grammar;
mod variables;

use std::{ops::Range, sync::OnceLock};

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value as Evaluated};
use serde_json::{Map, Value};
use thiserror::Error;

pub use self::variables::{NAMES, Variables};
use self::{
    filter::{as_text, bounded},
    grammar::{Expression, Part},
};
use crate::limits::{TEMPLATE_FUEL, TEMPLATE_OUTPUT_BYTES_MAX};

/// Depth of an evaluation; expressions of this grammar need one level for each filter.
const RECURSION_MAX: usize = 20;

/// A text whose templates are known to be well formed.
#[derive(Debug, Clone, PartialEq)]
pub struct Template<'t> {
    text: &'t str,
    parts: Vec<Part>,
}

/// What a text refers to, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refs {
    /// One for each mention.
    pub names: Vec<Name>,
}

/// One mention of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name and what follows it, as in `["values", "orders", "records_written"]`.
    pub path: Vec<String>,
    /// Its bytes in the text.
    pub at: Range<usize>,
}

impl Refs {
    /// Returns the mentions of parameters: name and bytes.
    pub fn params(&self) -> impl Iterator<Item = (&str, &Range<usize>)> {
        self.second("params")
    }

    /// Returns the mentions of values of other tasks: task and bytes.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Range<usize>)> {
        self.second("values")
    }

    fn second(&self, root: &'static str) -> impl Iterator<Item = (&str, &Range<usize>)> {
        self.names.iter().filter(move |name| name.path.first().is_some_and(|first| first == root)).filter_map(
            |name| {
                let second = name.path.get(1)?;
                Some((second.as_str(), &name.at))
            },
        )
    }
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct TemplateError {
    /// Bytes of the text that are wrong.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Why a value could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot render {text:?} of {path}")]
pub struct RenderError {
    /// Where it stands, as in `env.ROWS` or `command[1]`.
    pub path: String,
    /// The expression, or the whole text where the fault is not in one expression.
    pub text: String,
    /// What is wrong.
    #[source]
    pub source: TemplateError,
}

/// Tells whether a text holds a template.
#[must_use]
pub fn is_template(text: &str) -> bool {
    text.contains("{{")
}

/// Tells whether any text of a JSON tree holds a template.
#[must_use]
pub fn has_template(with: &Value) -> bool {
    match with {
        Value::String(text) => is_template(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(entries) => entries.values().any(has_template),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

impl<'t> Template<'t> {
    /// Reads a text.
    ///
    /// # Errors
    /// Where an expression is not of the grammar, or a name or filter is not known.
    pub fn parse(text: &'t str) -> Result<Self, TemplateError> {
        let parts = grammar::parse(text)?;
        Ok(Self { text, parts })
    }

    /// Checks a text and returns what it refers to.
    ///
    /// # Errors
    /// Where an expression is not of the grammar, or a name or filter is not known.
    pub fn check(text: &'t str) -> Result<Refs, TemplateError> {
        let parts = Self::parse(text)?.parts;
        let names = parts.into_iter().filter_map(|part| match part {
            Part::Expression(expression) => expression.name,
            Part::Text(_) => None,
        });
        Ok(Refs { names: names.collect() })
    }

    fn render(&self, context: &Evaluated, steps: &mut Steps) -> Result<String, TemplateError> {
        let mut output = String::new();
        for part in &self.parts {
            match part {
                Part::Text(range) => output.push_str(&self.text[range.clone()]),
                Part::Expression(expression) => {
                    steps.take(expression)?;
                    output.push_str(&evaluate(self.text, expression, context)?);
                }
            }
            if output.len() > TEMPLATE_OUTPUT_BYTES_MAX {
                return Err(fault(0..self.text.len(), too_large()));
            }
        }
        Ok(output)
    }
}

/// Steps left for all expressions of one tree.
struct Steps(u64);

impl Steps {
    fn take(&mut self, expression: &Expression) -> Result<(), TemplateError> {
        match self.0.checked_sub(1 + u64::from(expression.filters)) {
            Some(left) => self.0 = left,
            None => {
                let message = format!("the templates of the task take more than {TEMPLATE_FUEL} steps");
                return Err(fault(expression.at.clone(), message));
            }
        }
        Ok(())
    }
}

fn fault(at: Range<usize>, message: String) -> TemplateError {
    TemplateError { at, message, hint: None }
}

fn too_large() -> String {
    format!("the text is longer than {TEMPLATE_OUTPUT_BYTES_MAX} bytes")
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(TEMPLATE_FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        filter::add_all(&mut environment);
        environment
    })
}

fn evaluate(text: &str, expression: &Expression, context: &Evaluated) -> Result<String, TemplateError> {
    let code = &text[expression.code.clone()];
    let fail = |error: minijinja::Error| {
        let message = match error.kind() {
            ErrorKind::UndefinedError => undefined(expression),
            kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
        };
        fault(expression.at.clone(), message)
    };
    // The grammar was checked, so what minijinja sees is a name or constant and filters, and nothing else.
    let compiled = environment().compile_expression_owned(code).map_err(fail)?;
    let value = compiled.eval(context.clone()).map_err(fail)?;
    if value.is_undefined() || value.is_none() {
        return Err(TemplateError {
            hint: Some("give another value with `| default('...')`".to_owned()),
            ..fault(expression.at.clone(), undefined(expression))
        });
    }
    as_text(&value).and_then(bounded).map_err(fail)
}

fn undefined(expression: &Expression) -> String {
    match &expression.name {
        Some(name) => format!("`{}` has no value", name.path.join(".")),
        None => "the expression has no value".to_owned(),
    }
}

/// Renders every text of a JSON tree; keys stay as they are.
///
/// # Errors
/// Where a name has no value, a filter cannot take its input, or a limit is passed.
pub fn render_value(with: &Value, variables: &Variables) -> Result<Value, RenderError> {
    if !has_template(with) {
        return Ok(with.clone());
    }
    let mut rendering =
        Rendering { context: variables.context(), steps: Steps(TEMPLATE_FUEL), path: Vec::new() };
    rendering.value(with)
}

struct Rendering {
    context: Evaluated,
    steps: Steps,
    path: Vec<String>,
}

impl Rendering {
    fn value(&mut self, with: &Value) -> Result<Value, RenderError> {
        match with {
            Value::String(text) if is_template(text) => self.text(text).map(Value::String),
            Value::Array(items) => {
                let items = items.iter().enumerate();
                items.map(|(at, item)| self.inside(format!("[{at}]"), item)).collect()
            }
            Value::Object(entries) => {
                let rendered: Result<Map<_, _>, _> = entries
                    .iter()
                    .map(|(key, item)| Ok((key.clone(), self.inside(format!(".{key}"), item)?)))
                    .collect();
                rendered.map(Value::Object)
            }
            plain => Ok(plain.clone()),
        }
    }

    fn inside(&mut self, step: String, item: &Value) -> Result<Value, RenderError> {
        self.path.push(step);
        let rendered = self.value(item);
        self.path.pop();
        rendered
    }

    fn text(&mut self, text: &str) -> Result<String, RenderError> {
        let rendered =
            Template::parse(text).and_then(|template| template.render(&self.context, &mut self.steps));
        rendered.map_err(|source| RenderError {
            path: self.path.concat().trim_start_matches('.').to_owned(),
            text: text.get(source.at.clone()).unwrap_or(text).chars().take(200).collect(),
            source,
        })
    }
}

#[cfg(test)]
mod tests;
