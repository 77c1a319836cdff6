//! A figure beside its limit, its floor and its goal.
#![expect(clippy::print_stdout, reason = "the benchmark's output is for a person")]

use serde::Serialize;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One measured figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// Which work, such as `W1`.
    pub(crate) work: &'static str,
    /// What it is, with its unit.
    pub(crate) what: String,
    /// The figure that is compared with floor and goal.
    pub(crate) value: f64,
    /// What the machine can do, in the same run.
    pub(crate) limit: Option<f64>,
    /// Below this (or above) a release is not good enough.
    pub(crate) floor: Option<f64>,
    /// What we aim at.
    pub(crate) goal: Option<f64>,
    /// Which way is better.
    pub(crate) better: Better,
    /// What it was made of.
    pub(crate) note: String,
}

impl Figure {
    fn meets(&self, bound: f64) -> bool {
        match self.better {
            Better::Higher => self.value >= bound,
            Better::Lower => self.value <= bound,
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.floor, self.goal) {
            (_, Some(goal)) if self.meets(goal) => "goal",
            (Some(floor), _) if self.meets(floor) => "floor",
            (Some(_), _) => "BELOW",
            (None, _) => "",
        }
    }
}

/// Prints the figures as a table.
pub(crate) fn print(figures: &[Figure]) {
    println!(
        "{:<11}{:<46}{:>10}{:>10}{:>9}{:>9}  {:<6} note",
        "work", "figure", "value", "limit", "floor", "goal", "met"
    );
    for figure in figures {
        let bound = |bound: Option<f64>| bound.map(short).unwrap_or_default();
        println!(
            "{:<11}{:<46}{:>10}{:>10}{:>9}{:>9}  {:<6} {}",
            figure.work,
            figure.what,
            short(figure.value),
            bound(figure.limit),
            bound(figure.floor),
            bound(figure.goal),
            figure.verdict(),
            figure.note,
        );
    }
}

fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
