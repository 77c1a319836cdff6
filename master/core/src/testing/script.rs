//! The language of scenarios.
//!
//! A script is lines; indented lines after `workflow` are its definition. Each command is echoed into the transcript with
//! what it caused: changes as they were committed, then effects as they were released, then what was refused.
//!
//! ```text
//! limits runs 3 losses 2 rejections 2 keys 1 starts 5   on an empty store, before anything else
//! workflow                       the indented lines below are applied
//! executor x1 slots 2 kinds shell labels site=a
//! start w [key k] [at 2026-01-05T00:00:00Z]    a run of workflow w; runs are r1, r2, ... in the transcript
//! x1 accepts r1/a#1              x1 reports about attempt 1 of task a
//! x1 starts r1/a#1
//! x1 kills r1/a#1                it is being ended, on the executor's own account or not
//! x1 ends r1/a#1 succeeded [skipped] [values {"rows":3}] | failed [permanent] | timed_out | killed | lost
//! x1 ends r1/a#1 rejected [permanent | short | draining | failing]
//! x1 ends r1/a#1 lost planned    its executor was told to stop
//! x1 beats 1 [short] [holding r1/a#1 running]...
//!                                a heartbeat; tells what the script made x1 hold unless it says otherwise
//! x1 drains                      takes no more starts
//! drain|cordon x1 [reason]       a person wants it
//! undrain|forget|show x1         and this
//! confirm r1/a#1 reason          a person knows that nothing of it runs
//! x1 leaves                      the session ends
//! x1 returns [clean] [new] [booted] [moved | home | nameless] [short] [holding r1/a#1 running]...
//!                                with a clean or new spool; after a boot; on another, its first, or an unknown machine; short of space
//! x1 returns restarted           as another process of that name
//! x1 returns facts=5             with a spool that has so many facts, and tells that from then on
//! stale x1 ...                   the same over x1's session before the present one
//! cancel|pause|resume|retry r1
//! explain r1 [a]
//! set pools.small 2 | unset pools.small        where the database keeps the settings; by alice
//! settings 5 pools.small=2 log=% ...           all that etcd has at its revision 5; % is no UTF-8; by somebody
//! settings 6 - pools.small                     the same, and alice unset that
//! executors
//! count
//! advance 30s
//! clock forward 1h               the wall clock is set, boot time goes on
//! unreadable w 2                 whoever leads from the next fail-over on cannot read version 2 of w
//! fail over
//! ```

mod executors;
mod transcript;

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use millrace_common::{
    definition,
    id::{AttemptId, ExecutorName, InstanceId, RunId},
    term::Term,
    text::parse_duration,
    time::Timestamp,
};

use self::{executors::Place, transcript::Names};
use super::Harness;
use crate::{
    batch::{Change, Effect},
    input::{EndedRun, Input, Request, RequestId, StartRun},
    limits::Limits,
    settings::{GivenSetting, SetSetting, SettingsAccount},
    standing::{CloseExecutor, Closed, ConfirmLost},
};

/// Runs a script and returns its transcript.
///
/// # Errors
/// Where a line is no command; says which.
pub fn run_script(script: &str, limits: Limits) -> Result<String, String> {
    let mut stage = Stage::new(limits);
    stage.run(script, |_| false)?;
    Ok(stage.transcript)
}

/// Runs a script in which the leader fails after each command that `fails` names by its number from 0, and every
/// connected executor returns to the next leader with what it holds. Returns how everything ended.
///
/// # Errors
/// Where a line is no command; says which.
pub fn outcome(script: &str, limits: Limits, fails: impl Fn(usize) -> bool) -> Result<String, String> {
    let mut stage = Stage::new(limits);
    stage.run(script, fails)?;
    Ok(stage.names.outcome(&stage.harness.store))
}

/// Returns the number of commands of a script.
#[must_use]
pub fn command_count(script: &str) -> usize {
    script.lines().filter(|line| !line.starts_with(' ') && is_command(line)).count()
}

fn is_command(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#')
}

struct Stage {
    harness: Harness,
    limits: Limits,
    transcript: String,
    names: Names,
    places: BTreeMap<ExecutorName, Place>,
    refusals: BTreeMap<&'static str, u64>,
    sessions: u64,
    requests: u64,
    spools: u128,
}

/// Who asks in scripts.
const PERSON: &str = "ann";

type Outcome = Result<(), String>;

impl Stage {
    fn new(limits: Limits) -> Self {
        Self {
            harness: Harness::new(limits.clone()),
            limits,
            transcript: String::new(),
            names: Names::default(),
            places: BTreeMap::new(),
            refusals: BTreeMap::new(),
            sessions: 0,
            requests: 0,
            spools: 0,
        }
    }

