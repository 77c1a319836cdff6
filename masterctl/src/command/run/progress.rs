//! A run as it moves, on standard error, so that standard output stays clean.
//!
//! In a terminal it is a picture that moves; elsewhere, as in the log of a CI system, a line for each thing that a person
//! would want to know later; for programs nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use millrace_common::state::{RunState, TaskState};
use millrace_proto::v1;

use crate::{cli::Format, output};

/// Tasks that get a line of their own; larger runs are counted.
const LINES_MAX: usize = 30;
/// How often the picture moves while nothing changes.
const FRAME: Duration = Duration::from_millis(100);
/// Parts of a run after each of which a line is written.
const PARTS: usize = 10;

/// How a run is shown while it is waited for.
pub(super) enum Progress {
    Picture(Picture),
    Lines(Lines),
    Nothing,
}

impl Progress {
    pub(super) fn new(run: &str, format: Format) -> Self {
        if std::io::stderr().is_terminal() {
            Self::Picture(Picture::new(run))
        } else if format == Format::Table {
            Self::Lines(Lines::default())
        } else {
            Self::Nothing
        }
    }

    /// Says something without disturbing the picture.
    pub(super) fn say(&self, text: &str) {
        match self {
            // Nobody can be told that standard error is gone.
            Self::Picture(picture) => drop(picture.all.println(text)),
            Self::Lines(_) | Self::Nothing => output::say(text),
        }
    }

    pub(super) fn update(&mut self, view: &v1::GetRunResponse) {
        match self {
            Self::Picture(picture) => picture.update(view),
            Self::Lines(lines) => lines.news(view).iter().for_each(|line| output::say(line)),
            Self::Nothing => {}
        }
    }
}

fn state_of(task: &v1::TaskView) -> Option<TaskState> {
    task.state.parse().ok()
}

fn ended(view: &v1::GetRunResponse) -> usize {
    view.tasks.iter().filter(|task| state_of(task).is_some_and(TaskState::is_final)).count()
}

/// Lines that move.
pub(super) struct Picture {
    run: String,
    all: MultiProgress,
    total: ProgressBar,
    lines: BTreeMap<u32, ProgressBar>,
}

impl Picture {
    fn new(run: &str) -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::no_length());
        if let Ok(style) = ProgressStyle::with_template("{pos}/{len} {wide_bar} {elapsed} {msg}") {
            total.set_style(style);
        }
        total.enable_steady_tick(FRAME);
        Self { run: run.to_owned(), all, total, lines: BTreeMap::new() }
    }

    fn update(&mut self, view: &v1::GetRunResponse) {
        self.total.set_length(view.tasks.len() as u64);
        self.total.set_position(ended(view) as u64);
        if let Some(run) = &view.run {
            if run.state == RunState::Queued.as_str() && self.total.message().is_empty() {
                let why = format!("it waits for its turn: `masterctl explain {}` says why", self.run);
                drop(self.all.println(why));
            }
            self.total.set_message(run.state.clone());
        }
        if view.tasks.len() > LINES_MAX {
            return;
        }
        for task in &view.tasks {
            let line = self.lines.entry(task.index).or_insert_with(|| {
                let line = self.all.add(ProgressBar::new_spinner().with_prefix(task.name.clone()));
                if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix} {msg}") {
                    line.set_style(style);
                }
                line
            });
            line.set_message(task.state.clone());
            match state_of(task) {
                Some(state) if state.is_final() => line.finish(),
                Some(TaskState::Active) => line.enable_steady_tick(FRAME),
                Some(_) | None => line.tick(),
            }
        }
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // The table that follows says the same, for good.
        for line in self.lines.values() {
            line.finish_and_clear();
        }
        self.total.finish_and_clear();
    }
}

/// What was said already.
#[derive(Debug, Default)]
pub(super) struct Lines {
    state: String,
    parts: usize,
    failed: BTreeSet<u32>,
}

impl Lines {
    /// Returns what is new since the last view.
    fn news(&mut self, view: &v1::GetRunResponse) -> Vec<String> {
        let (ended, total) = (ended(view), view.tasks.len());
        let state = view.run.as_ref().map(|run| run.state.clone()).unwrap_or_default();
        let parts = ended * PARTS / total.max(1);
        let mut news = Vec::new();
        for task in view.tasks.iter().filter(|task| state_of(task) == Some(TaskState::Failed)) {
            if self.failed.len() < LINES_MAX && self.failed.insert(task.index) {
                let reason = task.attempts.last().map(|last| output::one_line(&last.reason));
                news.push(format!("task {} failed: {}", task.name, reason.unwrap_or_default()));
            }
        }
        if state != self.state || parts != self.parts {
            news.push(format!("{state}, {ended} of {total} tasks ended"));
            (self.state, self.parts) = (state, parts);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: &str, tasks: &[&str]) -> v1::GetRunResponse {
        let task = |(index, state): (u32, &&str)| v1::TaskView {
            index,
            name: format!("t{index}"),
            state: (*state).to_owned(),
            attempts: vec![v1::AttemptView { reason: "exit code 3".to_owned(), ..Default::default() }],
            ..Default::default()
        };
        v1::GetRunResponse {
            run: Some(v1::RunSummary { state: state.to_owned(), ..Default::default() }),
            tasks: (0..).zip(tasks).map(task).collect(),
        }
    }

    #[test]
    fn a_log_gets_a_line_for_what_is_new() {
        let mut lines = Lines::default();
        assert_eq!(lines.news(&view("running", &["active", "waiting"])), ["running, 0 of 2 tasks ended"]);
        assert!(lines.news(&view("running", &["active", "waiting"])).is_empty());
        assert_eq!(
            lines.news(&view("running", &["failed", "waiting"])),
            ["task t0 failed: exit code 3", "running, 1 of 2 tasks ended"]
        );
        assert_eq!(
            lines.news(&view("failed", &["failed", "upstream_failed"])),
            ["failed, 2 of 2 tasks ended"]
        );
    }

    #[test]
    fn a_large_run_gets_few_lines() {
        let mut lines = Lines::default();
        let mut said = 0;
        for done in (0..=2_000).step_by(20) {
            let tasks = [vec!["failed"; done], vec!["waiting"; 2_000 - done]].concat();
            said += lines.news(&view("running", &tasks)).len();
        }
        assert!(said <= LINES_MAX + PARTS + 1, "{said} lines");
    }
}
