//! Workflows: check, put in force, list.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use miette::Report;
use millrace_common::{
    definition::{self, Rejected},
    id::WorkflowName,
    nearest::nearest,
};
use millrace_proto::v1;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::source::{self, Source};
use crate::{
    cli::{Format, Global, Page},
    client::{self, Client},
    diagnose,
    failure::Failure,
    output::{Printable, one_line, print, table, time, time_value},
};

pub(super) fn validate(paths: &[PathBuf], format: Format) -> Result<(), Failure> {
    let sources = source::read(paths)?;
    let checked = Checked::of(&sources);
    let reports = checked.reports();
    if !reports.is_empty() {
        return refused(&checked, reports, format);
    }
    print(&checked, format)?;
    Ok(())
}

/// Programs get the problems where they look for an answer, people where they look for problems.
fn refused(checked: &Checked<'_>, reports: Vec<Report>, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => Err(Failure::Input(reports)),
        Format::Json | Format::Yaml => {
            print(checked, format)?;
            Err(Failure::Unsuccessful)
        }
    }
}

/// What became of documents; all problems of all of them are told at once.
struct Checked<'a> {
    valid: Vec<&'a str>,
    rejected: Vec<(&'a Source, Rejected)>,
    /// Workflows that a second document defines: which, and the two documents.
    twice: Vec<(WorkflowName, &'a str, &'a str)>,
}

impl<'a> Checked<'a> {
    fn of(sources: &'a [Source]) -> Self {
        let mut checked = Self { valid: Vec::new(), rejected: Vec::new(), twice: Vec::new() };
        let mut first = BTreeMap::new();
        for source in sources {
            match definition::parse(&source.text) {
                Ok(workflow) => match first.get(&workflow.name).copied() {
                    Some(other) => checked.twice.push((workflow.name, other, source.name.as_str())),
                    None => {
                        first.insert(workflow.name, source.name.as_str());
                        checked.valid.push(&source.name);
                    }
                },
                Err(rejected) => checked.rejected.push((source, rejected)),
            }
        }
        checked
    }

    fn reports(&self) -> Vec<Report> {
        let rejected = self.rejected.iter();
        let mut reports: Vec<Report> =
            rejected.flat_map(|(source, one)| diagnose::reports(&source.name, &source.text, one)).collect();
        reports.extend(self.twice.iter().map(|(workflow, first, second)| {
            let message = format!("workflow {workflow} is defined twice: in {first} and in {second}");
            diagnose::plain(message, Some("keep one of the two, or rename the other"))
        }));
        reports
    }
}

impl Printable for Checked<'_> {
    fn value(&self) -> Value {
        let rejected = self.rejected.iter().flat_map(|(source, rejected)| {
            rejected.problems.iter().map(|problem| {
                json!({
                    "file": source.name,
                    "line": problem.line,
                    "column": problem.column,
                    "message": problem.message,
                    "found": problem.found,
                    "hint": problem.hint,
                })
            })
        });
        let twice = self.twice.iter().map(|(workflow, first, second)| {
            json!({
                "file": second,
                "line": Value::Null,
                "column": Value::Null,
                "message": format!("workflow {workflow} is defined in {first} as well"),
                "found": Value::Null,
                "hint": "keep one of the two, or rename the other",
            })
        });
        json!({ "valid": self.valid, "problems": rejected.chain(twice).collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for name in &self.valid {
            let _ = writeln!(text, "{name}: valid");
        }
        text
    }
}

pub(super) async fn apply(global: &Global, paths: &[PathBuf], dry_run: bool) -> Result<(), Failure> {
    let sources = source::read(paths)?;
    // Nothing is put in force unless everything is valid.
    let checked = Checked::of(&sources);
    let reports = checked.reports();
    if !reports.is_empty() {
        return refused(&checked, reports, global.output);
    }
    let mut client = client::connect(global).await?;
    let mut applied = Vec::with_capacity(sources.len());
    let mut failure = None;
    for Source { name, text } in sources {
        let request = v1::ApplyWorkflowRequest { source: text, dry_run };
        match client.apply_workflow(request).await {
            Ok(answer) => applied.push(answer.into_inner()),
            Err(status) => {
                failure = Some(Failure::At(name, Box::new(status.into())));
                break;
            }
        }
    }
    // What is in force by now is told, whatever came after.
    if failure.is_none() || !applied.is_empty() {
        print(&Applied { applied, dry_run }, global.output)?;
    }
    failure.map_or(Ok(()), Err)
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
                let _ = writeln!(text, "  {}", one_line(difference));
            }
        }
        text
    }
}

/// Workflows among which the one that was meant is looked for.
const CANDIDATES_MAX: u32 = 500;

/// Adds to "there is no such workflow" which one was probably meant.
pub(super) async fn with_nearest(client: &mut Client, name: &str, status: Status) -> Failure {
    if status.code() != Code::NotFound {
        return status.into();
    }
    let request = v1::ListWorkflowsRequest { page_size: CANDIDATES_MAX, page_token: String::new() };
    let Ok(listed) = client.list_workflows(request).await else { return status.into() };
    let listed = listed.into_inner().workflows;
    let hint = match nearest(name, listed.iter().map(|one| one.name.as_str())) {
        Some(near) => format!("did you mean {near}?"),
        None => "`masterctl list` shows those that there are".to_owned(),
    };
    Failure::Refused(Status::not_found(format!("{}; {hint}", status.message())))
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
        let workflows: Vec<Value> = self.0.workflows.iter().map(summary_value).collect();
        json!({ "workflows": workflows, "next": self.0.next_page_token })
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
        let mut text = table(&header, &["owner", "version", "tasks", "schedule", "next run"], rows.collect());
        for one in self.0.workflows.iter().filter(|one| !one.problem.is_empty()) {
            let _ = writeln!(text, "{}: {}", one.name, one_line(&one.problem));
        }
        with_next(text, &self.0.next_page_token)
    }
}

/// Adds how to get the next page, where there is one.
pub(super) fn with_next(mut text: String, token: &str) -> String {
    if !token.is_empty() {
        let _ = writeln!(text, "more: --after {token}");
    }
    text
}

fn summary_value(one: &v1::WorkflowSummary) -> Value {
    json!({
        "workflow": one.name,
        "version": one.version,
        "owner": one.owner,
        "schedule": one.schedule,
        "tasks": one.tasks,
        "applied_at": time_value(Some(one.applied_at)),
        "next_run_at": time_value(one.next_run_at),
        "last_run_state": one.last_run_state,
        "problem": one.problem,
    })
}

/// A definition as it is in force.
pub(super) struct Definition(pub(super) v1::GetWorkflowResponse);

impl Printable for Definition {
    fn value(&self) -> Value {
        let one = self.0.summary.clone().unwrap_or_default();
        json!({
            "workflow": one.name,
            "version": one.version,
            "owner": one.owner,
            "schedule": one.schedule,
            "tasks": one.tasks,
            "applied_at": time_value(Some(one.applied_at)),
            "problem": one.problem,
            "source": self.0.source,
        })
    }

    fn text(&self) -> String {
        let head = self.0.summary.as_ref().map_or_else(String::new, |one| {
            let problem = match one.problem.as_str() {
                "" => String::new(),
                problem => format!("# {}\n", one_line(problem)),
            };
            format!(
                "# {} version {}, applied {}\n{problem}",
                one.name,
                one.version,
                time(Some(one.applied_at))
            )
        });
        format!("{head}{}", self.0.source)
    }
}
