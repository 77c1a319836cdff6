//! Reading definitions and resolving graphs, in this process.

use std::{fmt::Write as _, hint::black_box, time::Instant};

use anyhow::Context;
use millrace_common::{definition, graph::Graph};

use crate::{figure::Figure, statistics::median};

/// Tasks of the definition: the most that a document may have.
const TASKS: u32 = 10_000;
/// Nodes of the graph, with three edges each.
const NODES: u32 = 100_000;

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn timed<T>(rounds: u32, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    black_box(work()?);
    let mut samples = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        black_box(work()?);
        samples.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(median(&mut samples))
}

pub(crate) fn figures(rounds: u32) -> anyhow::Result<Vec<Figure>> {
    let text = document();
    let validate =
        timed(rounds, || definition::parse(&text).context("the definition of the benchmark is valid"))?;
    let edges = edges();
    let resolve = timed(rounds, || {
        Graph::new(NODES as usize, &edges)
            .map_err(|cycle| anyhow::anyhow!("the graph has a cycle: {cycle:?}"))
    })?;
    Ok(vec![
        Figure::lower("definition", "validate 10,000 tasks, ms", validate)
            .bounds(150.0, 50.0)
            .note(format!("{} KiB of YAML", text.len() / 1_024)),
        Figure::lower("definition", "resolve 100,000 nodes, ms", resolve)
            .bounds(500.0, 60.0)
            .note(format!("{} edges", edges.len())),
    ])
}

fn document() -> String {
    let mut text = String::from("workflow: wide\ntasks:\n");
    for at in 0..TASKS {
        let after = match at {
            0 => String::new(),
            1 | 2 => format!("    after: [t{}]\n", at - 1),
            _ => format!("    after: [t{}, t{}]\n", at - 1, at / 2),
        };
        let _ = write!(
            text,
            "  t{at}:\n    kind: shell\n{after}    with:\n      command: [/bin/echo, \"{{{{ ds }}}}\", row-{at}]\n      env: {{ REGION: north }}\n"
        );
    }
    text
}

fn edges() -> Vec<(u32, u32)> {
    (1..NODES).flat_map(|at| [at / 2, at / 3, at - 1].map(|up| (up, at))).filter(|(up, at)| up < at).collect()
}
