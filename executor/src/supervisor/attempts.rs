//! The attempts under supervision: their processes, deadlines and ends.
//!
//! Invariants: an attempt id is spawned at most once; an end is told only after no process of the attempt was found; an end
//! is kept until an executor has made it durable.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fs::{File, OpenOptions},
    io::{self, Seek as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::{fs::OpenOptionsExt as _, process::ExitStatusExt as _},
    },
    path::PathBuf,
    process::ExitStatus,
    rc::Rc,
    time::Duration,
};

use millrace_common::{
    id::AttemptId,
    time::{Clock as _, Now, Uptime},
};
use millrace_runtime::SystemClock;
use millrace_spawn::{Child, Failure, Program, Spawner, Step as SpawnStep, Streams, wait_any};
use nix::{
    errno::Errno,
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, kill, killpg},
    },
    unistd::{Pid, getpgid},
};

use super::{
    containment::Containment,
    ending::{Ending, Step},
    protocol::{Ended, FailedStep, NotStarted, Origin, Running, Spawn, Terms, Word, millis},
};
use crate::ledger::EndedBy;

/// All attempts of one supervisor.
#[derive(Debug)]
pub(super) struct Attempts {
    work: PathBuf,
    null: File,
    spawner: Spawner,
    containment: Containment,
    live: BTreeMap<AttemptId, Live>,
    by_pid: HashMap<i32, AttemptId>,
    ending: BTreeSet<AttemptId>,
    timeouts: BTreeSet<(Uptime, AttemptId)>,
    /// Attempts that end without contact, by how long they run on.
    orphans: BTreeSet<(Duration, AttemptId)>,
    contact: Uptime,
    /// Ends that no executor has settled.
    ended: BTreeMap<AttemptId, Ended>,
    words: VecDeque<Word>,
}

/// An attempt whose process was started.
#[derive(Debug)]
pub(super) struct Live {
    /// Where it comes from.
    pub(super) origin: Origin,
    pub(super) pid: i32,
    /// Says in the end whether its program was loaded.
    child: Child,
    terms: Terms,
    log: File,
    started: Uptime,
    /// How the main process ended, and why a signal of ours came first, if one did.
    exited: Option<(ExitStatus, Option<EndedBy>)>,
    ending: Option<Ending>,
}

impl Attempts {
    pub(super) fn open(data_dir: PathBuf) -> io::Result<Self> {
        Ok(Self {
            work: data_dir.join("work"),
            null: File::open("/dev/null")?,
            spawner: Spawner::default(),
            containment: Containment::open(data_dir),
            live: BTreeMap::new(),
            by_pid: HashMap::new(),
            ending: BTreeSet::new(),
            timeouts: BTreeSet::new(),
            orphans: BTreeSet::new(),
            contact: Uptime::default(),
            ended: BTreeMap::new(),
            words: VecDeque::new(),
        })
    }

    pub(super) const fn containment(&self) -> &Containment {
        &self.containment
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Takes out what there is to tell.
    pub(super) fn next_word(&mut self) -> Option<Word> {
        self.words.pop_front()
    }

    /// Returns how much there is to tell.
    pub(super) fn words(&self) -> usize {
        self.words.len()
    }

    /// Returns the ends that no executor has settled.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = &Ended> {
        self.ended.values()
    }

    /// Forgets ends; tells whether none is left.
    pub(super) fn settle(&mut self, attempts: &[AttemptId]) -> bool {
        for attempt in attempts {
            self.ended.remove(attempt);
        }
        self.ended.is_empty()
    }

    pub(super) fn extend(&mut self, contact: Uptime) {
        self.contact = self.contact.max(contact);
    }

    /// Says everything; what waited to be told is in it.
    pub(super) fn inventory(&mut self) -> Word {
        self.words.clear();
        let running = self.live.values().map(|live| Running {
            origin: live.origin.clone(),
            terms: live.terms.clone(),
            ended_by: live.ending.as_ref().map(|ending| ending.by),
            log_bytes: log_bytes(&live.log),
        });
        Word::Inventory {
            contact_ms: millis(self.contact),
            running: running.collect(),
            ended: self.ended.values().cloned().collect(),
        }
    }

    /// Starts the process of an attempt.
    pub(super) fn spawn(&mut self, spawn: Spawn, program: &Rc<Program>, input: &[u8]) {
        let attempt = spawn.attempt;
        if self.live.contains_key(&attempt) || self.ended.contains_key(&attempt) {
            // Whatever the other side believes, the same attempt is not started twice.
            return;
        }
        match self.start(&spawn, program, input) {
            Ok((child, log)) => self.register(spawn, child, log),
            Err(failure) => {
                let (origin, _) = origin(&spawn, 0);
                let (terms, at) = (spawn.terms, origin.started_at);
                let not_started = Some(not_started(&failure));
                self.tell(Ended { origin, terms, status: 0, not_started, ended_by: None, log_bytes: 0, at });
            }
        }
    }

