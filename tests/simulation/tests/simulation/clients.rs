//! Clients: they ask, repeat what was not answered, and remember what they were told.

use std::sync::Arc;

use millrace_checker::{Answer as Heard, Event as Recorded};
use millrace_common::{definition, id::RunId, state::RunState};
use millrace_core::{Answer, CloseExecutor, Closed, EndedRun, Refusal, Request, SetSetting, StartRun};

use crate::{
    network::{Host, ProcessId},
    plan::{Plan, SECOND, widened},
    random::Random,
    world::{Event, World},
};

/// After this a client asks again.
const PATIENCE: u64 = 10 * SECOND;
/// And so does one that only wants to see that somebody leads.
const PROBE_PATIENCE: u64 = 3 * SECOND;
/// A client that has its answer may ask once more with the same key.
const ASKED_MAX: u32 = 50;

/// Who closes and opens executors.
const PERSON: &str = "a person";
/// One in so many seeds has somebody who drains executors: from numbers of its own, so that the others are as they were.
const DRAINS_ONE_IN: u64 = 5;
/// One in so many seeds has somebody who changes live settings, from numbers of its own as well.
const SETS_ONE_IN: u64 = 7;
/// What is set then, one after the other.
const SETTINGS: [(&str, &str); 6] = [
    ("pools.shared", "1"),
    ("executors.x0.slots", "1"),
    ("executors.x1.slots", "0"),
    ("schedules_paused", "true"),
    ("losses_max", "3"),
    ("runs_per_workflow_max", "130"),
];

/// What a client wants.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wish {
    /// Put a definition in force; later ones allow one more run at once.
    Apply {
        definition: usize,
        later: bool,
    },
    Start {
        definition: usize,
    },
    /// Starts a run, to see that somebody leads.
    Probe {
        definition: usize,
    },
    Cancel(RunId),
    Pause(RunId),
    Resume(RunId),
    Retry(RunId),
    Explain(RunId),
    Executors,
    Count,
    /// Places nothing more on the executor of a machine.
    Drain(usize),
    Undrain(usize),
    /// Sets a live setting, one of [`SETTINGS`], or unsets it.
    Set(usize),
    Unset(usize),
    /// Something with a run that is there when the time comes.
    Meddle,
}

#[derive(Debug)]
pub(crate) struct Client {
    wish: Wish,
    key: Option<String>,
    asked: u32,
    is_answered: bool,
}

impl World {
    /// Sends the clients of the plan on their way.
    pub(crate) fn call_clients(&mut self) {
        for definition in 0..self.plan.definitions.len() {
            self.call(0, Wish::Apply { definition, later: false });
        }
        for _ in 0..self.plan.requests {
            let wish = wish(&self.plan, &mut self.random);
            let wait = self.random.between(SECOND, self.plan.fault_time);
            self.call(wait, wish);
        }
        self.call_drains();
        self.call_settings();
    }

    /// Has executors drained and, mostly, opened again.
    fn call_drains(&mut self) {
        if !self.plan.seed.is_multiple_of(DRAINS_ONE_IN) {
            return;
        }
        let mut random = Random::new(self.plan.seed ^ 0x6472_6169_6E73);
        for machine in 0..self.executors.len() {
            let wait = random.between(SECOND, self.plan.fault_time);
            self.call(wait, Wish::Drain(machine));
            if random.happens(70) {
                self.call(wait + random.between(SECOND, 60 * SECOND), Wish::Undrain(machine));
            }
        }
    }

    /// Has live settings changed, and taken back.
    fn call_settings(&mut self) {
        if !self.plan.seed.is_multiple_of(SETS_ONE_IN) {
            return;
        }
        let mut random = Random::new(self.plan.seed ^ 0x7365_7474_6C65);
        for setting in 0..SETTINGS.len() {
            let wait = random.between(SECOND, self.plan.fault_time);
            self.call(wait, Wish::Set(setting));
            self.call(wait + random.between(SECOND, 60 * SECOND), Wish::Unset(setting));
        }
    }

    /// What is paused or made smaller waits for a person: here is one.
    pub(crate) fn unset_settings(&mut self) {
        for (at, (name, _)) in SETTINGS.iter().enumerate() {
            if self.database.memory.settings.contains_key(*name) {
                self.call(0, Wish::Unset(at));
            }
        }
    }

