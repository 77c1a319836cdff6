//! The grammar of templates, read by hand.
//!
//! ```text
//! text       = { literal | "{{" operand { "|" filter } "}}" }
//! operand    = name { "." key | "[" (string | number) "]" } | constant
//! filter     = name [ "(" constant { "," constant } ")" ]
//! constant   = string | number | "true" | "false"
//! ```
//!
//! Everything else that Jinja knows is refused, with a message that says so. Reading costs time linear in the text.

use std::ops::Range;

use super::{
    Name, TemplateError,
    filter::{self, Constant},
    variables::NAMES,
};
use crate::nearest::nearest;

/// Filters of one expression.
const FILTERS_MAX: u32 = 16;
/// Bytes of a constant in an expression.
const CONSTANT_BYTES_MAX: usize = 1_024;
/// Keys that follow a name.
const KEYS_MAX: usize = 16;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// Bytes that stand for themselves.
    Text(Range<usize>),
    /// An expression.
    Expression(Expression),
}

/// What stands between `{{` and `}}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expression {
    /// Its bytes with the braces.
    pub(super) at: Range<usize>,
    /// Its bytes without.
    pub(super) code: Range<usize>,
    /// What it refers to; absent where it begins with a constant.
    pub(super) name: Option<Name>,
    /// How many filters follow.
    pub(super) filters: u32,
}

/// Splits a text.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, TemplateError> {
    refuse_statements(text)?;
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(open) = find_open(text, at) {
        if open > at {
            parts.push(Part::Text(at..open));
        }
        let expression = Reader { text, at: open + 2, open }.expression()?;
        at = expression.at.end;
        parts.push(Part::Expression(expression));
    }
    if at < text.len() {
        parts.push(Part::Text(at..text.len()));
    }
    Ok(parts)
}

/// Finds `{{`. By hand, because setting up a search costs more than most texts.
fn find_open(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes().get(from..)?;
    bytes.windows(2).position(|pair| pair == b"{{").map(|at| from + at)
}

/// `{%` and `{#` occur in shell scripts and stand for themselves there; what is surely meant as Jinja is refused.
fn refuse_statements(text: &str) -> Result<(), TemplateError> {
    const WORDS: &str = "if elif else endif for endfor set endset macro endmacro block endblock include import from \
                         extends raw endraw with endwith call endcall filter endfilter autoescape do";
    if !text.contains("{%") && !text.contains("{# ") {
        return Ok(());
    }
    for (at, _) in text.match_indices("{%") {
        let rest = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        if end > 0 && WORDS.split_whitespace().any(|word| word == &rest[..end]) {
            return Err(refused(at..at + 2, "statements are not supported in templates, only `{{ ... }}`"));
        }
    }
    match text.find("{# ") {
        Some(at) if text[at..].contains(" #}") => {
            Err(refused(at..at + 2, "comments are not supported in templates"))
        }
        _ => Ok(()),
    }
}

fn refused(at: Range<usize>, message: impl Into<String>) -> TemplateError {
    TemplateError { at, message: message.into(), hint: None }
}

