//! Any order of messages, commits, exits and crashes: each attempt is spawned at most once and never beside another of its
//! task instance, has one end that never changes, and nothing is told before it is durable.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use millrace_common::{
    id::{AttemptId, InstanceId},
    state::AttemptState,
    term::Term,
};
use proptest::prelude::*;

use super::world::{ORPHAN_TIMEOUT, World, attempt, ended, failed, start, succeeded};
use crate::ledger::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Start(AttemptId),
    ForeignStart(AttemptId),
    Kill(AttemptId),
    Ack(AttemptId),
    Verdict(AttemptId, Verdict),
    Exit(AttemptId, bool),
    Heartbeat,
    Answer(u64),
    Dial,
    Welcome,
    Disconnect,
    Pass(u64),
    NewTerm,
    OldTerm(AttemptId),
    Take,
    Commit,
    /// The program and its supervisor.
    Crash,
    /// The program alone.
    Restart,
    LoseSupervisor,
    Rewrite,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = (0_u32..3, 1_u32..4).prop_map(|(index, number)| attempt(index, number));
    let verdict = prop_oneof![Just(Verdict::Adopt), Just(Verdict::Kill), Just(Verdict::Discard)];
    let step = prop_oneof![
        6 => id.clone().prop_map(Step::Start),
        1 => id.clone().prop_map(Step::ForeignStart),
        2 => id.clone().prop_map(Step::Kill),
        2 => id.clone().prop_map(Step::Ack),
        2 => (id.clone(), verdict).prop_map(|(id, verdict)| Step::Verdict(id, verdict)),
        4 => (id.clone(), any::<bool>()).prop_map(|(id, is_success)| Step::Exit(id, is_success)),
        1 => Just(Step::Heartbeat),
        1 => (0_u64..6).prop_map(Step::Answer),
        1 => Just(Step::Dial),
        2 => Just(Step::Welcome),
        1 => Just(Step::Disconnect),
        1 => (0_u64..40).prop_map(Step::Pass),
        1 => Just(Step::NewTerm),
        1 => id.prop_map(Step::OldTerm),
        4 => Just(Step::Take),
        6 => Just(Step::Commit),
        1 => Just(Step::Crash),
        2 => Just(Step::Restart),
        1 => Just(Step::LoseSupervisor),
        1 => Just(Step::Rewrite),
    ];
    prop::collection::vec(step, 0..120)
}

/// What an observer outside has seen.
struct Observer {
    world: World,
    term: u64,
    queue: VecDeque<Batch>,
    processes: BTreeMap<AttemptId, bool>,
    spawned: BTreeSet<AttemptId>,
    told: BTreeMap<AttemptId, End>,
    released: BTreeSet<AttemptId>,
    facts_told: u64,
}

impl Observer {
    fn new() -> Self {
        Self {
            world: World::connected(),
            term: 1,
            queue: VecDeque::new(),
            processes: BTreeMap::new(),
            spawned: BTreeSet::new(),
            told: BTreeMap::new(),
            released: BTreeSet::new(),
            facts_told: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            // A leader that has acknowledged an end never asks for that attempt again.
            Step::Start(id) if !self.released.contains(&id) => {
                self.leader(FromLeader::Starts(vec![start(id)]));
            }
            Step::ForeignStart(id) if !self.released.contains(&id) => {
                let spool = SpoolId(uuid::Uuid::from_u128(1));
                self.leader(FromLeader::Starts(vec![Start { spool, ..start(id) }]));
            }
            Step::Kill(id) if !self.released.contains(&id) => {
                let (grace, reason) = (Duration::from_secs(1), "asked".to_owned());
                self.leader(FromLeader::Kill { attempt: id, grace, reason });
            }
            Step::Start(_) | Step::ForeignStart(_) | Step::Kill(_) => {}
            Step::Ack(id) => self.ack(id),
            Step::Verdict(id, verdict) => self.verdict(id, verdict),
            Step::Exit(id, is_success) => self.exit(id, is_success),
            Step::Heartbeat => self.world.input(Input::HeartbeatDue),
            Step::Answer(number) => self.leader(FromLeader::HeartbeatAnswer(number)),
            Step::Dial => self.world.input(Input::Dialled),
            Step::Welcome => self.leader(FromLeader::Welcome(Vec::new())),
            Step::Disconnect => self.world.input(Input::Disconnected),
            Step::Pass(seconds) => self.world.pass(Duration::from_secs(seconds)),
            Step::NewTerm => {
                self.term += 1;
                self.leader(FromLeader::Acks(Vec::new()));
            }
            Step::OldTerm(id) => self.old_term(id),
            Step::Take => self.queue.extend(self.world.ledger.take_batch()),
            Step::Commit => self.commit(),
            Step::Crash => self.crash(),
            Step::Restart => self.restart(),
            Step::LoseSupervisor => self.world.input(Input::SupervisorLost),
            Step::Rewrite => self.rewrite(),
        }
    }