    /// A closed executor waits for a person: here is one.
    pub(crate) fn open_closed_executors(&mut self) {
        for machine in 0..self.executors.len() {
            if self.database.memory.standings.contains_key(&Self::executor_name(machine)) {
                self.call(0, Wish::Undrain(machine));
            }
        }
    }

    pub(crate) fn call(&mut self, wait: u64, wish: Wish) {
        let number = self.clients.len();
        let is_probe = matches!(wish, Wish::Probe { .. });
        let is_keyed = is_probe || matches!(wish, Wish::Start { .. }) && self.random.happens(70);
        let is_shared = !is_probe && self.random.happens(20);
        let key = is_keyed.then(|| format!("key-{}", if is_shared { 0 } else { number }));
        self.clients.push(Client { wish, key, asked: 0, is_answered: false });
        self.at(wait, Event::Ask(number));
    }

    pub(crate) fn on_ask(&mut self, number: usize) {
        if matches!(self.clients[number].wish, Wish::Meddle) {
            self.clients[number].wish = self.meddle();
        }
        let client = &mut self.clients[number];
        let is_repeated = client.key.is_some() || matches!(client.wish, Wish::Apply { .. });
        if client.is_answered {
            return;
        }
        if client.asked == ASKED_MAX || (client.asked > 0 && !is_repeated) {
            return self.give_up(number as u64);
        }
        client.asked += 1;
        let patience = if matches!(client.wish, Wish::Probe { .. }) { PROBE_PATIENCE } else { PATIENCE };
        if client.asked == 1 && is_repeated {
            self.record(&Recorded::Asked { request: number as u64 });
        }
        let Some(process) = self.process_to_ask() else { return self.at(2 * SECOND, Event::Ask(number)) };
        let delay = self.random.between(100, 50_000);
        self.at(delay, Event::Requested(process, number));
        self.at(patience, Event::Ask(number));
    }

    /// Returns a process that a client finds: in liveness mode, once all is as it will stay, one that is healthy.
    fn process_to_ask(&mut self) -> Option<ProcessId> {
        if let Some((master, _)) = self.core {
            return self.process_of(master);
        }
        let all: Vec<ProcessId> = self.processes.keys().copied().collect();
        let leading = self.leading().filter(|_| self.random.happens(60));
        leading.or_else(|| (!all.is_empty()).then(|| self.random.pick(&all)))
    }

    /// What a master does with a request: it looks for the key in the store, then asks whoever leads.
    pub(crate) fn on_requested(&mut self, id: ProcessId, number: usize) {
        let Some(id) = self.leader_known_to(id) else { return };
        let Some(request) = self.request(number) else { return };
        if let Request::StartRun(StartRun { workflow, idempotency_key: Some(key), .. }) = &request
            && let Some(run) = self.database.memory.run_by_key(workflow, key)
        {
            return self.answer(number, Answer::RunStarted { run, is_repeat: true });
        }
        self.trace(|| format!("client {number} asks process {id}: {request:?}"));
        if let Some(leader) = self.processes.get_mut(&id).and_then(|process| process.leader.as_mut()) {
            leader.ask(number, request);
        }
        self.nudge(id);
    }

    /// A standby passes requests on to the leader that it knows of.
    fn leader_known_to(&self, id: ProcessId) -> Option<ProcessId> {
        let process = self.processes.get(&id)?;
        if process.leader.is_some() {
            return Some(id);
        }
        let key = process.candidate.seen?;
        let other = self.processes.get(&key.holder).filter(|other| other.leader.is_some())?;
        let (here, there) = (Host::Master(process.master), Host::Master(other.master));
        let is_cut =
            self.network.is_cut(here, there, self.time) || self.network.is_cut(there, here, self.time);
        (!is_cut && other.stands_until <= self.time).then_some(key.holder)
    }

    fn request(&self, number: usize) -> Option<Request> {
        let client = &self.clients[number];
        Some(match client.wish {
            Wish::Apply { definition, later } => self.application(definition, later),
            Wish::Start { definition } | Wish::Probe { definition } => Request::StartRun(StartRun {
                workflow: format!("w{definition}").parse().unwrap(),
                params: "{}".into(),
                logical_date: None,
                idempotency_key: client.key.clone().map(Into::into),
            }),
            Wish::Cancel(run) => Request::CancelRun(run),
            Wish::Pause(run) => Request::PauseRun(run),
            Wish::Resume(run) => Request::ResumeRun(run),
            Wish::Retry(run) => Request::RetryRun(Box::new(self.ended_run(run)?)),
            Wish::Explain(run) => Request::ExplainRun { run, task: None },
            Wish::Executors => Request::ListExecutors,
            Wish::Drain(machine) => Request::CloseExecutor(CloseExecutor {
                executor: Self::executor_name(machine),
                closed: Closed::Drained,
                reason: "".into(),
                by: PERSON.into(),
            }),
            Wish::Undrain(machine) => {
                Request::OpenExecutor { executor: Self::executor_name(machine), by: PERSON.into() }
            }
            Wish::Set(at) => set(SETTINGS[at].0, Some(SETTINGS[at].1)),
            Wish::Unset(at) => set(SETTINGS[at].0, None),
            Wish::Count | Wish::Meddle => Request::CountWork,
        })
    }

