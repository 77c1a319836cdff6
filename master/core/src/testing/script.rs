//! The language of scenarios.
//!
//! A script is lines; indented lines after `workflow` are its definition. Each command is echoed into the transcript with
//! what it caused: changes as they were committed, then effects as they were released.
//!
//! ```text
//! workflow                       the indented lines below are applied
//! executor x1 slots 2 kinds shell labels site=a
//! start w [key k]                a run of workflow w; runs are r1, r2, ... in the transcript
//! x1 accepts r1/a#1              x1 reports about attempt 1 of task a
//! x1 starts r1/a#1
//! x1 ends r1/a#1 succeeded [skipped] [values {"rows":3}] | failed [permanent] | timed_out | killed | lost | rejected
//! x1 beats 1                     a heartbeat
//! x1 leaves                      the session ends
//! x1 returns [clean] [new] [booted] [holding r1/a#1 running]...
//! cancel|pause|resume|retry|explain r1
//! advance 30s
//! fail over
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use millrace_common::{
    definition,
    id::{AttemptId, ExecutorName, InstanceId, RunId, SessionId, SpoolId},
    state::AttemptState,
    text::parse_duration,
    workflow::Workflow,
};

use super::Harness;
use crate::{
    batch::{Answer, AttemptEnd, Change, Effect, Message, Proof},
    input::{EndedRun, Held, Hello, Input, Report, Request, RequestId, StartRun},
    limits::Limits,
};

/// Runs a script and returns its transcript.
///
/// # Errors
/// Where a line is no command; says which.
pub fn run_script(script: &str, limits: Limits) -> Result<String, String> {
    let mut stage = Stage::new(limits);
    let mut lines = script.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut block = String::new();
        while let Some((_, below)) = lines.next_if(|(_, below)| below.starts_with(' ')) {
            let _ = writeln!(block, "{}", below.strip_prefix("  ").unwrap_or(below));
        }
        let _ = writeln!(stage.transcript, "> {line}");
        stage.command(line, &block).map_err(|problem| format!("line {}: {line:?}: {problem}", at + 1))?;
    }
    Ok(stage.transcript)
}

struct Stage {
    harness: Harness,
    transcript: String,
    workflows: BTreeMap<RunId, Arc<Workflow>>,
    runs: Vec<RunId>,
    executors: BTreeMap<ExecutorName, Offer>,
    sessions: u64,
    requests: u64,
    spools: u128,
}

#[derive(Clone)]
struct Offer {
    session: SessionId,
    hello: Hello,
}

type Outcome = Result<(), String>;

impl Stage {
    fn new(limits: Limits) -> Self {
        Self {
            harness: Harness::new(limits),
            transcript: String::new(),
            workflows: BTreeMap::new(),
            runs: Vec::new(),
            executors: BTreeMap::new(),
            sessions: 0,
            requests: 0,
            spools: 0,
        }
    }

