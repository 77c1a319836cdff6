//! A run as it moves, on standard error, so that standard output stays clean.

use std::{collections::BTreeMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use millrace_common::state::TaskState;
use millrace_proto::v1;

/// Tasks that get a line of their own; larger runs are counted.
const LINES_MAX: usize = 30;
/// How often the picture moves while nothing changes.
const FRAME: Duration = Duration::from_millis(100);

/// Lines that move.
pub(super) struct Progress {
    all: MultiProgress,
    total: ProgressBar,
    lines: BTreeMap<u32, ProgressBar>,
}

impl Progress {
    pub(super) fn new(run: &str) -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::no_length());
        if let Ok(style) =
            ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} tasks ended, {elapsed} {msg}")
        {
            total.set_style(style);
        }
        total.set_prefix(run.to_owned());
        total.enable_steady_tick(FRAME);
        Self { all, total, lines: BTreeMap::new() }
    }

    /// Says something without disturbing the picture.
    pub(super) fn say(&self, text: &str) {
        // Nobody can be told that standard error is gone.
        let _ = self.all.println(text);
    }

    pub(super) fn update(&mut self, view: &v1::GetRunResponse) {
        let state_of = |task: &v1::TaskView| task.state.parse::<TaskState>().ok();
        let ended = view.tasks.iter().filter(|task| state_of(task).is_some_and(TaskState::is_final)).count();
        self.total.set_length(view.tasks.len() as u64);
        self.total.set_position(ended as u64);
        if let Some(run) = &view.run {
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

impl Drop for Progress {
    fn drop(&mut self) {
        // The table that follows says the same, for good.
        for line in self.lines.values() {
            line.finish_and_clear();
        }
        self.total.finish_and_clear();
    }
}