    fn start(
        &mut self,
        spawn: &Spawn,
        program: &Rc<Program>,
        input: &[u8],
    ) -> Result<(Child, File), Failure> {
        let prepared = |source| Failure { step: SpawnStep::Create, source };
        let path = self.work.join(format!("{}.log", spawn.workspace));
        // Each attempt opens its log anew: a process may change the flags of what it inherits.
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(prepared)?;
        let memory = if input.is_empty() { None } else { Some(in_memory(input).map_err(prepared)?) };
        let input = memory.as_ref().unwrap_or(&self.null);
        let streams = Streams { input: input.as_fd(), output: log.as_fd() };
        let cgroup = self.containment.enter(spawn.workspace);
        match self.spawner.spawn(program, streams, cgroup) {
            Err(failure) if failure.step == SpawnStep::Create && cgroup.is_some() => {
                // A kernel or container that lets groups be made and not be entered.
                self.containment.give_up(&failure.source);
                self.spawner.spawn(program, streams, None)
            }
            result => result,
        }
        .map(|child| (child, log))
    }

    fn register(&mut self, spawn: Spawn, child: Child, log: File) {
        let (attempt, pid) = (spawn.attempt, child.pid);
        let (origin, started) = origin(&spawn, pid);
        let (uptime_ms, at) = (origin.uptime_ms, origin.started_at);
        self.words.push_back(Word::Spawned { attempt, pid: origin.pid, uptime_ms, at });
        let terms = spawn.terms;
        self.timeouts.extend(terms.timeout().map(|timeout| (started + timeout, attempt)));
        self.orphans.extend(terms.orphan().map(|limit| (limit, attempt)));
        self.by_pid.insert(pid, attempt);
        let live = Live { origin, pid, child, terms, log, started, exited: None, ending: None };
        self.live.insert(attempt, live);
    }

    /// Begins to end an attempt: TERM to all of it, or KILL where there is no grace. Nothing where that has begun.
    pub(super) fn end(&mut self, attempt: AttemptId, grace: Duration, by: EndedBy) {
        let now = SystemClock.now().uptime;
        let Some(live) = self.live.get_mut(&attempt).filter(|live| live.ending.is_none()) else { return };
        live.ending = Some(Ending::new(now, grace, by));
        self.ending.insert(attempt);
        if !grace.is_zero() {
            // The group may be empty by now, which is what is wanted.
            let _ = killpg(Pid::from_raw(live.pid), Signal::SIGTERM);
        }
        self.disarm(attempt);
    }

    /// Takes leave of children that have ended, and tells the ends of attempts of which nothing is left.
    pub(super) fn reap(&mut self) {
        let mut exited = Vec::new();
        // An error means that there is no child at all.
        while let Ok(Some((pid, status))) = wait_any() {
            exited.extend(self.by_pid.remove(&pid).map(|attempt| (attempt, status)));
        }
        for (attempt, status) in exited {
            self.on_exit(attempt, status);
        }
    }

    fn on_exit(&mut self, attempt: AttemptId, status: ExitStatus) {
        let now = SystemClock.now().uptime;
        let Some(live) = self.live.get_mut(&attempt) else { return };
        live.exited = Some((status, live.ending.as_ref().map(|ending| ending.by)));
        if let Some(ending) = &mut live.ending {
            ending.next_sweep = now;
        } else if self.containment.has_left(live, &self.by_pid) {
            // What a main process leaves behind is ended before its own outcome is told.
            live.ending = Some(Ending::new(now, Duration::ZERO, EndedBy::Request));
            self.ending.insert(attempt);
        } else {
            self.finish(attempt);
        }
    }

    /// Tells the end of an attempt of which nothing is left.
    fn finish(&mut self, attempt: AttemptId) {
        self.disarm(attempt);
        self.ending.remove(&attempt);
        let Some(live) = self.live.remove(&attempt) else { return };
        let Some((status, ended_by)) = live.exited else { return };
        let failure = self.spawner.failure(live.child);
        self.tell(Ended {
            log_bytes: log_bytes(&live.log),
            origin: live.origin,
            terms: live.terms,
            status: status.into_raw(),
            not_started: failure.as_ref().map(not_started),
            ended_by,
            at: SystemClock.now().wall,
        });
        if self.live.is_empty() {
            self.containment.kill_strays();
        }
    }

    fn tell(&mut self, ended: Ended) {
        self.words.push_back(Word::Ended(Box::new(ended.clone())));
        self.ended.insert(ended.origin.attempt, ended);
    }

