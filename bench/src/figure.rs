//! A figure beside its limit, its floor, its goal, and the load of the machine.
#![expect(clippy::print_stdout, reason = "the benchmark's output is for a person")]

use serde::Serialize;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One figure, measured or not.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// Which work, such as `W1`.
    pub(crate) work: &'static str,
    /// What it is, with its unit.
    pub(crate) what: String,
    /// The figure that is compared with floor and goal; absent where it could not be taken, and the note says why.
    pub(crate) value: Option<f64>,
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
    /// Processes that wanted a processor in the last minute, right after: what else the machine was busy with.
    pub(crate) load_average: Option<f64>,
}

impl Figure {
    /// Begins one of which less is better.
    pub(crate) fn lower(work: &'static str, what: impl Into<String>, value: f64) -> Self {
        Self::new(work, what.into(), Some(value), Better::Lower)
    }

    /// Begins one of which more is better.
    pub(crate) fn higher(work: &'static str, what: impl Into<String>, value: f64) -> Self {
        Self::new(work, what.into(), Some(value), Better::Higher)
    }

    /// Says why there is no figure.
    pub(crate) fn not_taken(work: &'static str, reason: &str) -> Self {
        Self::new(work, "not measured".to_owned(), None, Better::Lower).note(reason)
    }

    fn new(work: &'static str, what: String, value: Option<f64>, better: Better) -> Self {
        let (limit, floor, goal, note) = (None, None, None, String::new());
        Self { work, what, value, limit, floor, goal, better, note, load_average: load_average() }
    }

    /// Sets what the machine can do.
    pub(crate) fn limit(self, limit: f64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Sets what a release must reach, and what we aim at.
    pub(crate) fn bounds(self, floor: f64, goal: f64) -> Self {
        Self { floor: Some(floor), goal: Some(goal), ..self }
    }

    /// Sets what we aim at, where a release need not reach anything.
    pub(crate) fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Says what it was made of.
    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn meets(&self, bound: f64) -> bool {
        self.value.is_some_and(|value| match self.better {
            Better::Higher => value >= bound,
            Better::Lower => value <= bound,
        })
    }

    fn verdict(&self) -> &'static str {
        match (self.value, self.floor, self.goal) {
            (None, ..) => "-",
            (_, _, Some(goal)) if self.meets(goal) => "goal",
            (_, Some(floor), _) if self.meets(floor) => "floor",
            (_, Some(_), _) => "BELOW",
            (_, None, _) => "",
        }
    }
}

fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Prints the figures as a table.
pub(crate) fn print(figures: &[Figure]) {
    println!(
        "{:<11}{:<50}{:>10}{:>10}{:>9}{:>9}  {:<6}{:>6}  note",
        "work", "figure", "value", "limit", "floor", "goal", "met", "load"
    );
    for figure in figures {
        let shown = |value: Option<f64>| value.map(short).unwrap_or_default();
        println!(
            "{:<11}{:<50}{:>10}{:>10}{:>9}{:>9}  {:<6}{:>6}  {}",
            figure.work,
            figure.what,
            shown(figure.value),
            shown(figure.limit),
            shown(figure.floor),
            shown(figure.goal),
            figure.verdict(),
            figure.load_average.map(|load| format!("{load:.1}")).unwrap_or_default(),
            figure.note,
        );
    }
}

fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