    fn application(&self, definition: usize, later: bool) -> Request {
        let source = &self.plan.definitions[definition];
        let source = if later { widened(source) } else { source.clone() };
        let workflow = definition::parse(&source).unwrap();
        Request::ApplyWorkflow { workflow: Arc::new(workflow), source: source.into() }
    }

    /// Reads an ended run from the store, as a master does that is asked to retry it.
    fn ended_run(&self, run: RunId) -> Option<EndedRun> {
        let row = self.database.memory.runs.get(&run)?;
        let tasks =
            row.tasks.iter().map(|(index, task)| (*index, (task.state, task.values.clone()))).collect();
        let workflow = Arc::clone(&self.checker.runs().get(&run)?.workflow);
        Some(EndedRun { created: row.created.clone(), workflow, state: row.state, tasks })
    }

    fn meddle(&mut self) -> Wish {
        let runs: Vec<(RunId, RunState)> =
            self.checker.runs().iter().map(|(id, run)| (*id, run.state)).collect();
        if runs.is_empty() {
            return Wish::Count;
        }
        let live: Vec<_> = runs.iter().copied().filter(|(_, state)| !state.is_final()).collect();
        let (run, state) = self.random.pick(if live.is_empty() { &runs } else { &live });
        match self.random.below(8) {
            0..=2 => Wish::Cancel(run),
            3 => Wish::Pause(run),
            4 => Wish::Resume(run),
            5 => Wish::Explain(run),
            _ if state.is_final() => Wish::Retry(run),
            _ => {
                let (ended, _) = self.random.pick(&runs);
                Wish::Retry(ended)
            }
        }
    }

    pub(crate) fn answer(&mut self, number: usize, answer: Answer) {
        let delay = self.random.between(100, 50_000);
        self.at(delay, Event::Told(number, answer));
    }

    pub(crate) fn on_told(&mut self, number: usize, answer: Answer) {
        let again = self.random.happens(20);
        let client = &mut self.clients[number];
        let (wish, key) = (client.wish, client.key.clone());
        if matches!(&answer, Answer::Refused(Refusal::UnknownWorkflow(_))) && key.is_some() {
            // Its definition is on its way.
            return;
        }
        client.is_answered = !(again && matches!(wish, Wish::Start { .. }) && key.is_some());
        let heard = match (wish, answer) {
            (Wish::Start { definition } | Wish::Probe { definition }, Answer::RunStarted { run, .. }) => {
                Heard::RunStarted { workflow: format!("w{definition}").parse().unwrap(), key, run }
            }
            (Wish::Cancel(run) | Wish::Pause(run) | Wish::Resume(run), Answer::RunMoved(state)) => {
                Heard::RunMoved { run, state }
            }
            _ => Heard::Other,
        };
        self.record(&Recorded::Answered { request: number as u64, answer: heard });
    }

    /// A paused run waits for a person: here is one.
    pub(crate) fn resume_paused_runs(&mut self) {
        let paused: Vec<RunId> = self
            .checker
            .runs()
            .iter()
            .filter(|(_, run)| run.state == RunState::Paused)
            .map(|(id, _)| *id)
            .collect();
        for run in paused {
            self.call(0, Wish::Resume(run));
        }
    }
}

fn set(name: &str, text: Option<&str>) -> Request {
    Request::SetSetting(SetSetting { name: name.into(), text: text.map(Into::into), by: PERSON.into() })
}

fn wish(plan: &Plan, random: &mut Random) -> Wish {
    let definition = usize::try_from(random.below(plan.definitions.len() as u64)).unwrap();
    match random.below(20) {
        0..=10 => Wish::Start { definition },
        11 => Wish::Apply { definition, later: true },
        12 => Wish::Executors,
        13 => Wish::Count,
        _ => Wish::Meddle,
    }
}
