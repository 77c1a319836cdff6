//! What this executor holds: a state machine without IO, clock or tasks.
//!
//! Owns the attempts of the spool, the highest term obeyed, the contact to the leader and all deadlines. Inputs change it
//! at once; what must be on the disk and what to do afterwards comes out as a [`Batch`], and batches are released in order.
//! So a greeting or a heartbeat, being an action, never tells what is not durable.
//!
//! Invariants: an attempt is spawned at most once, whatever is repeated; it has one end, which never changes; nothing is
//! reported before it is durable; a task instance has at most one live attempt here; obeyed terms never fall.

mod batch;
mod entry;
mod input;
mod leader;
mod release;
mod restore;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use millrace_common::{
    id::{AttemptId, InstanceId, SpoolId},
    term::Term,
    time::{Now, Uptime},
};

use self::entry::{Cause, Entry, State};
pub use self::{
    batch::{Action, Batch, End, Greeting, Heartbeat, Held, Record, Rejection, Remains, Report, Spawned},
    input::{EndedBy, Ending, Exit, FromLeader, HistoryQuestion, Input, OnStop, Refusal, Start, Verdict},
    restore::{Kept, Survivor},
};

/// Attempts that are remembered after their end was acknowledged, so that a late repetition is not run again. A leader
/// that is obeyed has committed the end, so only a message that was under way for this many attempts could matter.
pub const RELEASED_REMEMBERED_MAX: usize = 16_384;
/// How long nothing more is started after the disk had no room for a start, whatever its free space seems to be: a quota or
/// a table of files may be what is full.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(60);
/// Heartbeats without an answer that are remembered; the session is closed long before.
const HEARTBEATS_IN_FLIGHT_MAX: usize = 64;

/// Bounds that the ledger keeps.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Attempts that may live at once.
    pub slots: u32,
    /// How long an answer to a heartbeat may take to count.
    pub answer_timeout: Duration,
    /// Time between TERM and KILL when the program is stopped, at most.
    pub stop_grace: Duration,
}

/// The attempts of one spool.
#[derive(Debug)]
pub struct Ledger {
    spool: SpoolId,
    limits: Limits,
    term: Term,
    attempts: BTreeMap<AttemptId, Entry>,
    live: HashMap<InstanceId, AttemptId>,
    timeouts: BTreeSet<(Uptime, AttemptId)>,
    /// Live attempts that end themselves without contact, by how long they run on.
    orphans: BTreeSet<(Duration, AttemptId)>,
    released: VecDeque<AttemptId>,
    released_set: HashSet<AttemptId>,
    session: Session,
    /// Whether nothing that an older spool started is alive.
    is_purged: bool,
    /// Whether a leader has drawn what follows from that.
    is_attested: bool,
    /// Facts that had to be durable, of all lives of the spool.
    spool_facts: u64,
    is_space_low: bool,
    no_space_until: Uptime,
    is_stopping: bool,
    pending: Batch,
}

/// The contact to the leader.
#[derive(Debug, Default)]
struct Session {
    is_open: bool,
    /// When the newest message left whose answer came back in time.
    contact: Option<Uptime>,
    heartbeat_number: u64,
    in_flight: VecDeque<(u64, Uptime)>,
    greeted_at: Option<Uptime>,
    /// Whether the greeting attested that nothing of an older spool is alive.
    is_clean: bool,
    close_asked: bool,
}

impl Ledger {
    /// Makes the ledger of a new spool.
    #[must_use]
    pub fn new(spool: SpoolId, limits: Limits) -> Self {
        Self {
            spool,
            limits,
            term: Term::default(),
            attempts: BTreeMap::new(),
            live: HashMap::new(),
            timeouts: BTreeSet::new(),
            orphans: BTreeSet::new(),
            released: VecDeque::new(),
            released_set: HashSet::new(),
            session: Session::default(),
            is_purged: false,
            is_attested: false,
            spool_facts: 0,
            is_space_low: false,
            no_space_until: Uptime::default(),
            is_stopping: false,
            pending: Batch::default(),
        }
    }

    /// Returns the spool's id.
    #[must_use]
    pub const fn spool(&self) -> SpoolId {
        self.spool
    }

    /// Returns the number of attempts that live.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Returns the number of attempts that ended and wait for their acknowledgement.
    #[must_use]
    pub fn unacknowledged_count(&self) -> usize {
        self.attempts.len() - self.live.len()
    }

    /// Tells whether an attempt lives and waits for its process: what was killed meanwhile must not be spawned any more.
    #[must_use]
    pub fn is_starting(&self, attempt: AttemptId) -> bool {
        self.attempts.get(&attempt).is_some_and(|entry| entry.state == State::Starting)
    }