    fn disarm(&mut self, attempt: AttemptId) {
        let Some(live) = self.live.get(&attempt) else { return };
        if let Some(timeout) = live.terms.timeout() {
            self.timeouts.remove(&(live.started + timeout, attempt));
        }
        if let Some(limit) = live.terms.orphan() {
            self.orphans.remove(&(limit, attempt));
        }
    }

    /// Returns when there is something to do.
    pub(super) fn next_wake(&self) -> Option<Uptime> {
        let timeout = self.timeouts.first().map(|(at, _)| *at);
        let orphan = self.orphans.first().map(|(limit, _)| self.contact + *limit);
        let sweep = self.endings().map(|ending| ending.next_sweep).min();
        [timeout, orphan, sweep].into_iter().flatten().min()
    }

    fn endings(&self) -> impl Iterator<Item = &Ending> {
        self.ending.iter().filter_map(|attempt| self.live.get(attempt)?.ending.as_ref())
    }

    /// Ends what took too long and what nobody leads any more, whatever became of the executor, and goes on with what is
    /// being ended.
    pub(super) fn on_time(&mut self) {
        let now = SystemClock.now().uptime;
        while let Some((_, attempt)) = self.timeouts.first().copied().filter(|(at, _)| *at <= now) {
            self.timeouts.pop_first();
            self.end(attempt, self.grace(attempt), EndedBy::Timeout);
        }
        let contact = self.contact;
        while let Some((_, attempt)) =
            self.orphans.first().copied().filter(|(limit, _)| contact + *limit <= now)
        {
            self.orphans.pop_first();
            self.end(attempt, self.grace(attempt), EndedBy::Orphan);
        }
        if self.endings().any(|ending| ending.next_sweep <= now) {
            self.sweep(now);
        }
    }

    fn grace(&self, attempt: AttemptId) -> Duration {
        self.live.get(&attempt).map(|live| Duration::from_millis(live.terms.grace_ms)).unwrap_or_default()
    }

    /// Looks once for everything that belongs to the attempts that are being ended, and ends it or tells their end.
    fn sweep(&mut self, now: Uptime) {
        let ending: Vec<(AttemptId, &Live)> =
            self.ending.iter().filter_map(|attempt| Some((*attempt, self.live.get(attempt)?))).collect();
        let mut left = self.containment.members(&ending);
        let mut gone = Vec::new();
        for attempt in &self.ending {
            let found = left.remove(attempt);
            let Some(live) = self.live.get_mut(attempt) else { continue };
            let (pid, origin) = (live.pid, &live.origin);
            // Once it has been waited for, its number may be another's.
            let group = live.exited.is_none().then_some(pid);
            let Some(ending) = &mut live.ending else { continue };
            if found.is_none() && live.exited.is_some() {
                gone.push(*attempt);
                continue;
            }
            let members = found.unwrap_or_default();
            match ending.step(now, members.contains(&pid)) {
                Step::Wait => {}
                Step::Ask => ask_outside(&members, pid),
                Step::Kill => {
                    // The whole at once, so that no member escapes by forking.
                    self.containment.kill(origin.workspace, group);
                    kill_each(&members);
                }
            }
            if ending.is_overdue_now(now) {
                self.words.push_back(Word::Stuck { attempt: *attempt, pids: members });
            }
        }
        for attempt in gone {
            self.finish(attempt);
        }
    }
}

fn log_bytes(log: &File) -> u64 {
    log.metadata().map_or(0, |metadata| metadata.len())
}

fn origin(spawn: &Spawn, pid: i32) -> (Origin, Uptime) {
    let Now { wall, uptime } = SystemClock.now();
    let origin = Origin {
        attempt: spawn.attempt,
        workspace: spawn.workspace,
        pid: pid.unsigned_abs(),
        uptime_ms: millis(uptime),
        started_at: wall,
    };
    (origin, uptime)
}

fn not_started(failure: &Failure) -> NotStarted {
    let step = match failure.step {
        SpawnStep::Create => FailedStep::Prepare,
        SpawnStep::Folder => FailedStep::Folder,
        SpawnStep::Load => FailedStep::Load,
    };
    NotStarted { step, errno: failure.source.raw_os_error().unwrap_or(Errno::EIO as i32) }
}

/// Asks those to end that have left the group, which was asked as a whole.
fn ask_outside(members: &[i32], group: i32) {
    for pid in members.iter().map(|pid| Pid::from_raw(*pid)) {
        if getpgid(Some(pid)).is_ok_and(|found| found.as_raw() != group) {
            // It may have ended since it was seen.
            let _ = kill(pid, Signal::SIGTERM);
        }
    }
}

fn kill_each(members: &[i32]) {
    for pid in members {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}

/// Makes a file that exists in memory only, for parameters that may hold secrets.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}
