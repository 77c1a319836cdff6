//! The workflows of the load: random graphs of witnesses, and schedules.

use std::{fmt::Write as _, path::Path};

use crate::random::Random;

/// Policies of every task.
const COMMON: &str = "retries: 3, retry_delay: 1s, timeout: 10m, kill_grace: 2s";

/// How the tasks of the load are.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Workflows that clients run.
    pub(crate) graphs: usize,
    /// Tasks of each, at least and at most.
    pub(crate) tasks: (u64, u64),
    /// How long a task takes in milliseconds, at least and at most.
    pub(crate) millis: (u64, u64),
    /// How many of a hundred tasks end with a failure.
    pub(crate) failing: u64,
    /// Workflows that run every 5 s by themselves.
    pub(crate) schedules: usize,
    /// Whether those make up for every interval that they missed.
    pub(crate) catchup: bool,
    /// `retry`, `confirm` or `fail`.
    pub(crate) on_lost: &'static str,
    /// How long an attempt may run without contact to a leader.
    pub(crate) orphan_timeout: &'static str,
    /// Pool of every task, where there is one.
    pub(crate) pool: Option<&'static str>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            graphs: 4,
            tasks: (3, 8),
            millis: (200, 3_000),
            failing: 8,
            schedules: 2,
            catchup: true,
            on_lost: "retry",
            orphan_timeout: "15s",
            pool: None,
        }
    }
}

impl Shape {
    fn policies(&self) -> String {
        let pool = self.pool.map(|pool| format!(", pool: {pool}")).unwrap_or_default();
        format!("{COMMON}, on_lost: {}, orphan_timeout: {}{pool}", self.on_lost, self.orphan_timeout)
    }
}

/// Where witnesses write.
#[derive(Debug, Clone)]
pub(crate) struct Witnesses {
    program: String,
    log: String,
    locks: String,
}

impl Witnesses {
    pub(crate) fn new(program: &Path, log: &Path, locks: &Path) -> Self {
        let text = |path: &Path| path.display().to_string();
        Self { program: text(program), log: text(log), locks: text(locks) }
    }

    /// Returns the command of a witness with further arguments, as a list of YAML.
    pub(crate) fn command(&self, arguments: &str) -> String {
        let Self { program, log, locks } = self;
        let arguments: String = arguments.split_whitespace().map(|word| format!(", {word:?}")).collect();
        format!("[{program:?}, \"--log\", {log:?}, \"--locks\", {locks:?}{arguments}]")
    }

    /// Returns the command of a witness with further arguments, as words of a shell.
    pub(crate) fn shell(&self, arguments: &str) -> String {
        let Self { program, log, locks } = self;
        format!("{program} --log {log} --locks {locks} {arguments}")
    }

    /// Returns a workflow of one witness.
    pub(crate) fn single(&self, name: &str, task: &str, arguments: &str) -> String {
        let command = self.command(arguments);
        let separator = if task.is_empty() { "" } else { ", " };
        format!(
            "workflow: {name}\nmax_active_runs: 1000\ndefaults: {{ {COMMON}{separator}{task} }}\ntasks:\n  only: {{ kind: shell, with: {{ command: {command} }} }}\n"
        )
    }
}

/// Returns definitions by name; the last ones run by themselves.
pub(crate) fn definitions(shape: &Shape, witnesses: &Witnesses, seed: &Random) -> Vec<(String, String)> {
    let mut seed = seed.fork("workflows");
    let graphs = (0..shape.graphs).map(|number| {
        let name = format!("graph-{number}");
        let text = graph(&name, shape, witnesses, &mut seed);
        (name, text)
    });
    let mut all: Vec<(String, String)> = graphs.collect();
    for number in 0..shape.schedules {
        let name = format!("every-{number}");
        let command = witnesses.command("--millis 500");
        let text = format!(
            "workflow: {name}\nmax_active_runs: 20\nschedule: {{ every: 5s, catchup: {} }}\ndefaults: {{ {} }}\ntasks:\n  only: {{ kind: shell, with: {{ command: {command} }} }}\n",
            shape.catchup,
            shape.policies()
        );
        all.push((name, text));
    }
    all
}

fn graph(name: &str, shape: &Shape, witnesses: &Witnesses, seed: &mut Random) -> String {
    let mut text =
        format!("workflow: {name}\nmax_active_runs: 1000\ndefaults: {{ {} }}\ntasks:\n", shape.policies());
    let count = seed.between(shape.tasks.0, shape.tasks.1);
    for task in 0..count {
        let after: Vec<String> =
            (0..task).filter(|_| seed.happens(100 / (task + 1))).map(|up| format!("t{up}")).collect();
        let rule = ["all_success", "all_success", "all_done", "none_failed", "one_success"][seed.index(5)];
        let millis = seed.between(shape.millis.0, shape.millis.1);
        let exit = u8::from(seed.happens(shape.failing));
        let command = witnesses.command(&format!("--millis {millis} --exit {exit}"));
        let _ = writeln!(
            text,
            "  t{task}: {{ kind: shell, after: [{}], trigger_rule: {rule}, with: {{ command: {command} }} }}",
            after.join(", ")
        );
    }
    text
}
