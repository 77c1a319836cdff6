//! How changes and effects read in a transcript: ids become the names of the script.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use millrace_common::{
    id::{AttemptId, InstanceId, RunId, SessionId},
    workflow::Workflow,
};

use crate::{
    ExecutorSummary,
    batch::{Alarm, Answer, Change, Effect, Message, Proof, Trigger},
    settings::SettingChanged,
    testing::MemoryStore,
};

/// Runs by number, each with its definition.
#[derive(Default)]
pub(super) struct Names {
    runs: Vec<RunId>,
    workflows: BTreeMap<RunId, Arc<Workflow>>,
}

impl Names {
    /// Gives a new run its number.
    pub(super) fn learn(&mut self, change: &Change, store: &MemoryStore) {
        let Change::RunCreated(created) = change else { return };
        self.runs.push(created.run);
        let row = store
            .workflows
            .iter()
            .find(|row| row.version == created.version && row.workflow.name == created.workflow);
        if let Some(row) = row {
            self.workflows.insert(created.run, Arc::clone(&row.workflow));
        }
    }

    pub(super) fn run(&self, name: &str) -> Result<RunId, String> {
        let number = name.strip_prefix('r').and_then(|number| number.parse::<usize>().ok());
        number
            .and_then(|number| self.runs.get(number.checked_sub(1)?).copied())
            .ok_or_else(|| format!("there is no run {name}"))
    }

    pub(super) fn workflow(&self, run: RunId) -> Option<Arc<Workflow>> {
        self.workflows.get(&run).cloned()
    }

    /// Says how everything in a store ended, or where it stands.
    pub(super) fn outcome(&self, store: &MemoryStore) -> String {
        let mut text = String::new();
        for run in &self.runs {
            let Some(row) = store.runs.get(run) else { continue };
            let _ = writeln!(text, "{} {}", self.name_of(*run), row.state);
            for (index, task) in &row.tasks {
                let instance = InstanceId { run: *run, index: *index };
                let _ = write!(text, "  {} {}", self.task_of(instance), task.state);
                for number in 1..=task.attempts {
                    let stored = store.attempts.get(&instance.attempt(number));
                    let state =
                        stored.map(|stored| stored.end.as_ref().map_or(stored.live.state, |end| end.state));
                    let state = state.map_or_else(|| "missing".to_owned(), |state| state.to_string());
                    let _ = write!(text, " {number}:{state}");
                }
                text.push('\n');
            }
        }
        text
    }

    pub(super) fn change(&self, change: &Change) -> String {
        match change {
            Change::WorkflowApplied { version, workflow, .. } => {
                format!("workflow {} version {version}", workflow.name)
            }
            Change::CursorMoved { workflow, cursor, skipped } => {
                let skipped =
                    skipped.map_or_else(String::new, |skipped| format!(", passed over {}", skipped.count));
                format!("cursor of {workflow} at {cursor}{skipped}")
            }
            Change::SettingChanged(changed) => setting(changed),
            Change::RunCreated(created) => {
                let name = self.name_of(created.run);
                let cause = match created.trigger {
                    Trigger::Schedule => " by schedule".to_owned(),
                    Trigger::Manual => String::new(),
                    Trigger::Retry(earlier) => format!(" to retry {}", self.name_of(earlier)),
                };
                format!("run {name} of {} for {}{cause}", created.workflow, created.interval.start)
            }
            Change::RunMoved { run, from, to, reason, .. } => {
                let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
                format!("run {} {from} -> {to}{reason}", self.name_of(*run))
            }
            Change::RunEnding { run, to, reason } => {
                format!("run {} is to end {to} ({reason})", self.name_of(*run))
            }
            Change::TaskMoved { instance, from, to, retry_at, values, .. } => {
                let retry = retry_at.map_or_else(String::new, |at| format!(" until {at}"));
                let values = values.as_ref().map_or_else(String::new, |values| format!(" {values}"));
                format!("task {} {from} -> {to}{retry}{values}", self.task_of(*instance))
            }
            Change::AttemptAssigned { attempt, executor, .. } => {
                format!("attempt {} assigned to {executor}", self.attempt_of(*attempt))
            }
            Change::AttemptMoved { attempt, from, to, .. } => {
                format!("attempt {} {from} -> {to}", self.attempt_of(*attempt))
            }
            Change::AttemptEnded { attempt, from, end, .. } => {
                let reason = if end.reason.is_empty() { String::new() } else { format!(" ({})", end.reason) };
                let proof =
                    if end.proof == Proof::Reported { String::new() } else { format!(" by {:?}", end.proof) };
                format!("attempt {} {from} -> {}{proof}{reason}", self.attempt_of(*attempt), end.state)
            }
            Change::ExecutorClosed { executor, standing } => format!("executor {executor} {standing}"),
            Change::ExecutorOpened { executor, by, .. } => format!("executor {executor} opened by {by}"),
            Change::ExecutorForgotten { executor, by, .. } => {
                format!("executor {executor} forgotten by {by}")
            }
        }
    }

