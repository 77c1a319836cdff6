//! A ledger with a spool and processes that are only noted.

use std::time::Duration;

use bytes::Bytes;
use millrace_common::{
    id::{AttemptId, InstanceId, RunId, SpoolId},
    interval::DataInterval,
    term::Term,
    time::{Now, Timestamp, Uptime},
};

use super::super::*;

pub(super) const SLOTS: u32 = 3;
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const STOP_GRACE: Duration = Duration::from_secs(2);

pub(super) fn limits() -> Limits {
    Limits { slots: SLOTS, answer_timeout: ANSWER_TIMEOUT, stop_grace: STOP_GRACE }
}

pub(super) fn spool() -> SpoolId {
    SpoolId(uuid::Uuid::from_u128(7))
}

pub(super) fn attempt(index: u32, number: u32) -> AttemptId {
    let run = RunId::new(Timestamp::from_micros(1_000_000), 1);
    InstanceId { run, index }.attempt(number)
}

pub(super) fn start(attempt: AttemptId) -> Start {
    Start {
        attempt,
        spool: spool(),
        workflow: "w".into(),
        task: "t".into(),
        kind: "shell".into(),
        with: Bytes::from_static(b"{}"),
        is_templated: false,
        interval: DataInterval::at(Timestamp::from_micros(0)),
        timezone: "UTC".into(),
        params: String::new(),
        values: Default::default(),
        timeout: None,
        kill_grace: Duration::from_secs(10),
        orphan_timeout: Some(ORPHAN_TIMEOUT),
    }
}

pub(super) fn succeeded() -> Ending {
    Ending::Succeeded { exit_code: 0, is_skipped: false, values: String::new() }
}

pub(super) fn failed(exit_code: i32) -> Ending {
    Ending::Failed {
        exit_code: Some(exit_code),
        reason: format!("exit code {exit_code}"),
        is_permanent: false,
    }
}

pub(super) fn ended() -> Ending {
    Ending::Ended { exit_code: None, by: None }
}

/// The ledger and what is durable of it.
pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) durable: Vec<Record>,
    pub(super) now: Now,
}

impl World {
    pub(super) fn new() -> Self {
        let now =
            Now { wall: Timestamp::from_micros(5_000_000), uptime: Uptime::new(Duration::from_secs(1_000)) };
        Self { ledger: Ledger::new(spool(), limits()), durable: Vec::new(), now }
    }

    /// A world with a session whose first heartbeat was answered.
    pub(super) fn connected() -> Self {
        let mut world = Self::new();
        world.input(Input::Dialled);
        world.leader(FromLeader::Welcome(Vec::new()));
        world.leader(FromLeader::HeartbeatAnswer(1));
        world.commit();
        world
    }

    pub(super) fn input(&mut self, input: Input) {
        self.ledger.handle(self.now, input).unwrap();
    }

    pub(super) fn leader_of(&mut self, term: Term, message: FromLeader) -> Result<(), Refusal> {
        self.ledger.handle(self.now, Input::FromLeader(term, message))
    }

    pub(super) fn leader(&mut self, message: FromLeader) {
        self.leader_of(Term(1), message).unwrap();
    }

    pub(super) fn spawned(&mut self, attempt: AttemptId) {
        self.input(Input::Spawned { attempt, pid: 4_711, workspace: 1, at: self.now });
    }

    pub(super) fn exit(&mut self, attempt: AttemptId, how: Ending) {
        self.input(Input::Exited(attempt, Exit { how, log_bytes: 0, at: self.now.wall }));
    }

    /// Starts an attempt and sees it run.
    pub(super) fn run(&mut self, attempt: AttemptId) {
        self.leader(FromLeader::Starts(vec![start(attempt)]));
        self.commit();
        self.spawned(attempt);
        self.commit();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.uptime = self.now.uptime + time;
        self.now.wall = self.now.wall + time;
        self.ledger.handle_timeout(self.now);
    }

    /// Makes everything durable and returns what is to be done.
    pub(super) fn commit(&mut self) -> Vec<Action> {
        let Some(batch) = self.ledger.take_batch() else { return Vec::new() };
        self.durable.extend_from_slice(batch.records());
        self.ledger.release(self.now, batch)
    }

    /// Commits, and returns the ends that are reported.
    pub(super) fn ends(&mut self) -> Vec<End> {
        let ends = self.commit().into_iter().filter_map(|action| match action {
            Action::Report(_, Report::Ended(end)) => Some(end),
            _ => None,
        });
        ends.collect()
    }

    /// Commits, and returns the one end that is reported.
    pub(super) fn only_end(&mut self) -> End {
        let ends = self.ends();
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends[0].clone()
    }

    /// Loses what is not durable, and the supervisor.
    pub(super) fn crash(&mut self) {
        self.restart(&Kept::default());
    }

    /// Loses what is not durable; the supervisor has kept this.
    pub(super) fn restart(&mut self, kept: &Kept) {
        self.ledger = Ledger::restore(spool(), limits(), self.durable.clone(), kept);
    }

    /// Returns what a supervisor keeps of these attempts.
    pub(super) fn kept(&self, attempts: &[AttemptId]) -> Kept {
        let survivor = |attempt: &AttemptId| {
            let entry = &self.ledger.attempts[attempt];
            let process =
                entry.process.unwrap_or(Spawned { pid: 4_711, uptime: self.now.uptime, workspace: 1 });
            Survivor {
                attempt: *attempt,
                process,
                started_at: entry.started_at.unwrap_or(self.now.wall),
                timeout: entry.timeout,
                orphan_timeout: entry.orphan_timeout,
                kill_grace: entry.kill_grace,
                ended_by: match &entry.state {
                    State::Killing(cause) => Some(cause.told()),
                    _ => None,
                },
            }
        };
        Kept { contact: self.ledger.session.contact, attempts: attempts.iter().map(survivor).collect() }
    }

    pub(super) fn greeting(&mut self) -> Vec<Held> {
        self.input(Input::Dialled);
        let greeting = self.commit().into_iter().find_map(|action| match action {
            Action::Greet(greeting) => Some(greeting.held),
            _ => None,
        });
        greeting.expect("a greeting")
    }
}
