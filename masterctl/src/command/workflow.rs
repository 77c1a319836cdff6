//! Workflows: check, put in force, list.

use std::{fmt::Write as _, path::PathBuf};

use millrace_common::definition;
use millrace_proto::v1;
use serde_json::{Value, json};

use super::source::{self, Source};
use crate::{
    cli::{Format, Global, Page},
    client, diagnose,
    failure::Failure,
    output::{Printable, print, table, time, time_value},
};

pub(super) fn validate(paths: &[PathBuf], format: Format) -> Result<(), Failure> {
    let sources = source::read(paths)?;
    check(&sources)?;
    print(&Valid(&sources), format)?;
    Ok(())
}

/// Parses all documents; all problems of all of them are reported at once.
fn check(sources: &[Source]) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for Source { name, text } in sources {
        if let Err(rejected) = definition::parse(text) {
            reports.extend(diagnose::reports(name, text, &rejected));
        }
    }
    if reports.is_empty() { Ok(()) } else { Err(Failure::Input(reports)) }
}

struct Valid<'a>(&'a [Source]);

impl Printable for Valid<'_> {
    fn value(&self) -> Value {
        json!({ "valid": self.0.iter().map(|source| &source.name).collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for source in self.0 {
            let _ = writeln!(text, "{}: valid", source.name);
        }
        text
    }
}

pub(super) async fn apply(global: &Global, paths: &[PathBuf], dry_run: bool) -> Result<(), Failure> {
    let sources = source::read(paths)?;
    // Nothing is put in force unless everything is valid.
    check(&sources)?;
    let mut client = client::connect(global).await?;
    let mut applied = Vec::with_capacity(sources.len());
    for source in sources {
        let request = v1::ApplyWorkflowRequest { source: source.text, dry_run };
        applied.push(client.apply_workflow(request).await?.into_inner());
    }
    print(&Applied { applied, dry_run }, global.output)?;
    Ok(())
}

struct Applied {
    applied: Vec<v1::ApplyWorkflowResponse>,
    dry_run: bool,
}

impl Printable for Applied {
    fn value(&self) -> Value {
        let one = |applied: &v1::ApplyWorkflowResponse| {
            json!({
                "workflow": applied.name,
                "version": applied.version,
                "is_new": applied.is_new,
                "changed": applied.changed,
                "differences": applied.differences,
            })
        };
        json!({ "dry_run": self.dry_run, "workflows": self.applied.iter().map(one).collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for applied in &self.applied {
            let what = match (applied.is_new, applied.changed, self.dry_run) {
                (true, _, false) => "new",
                (true, _, true) => "would be new",
                (false, true, false) => "changed",
                (false, true, true) => "would change",
                (false, false, _) => "unchanged",
            };
            let _ = writeln!(text, "{}: {what}, version {}", applied.name, applied.version);
            for difference in &applied.differences {
                let _ = writeln!(text, "  {difference}");
            }
        }
        text
    }
}

pub(super) async fn list(global: &Global, page: Page) -> Result<(), Failure> {
    let mut client = client::connect(global).await?;
    let request = v1::ListWorkflowsRequest { page_size: page.limit, page_token: page.after };
    let listed = client.list_workflows(request).await?.into_inner();
    print(&Workflows(listed), global.output)?;
    Ok(())
}

struct Workflows(v1::ListWorkflowsResponse);

impl Printable for Workflows {
    fn value(&self) -> Value {
        json!({ "workflows": self.0.workflows.iter().map(summary_value).collect::<Vec<_>>(), "next": self.0.next_page_token })
    }

    fn text(&self) -> String {
        let rows = self.0.workflows.iter().map(|one| {
            vec![
                one.name.clone(),
                one.version.to_string(),
                one.tasks.to_string(),
                one.schedule.clone(),
                time(one.next_run_at),
                one.last_run_state.clone(),
                one.owner.clone(),
            ]
        });
        let header = ["workflow", "version", "tasks", "schedule", "next run", "last run", "owner"];
        with_next(table(&header, rows.collect()), &self.0.next_page_token)
    }
}

/// Adds how to get the next page, where there is one.
pub(super) fn with_next(mut text: String, token: &str) -> String {
    if !token.is_empty() {
        let _ = write!(text, "\nmore: --after {token}");
    }
    text
}

pub(super) fn summary_value(one: &v1::WorkflowSummary) -> Value {
    json!({
        "workflow": one.name,
        "version": one.version,
        "owner": one.owner,
        "schedule": one.schedule,
        "tasks": one.tasks,
        "applied_at": time_value(Some(one.applied_at)),
        "next_run_at": time_value(one.next_run_at),
        "last_run_state": one.last_run_state,
    })
}

/// A definition as it is in force.
pub(super) struct Definition(pub(super) v1::GetWorkflowResponse);

impl Printable for Definition {
    fn value(&self) -> Value {
        let summary = self.0.summary.as_ref().map_or(Value::Null, summary_value);
        json!({ "summary": summary, "source": self.0.source })
    }

    fn text(&self) -> String {
        let head = self.0.summary.as_ref().map_or_else(String::new, |one| {
            let next = time(one.next_run_at);
            let next = if next.is_empty() { String::new() } else { format!(", next run {next}") };
            format!("# {} version {}{next}\n", one.name, one.version)
        });
        format!("{head}{}", self.0.source)
    }
}