    fn leader(&mut self, message: FromLeader) {
        self.world.leader_of(Term(self.term), message).unwrap();
    }

    fn old_term(&mut self, id: AttemptId) {
        if self.term > 1 {
            let refused = self.world.leader_of(Term(self.term - 1), FromLeader::Starts(vec![start(id)]));
            assert!(refused.is_err(), "a deposed leader was obeyed");
        }
    }

    /// A leader acknowledges what it was told.
    fn ack(&mut self, id: AttemptId) {
        if self.told.contains_key(&id) {
            self.released.insert(id);
            self.leader(FromLeader::Acks(vec![id]));
        }
    }

    /// A leader discards what it has committed an end for, or never knew.
    fn verdict(&mut self, id: AttemptId, verdict: Verdict) {
        if verdict == Verdict::Discard {
            self.released.insert(id);
        }
        self.leader(FromLeader::Welcome(vec![(id, verdict)]));
    }

    fn exit(&mut self, id: AttemptId, is_success: bool) {
        if let Some(was_killed) = self.processes.remove(&id) {
            let how = match (was_killed, is_success) {
                (true, _) => ended(),
                (false, true) => succeeded(),
                (false, false) => failed(1),
            };
            self.world.exit(id, how);
        }
    }

    /// The spool finishes its oldest batch, and what waited for it is done.
    fn commit(&mut self) {
        let Some(batch) = self.queue.pop_front().or_else(|| self.world.ledger.take_batch()) else { return };
        self.world.durable.extend_from_slice(batch.records());
        for action in self.world.ledger.release(self.world.now, batch) {
            self.observe(action);
        }
    }

    fn observe(&mut self, action: Action) {
        match action {
            Action::Spawn(start) => self.on_spawn(start.attempt),
            Action::Kill { attempt, .. } => {
                if let Some(was_killed) = self.processes.get_mut(&attempt) {
                    *was_killed = true;
                }
            }
            Action::Purge(remains) => {
                for Remains { attempt, .. } in remains {
                    self.processes.remove(&attempt);
                    self.world.exit(attempt, ended());
                }
            }
            Action::Report(id, Report::Ended(end)) => self.on_end_told(id, &end),
            Action::Report(id, _) => assert!(self.is_intended(id), "{id} was told before it was durable"),
            Action::Greet(Greeting { held, spool_facts, .. })
            | Action::Heartbeat(Heartbeat { held, spool_facts, .. }) => {
                let told = std::mem::replace(&mut self.facts_told, spool_facts);
                assert!(
                    told <= spool_facts,
                    "the spool seems to be an older copy: {told}, then {spool_facts}"
                );
                self.on_account(held);
            }
            Action::Settle(id) => assert!(self.is_settled(id), "{id} was settled before its end was durable"),
            Action::Discard(_)
            | Action::CloseSession
            | Action::Extend(_)
            | Action::TellHistory(_)
            | Action::SetAside(_) => {}
        }
    }