    /// Tells whether an attempt lives here.
    #[must_use]
    pub fn is_live(&self, attempt: AttemptId) -> bool {
        self.attempts.get(&attempt).is_some_and(Entry::is_live)
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// Where a deposed leader speaks; nothing is changed and its session must end.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), Refusal> {
        match input {
            Input::Dialled => self.on_dialled(now),
            Input::FromLeader(term, message) => return self.on_leader_said(now, term, message),
            Input::HeartbeatDue => self.on_heartbeat_due(now),
            Input::Disconnected => self.on_disconnected(),
            Input::Spawned { attempt, pid, workspace, at } => {
                self.on_spawned(attempt, Spawned { pid, uptime: at.uptime, workspace }, at);
            }
            Input::Exited(attempt, exit) => {
                if matches!(exit.how, Ending::NotStarted { rejection: Rejection::SpaceLow, .. }) {
                    self.no_space_until = now.uptime + NO_SPACE_PAUSE;
                }
                self.on_exited(attempt, exit);
            }
            Input::Purged { is_complete } => self.is_purged = is_complete,
            Input::SpaceChecked { is_low } => self.is_space_low = is_low,
            Input::SupervisorLost => self.on_supervisor_lost(),
            Input::StopRequested(on_stop) => self.on_stop_requested(on_stop),
        }
        Ok(())
    }

    /// Tells whether there is anything to write or to do.
    #[must_use]
    pub fn has_batch(&self) -> bool {
        !self.pending.records.is_empty() || !self.pending.actions.is_empty()
    }

