//! Pictures of a workflow: for the terminal, for Graphviz, for a browser.

mod svg;
mod text;

use std::{fmt::Write as _, path::Path};

use millrace_common::{definition, id::RunId, workflow::Workflow};
use millrace_proto::v1;
use serde_json::{Value, json};

use super::{
    source::{self, Source},
    workflow::with_nearest,
};
use crate::{
    cli::{Format, Global, Picture},
    client, diagnose,
    failure::Failure,
    output::{emit, written},
};

/// A task of a picture.
struct Shape {
    name: String,
    state: Option<String>,
    upstream: Vec<usize>,
    /// Longest way from a task without upstream.
    rank: usize,
}

pub(super) async fn draw(global: &Global, what: &str, format: Picture) -> Result<(), Failure> {
    let shapes = shapes(global, what).await?;
    let picture = match (format, global.output) {
        (Picture::Text, Format::Json | Format::Yaml) => written(&value(&shapes), global.output)?,
        (Picture::Text, Format::Table) => text::draw(&shapes),
        (Picture::Dot, _) => dot(&shapes),
        (Picture::Svg, _) => svg::draw(&shapes),
    };
    emit(picture.as_bytes())?;
    Ok(())
}

async fn shapes(global: &Global, what: &str) -> Result<Vec<Shape>, Failure> {
    if what == "-" || Path::new(what).is_file() {
        return Ok(of_workflow(&parse(source::read_one(Path::new(what))?)?));
    }
    let mut client = client::connect(global).await?;
    if what.parse::<RunId>().is_ok() {
        return Ok(of_run(client.get_run(v1::GetRunRequest { run: what.to_owned() }).await?.into_inner()));
    }
    let request = v1::GetWorkflowRequest { name: what.to_owned(), version: 0 };
    match client.get_workflow(request).await {
        Ok(found) => {
            let text = found.into_inner().source;
            Ok(of_workflow(&parse(Source { name: what.to_owned(), text })?))
        }
        Err(status) => Err(with_nearest(&mut client, what, status).await),
    }
}

fn parse(source: Source) -> Result<Workflow, Failure> {
    let Source { name, text } = source;
    definition::parse(&text).map_err(|rejected| Failure::Input(diagnose::reports(&name, &text, &rejected)))
}

fn of_workflow(workflow: &Workflow) -> Vec<Shape> {
    let shape = |(index, task): (u32, &millrace_common::workflow::Task)| Shape {
        name: task.name.to_string(),
        state: None,
        upstream: workflow.graph.upstream(index).iter().map(|up| *up as usize).collect(),
        rank: 0,
    };
    ranked((0..).zip(&workflow.tasks).map(shape).collect())
}

fn of_run(run: v1::GetRunResponse) -> Vec<Shape> {
    let count = run.tasks.len();
    let shape = |task: v1::TaskView| Shape {
        name: task.name,
        state: Some(task.state),
        upstream: task.upstream.iter().map(|up| *up as usize).filter(|up| *up < count).collect(),
        rank: 0,
    };
    ranked(run.tasks.into_iter().map(shape).collect())
}

/// Gives each task the rank after the highest of its upstream.
fn ranked(mut shapes: Vec<Shape>) -> Vec<Shape> {
    for at in order(&shapes) {
        let above = shapes[at].upstream.iter().map(|up| shapes[*up].rank + 1);
        shapes[at].rank = above.max().unwrap_or(0);
    }
    shapes
}

/// Returns the tasks below each.
fn downstream(shapes: &[Shape]) -> Vec<Vec<usize>> {
    let mut downstream = vec![Vec::new(); shapes.len()];
    for (at, shape) in shapes.iter().enumerate() {
        for up in &shape.upstream {
            downstream[*up].push(at);
        }
    }
    downstream
}

/// Returns all tasks with each after its upstream, following a branch to its end before the next one begins.
fn order(shapes: &[Shape]) -> Vec<usize> {
    let downstream = downstream(shapes);
    let mut waits_for: Vec<usize> = shapes.iter().map(|shape| shape.upstream.len()).collect();
    let mut ready: Vec<usize> = (0..shapes.len()).rev().filter(|at| waits_for[*at] == 0).collect();
    let mut order = Vec::with_capacity(shapes.len());
    while let Some(at) = ready.pop() {
        order.push(at);
        for down in downstream[at].iter().rev() {
            waits_for[*down] -= 1;
            if waits_for[*down] == 0 {
                ready.push(*down);
            }
        }
    }
    order
}

fn value(shapes: &[Shape]) -> Value {
    let task = |shape: &Shape| {
        let upstream: Vec<&str> = shape.upstream.iter().map(|up| shapes[*up].name.as_str()).collect();
        json!({ "task": shape.name, "state": shape.state, "upstream": upstream })
    };
    json!({ "tasks": shapes.iter().map(task).collect::<Vec<_>>() })
}

fn dot(shapes: &[Shape]) -> String {
    let mut picture = String::from("digraph workflow {\n  rankdir=LR;\n  node [shape=box];\n");
    for shape in shapes {
        let state = shape.state.as_ref().map_or_else(String::new, |state| format!("\\n{state}"));
        let _ = writeln!(picture, "  \"{0}\" [label=\"{0}{state}\"];", shape.name);
        for up in shape.upstream.iter().filter_map(|up| shapes.get(*up)) {
            let _ = writeln!(picture, "  \"{}\" -> \"{}\";", up.name, shape.name);
        }
    }
    picture.push_str("}\n");
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes tasks of their names and what they come after.
    pub(super) fn workflow(tasks: &[(&str, &[&str])]) -> Vec<Shape> {
        let mut text = "workflow: w\ntasks:\n".to_owned();
        for (name, after) in tasks {
            let after = after.join(", ");
            let _ = writeln!(text, "  {name}: {{ kind: shell, after: [{after}], with: {{ command: [x] }} }}");
        }
        of_workflow(&definition::parse(&text).unwrap())
    }

    pub(super) fn diamond() -> Vec<Shape> {
        workflow(&[("d", &["b", "c"]), ("a", &[]), ("b", &["a"]), ("c", &["a"])])
    }

    #[test]
    fn a_rank_is_the_longest_way_to_a_task() {
        let shapes = workflow(&[("c", &["a", "b"]), ("b", &["a"]), ("a", &[]), ("z", &[])]);
        let ranks: Vec<(&str, usize)> =
            shapes.iter().map(|shape| (shape.name.as_str(), shape.rank)).collect();
        assert_eq!(ranks, [("c", 2), ("b", 1), ("a", 0), ("z", 0)]);
    }

    #[test]
    fn programs_get_names() {
        let value = value(&workflow(&[("a", &[]), ("b", &["a"])]));
        assert_eq!(value["tasks"][1], json!({ "task": "b", "state": null, "upstream": ["a"] }));
    }

    #[test]
    fn graphviz_gets_every_edge() {
        let picture = dot(&diamond());
        for edge in ["\"a\" -> \"b\"", "\"a\" -> \"c\"", "\"b\" -> \"d\"", "\"c\" -> \"d\""] {
            assert!(picture.contains(edge), "{edge} is missing in {picture}");
        }
    }
}
