//! The database: the fence row with its lock and those who wait for it, transactions whose outcome may not be heard of,
//! a server that restarts, has no room or stands still, and connections that outlive who opened them.

use std::collections::{BTreeMap, VecDeque};

use millrace_common::term::Term;
use millrace_core::{
    Change, Snapshot,
    testing::{MemoryStore, Mutation},
};

use crate::{network::ProcessId, plan::SECOND, planted::Planted};

pub(crate) type LineId = u64;

/// How long anything waits for the lock of the fence row.
pub(crate) const LOCK_WAIT: u64 = 5 * SECOND;
/// How long a transaction may stand idle, where the server minds.
pub(crate) const IDLE_MAX: u64 = 5 * SECOND;

/// What a master asks of it.
#[derive(Debug, Clone)]
pub(crate) enum DatabaseCall {
    Probe,
    Claim(Term),
    /// Ends the connections of earlier leaders.
    EndOthers,
    Load,
    /// Begins a transaction by advancing the fence row.
    Begin {
        term: Term,
        seq: u64,
    },
    /// Writes and commits what was begun.
    Commit(Vec<Change>),
    /// Reads the fence row, waiting for whoever writes.
    Fence,
}

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) enum DatabaseReply {
    Alive,
    Claimed,
    /// The term is not higher than what is there.
    Superseded,
    /// The lock of the fence row was waited for in vain.
    LockedOut,
    Loaded(Box<Snapshot>),
    Begun,
    Committed,
    /// It did not do it, and nothing was written.
    Refused,
    Fence {
        term: Term,
        seq: u64,
        holder: ProcessId,
    },
}

/// A connection of a process.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) process: ProcessId,
    /// The transaction that it is in, and since when.
    open: Option<(Term, u64)>,
    pub(crate) transactions: u64,
}

/// A call that waits for the lock.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) line: LineId,
    pub(crate) call: u64,
    pub(crate) asked: DatabaseCall,
}

/// What a call led to.
#[derive(Debug)]
pub(crate) enum Served {
    Reply(DatabaseReply),
    /// It waits for the lock.
    Waits,
    /// The connection is broken.
    Broken,
}

/// What was committed, for the history.
#[derive(Debug)]
pub(crate) enum Recorded {
    Claim(Term, ProcessId),
    Transaction(Term, u64, Vec<Change>),
}

/// The database.
#[derive(Debug, Default)]
pub(crate) struct Database {
    pub(crate) memory: MemoryStore,
    seq: u64,
    holder: ProcessId,
    lock: Option<LineId>,
    waiting: VecDeque<Waiting>,
    pub(crate) lines: BTreeMap<LineId, Line>,
    opened: u64,
    pub(crate) down_until: u64,
    pub(crate) full_until: u64,
    pub(crate) recorded: Vec<Recorded>,
    /// What the store refused of a leader that held the fence: the core is wrong.
    pub(crate) problem: Option<String>,
    /// A planted fault: the term of a transaction is not compared.
    forgets_fence: bool,
    /// A planted fault: the fence is read and not locked.
    selects_fence: bool,
}

impl Database {
    pub(crate) fn new(planted: Option<Planted>) -> Self {
        Self {
            forgets_fence: planted == Some(Planted::Core(Mutation::FenceForgotten)),
            selects_fence: planted == Some(Planted::FenceSelected),
            ..Self::default()
        }
    }

    pub(crate) fn open(&mut self, process: ProcessId) -> LineId {
        self.opened += 1;
        self.lines.insert(self.opened, Line { process, open: None, transactions: 0 });
        self.opened
    }

    /// Ends a connection; its transaction is undone.
    pub(crate) fn close(&mut self, line: LineId) {
        self.lines.remove(&line);
        self.waiting.retain(|waiting| waiting.line != line);
        if self.lock == Some(line) {
            self.lock = None;
        }
    }

    pub(crate) fn restart(&mut self, until: u64) {
        self.lines.clear();
        self.waiting.clear();
        self.lock = None;
        self.down_until = until;
    }

