//! A job file: from text to a valid [`Job`], or to the reason why it is not one.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

pub use crate::parameter::Problem;
use crate::{
    json,
    limits::JOB_TEXT_BYTES,
    parameter::{Findings, Found, Section},
    plugin::{self, Sink, Source},
    secret,
    setting::Setting,
    substitute::substitute,
};

/// A job file that cannot be run by anybody.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("the text has {bytes} bytes, and at most {} are read", JOB_TEXT_BYTES)]
    TooLong { bytes: usize },
    #[error("the text is not JSON (comments and trailing commas are allowed)")]
    Json {
        #[source]
        source: serde_json::Error,
    },
    #[error("{}", problem_list(problems))]
    Invalid { problems: Vec<Problem> },
}

fn problem_list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// What a job file turned out to be.
#[derive(Debug)]
pub enum Parsed {
    /// It runs here.
    Native(Box<Job>),
    /// It is well formed, but needs an external `DataX`.
    Foreign(Foreign),
}

/// A job file that needs an external `DataX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Name of the reader, as written.
    pub reader: String,
    /// Name of the writer, as written.
    pub writer: String,
    /// Everything that cannot be done natively, one sentence each.
    pub why: Vec<String>,
}

/// A valid definition of a transfer that runs natively.
#[derive(Debug, Clone)]
pub struct Job {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) setting: Setting,
    notes: Vec<String>,
    echo: Value,
}

impl Job {
    /// Parses a job file; `params` replace `$name` and `${name}` in its text first.
    ///
    /// # Errors
    /// Text that is no JSON, and all wrong values of native plugins at once.
    pub fn parse(text: &str, params: &BTreeMap<String, String>) -> Result<Parsed, JobError> {
        if text.len() > JOB_TEXT_BYTES {
            return Err(JobError::TooLong { bytes: text.len() });
        }
        let text = json::plain(&substitute(text, params));
        let root = serde_json::from_str(&text).map_err(|source| JobError::Json { source })?;
        Self::from_value(&root)
    }

    fn from_value(root: &Value) -> Result<Parsed, JobError> {
        let findings = Findings::default();
        let section = Section::root(root, &findings);
        section.note_unknown(&["job", "core", "common", "entry", "plugin"]);
        let setting = Setting::parse(&section);
        let content = content(&section);
        let reader = content.section("reader");
        let writer = content.section("writer");
        let (reader_name, writer_name) = (reader.required("name"), writer.required("name"));
        let source = reader_name.as_deref().and_then(|name| plugin::source(name, &reader, &setting));
        let sink = writer_name.as_deref().and_then(|name| plugin::sink(name, &writer));
        let Found { problems, foreign, notes } = findings.finish();
        if !foreign.is_empty()
            && let (Some(reader), Some(writer)) = (reader_name, writer_name)
        {
            // What an external DataX makes of wrong values of its own plugins is its business.
            return Ok(Parsed::Foreign(Foreign { reader, writer, why: foreign }));
        }
        match (source, sink) {
            (Some(source), Some(sink)) if problems.is_empty() => {
                let echo = secret::masked(&root["job"]);
                Ok(Parsed::Native(Box::new(Self { source, sink, setting, notes, echo })))
            }
            _ => Err(JobError::Invalid { problems }),
        }
    }

    /// Returns the reader's name.
    pub fn reader(&self) -> &'static str {
        self.source.name()
    }

    /// Returns the writer's name.
    pub fn writer(&self) -> &'static str {
        self.sink.name()
    }

    /// Returns what of the definition is ignored, and why that is harmless.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the `job` part of the definition as indented JSON, with secrets starred.
    pub fn echo(&self) -> String {
        format!("{:#}", self.echo)
    }
}

/// The first element of `job.content`; the others are never used.
fn content<'a>(root: &Section<'a>) -> Section<'a> {
    let job = root.section("job");
    job.note_unknown(&["setting", "content", "preHandler", "postHandler"]);
    for handler in ["preHandler", "postHandler"] {
        if job.get(handler).is_some() {
            root.findings().foreign(format!("job.{handler} names a plugin in Java"));
        }
    }
    let mut contents = job.sections("content");
    match contents.len() {
        0 => {
            job.problem("content", "is required: a list with one object of reader and writer");
            return job.section("content[0]");
        }
        1 => {}
        more => root.findings().note(format!("job.content has {more} elements, only the first is used")),
    }
    let content = contents.swap_remove(0);
    content.note_unknown(&["reader", "writer", "transformer"]);
    if !content.sections("transformer").is_empty() {
        root.findings().foreign("job.content[0].transformer is not supported");
    }
    content
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
    use super::*;

    const STREAM: &str = r#"{ // a comment
      "job": {"setting": {"speed": {"channel": 2}}, "content": [{
        "reader": {"name": "streamreader", "parameter": {"column": [{"value": "$who"}], "sliceRecordCount": 1}},
        "writer": {"name": "streamwriter", "parameter": {"print": true, "password": "sekret"}}}]},}"#;

    fn parse(text: &str) -> Result<Parsed, JobError> {
        Job::parse(text, &BTreeMap::from([("who".to_owned(), "Bob".to_owned())]))
    }

    fn foreign(text: &str) -> Foreign {
        match parse(text).unwrap() {
            Parsed::Foreign(foreign) => foreign,
            Parsed::Native(job) => panic!("{job:?} is native"),
        }
    }

    fn paths(text: &str) -> Vec<String> {
        match parse(text).unwrap_err() {
            JobError::Invalid { problems } => problems.into_iter().map(|problem| problem.path).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn native_plugins_give_a_job_whose_echo_has_stars() {
        let Parsed::Native(job) = parse(STREAM).unwrap() else { panic!("not native") };
        assert_eq!((job.reader(), job.writer()), ("streamreader", "streamwriter"));
        assert!(job.echo().contains("Bob") && job.echo().contains("******"));
        assert!(!job.echo().contains("sekret") && !format!("{job:?}").contains("sekret"));
    }

    #[test]
    fn unknown_plugins_are_foreign_even_when_the_rest_is_wrong() {
        let foreign = foreign(&STREAM.replace("streamwriter", "hdfswriter").replace("\"$who\"", "[]"));
        assert_eq!((foreign.reader.as_str(), foreign.writer.as_str()), ("streamreader", "hdfswriter"));
        assert!(foreign.why[0].contains("hdfswriter"), "{foreign:?}");
    }

    #[test]
    fn transformers_and_handlers_are_foreign() {
        let with = STREAM.replace("\"reader\":", "\"transformer\": [{\"name\": \"dx_substr\"}], \"reader\":");
        assert!(foreign(&with).why[0].contains("transformer"));
        let with = STREAM.replace("\"setting\":", "\"preHandler\": {}, \"setting\":");
        assert!(foreign(&with).why[0].contains("preHandler"));
    }

    #[test]
    fn all_problems_come_at_once() {
        let text = STREAM.replace("\"channel\": 2", "\"channel\": 0").replace("true", "\"maybe\"");
        assert_eq!(paths(&text), ["job.setting.speed.channel", "job.content[0].writer.parameter.print"]);
    }

    #[test]
    fn text_that_is_no_definition_is_refused_with_a_place() {
        assert_eq!(paths("{\"job\": {\"setting\": {\"speed\": {\"channel\": 1}}}}")[0], "job.content");
        let error = parse("{\n \"job\": }").unwrap_err();
        let JobError::Json { source } = error else { panic!("{error:?}") };
        assert_eq!(source.line(), 2);
    }
}