    fn command(&mut self, line: &str, block: &str) -> Outcome {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["workflow"] => self.apply(block),
            ["executor", name, rest @ ..] => self.executor(name, rest),
            ["start", workflow] => self.start(workflow, None),
            ["start", workflow, "key", key] => self.start(workflow, Some(key)),
            ["cancel", run] => self.ask_run(run, Request::CancelRun),
            ["pause", run] => self.ask_run(run, Request::PauseRun),
            ["resume", run] => self.ask_run(run, Request::ResumeRun),
            ["explain", run] => self.ask_run(run, |run| Request::ExplainRun { run, task: None }),
            ["retry", run] => self.retry(run),
            ["advance", by] => {
                let by = parse_duration(by).map_err(|error| error.to_string())?;
                let done = self.harness.advance(by);
                self.show(done);
                Ok(())
            }
            ["fail", "over"] => {
                let done = self.harness.fail_over();
                self.show(done);
                Ok(())
            }
            [executor, verb, rest @ ..] => self.executor_says(executor, verb, rest),
            _ => Err("no such command".to_owned()),
        }
    }

    fn apply(&mut self, block: &str) -> Outcome {
        let workflow = definition::parse(block).map_err(|rejected| rejected.to_string())?;
        self.ask(Request::ApplyWorkflow { workflow: Arc::new(workflow), source: block.into() });
        Ok(())
    }

    fn ask(&mut self, request: Request) {
        self.requests += 1;
        let done = self.harness.input(Input::Requested(RequestId(self.requests), request));
        self.show(done);
    }

    fn ask_run(&mut self, run: &str, request: impl FnOnce(RunId) -> Request) -> Outcome {
        let run = self.run(run)?;
        self.ask(request(run));
        Ok(())
    }

    fn start(&mut self, workflow: &str, key: Option<&str>) -> Outcome {
        let workflow = workflow.parse().map_err(|error| format!("{error}"))?;
        let idempotency_key = key.map(Into::into);
        self.ask(Request::StartRun(StartRun { workflow, params: "{}".into(), logical_date: None, idempotency_key }));
        Ok(())
    }

    fn retry(&mut self, run: &str) -> Outcome {
        let run = self.run(run)?;
        let row = self.harness.store.runs.get(&run).ok_or("no such run in the store")?;
        let tasks = row.tasks.iter().map(|(index, task)| (*index, (task.state, task.values.clone()))).collect();
        let workflow = self.workflows.get(&run).cloned().ok_or("no definition of that run")?;
        let ended = EndedRun { created: row.created.clone(), workflow, state: row.state, tasks };
        self.ask(Request::RetryRun(Box::new(ended)));
        Ok(())
    }

    fn executor(&mut self, name: &str, words: &[&str]) -> Outcome {
        let executor: ExecutorName = name.parse().map_err(|error| format!("{error}"))?;
        let mut hello = Hello {
            executor,
            slots: 1,
            labels: BTreeMap::new(),
            kinds: vec!["shell".to_owned()],
            spool: self.new_spool(),
            boot: "boot-1".into(),
            is_clean: true,
            version: "test".into(),
            held: Vec::new(),
        };
        for pair in words.chunks(2) {
            match pair {
                ["slots", count] => hello.slots = count.parse().map_err(|_| "slots is a number")?,
                ["kinds", kinds] => hello.kinds = kinds.split(',').map(str::to_owned).collect(),
                ["labels", labels] => {
                    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
                    hello.labels = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                }
                _ => return Err("an executor has slots, kinds and labels".to_owned()),
            }
        }
        self.connect(hello);
        Ok(())
    }

    fn new_spool(&mut self) -> SpoolId {
        self.spools += 1;
        let run = RunId::new(millrace_common::time::Timestamp::default(), self.spools);
        SpoolId(run.to_string().parse().unwrap_or_default())
    }

    fn connect(&mut self, hello: Hello) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        self.executors.insert(hello.executor.clone(), Offer { session, hello: hello.clone() });
        let done = self.harness.input(Input::ExecutorConnected(session, Box::new(hello)));
        self.show(done);
    }

    fn executor_says(&mut self, name: &str, verb: &str, rest: &[&str]) -> Outcome {
        let offer = self.executors.get(name).cloned().ok_or("no such command or executor")?;
        let session = offer.session;
        let input = match (verb, rest) {
            ("accepts", [attempt]) => self.report(session, attempt, Report::Accepted)?,
            ("starts", [attempt]) => self.report(session, attempt, Report::Started { at: self.harness.now.wall })?,
            ("ends", [attempt, state, words @ ..]) => {
                let end = self.end(state, words)?;
                self.report(session, attempt, Report::Ended(end))?
            }
            ("beats", [number]) => {
                let number = number.parse().map_err(|_| "a heartbeat has a number")?;
                Input::HeartbeatReceived { session, number, held: Vec::new() }
            }
            ("leaves", []) => Input::ExecutorDisconnected(session),
            ("returns", words) => return self.returns(offer.hello, words),
            _ => return Err("no such report".to_owned()),
        };
        let done = self.harness.input(input);
        self.show(done);
        Ok(())
    }

    fn returns(&mut self, mut hello: Hello, words: &[&str]) -> Outcome {
        hello.is_clean = false;
        hello.held.clear();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "clean" => hello.is_clean = true,
                "new" => hello.spool = self.new_spool(),
                "booted" => hello.boot = "boot-2".into(),
                "holding" => {
                    let (attempt, state) = words.next().zip(words.next()).ok_or("holding an attempt in a state")?;
                    let attempt = self.attempt(attempt)?;
                    let report = match *state {
                        "accepted" => Report::Accepted,
                        "running" => Report::Started { at: self.harness.now.wall },
                        "killing" => Report::Killing,
                        ended => Report::Ended(self.end(ended, &[])?),
                    };
                    hello.held.push(Held { attempt, report });
                }
                _ => return Err(format!("no such circumstance: {word}")),
            }
        }
        self.connect(hello);
        Ok(())
    }

    fn report(&self, session: SessionId, attempt: &str, report: Report) -> Result<Input, String> {
        Ok(Input::AttemptReported { session, attempt: self.attempt(attempt)?, report })
    }

    fn end(&self, state: &str, words: &[&str]) -> Result<AttemptEnd, String> {
        let state: AttemptState = state.parse().map_err(|error| format!("{error}"))?;
        let values = words.iter().position(|word| *word == "values").and_then(|at| words.get(at + 1));
        Ok(AttemptEnd {
            state,
            exit_code: None,
            reason: "".into(),
            values: values.map(|text| (*text).into()),
            is_skipped: words.contains(&"skipped"),
            is_permanent: words.contains(&"permanent"),
            started_at: None,
            ended_at: self.harness.now.wall,
            log_bytes: 0,
            proof: if state == AttemptState::Rejected { Proof::Refused } else { Proof::Reported },
        })
    }

    fn run(&self, name: &str) -> Result<RunId, String> {
        let number = name.strip_prefix('r').and_then(|number| number.parse::<usize>().ok());
        number
            .and_then(|number| self.runs.get(number.checked_sub(1)?).copied())
            .ok_or_else(|| format!("there is no run {name}"))
    }

    fn attempt(&self, text: &str) -> Result<AttemptId, String> {
        let (run, rest) = text.split_once('/').ok_or("an attempt is written r1/task#1")?;
        let (task, number) = rest.split_once('#').ok_or("an attempt is written r1/task#1")?;
        let run = self.run(run)?;
        let workflow = self.workflows.get(&run).ok_or("no definition of that run")?;
        let (index, _) = workflow.task_named(task).ok_or_else(|| format!("no task {task}"))?;
        let number = number.parse().map_err(|_| "attempts have numbers")?;
        Ok(InstanceId { run, index }.attempt(number))
    }

    fn show(&mut self, done: Vec<(Vec<Change>, Vec<Effect>)>) {
        for (changes, effects) in done {
            for change in &changes {
                let line = self.change(change);
                let _ = writeln!(self.transcript, "  {line}");
            }
            for effect in &effects {
                let line = self.effect(effect);
                let _ = writeln!(self.transcript, "  -> {line}");
            }
        }
    }

    fn change(&mut self, change: &Change) -> String {
        match change {
            Change::WorkflowApplied { version, workflow, .. } => format!("workflow {} version {version}", workflow.name),
            Change::CursorMoved { workflow, cursor, skipped } => {
                let skipped = skipped.map_or_else(String::new, |skipped| format!(", passed over {}", skipped.count));
                format!("cursor of {workflow} at {cursor}{skipped}")
            }
            Change::RunCreated(created) => {
                self.runs.push(created.run);
                let version = self.harness.store.workflows.iter().find(|row| {
                    row.version == created.version && row.workflow.name == created.workflow
                });
                if let Some(row) = version {
                    self.workflows.insert(created.run, Arc::clone(&row.workflow));
                }
                format!("run r{} of {} for {}", self.runs.len(), created.workflow, created.interval.start)
            }
            Change::RunMoved { run, from, to, reason, .. } => {
                let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
                format!("run {} {from} -> {to}{reason}", self.name_of(*run))
            }
            Change::RunEnding { run, to, reason } => format!("run {} is to end {to} ({reason})", self.name_of(*run)),
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
                format!("attempt {} {from} -> {}{reason}", self.attempt_of(*attempt), end.state)
            }
        }
    }

    fn effect(&self, effect: &Effect) -> String {
        match effect {
            Effect::Answer(_, answer) => format!("answer: {}", self.answer(answer)),
            Effect::Send(session, message) => {
                let to = self.executors.values().find(|offer| offer.session == *session);
                let to = to.map_or_else(|| format!("session {}", session.0), |offer| offer.hello.executor.to_string());
                format!("{to}: {}", self.message(message))
            }
        }
    }

    fn message(&self, message: &Message) -> String {
        match message {
            Message::Welcome(verdicts) => {
                let verdicts: Vec<String> = verdicts
                    .iter()
                    .map(|(attempt, verdict)| format!("{} {verdict:?}", self.attempt_of(*attempt)))
                    .collect();
                format!("welcome [{}]", verdicts.join(", "))
            }
            Message::Refused(reason) => format!("refused: {reason}"),
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
            Answer::WorkflowApplied { version, is_changed } => format!("version {version}, changed: {is_changed}"),
            Answer::RunStarted { run, is_repeat } => format!("{}, repeat: {is_repeat}", self.name_of(*run)),
            Answer::RunMoved(state) => format!("the run is {state}"),
            Answer::Refused(refusal) => {
                let mut text = refusal.to_string();
                for (number, run) in (1..).zip(&self.runs) {
                    text = text.replace(&run.to_string(), &format!("r{number}"));
                }
                format!("refused: {text}")
            }
            Answer::Executors(executors) => format!("{} executors", executors.len()),
            Answer::Work(work) => format!("{work:?}"),
            Answer::Explained(explanation) => {
                let reason = explanation.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                let mut text = format!("{}{reason}", explanation.state);
                let mut seen = BTreeSet::new();
                for task in &explanation.tasks {
                    if seen.insert(task.task.clone()) {
                        let _ = write!(text, "\n       {} {}: {}", task.task, task.state, task.reason);
                    }
                }
                text
            }
        }
    }

    fn name_of(&self, run: RunId) -> String {
        self.runs.iter().position(|known| *known == run).map_or_else(|| "r?".to_owned(), |at| format!("r{}", at + 1))
    }

    fn task_of(&self, instance: InstanceId) -> String {
        let task = self.workflows.get(&instance.run).and_then(|workflow| workflow.tasks.get(instance.index as usize));
        let task = task.map_or_else(|| instance.index.to_string(), |task| task.name.to_string());
        format!("{}/{task}", self.name_of(instance.run))
    }

    fn attempt_of(&self, attempt: AttemptId) -> String {
        format!("{}#{}", self.task_of(attempt.instance), attempt.number)
    }
}