    fn on_spawn(&mut self, id: AttemptId) {
        if !self.world.ledger.is_starting(id) {
            // As the program does with what was given up meanwhile.
            self.world.exit(id, ended());
            return;
        }
        assert!(self.spawned.insert(id), "{id} was spawned twice");
        assert!(self.is_intended(id), "{id} was spawned before its intent was durable");
        let until = self.world.ledger.contact() + ORPHAN_TIMEOUT;
        assert!(self.world.now.uptime < until, "{id} was spawned after its right to run had ended");
        let is_same = |other: &AttemptId| -> bool { other.instance == InstanceId { ..id.instance } };
        assert!(!self.processes.keys().any(is_same), "two attempts of one task instance live at once");
        self.processes.insert(id, false);
        self.world.spawned(id);
    }

    fn on_end_told(&mut self, id: AttemptId, end: &End) {
        if self.released.contains(&id) {
            // The leader has it: what is still under way here says nothing new, and its record may be gone.
            return;
        }
        let is_durable = |record: &Record| matches!(record, Record::Ended { attempt, end: kept } if *attempt == id && kept == end);
        assert!(self.world.durable.iter().any(is_durable), "the end of {id} was told before it was durable");
        assert!(!self.processes.contains_key(&id), "{id} was told to have ended and lives");
        let first = self.told.entry(id).or_insert_with(|| end.clone());
        assert_eq!(first, end, "the end of {id} changed");
    }

    fn on_account(&mut self, held: Vec<Held>) {
        for Held { attempt, state, end } in held {
            match end {
                Some(end) => self.on_end_told(attempt, &end),
                None if state.is_final() => {}
                None => assert!(self.is_intended(attempt), "{attempt} was told before it was durable"),
            }
            assert_ne!(state, AttemptState::Assigned);
        }
    }

    fn is_intended(&self, id: AttemptId) -> bool {
        let is_it = |record: &Record| matches!(record, Record::Intended { attempt, .. } | Record::Ended { attempt, .. } if *attempt == id);
        self.world.durable.iter().any(is_it)
    }

    fn is_settled(&self, id: AttemptId) -> bool {
        let is_it = |record: &Record| matches!(record, Record::Ended { attempt, .. } | Record::Released(attempt) if *attempt == id);
        self.world.durable.iter().any(is_it)
    }

    /// The program dies and its supervisor with it; what that started dies too, or is purged.
    fn crash(&mut self) {
        self.queue.clear();
        self.processes.clear();
        self.world.crash();
        self.commit();
        self.meet_again();
    }

    /// The program dies and takes over what its supervisor has kept.
    fn restart(&mut self) {
        let running: Vec<_> = self.processes.keys().copied().collect();
        let running: Vec<_> =
            running.into_iter().filter(|id| self.world.ledger.attempts.contains_key(id)).collect();
        let mut kept = self.world.kept(&running);
        for survivor in &mut kept.attempts {
            let was_killed = self.processes.get(&survivor.attempt).is_some_and(|was_killed| *was_killed);
            survivor.ended_by = survivor.ended_by.filter(|_| was_killed);
        }
        self.queue.clear();
        self.world.restart(&kept);
        self.commit();
        self.meet_again();
    }

    fn meet_again(&mut self) {
        // The highest term that was obeyed may not have been durable, and then nothing was done for it.
        self.world.leader_of(Term(self.term), FromLeader::Acks(Vec::new())).unwrap();
    }

    /// The journal is written anew, after all that queued before.
    fn rewrite(&mut self) {
        let snapshot = self.world.ledger.snapshot();
        while !self.queue.is_empty() {
            self.commit();
        }
        self.world.durable = snapshot;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_interleaving_keeps_the_promises(steps in steps()) {
        let mut observer = Observer::new();
        for step in steps {
            observer.step(step);
        }
        for _ in 0..8 {
            observer.commit();
        }
    }
}