    /// Takes out what there is to write and to do; `None` where there is nothing.
    pub fn take_batch(&mut self) -> Option<Batch> {
        self.has_batch().then(|| std::mem::take(&mut self.pending))
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Uptime> {
        let timeout = self.timeouts.first().map(|(at, _)| *at);
        let orphan = self.orphans.first().map(|(limit, _)| self.contact() + *limit);
        [timeout, orphan, self.answer_deadline()].into_iter().flatten().min()
    }

    /// Ends what took too long and what nobody leads any more.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, attempt)) = self.timeouts.first().copied().filter(|(at, _)| *at <= now.uptime) {
            self.timeouts.remove(&(at, attempt));
            let limit = self.attempts.get(&attempt).and_then(|entry| entry.timeout).unwrap_or_default();
            self.begin_kill(attempt, Cause::TimedOut(limit), None);
        }
        while let Some((limit, attempt)) = self.orphans.first().copied() {
            if self.contact() + limit > now.uptime {
                break;
            }
            self.orphans.remove(&(limit, attempt));
            self.begin_kill(attempt, Cause::Orphaned(limit), None);
        }
        if self.answer_deadline().is_some_and(|deadline| deadline <= now.uptime) {
            self.session.close_asked = true;
            self.act(Action::CloseSession);
        }
    }

    fn on_dialled(&mut self, now: Now) {
        let is_clean = self.is_purged && !self.is_attested;
        self.session.greeted_at = Some(now.uptime);
        self.session.is_clean = is_clean;
        let (term_seen, spool_facts) = (self.term, self.spool_facts);
        let (held, is_space_low) = (self.held(true), self.is_space_low(now));
        self.act(Action::Greet(Greeting { term_seen, spool_facts, held, is_clean, is_space_low }));
    }

    fn on_heartbeat_due(&mut self, now: Now) {
        if !self.session.is_open {
            return;
        }
        self.session.heartbeat_number += 1;
        let number = self.session.heartbeat_number;
        if self.session.in_flight.len() < HEARTBEATS_IN_FLIGHT_MAX {
            self.session.in_flight.push_back((number, now.uptime));
        }
        let (spool_facts, held, is_space_low) = (self.spool_facts, self.held(false), self.is_space_low(now));
        self.act(Action::Heartbeat(Heartbeat { number, spool_facts, held, is_space_low }));
    }

    fn on_disconnected(&mut self) {
        self.session.is_open = false;
        self.session.close_asked = false;
        self.session.greeted_at = None;
        self.session.is_clean = false;
        self.session.in_flight.clear();
    }

    fn on_spawned(&mut self, attempt: AttemptId, process: Spawned, at: Now) {
        let Some(entry) = self.attempts.get_mut(&attempt).filter(|entry| entry.is_live()) else { return };
        entry.started_at = Some(at.wall);
        entry.process = Some(process);
        if entry.state == State::Starting {
            entry.state = State::Running;
            if let Some(timeout) = entry.timeout {
                self.timeouts.insert((at.uptime + timeout, attempt));
            }
        }
        let uptime_ms = u64::try_from(process.uptime.since_boot().as_millis()).unwrap_or(u64::MAX);
        let Spawned { pid, workspace, .. } = process;
        self.record(Record::Spawned { attempt, pid, uptime_ms, workspace, at: at.wall });
        self.act(Action::Report(attempt, Report::Started { at: at.wall, pid }));
    }

    fn on_exited(&mut self, attempt: AttemptId, exit: Exit) {
        let Some(entry) = self.attempts.get(&attempt).filter(|entry| entry.is_live()) else {
            // Its end is durable already, or nobody asks for it: a supervisor that tells it again may forget it.
            self.act(Action::Settle(attempt));
            return;
        };
        let is_discarded = entry.state == State::Killing(Cause::Discarded);
        let end = entry.outcome(exit);
        self.act(Action::Settle(attempt));
        self.end(attempt, end);
        if is_discarded {
            self.forget(attempt);
            self.act(Action::Discard(attempt));
        }
    }

    fn on_supervisor_lost(&mut self) {
        let live: Vec<_> = self.live.values().copied().collect();
        let remains = self.remains(live, &Cause::Unsupervised, Entry::is_live);
        self.act(Action::Purge(remains));
    }

    fn on_stop_requested(&mut self, on_stop: OnStop) {
        self.is_stopping = true;
        if on_stop == OnStop::Keep {
            return;
        }
        let live: Vec<_> = self.live.values().copied().collect();
        for attempt in live {
            self.begin_kill(attempt, Cause::Stopped, Some(self.limits.stop_grace));
        }
    }

    /// Begins to end an attempt; `grace_max` shortens its own grace. Nothing where it is being ended already.
    fn begin_kill(&mut self, attempt: AttemptId, cause: Cause, grace_max: Option<Duration>) {
        let Some(entry) = self.attempts.get_mut(&attempt) else { return };
        if !matches!(entry.state, State::Starting | State::Running) {
            return;
        }
        let by = cause.told();
        entry.state = State::Killing(cause);
        let grace = grace_max.map_or(entry.kill_grace, |most| most.min(entry.kill_grace));
        self.disarm(attempt);
        self.act(Action::Kill { attempt, grace, by });
    }

    /// Notes the end of an attempt and tells the leader.
    fn end(&mut self, attempt: AttemptId, end: End) {
        self.disarm(attempt);
        if self.live.get(&attempt.instance) == Some(&attempt) {
            self.live.remove(&attempt.instance);
        }
        let entry = self.attempts.entry(attempt).or_insert_with(|| Entry::ended(end.clone()));
        entry.state = State::Ended(end.clone());
        self.record(Record::Ended { attempt, end: end.clone() });
        self.act(Action::Report(attempt, Report::Ended(end)));
    }

    /// Drops an ended attempt and keeps its id for a while.
    fn forget(&mut self, attempt: AttemptId) {
        if self.attempts.get(&attempt).is_none_or(Entry::is_live) {
            return;
        }
        self.attempts.remove(&attempt);
        self.remember(attempt);
        self.record(Record::Released(attempt));
    }

    fn remember(&mut self, attempt: AttemptId) {
        if !self.released_set.insert(attempt) {
            return;
        }
        self.released.push_back(attempt);
        if self.released.len() > RELEASED_REMEMBERED_MAX
            && let Some(oldest) = self.released.pop_front()
        {
            self.released_set.remove(&oldest);
        }
    }

    fn disarm(&mut self, attempt: AttemptId) {
        let Some(entry) = self.attempts.get(&attempt) else { return };
        if let Some(limit) = entry.orphan_timeout {
            self.orphans.remove(&(limit, attempt));
        }
        if let (Some(timeout), Some(process)) = (entry.timeout, &entry.process) {
            self.timeouts.remove(&(process.uptime + timeout, attempt));
        }
    }

    /// Returns when the newest message left whose answer came back in time; boot, where there was none.
    fn contact(&self) -> Uptime {
        self.session.contact.unwrap_or_default()
    }

    /// Tells whether starts are refused for want of space.
    fn is_space_low(&self, now: Now) -> bool {
        self.is_space_low || now.uptime < self.no_space_until
    }

    /// Returns when the oldest unanswered heartbeat is too late to count.
    fn answer_deadline(&self) -> Option<Uptime> {
        let (_, sent) = self.session.in_flight.front().filter(|_| !self.session.close_asked)?;
        Some(*sent + self.limits.answer_timeout)
    }

    fn held(&self, with_ends: bool) -> Vec<Held> {
        let held = |(attempt, entry): (&AttemptId, &Entry)| Held {
            attempt: *attempt,
            state: entry.shown(),
            end: match &entry.state {
                State::Ended(end) if with_ends => Some(end.clone()),
                _ => None,
            },
        };
        self.attempts.iter().map(held).collect()
    }

    fn record(&mut self, record: Record) {
        self.spool_facts += u64::from(record.must_be_durable());
        self.pending.records.push(record);
    }

    fn act(&mut self, action: Action) {
        self.pending.actions.push(action);
    }
}
