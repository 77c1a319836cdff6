//! Clients: they ask, repeat what was not answered, and remember what they were told.

use std::sync::Arc;

use millrace_common::{definition, id::RunId, state::RunState};
use millrace_core::{Answer, EndedRun, Refusal, Request, StartRun};

use crate::{
    plan::{Plan, Random, SECOND},
    world::{Event, World},
};

/// After this a client asks again.
const PATIENCE: u64 = 10 * SECOND;
/// A client that has its answer may ask once more with the same key.
const ASKED_MAX: u32 = 50;

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
    Cancel(RunId),
    Pause(RunId),
    Resume(RunId),
    Retry(RunId),
    Explain(RunId),
    Executors,
    Count,
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
    }

    pub(crate) fn call(&mut self, wait: u64, wish: Wish) {
        let number = self.clients.len();
        let is_keyed = matches!(wish, Wish::Start { .. }) && self.random.happens(70);
        let key = is_keyed.then(|| format!("key-{}", if self.random.happens(20) { 0 } else { number }));
        self.clients.push(Client { wish, key, asked: 0, is_answered: false });
        self.at(wait, Event::Ask(number));
    }

    pub(crate) fn on_ask(&mut self, number: usize) {
        if matches!(self.clients[number].wish, Wish::Meddle) {
            self.clients[number].wish = self.meddle();
        }
        let client = &mut self.clients[number];
        let is_repeated = client.key.is_some() || matches!(client.wish, Wish::Apply { .. });
        if client.is_answered || client.asked == ASKED_MAX || (client.asked > 0 && !is_repeated) {
            return;
        }
        let Some(leader) = self.leader_to_ask(20) else { return self.at(2 * SECOND, Event::Ask(number)) };
        self.clients[number].asked += 1;
        let delay = self.random.between(100, 50_000);
        self.at(delay, Event::Requested(leader, number));
        self.at(PATIENCE, Event::Ask(number));
    }

    /// What a master does with a request: it looks for the key in the store, then asks its leader.
    pub(crate) fn on_requested(&mut self, id: u64, number: usize) {
        if !self.leaders.contains_key(&id) {
            return;
        }
        let Some(request) = self.request(number) else { return };
        if let Request::StartRun(StartRun { workflow, idempotency_key: Some(key), .. }) = &request
            && let Some(run) = self.store.memory.run_by_key(workflow, key)
        {
            return self.answer(number, Answer::RunStarted { run, is_repeat: true });
        }
        self.trace(|| format!("client {number} asks the leader of term {id}: {request:?}"));
        if let Some(leader) = self.leaders.get_mut(&id) {
            leader.ask(number, request);
        }
        self.nudge(id);
    }

    fn request(&self, number: usize) -> Option<Request> {
        let client = &self.clients[number];
        Some(match client.wish {
            Wish::Apply { definition, later } => self.application(definition, later),
            Wish::Start { definition } => Request::StartRun(StartRun {
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
            Wish::Count | Wish::Meddle => Request::CountWork,
        })
    }

    fn application(&self, definition: usize, later: bool) -> Request {
        let source = &self.plan.definitions[definition];
        let mut workflow = definition::parse(source).unwrap();
        workflow.max_active_runs += u32::from(later);
        Request::ApplyWorkflow { workflow: Arc::new(workflow), source: source.as_str().into() }
    }

    /// Reads an ended run from the store, as a master does that is asked to retry it.
    fn ended_run(&self, run: RunId) -> Option<EndedRun> {
        let row = self.store.memory.runs.get(&run)?;
        let tasks =
            row.tasks.iter().map(|(index, task)| (*index, (task.state, task.values.clone()))).collect();
        let workflow = Arc::clone(&self.checker.runs.get(&run)?.workflow);
        Some(EndedRun { created: row.created.clone(), workflow, state: row.state, tasks })
    }

    fn meddle(&mut self) -> Wish {
        let runs: Vec<(RunId, RunState)> =
            self.checker.runs.iter().map(|(id, run)| (*id, run.state)).collect();
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
        self.at(delay, Event::Answered(number, answer));
    }

    pub(crate) fn on_answered(&mut self, number: usize, answer: Answer) {
        let again = self.random.happens(20);
        let client = &mut self.clients[number];
        client.is_answered = true;
        match (client.wish, answer) {
            (Wish::Start { definition }, Answer::RunStarted { run, .. }) => {
                let workflow = format!("w{definition}").parse().unwrap();
                let key = client.key.clone().unwrap_or_else(|| format!("client {number} without a key"));
                client.is_answered = client.key.is_none() || !again;
                let has_key = client.key.is_some();
                self.checker.acknowledged(&workflow, &key, run, has_key);
            }
            (Wish::Start { .. }, Answer::Refused(Refusal::UnknownWorkflow(_))) => client.is_answered = false,
            (Wish::Cancel(run) | Wish::Pause(run) | Wish::Resume(run), Answer::RunMoved(state)) => {
                self.checker.told(run, state);
            }
            _ => {}
        }
    }

    /// A paused run waits for a person: here is one.
    pub(crate) fn resume_paused_runs(&mut self) {
        let paused: Vec<RunId> = self
            .checker
            .runs
            .iter()
            .filter(|(_, run)| run.state == RunState::Paused)
            .map(|(id, _)| *id)
            .collect();
        for run in paused {
            self.call(0, Wish::Resume(run));
        }
    }
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