    pub(super) fn effect(
        &self,
        effect: &Effect,
        executor_of: impl Fn(SessionId) -> Option<String>,
    ) -> String {
        match effect {
            Effect::Answer(_, answer) => format!("answer: {}", self.answer(answer)),
            Effect::Alarm(Alarm::AliveAfterEnd { executor, attempt }) => {
                format!("alarm: {} is alive on {executor} after its end", self.attempt_of(*attempt))
            }
            Effect::Alarm(Alarm::SpoolOld { executor, .. }) => {
                format!("alarm: the spool of {executor} is an older copy of itself")
            }
            Effect::Alarm(Alarm::Rival { executor, machine }) => {
                format!("alarm: a second {executor} on {}", machine.as_deref().unwrap_or("some machine"))
            }
            Effect::Send(session, message) => {
                let to = executor_of(*session).unwrap_or_else(|| format!("session {}", session.0));
                format!("{to}: {}", self.message(message))
            }
        }
    }

    /// Notes that a master answered from the store.
    pub(super) fn run_started(&self, run: RunId, transcript: &mut String) {
        let _ = writeln!(transcript, "  -> answer from the store: {}, repeat: true", self.name_of(run));
    }

    fn message(&self, message: &Message) -> String {
        match message {
            Message::Welcome(verdicts) => {
                let verdict = |(attempt, verdict): &(AttemptId, _)| {
                    format!("{} {verdict:?}", self.attempt_of(*attempt))
                };
                format!("welcome [{}]", verdicts.iter().map(verdict).collect::<Vec<_>>().join(", "))
            }
            Message::Refused(reason) => format!("refused: {reason}"),
            Message::SpoolOld(reason) => format!("old spool: {reason}"),
            Message::HeartbeatAnswer(number) => format!("heartbeat {number} answered"),
            Message::Start(start) => {
                let values: Vec<String> =
                    start.values.iter().map(|(task, values)| format!(" {task}={values}")).collect();
                format!("start {}{}", self.attempt_of(start.attempt), values.concat())
            }
            Message::Kill { attempt, reason, .. } => format!("kill {} ({reason})", self.attempt_of(*attempt)),
            Message::Ack(attempt) => format!("ack {}", self.attempt_of(*attempt)),
        }
    }

    fn answer(&self, answer: &Answer) -> String {
        match answer {
            Answer::WorkflowApplied { version, is_changed } => {
                format!("version {version}, changed: {is_changed}")
            }
            Answer::RunStarted { run, is_repeat } => format!("{}, repeat: {is_repeat}", self.name_of(*run)),
            Answer::RunMoved(state) => format!("the run is {state}"),
            Answer::Refused(refusal) => {
                let mut text = refusal.to_string();
                for (number, run) in (1..).zip(&self.runs) {
                    text = text.replace(&run.to_string(), &format!("r{number}"));
                }
                format!("refused: {text}")
            }
            Answer::Executors(executors) => {
                executors.iter().map(executor_line).collect::<Vec<_>>().join("; ")
            }
            Answer::Executor(detail) => {
                let mut text = executor_line(&detail.summary);
                for placed in &detail.attempts {
                    let _ = write!(text, "\n       {} {}", self.attempt_of(placed.attempt), placed.state);
                }
                text
            }
            Answer::ExecutorForgotten => "the executor is forgotten".to_owned(),
            Answer::AttemptEnded(state) => format!("the attempt is {state}"),
            Answer::SettingTaken { is_changed } => format!("changed: {is_changed}"),
            Answer::SettingsTaken => "taken".to_owned(),
            Answer::Work(work) => {
                let paused = work
                    .schedules_paused_since
                    .map_or_else(String::new, |since| format!(", schedules paused since {since}"));
                format!("{} runs, {} attempts, {} ready{paused}", work.runs, work.attempts, work.ready)
            }
            Answer::Explained(explanation) => {
                let reason =
                    explanation.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                let mut text = format!("{}{reason}", explanation.state);
                if let Some(since) = explanation.schedules_paused_since {
                    let _ = write!(text, "; schedules paused since {since}");
                }
                for task in &explanation.tasks {
                    let _ = write!(text, "\n       {} {}: {}", task.task, task.state, task.reason);
                }
                text
            }
        }
    }

    fn name_of(&self, run: RunId) -> String {
        self.runs
            .iter()
            .position(|known| *known == run)
            .map_or_else(|| "r?".to_owned(), |at| format!("r{}", at + 1))
    }

    fn task_of(&self, instance: InstanceId) -> String {
        let task = self
            .workflows
            .get(&instance.run)
            .and_then(|workflow| workflow.tasks.get(instance.index as usize));
        let task = task.map_or_else(|| instance.index.to_string(), |task| task.name.to_string());
        format!("{}/{task}", self.name_of(instance.run))
    }

    fn attempt_of(&self, attempt: AttemptId) -> String {
        format!("{}#{}", self.task_of(attempt.instance), attempt.number)
    }
}

fn executor_line(at: &ExecutorSummary) -> String {
    let away = if at.is_connected { "" } else { " away" };
    let standing = at.standing.as_ref().map_or_else(String::new, |standing| format!(", {standing}"));
    let silent = at.silent_ms / 1_000;
    format!("{} {} of {} slots{away}, silent for {silent} s{standing}", at.name, at.slots_used, at.slots)
}

fn setting(changed: &SettingChanged) -> String {
    let SettingChanged { name, before, given, refusal, by, .. } = changed;
    let old = before.as_ref().and_then(|row| row.value.as_ref()).map_or("nothing", |value| &value.text);
    match (given, refusal) {
        (None, _) => format!("setting {name} {old} -> nothing by {by}"),
        (Some(text), None) => format!("setting {name} {old} -> {text} by {by}"),
        (Some(text), Some(reason)) => {
            format!("setting {name} stays {old}, {text:?} by {by} refused: {reason}")
        }
    }
}