    fn run(&mut self, script: &str, fails: impl Fn(usize) -> bool) -> Outcome {
        let mut lines = script.lines().enumerate().peekable();
        let mut number = 0;
        while let Some((at, line)) = lines.next() {
            if !is_command(line) {
                continue;
            }
            let line = line.split(" #").next().unwrap_or_default().trim_end();
            let mut block = String::new();
            while let Some((_, below)) = lines.next_if(|(_, below)| below.starts_with(' ')) {
                let _ = writeln!(block, "{}", below.strip_prefix("  ").unwrap_or(below));
            }
            let _ = writeln!(self.transcript, "> {line}");
            self.command(line, &block).map_err(|problem| format!("line {}: {line:?}: {problem}", at + 1))?;
            if fails(number) {
                self.fail_over_with_executors();
            }
            number += 1;
        }
        Ok(())
    }

    fn command(&mut self, line: &str, block: &str) -> Outcome {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["workflow"] => self.apply(block),
            ["limits", rest @ ..] => self.set_limits(rest),
            ["executor", name, rest @ ..] => self.executor(name, rest),
            ["start", workflow, rest @ ..] => self.start(workflow, rest),
            ["cancel", run] => self.ask_run(run, Request::CancelRun),
            ["pause", run] => self.ask_run(run, Request::PauseRun),
            ["resume", run] => self.ask_run(run, Request::ResumeRun),
            ["explain", run] => self.ask_run(run, |run| Request::ExplainRun { run, task: None }),
            ["explain", run, task] => {
                let task = Some(task.parse().map_err(|error| format!("{error}"))?);
                self.ask_run(run, |run| Request::ExplainRun { run, task })
            }
            ["retry", run] => self.retry(run),
            ["unreadable", workflow, version] => self.make_unreadable(workflow, version),
            ["set", name, text] => self.set(name, Some(text)),
            ["unset", name] => self.set(name, None),
            ["settings", revision, rest @ ..] => self.settings(revision, rest),
            ["executors"] => self.ask(Request::ListExecutors),
            ["count"] => self.ask(Request::CountWork),
            ["drain", executor, reason @ ..] => self.close(executor, Closed::Drained, reason),
            ["cordon", executor, reason @ ..] => self.close(executor, Closed::Cordoned, reason),
            ["undrain", executor] => {
                self.ask_executor(executor, |executor| Request::OpenExecutor { executor, by: PERSON.into() })
            }
            ["forget", executor] => self
                .ask_executor(executor, |executor| Request::ForgetExecutor { executor, by: PERSON.into() }),
            ["show", executor] => self.ask_executor(executor, Request::ShowExecutor),
            ["confirm", attempt, reason @ ..] => {
                let (attempt, reason) = (self.attempt(attempt)?, reason.join(" ").into());
                self.ask(Request::ConfirmLost(ConfirmLost { attempt, reason, by: PERSON.into() }))
            }
            ["advance", by] => {
                let done = self.harness.advance(duration(by)?);
                self.show(done)
            }
            ["clock", "forward", by] => self.set_clock(duration(by)?, |wall, by| wall + by),
            ["clock", "back", by] => self.set_clock(duration(by)?, |wall, by| wall - by),
            ["fail", "over"] => self.fail_over(),
            ["stale", executor, verb, rest @ ..] => self.executor_says(executor, verb, rest, Place::stale),
            [executor, verb, rest @ ..] => self.executor_says(executor, verb, rest, Place::present),
            _ => Err("no such command".to_owned()),
        }
    }

    fn apply(&mut self, block: &str) -> Outcome {
        let workflow = definition::parse(block).map_err(|rejected| rejected.to_string())?;
        self.ask(Request::ApplyWorkflow { workflow: Arc::new(workflow), source: block.into() })
    }

    fn set_limits(&mut self, words: &[&str]) -> Outcome {
        for pair in words.chunks(2) {
            let [name, value] = pair else { return Err("a limit has a name and a number".to_owned()) };
            let number: u32 = value.parse().map_err(|_| "a limit is a number")?;
            match *name {
                "runs" => self.limits.runs_per_workflow_max = number as usize,
                "losses" => self.limits.losses_max = number,
                "rejections" => self.limits.rejections_max = number,
                "keys" => self.limits.keys_remembered_max = number as usize,
                "starts" => self.limits.failed_starts_max = number,
                _ => return Err("there are limits of runs, losses, rejections, keys and starts".to_owned()),
            }
        }
        self.harness = Harness::new(self.limits.clone());
        Ok(())
    }

    fn set_clock(&mut self, by: Duration, set: fn(Timestamp, Duration) -> Timestamp) -> Outcome {
        self.harness.now.wall = set(self.harness.now.wall, by);
        let done = self.harness.wake();
        self.show(done)
    }

    fn ask(&mut self, request: Request) -> Outcome {
        self.requests += 1;
        let done = self.harness.input(Input::Requested(RequestId(self.requests), request));
        self.show(done)
    }

    fn ask_executor(&mut self, name: &str, request: impl FnOnce(ExecutorName) -> Request) -> Outcome {
        let executor = name.parse().map_err(|error| format!("{error}"))?;
        self.ask(request(executor))
    }

    fn close(&mut self, name: &str, closed: Closed, reason: &[&str]) -> Outcome {
        let reason = reason.join(" ").into();
        self.ask_executor(name, |executor| {
            Request::CloseExecutor(CloseExecutor { executor, closed, reason, by: PERSON.into() })
        })
    }

    fn set(&mut self, name: &str, text: Option<&str>) -> Outcome {
        let text = text.map(Into::into);
        self.ask(Request::SetSetting(SetSetting { name: name.into(), text, by: "alice".into() }))
    }

    fn settings(&mut self, revision: &str, words: &[&str]) -> Outcome {
        let revision = revision.parse().map_err(|_| "revisions have numbers")?;
        let mut account = SettingsAccount {
            revision,
            given: Vec::new(),
            unset: BTreeMap::new(),
            anybody: "somebody".into(),
        };
        let mut words = words.iter();
        for word in words.by_ref().take_while(|word| **word != "-") {
            let (name, text) = word.split_once('=').ok_or("a setting is written name=value")?;
            let text: &[u8] = if text == "%" { &[0xff] } else { text.as_bytes() };
            let by = "somebody".into();
            account.given.push(GivenSetting { name: name.into(), text: text.into(), by, revision });
        }
        for name in words {
            account.unset.insert((*name).into(), ("alice".into(), revision));
        }
        let done = self.harness.input(Input::SettingsRead(Box::new(account)));
        self.show(done)
    }

    fn ask_run(&mut self, run: &str, request: impl FnOnce(RunId) -> Request) -> Outcome {
        let run = self.names.run(run)?;
        self.ask(request(run))
    }

    fn start(&mut self, workflow: &str, words: &[&str]) -> Outcome {
        let workflow = workflow.parse().map_err(|error| format!("{error}"))?;
        let mut start = StartRun { workflow, params: "{}".into(), logical_date: None, idempotency_key: None };
        for pair in words.chunks(2) {
            match pair {
                ["key", key] => start.idempotency_key = Some((*key).into()),
                ["at", date] => {
                    start.logical_date = Some(Timestamp::parse(date).ok_or("a date is RFC 3339")?)
                }
                _ => return Err("a start has a key and a date".to_owned()),
            }
        }
        // A scheduler knows the keys of runs that ended in its own term; for earlier ones a master looks into the store.
        let earlier = start
            .idempotency_key
            .as_ref()
            .and_then(|key| self.harness.store.run_by_key(&start.workflow, key));
        match earlier.filter(|_| self.harness.scheduler.term() > Term(1)) {
            Some(run) => self.names.run_started(run, &mut self.transcript),
            None => self.ask(Request::StartRun(start))?,
        }
        Ok(())
    }

    fn retry(&mut self, run: &str) -> Outcome {
        let run = self.names.run(run)?;
        let row = self.harness.store.runs.get(&run).ok_or("no such run in the store")?;
        let tasks =
            row.tasks.iter().map(|(index, task)| (*index, (task.state, task.values.clone()))).collect();
        let workflow = self.names.workflow(run).ok_or("no definition of that run")?;
        let ended = EndedRun { created: row.created.clone(), workflow, state: row.state, tasks };
        self.ask(Request::RetryRun(Box::new(ended)))
    }

    fn make_unreadable(&mut self, workflow: &str, version: &str) -> Outcome {
        let workflow = workflow.parse().map_err(|error| format!("{error}"))?;
        let version = version.parse().map_err(|_| "versions have numbers")?;
        self.harness.store.unreadable.insert((workflow, version));
        Ok(())
    }

    fn fail_over(&mut self) -> Outcome {
        let done = self.harness.fail_over();
        self.refusals.clear();
        self.show(done)
    }

    fn attempt(&self, text: &str) -> Result<AttemptId, String> {
        let (run, rest) = text.split_once('/').ok_or("an attempt is written r1/task#1")?;
        let (task, number) = rest.split_once('#').ok_or("an attempt is written r1/task#1")?;
        let run = self.names.run(run)?;
        let workflow = self.names.workflow(run).ok_or("no definition of that run")?;
        let (index, _) = workflow.task_named(task).ok_or_else(|| format!("no task {task}"))?;
        let number = number.parse().map_err(|_| "attempts have numbers")?;
        Ok(InstanceId { run, index }.attempt(number))
    }

    /// Writes what came out of a step into the transcript.
    fn show(&mut self, done: Vec<(Vec<Change>, Vec<Effect>)>) -> Outcome {
        for (changes, effects) in done {
            for change in &changes {
                self.names.learn(change, &self.harness.store);
                let line = self.names.change(change);
                let _ = writeln!(self.transcript, "  {line}");
            }
            for effect in &effects {
                let line = self.names.effect(effect, |session| self.executor_of(session));
                let _ = writeln!(self.transcript, "  -> {line}");
                self.hear(effect);
            }
        }
        for (reason, count) in self.harness.scheduler.refusals() {
            if self.refusals.insert(reason, *count) != Some(*count) {
                let _ = writeln!(self.transcript, "  counted: {reason}");
            }
        }
        Ok(())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}