    /// Ends a transaction that has stood idle since it was begun, with its connection.
    pub(crate) fn end_idle(&mut self, line: LineId, transaction: u64) -> bool {
        let is_idle =
            self.lines.get(&line).is_some_and(|line| line.open.is_some() && line.transactions == transaction);
        if is_idle {
            self.close(line);
        }
        is_idle
    }

    /// Returns the next that waits for the lock, now that nobody has it.
    pub(crate) fn next_waiting(&mut self) -> Option<Waiting> {
        if self.lock.is_some() { None } else { self.waiting.pop_front() }
    }

    /// Gives up waiting; tells whether it did wait.
    pub(crate) fn give_up(&mut self, line: LineId, call: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| (waiting.line, waiting.call) != (line, call));
        self.waiting.len() < before
    }

    pub(crate) fn serve(&mut self, time: u64, id: LineId, call: u64, asked: DatabaseCall) -> Served {
        if time < self.down_until || !self.lines.contains_key(&id) {
            return Served::Broken;
        }
        let is_locking =
            matches!(asked, DatabaseCall::Claim(_) | DatabaseCall::Begin { .. } | DatabaseCall::Fence);
        if is_locking && !self.selects_fence && self.lock.is_some_and(|holder| holder != id) {
            self.waiting.push_back(Waiting { line: id, call, asked });
            return Served::Waits;
        }
        Served::Reply(match asked {
            DatabaseCall::Probe => DatabaseReply::Alive,
            DatabaseCall::Claim(term) => self.claim(id, term),
            DatabaseCall::EndOthers => {
                let process = self.lines[&id].process;
                let others: Vec<LineId> = self
                    .lines
                    .iter()
                    .filter(|(_, line)| line.process != process && line.open.is_some())
                    .map(|(other, _)| *other)
                    .collect();
                others.into_iter().for_each(|other| self.close(other));
                DatabaseReply::Alive
            }
            DatabaseCall::Load => DatabaseReply::Loaded(Box::new(self.memory.load())),
            DatabaseCall::Begin { term, seq } => self.begin(id, term, seq),
            DatabaseCall::Commit(changes) => return self.commit(time, id, changes),
            DatabaseCall::Fence => {
                DatabaseReply::Fence { term: self.memory.term, seq: self.seq, holder: self.holder }
            }
        })
    }

    fn claim(&mut self, id: LineId, term: Term) -> DatabaseReply {
        if term <= self.memory.term {
            return DatabaseReply::Superseded;
        }
        (self.memory.term, self.seq) = (term, 0);
        self.holder = self.lines[&id].process;
        self.recorded.push(Recorded::Claim(term, self.holder));
        DatabaseReply::Claimed
    }

    fn begin(&mut self, id: LineId, term: Term, seq: u64) -> DatabaseReply {
        let is_mine = self.memory.term == term && self.seq + 1 == seq;
        if !is_mine && !self.forgets_fence {
            return DatabaseReply::Superseded;
        }
        if !self.selects_fence {
            self.lock = Some(id);
        }
        let line = self.lines.get_mut(&id).unwrap();
        line.open = Some((term, seq));
        line.transactions += 1;
        DatabaseReply::Begun
    }

    fn commit(&mut self, time: u64, id: LineId, changes: Vec<Change>) -> Served {
        let Some((term, seq)) = self.lines.get_mut(&id).unwrap().open.take() else { return Served::Broken };
        if self.lock == Some(id) {
            self.lock = None;
        }
        if time < self.full_until {
            return Served::Reply(DatabaseReply::Refused);
        }
        if let Err(problem) = self.memory.replay(&changes) {
            self.problem.get_or_insert(format!("the store refuses a batch of term {term}: {problem}"));
            return Served::Reply(DatabaseReply::Refused);
        }
        if term == self.memory.term {
            self.seq = seq;
        }
        self.recorded.push(Recorded::Transaction(term, seq, changes));
        Served::Reply(DatabaseReply::Committed)
    }
}