fn hinted(at: Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> TemplateError {
    TemplateError { at, message: message.into(), hint: Some(hint.into()) }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    open: usize,
}

impl<'t> Reader<'t> {
    fn expression(mut self) -> Result<Expression, TemplateError> {
        let start = self.at;
        if matches!(self.peek(), Some('-' | '+'))
            && !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit())
        {
            return Err(refused(self.here(), "`{{-` is not supported, write `{{`"));
        }
        self.skip_blank();
        let name = self.operand()?;
        let mut filters = 0;
        loop {
            self.skip_blank();
            if self.rest().starts_with("}}") {
                let code = start..self.at;
                return Ok(Expression { at: self.open..self.at + 2, code, name, filters });
            }
            if self.peek() != Some('|') {
                return Err(self.unexpected());
            }
            filters += 1;
            if filters > FILTERS_MAX {
                return Err(refused(self.here(), format!("an expression has at most {FILTERS_MAX} filters")));
            }
            self.at += 1;
            self.skip_blank();
            self.filter()?;
        }
    }

    fn operand(&mut self) -> Result<Option<Name>, TemplateError> {
        let start = self.at;
        if !self.peek().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') {
            self.constant()?;
            return Ok(None);
        }
        let root = self.word();
        if matches!(root, "true" | "false") {
            return Ok(None);
        }
        let mut path = vec![root.to_owned()];
        while let Some(key) = self.key()? {
            path.push(key);
            if path.len() > KEYS_MAX {
                return Err(refused(start..self.at, format!("a name has at most {KEYS_MAX} parts")));
            }
        }
        let at = start..self.at;
        check_root(root, start..start + root.len())?;
        if self.peek() == Some('(') {
            return Err(hinted(
                self.here(),
                "calls are not supported",
                "a date moves with `ds | ds_add(-1)`",
            ));
        }
        if root == "values" && path.len() < 3 {
            return Err(hinted(at, "`values` needs a task and a key", "write `values.<task>.<key>`"));
        }
        Ok(Some(Name { path, at }))
    }

    /// Reads `.key`, `['key']` or `[0]`.
    fn key(&mut self) -> Result<Option<String>, TemplateError> {
        match self.peek() {
            Some('.') => {
                self.at += 1;
                let key = self.word();
                if !key.is_empty() {
                    return Ok(Some(key.to_owned()));
                }
                let digits = self.rest().find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest().len());
                let hint = "a key that is not a plain word is written as ['key']";
                Err(hinted(self.at..self.at + digits, "a key is missing after `.`", hint))
            }
            Some('[') => {
                self.at += 1;
                self.skip_blank();
                let start = self.at;
                let key = match self.constant()? {
                    Constant::Text(text) => text,
                    Constant::Int(number) if number >= 0 => number.to_string(),
                    _ => return Err(refused(start..self.at, "a key is a constant text or number")),
                };
                self.skip_blank();
                if self.peek() != Some(']') {
                    return Err(self.unexpected());
                }
                self.at += 1;
                Ok(Some(key))
            }
            _ => Ok(None),
        }
    }

    fn filter(&mut self) -> Result<(), TemplateError> {
        let start = self.at;
        let name = self.word();
        let at = start..self.at;
        if name.is_empty() {
            return Err(self.unexpected());
        }
        let mut constants = Vec::new();
        self.skip_blank();
        if self.peek() == Some('(') {
            self.at += 1;
            self.skip_blank();
            while self.peek() != Some(')') {
                constants.push(self.constant()?);
                self.skip_blank();
                match self.peek() {
                    Some(',') => self.at += 1,
                    Some(')') => break,
                    _ => return Err(self.unexpected()),
                }
                self.skip_blank();
            }
            self.at += 1;
        }
        filter::check(name, &constants).map_err(|(message, hint)| TemplateError { at, message, hint })
    }

    fn constant(&mut self) -> Result<Constant, TemplateError> {
        let start = self.at;
        let constant = match self.peek() {
            Some(quote @ ('\'' | '"')) => self.string(quote)?,
            Some(c) if c.is_ascii_digit() || c == '-' => self.number()?,
            Some(c) if c.is_ascii_alphabetic() => match self.word() {
                "true" | "false" => Constant::Bool,
                _ => return Err(refused(start..self.at, "only constants are allowed here")),
            },
            _ => return Err(self.unexpected()),
        };
        if self.at - start > CONSTANT_BYTES_MAX {
            let message = format!("a constant has at most {CONSTANT_BYTES_MAX} bytes");
            return Err(refused(start..self.at, message));
        }
        Ok(constant)
    }

    /// Reads a quoted text with the escapes that minijinja reads the same way.
    fn string(&mut self, quote: char) -> Result<Constant, TemplateError> {
        let start = self.at;
        let mut value = String::new();
        let mut chars = self.text[start + 1..].char_indices();
        while let Some((offset, c)) = chars.next() {
            let at = start + 1 + offset;
            if c == quote {
                self.at = at + 1;
                return Ok(Constant::Text(value));
            }
            if c != '\\' {
                value.push(c);
                continue;
            }
            value.push(match chars.next() {
                Some((_, escaped @ ('\\' | '\'' | '"'))) => escaped,
                Some((_, 'n')) => '\n',
                Some((_, 't')) => '\t',
                _ => return Err(refused(at..at + 1, r#"the escapes of a text are \\ \' \" \n \t"#)),
            });
        }
        Err(refused(start..start + 1, "this quote is not closed"))
    }

    fn number(&mut self) -> Result<Constant, TemplateError> {
        let start = self.at;
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let tail = &rest[sign..];
        let len = tail.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(tail.len());
        self.at += sign + len;
        let text = &self.text[start..self.at];
        let is_plain = tail.starts_with(|c: char| c.is_ascii_digit()) && !text.ends_with('.');
        if is_plain && let Ok(number) = text.parse() {
            return Ok(Constant::Int(number));
        }
        match text.parse::<f64>() {
            Ok(number) if is_plain && number.is_finite() && text.contains('.') => Ok(Constant::Float),
            _ => Err(refused(start..self.at.max(start + 1), "this is not a number")),
        }
    }

    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let starts = rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let len = if starts { len } else { 0 };
        self.at += len;
        &rest[..len]
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn here(&self) -> Range<usize> {
        self.at..self.at + self.peek().map_or(0, char::len_utf8)
    }

    fn skip_blank(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn unexpected(&self) -> TemplateError {
        const LITERAL: &str = "to write `{{` itself, use `{{ '{{' }}`";
        match self.peek() {
            None => hinted(self.open..self.open + 2, "this `{{` is not closed", LITERAL),
            Some('(') => refused(self.here(), "calls are not supported"),
            Some('[' | '{') => hinted(self.here(), "lists and maps are not supported", LITERAL),
            Some(c @ ('~' | '*' | '+' | '/' | '%' | '=' | '!' | '<' | '>')) => {
                hinted(self.here(), format!("the operator `{c}` is not supported"), LITERAL)
            }
            Some('-') => hinted(
                self.here(),
                "the operator `-` is not supported",
                "a key with `-` is written as values['task-name'].key",
            ),
            Some('}') => refused(self.here(), "the expression ends too early"),
            Some(c) if c.is_ascii_alphabetic() => {
                refused(self.here(), "a name, a constant, `|` or `}}` is expected here")
            }
            Some(c) => hinted(self.here(), format!("{c:?} is not expected here"), LITERAL),
        }
    }
}

fn check_root(root: &str, at: Range<usize>) -> Result<(), TemplateError> {
    if NAMES.contains(&root) {
        return Ok(());
    }
    let hint = match (root, nearest(root, NAMES.iter().copied())) {
        ("execution_date", _) => "did you mean `logical_date`?".to_owned(),
        ("tomorrow_ds" | "next_ds", _) => "write `ds | ds_add(1)`".to_owned(),
        ("yesterday_ds" | "prev_ds", _) => "write `ds | ds_add(-1)`".to_owned(),
        (_, Some(near)) => format!("did you mean `{near}`?"),
        (_, None) => format!("known names: {}", NAMES.join(", ")),
    };
    Err(hinted(at, format!("`{root}` is not a known name"), hint))
}
