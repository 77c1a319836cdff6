//! What came of the scenarios, for a terminal and for the committed table.

use std::fmt::Write as _;

use crate::{scenario::Scenario, scenarios::ALL, scene::seconds};

/// How a scenario went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// What was wrong.
    Failed(Vec<String>),
    /// Why it could not run.
    NotRun(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) injected: &'static str,
    pub(crate) measured: Vec<(String, String)>,
    pub(crate) verdict: Verdict,
    pub(crate) took: u64,
}

impl Outcome {
    pub(crate) const fn of(scenario: &Scenario) -> Self {
        let Scenario { id, title, injected, .. } = *scenario;
        Self { id, title, injected, measured: Vec::new(), verdict: Verdict::Passed, took: 0 }
    }

    pub(crate) fn not_run(scenario: &Scenario, reason: &str) -> Self {
        Self { verdict: Verdict::NotRun(reason.to_owned()), ..Self::of(scenario) }
    }

    pub(crate) fn fail(&mut self, what: String) {
        match &mut self.verdict {
            Verdict::Failed(wrong) => wrong.push(what),
            Verdict::Passed | Verdict::NotRun(_) => self.verdict = Verdict::Failed(vec![what]),
        }
    }

    pub(crate) const fn is_good(&self) -> bool {
        matches!(self.verdict, Verdict::Passed)
    }

    pub(crate) const fn is_failed(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(_))
    }

    const fn word(&self) -> &'static str {
        match self.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed(_) => "FAILED",
            Verdict::NotRun(_) => "not run",
        }
    }

    fn figures(&self, separator: &str) -> String {
        let figure = |(what, value): &(String, String)| format!("{what} {value}");
        self.measured.iter().map(figure).collect::<Vec<_>>().join(separator)
    }

    /// Returns what a person at a terminal is shown.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{} {}: {} in {}\n", self.id, self.title, self.word(), seconds(self.took));
        let _ = writeln!(text, "    injected: {}", self.injected);
        if !self.measured.is_empty() {
            let _ = writeln!(text, "    measured: {}", self.figures(", "));
        }
        match &self.verdict {
            Verdict::Passed => {}
            Verdict::Failed(wrong) => wrong.iter().for_each(|what| {
                let _ = writeln!(text, "    WRONG: {what}");
            }),
            Verdict::NotRun(reason) => {
                let _ = writeln!(text, "    not run: {reason}");
            }
        }
        text
    }

    fn row(&self, circumstances: &Circumstances) -> String {
        let verdict = match &self.verdict {
            Verdict::Passed => "passed".to_owned(),
            Verdict::Failed(wrong) => format!("**failed**: {}", wrong.first().map_or("", String::as_str)),
            Verdict::NotRun(reason) => format!("not run: {reason}"),
        };
        let cell = |text: &str| text.replace('|', "\\|");
        format!(
            "| {} | {} | {} | {} | {} | {}, {:#x} |\n",
            self.id,
            cell(self.title),
            cell(self.injected),
            cell(&self.figures("; ")),
            cell(&verdict),
            circumstances.commit,
            circumstances.seed
        )
    }
}

/// Returns the closing line of a run.
pub(crate) fn summary(outcomes: &[Outcome]) -> String {
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    let not_run = |outcome: &Outcome| matches!(outcome.verdict, Verdict::NotRun(_));
    format!(
        "{} passed, {} failed, {} not run",
        count(Outcome::is_good),
        count(Outcome::is_failed),
        count(not_run)
    )
}

/// Where and when a table was made.
#[derive(Debug)]
pub(crate) struct Circumstances {
    pub(crate) date: String,
    pub(crate) machine: String,
    pub(crate) commit: String,
    pub(crate) seed: u64,
}

/// Returns the page with the table: the rows of `before`, those that were run now replaced, in the order of the list.
pub(crate) fn page(before: &str, outcomes: &[Outcome], circumstances: &Circumstances) -> String {
    let Circumstances { date, machine, commit, seed } = circumstances;
    let mut text = format!(
        "# Results of the fault rig\n\n\
         Written by `cargo xtask faults --out docs/faults.md`; how it works is in `CONTRIBUTING.md`.\n\n\
         - Last run: {date}, of commit {commit}, with seed {seed:#x}\n- Machine: {machine}\n- Result of that run: {}\n\n\
         Times are from the fault to what is named; a fail-over ends with the committed claim of the next leader.\n\
         An attempt that is tried again failed by itself, as some are made to, unless the row says otherwise.\n\
         The gap is from the last sign of an attempt to the first of the next one of the same task instance.\n\n\
         | | Scenario | Injected | Measured | Verdict | Commit and seed |\n|---|---|---|---|---|---|\n",
        summary(outcomes)
    );
    for scenario in ALL {
        let beginning = format!("| {} |", scenario.id);
        match outcomes.iter().find(|outcome| outcome.id == scenario.id) {
            Some(outcome) => text.push_str(&outcome.row(circumstances)),
            None => before.lines().filter(|line| line.starts_with(&beginning)).for_each(|line| {
                text.push_str(line);
                text.push('\n');
            }),
        }
    }
    text
}
