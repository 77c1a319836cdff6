//! Pictures of a workflow: for the terminal, for Graphviz, for a browser.

use std::{fmt::Write as _, path::Path};

use millrace_common::{definition, id::RunId, workflow::Workflow};
use millrace_proto::v1;

use super::source::{self, Source};
use crate::{
    cli::{Global, Picture},
    client, diagnose,
    failure::Failure,
    output::emit,
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
    let picture = match format {
        Picture::Text => text(&shapes),
        Picture::Dot => dot(&shapes),
        Picture::Svg => svg(&shapes),
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
    let text = client.get_workflow(request).await?.into_inner().source;
    Ok(of_workflow(&parse(Source { name: what.to_owned(), text })?))
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
    let shape = |task: v1::TaskView| Shape {
        name: task.name,
        state: Some(task.state),
        upstream: task.upstream.iter().map(|up| *up as usize).collect(),
        rank: 0,
    };
    ranked(run.tasks.into_iter().map(shape).collect())
}

/// Gives each task the rank after the highest of its upstream; as many rounds as there are ranks.
fn ranked(mut shapes: Vec<Shape>) -> Vec<Shape> {
    for _ in 0..shapes.len() {
        let mut has_moved = false;
        for at in 0..shapes.len() {
            let above = shapes[at].upstream.iter().filter_map(|up| shapes.get(*up)).map(|up| up.rank + 1);
            let rank = above.max().unwrap_or(0);
            has_moved |= rank != shapes[at].rank;
            shapes[at].rank = rank;
        }
        if !has_moved {
            break;
        }
    }
    shapes
}

fn by_rank(shapes: &[Shape]) -> Vec<&Shape> {
    let mut ordered: Vec<&Shape> = shapes.iter().collect();
    ordered.sort_by_key(|shape| shape.rank);
    ordered
}

fn text(shapes: &[Shape]) -> String {
    let ordered = by_rank(shapes);
    let width = ordered.iter().map(|shape| shape.name.chars().count()).max().unwrap_or(0);
    let mut picture = String::new();
    for (at, shape) in ordered.iter().enumerate() {
        let is_last = ordered.get(at + 1).is_none_or(|next| next.rank != shape.rank);
        let is_first = at == 0 || ordered[at - 1].rank != shape.rank;
        let corner = match (is_first, is_last) {
            (true, true) => "─",
            (true, false) => "┌",
            (false, true) => "└",
            (false, false) => "├",
        };
        let state = shape.state.as_ref().map_or_else(String::new, |state| format!("  {state:<16}"));
        let upstream: Vec<&str> =
            shape.upstream.iter().filter_map(|up| shapes.get(*up)).map(|up| up.name.as_str()).collect();
        let after =
            if upstream.is_empty() { String::new() } else { format!("  ← {}", upstream.join(", ")) };
        let line = format!("{:>3} {corner} {:<width$}{state}{after}", shape.rank + 1, shape.name);
        let _ = writeln!(picture, "{}", line.trim_end());
    }
    picture
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

/// Height of a box, and the gaps between boxes, in pixels.
const BOX_HEIGHT: usize = 36;
const GAP: (usize, usize) = (60, 20);
/// Width of a character of a name, and of the shortest box, in pixels.
const CHAR_WIDTH: usize = 8;
const BOX_WIDTH_MIN: usize = 100;

/// Where the boxes of a picture are.
struct Layout {
    box_width: usize,
    places: Vec<(usize, usize)>,
    width: usize,
    height: usize,
}

fn layout(shapes: &[Shape]) -> Layout {
    let longest = shapes.iter().map(|shape| shape.name.chars().count()).max().unwrap_or(0);
    let box_width = (longest * CHAR_WIDTH + 2 * CHAR_WIDTH).max(BOX_WIDTH_MIN);
    let mut rows: Vec<usize> = Vec::new();
    let mut place = |shape: &Shape| {
        if rows.len() <= shape.rank {
            rows.resize(shape.rank + 1, 0);
        }
        let row = rows[shape.rank];
        rows[shape.rank] += 1;
        (GAP.0 + shape.rank * (box_width + GAP.0), GAP.1 + row * (BOX_HEIGHT + GAP.1))
    };
    let places = shapes.iter().map(&mut place).collect();
    let width = rows.len() * (box_width + GAP.0) + GAP.0;
    let height = rows.iter().max().unwrap_or(&0) * (BOX_HEIGHT + GAP.1) + GAP.1;
    Layout { box_width, places, width, height }
}

/// Names need no escaping: they are made of letters, digits, '_' and '-'.
fn svg(shapes: &[Shape]) -> String {
    let Layout { box_width, places, width, height } = layout(shapes);
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n"
    );
    for (shape, to) in shapes.iter().zip(&places) {
        for (from_x, from_y) in shape.upstream.iter().filter_map(|up| places.get(*up)) {
            edge(&mut picture, (from_x + box_width, *from_y), *to);
        }
    }
    for (shape, (x, y)) in shapes.iter().zip(&places) {
        let state = shape.state.as_ref().map_or_else(String::new, |state| format!(" ({state})"));
        let (name, color) = (&shape.name, fill(shape.state.as_deref()));
        let (middle, base) = (x + box_width / 2, y + BOX_HEIGHT / 2 + 5);
        let _ = writeln!(
            picture,
            "  <g><title>{name}{state}</title><rect x=\"{x}\" y=\"{y}\" width=\"{box_width}\" height=\"{BOX_HEIGHT}\" rx=\"4\" fill=\"{color}\" stroke=\"#444\"/><text x=\"{middle}\" y=\"{base}\" text-anchor=\"middle\">{name}</text></g>",
        );
    }
    picture.push_str("</svg>\n");
    picture
}

/// Draws a line between two boxes, from the right side of one to the left side of the other.
fn edge(picture: &mut String, (from_x, from_y): (usize, usize), (to_x, to_y): (usize, usize)) {
    let (start_y, end_y) = (from_y + BOX_HEIGHT / 2, to_y + BOX_HEIGHT / 2);
    let (leave, arrive) = (from_x + GAP.0 / 2, to_x.saturating_sub(GAP.0 / 2));
    let _ = writeln!(
        picture,
        "  <path d=\"M{from_x},{start_y} C{leave},{start_y} {arrive},{end_y} {to_x},{end_y}\" fill=\"none\" stroke=\"#888\"/>",
    );
}

fn fill(state: Option<&str>) -> &'static str {
    match state {
        Some("success") => "#cfe8cf",
        Some("failed" | "upstream_failed") => "#f3c6c6",
        Some("active") => "#cfe0f3",
        Some("up_for_retry") => "#f3e3c0",
        Some(_) => "#eeeeee",
        None => "#ffffff",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diamond() -> Vec<Shape> {
        let text = "workflow: w\ntasks:\n  a: { kind: shell, with: { command: [x] } }\n  b: { kind: shell, after: a, with: { command: [x] } }\n  c: { kind: shell, after: a, with: { command: [x] } }\n  d: { kind: shell, after: [b, c], with: { command: [x] } }\n";
        of_workflow(&definition::parse(text).unwrap())
    }

    #[test]
    fn the_terminal_shows_ranks_and_what_comes_before() {
        assert_eq!(text(&diamond()), "  1 ─ a\n  2 ┌ b  ← a\n  2 └ c  ← a\n  3 ─ d  ← b, c\n");
    }

    #[test]
    fn graphviz_gets_every_edge() {
        let picture = dot(&diamond());
        for edge in ["\"a\" -> \"b\"", "\"a\" -> \"c\"", "\"b\" -> \"d\"", "\"c\" -> \"d\""] {
            assert!(picture.contains(edge), "{edge} is missing in {picture}");
        }
    }

    #[test]
    fn a_browser_gets_a_box_for_each_task() {
        let picture = svg(&diamond());
        assert_eq!(picture.matches("<rect").count(), 4);
        assert_eq!(picture.matches("<path").count(), 4);
    }
}
