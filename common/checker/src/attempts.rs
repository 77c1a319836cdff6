//! Attempts and their processes: I3, I4, I5, I6, I9, I10, I12, I13, I15.

use millrace_common::{
    id::{AttemptId, ExecutorName, SpoolId},
    settings::Setting,
    state::{AttemptState, RunState, TaskState},
    term::Term,
};

use crate::{
    checker::{Checker, Waiver},
    history::{End, Exit, Proof},
};

/// An attempt as the committed facts tell it.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) executor: ExecutorName,
    pub(crate) spool: SpoolId,
    pub(crate) end: Option<End>,
}

/// What there is or was of an attempt on a machine.
#[derive(Debug)]
pub(crate) struct Process {
    exit: Option<Exit>,
    /// Whether its machine stood still: then it could not end in time.
    was_frozen: bool,
}

impl Process {
    /// Tells whether it is alive in a way that the protocol can prevent.
    pub(crate) const fn counts(&self) -> bool {
        self.exit.is_none() && !self.was_frozen
    }
}

impl Checker {
    pub(crate) fn on_assigned(&mut self, id: AttemptId, executor: &ExecutorName, spool: SpoolId) {
        let earlier: Vec<_> =
            self.attempts.range(id.instance.attempt(0)..id.instance.attempt(u32::MAX)).collect();
        let is_next = earlier.len() + 1 == id.number as usize;
        let is_alone = earlier.iter().all(|(_, attempt)| attempt.end.is_some());
        self.ensure(is_alone, "I3", || format!("{id} is assigned while an earlier attempt is live"));
        self.ensure(is_next, "I3", || format!("{id} leaves a gap"));
        let is_open = !self.closed.contains(executor);
        self.ensure(is_open, "closed", || {
            format!("{id} is assigned to {executor}, which is closed to starts")
        });
        self.check_alone(id, "is assigned");
        let may_start = self.runs.get(&id.instance.run).is_some_and(|run| {
            run.state == RunState::Running
                && !run.is_ending
                && run.tasks.get(id.instance.index as usize) == Some(&TaskState::Ready)
        });
        self.ensure(may_start, "I11", || format!("{id} is assigned and its task is not ready"));
        self.attempts.insert(id, Attempt { executor: executor.clone(), spool, end: None });
        self.live.entry(executor.clone()).or_default().insert(id);
        self.check_limits(id, executor);
    }

    /// Nothing of an earlier attempt of the task instance may be alive.
    fn check_alone(&mut self, id: AttemptId, what: &str) {
        let Some(other) = self.living_beside(id) else { return };
        let by_time = self.attempts.get(&other).and_then(|attempt| attempt.end);
        let by_time = by_time.is_some_and(|end| end.proof == Proof::TimePassed);
        if !(by_time && self.is_waived(Waiver::LeasesLie)) {
            self.fail("I6", format!("{id} {what} while {other} is alive"));
        }
    }

    /// What was made smaller by a live setting may hold more than it can; what is given something may not.
    fn check_limits(&mut self, id: AttemptId, executor: &ExecutorName) {
        let used = self.live.get(executor).map_or(0, std::collections::BTreeSet::len);
        if let Some((_, offered)) = self.offers.get(executor).copied() {
            let most = match self.settings.get(&format!("executors.{executor}.slots")) {
                Some(Setting::ExecutorSlots(_, most)) => *most,
                _ => offered,
            };
            let slots = offered.min(most);
            self.ensure(used <= slots as usize, "I15", || {
                format!("{used} attempts on {executor}, which has {slots} slots")
            });
        }
        let Some(pool) = self.task(id.instance).and_then(|task| task.pool.clone()) else { return };
        let limit = match self.settings.get(&format!("pools.{pool}")) {
            Some(Setting::Pool(_, size)) => Some(*size),
            _ => self.rules.pools.get(&pool).copied(),
        };
        if let Some(limit) = limit {
            let share = |id: &AttemptId| {
                let task = self.task(id.instance)?;
                (task.pool.as_ref() == Some(&pool)).then_some(task.pool_slots)
            };
            let taken: u32 = self.live.values().flatten().filter_map(share).sum();
            self.ensure(taken <= limit, "I15", || {
                format!("{taken} of {limit} places of pool {pool} are taken")
            });
        }
    }

    pub(crate) fn on_attempt_moved(&mut self, id: AttemptId) {
        let is_live = self.attempts.get(&id).is_some_and(|attempt| attempt.end.is_none());
        self.ensure(is_live, "I9", || format!("{id} moves and is not live"));
    }

    pub(crate) fn on_attempt_ended(&mut self, id: AttemptId, end: End) {
        let by_time = end.proof == Proof::TimePassed && self.is_waived(Waiver::LeasesLie);
        let is_alive = self.processes.get(&id).is_some_and(Process::counts) && !by_time;
        self.ensure(!is_alive, "I13", || {
            format!("{id} is {} by proof {:?} while its process is alive", end.state, end.proof)
        });
        self.ensure(end.state.is_final(), "I9", || format!("{id} ends as {}", end.state));
        let exit = self.processes.get(&id).and_then(|process| process.exit);
        let is_faithful = match (end.state, exit) {
            (AttemptState::Succeeded, Some(Exit::Code(code))) => {
                end.exit_code == Some(code) && (code == 0 || end.is_skipped)
            }
            (AttemptState::Failed, Some(Exit::Code(code))) => end.exit_code == Some(code) && code != 0,
            (AttemptState::Failed, Some(Exit::Killed)) => end.exit_code.is_none(),
            (AttemptState::Succeeded | AttemptState::Failed, Some(Exit::Unseen)) => true,
            // It could not be started.
            (AttemptState::Failed, None) => end.exit_code.is_none(),
            (AttemptState::Rejected, _) => !self.processes.contains_key(&id),
            (AttemptState::TimedOut, exit) => exit.is_some(),
            // Nobody saw how it ended, or it never began.
            (AttemptState::Killed | AttemptState::Lost, _) => true,
            _ => false,
        };
        self.ensure(is_faithful || is_alive, "I10", || {
            format!("{id} is recorded as {} and its process ended with {exit:?}", end.state)
        });
        self.check_recorded(id, end);
        let executor = match self.attempts.get_mut(&id) {
            Some(attempt) if attempt.end.is_none() => {
                attempt.end = Some(end);
                attempt.executor.clone()
            }
            _ => return self.fail("I9", format!("{id} ends and is not live")),
        };
        if let Some(live) = self.live.get_mut(&executor) {
            live.remove(&id);
        }
    }

    /// What is committed is what the executor has recorded, unless it ended by another proof than its word.
    fn check_recorded(&mut self, id: AttemptId, end: End) {
        let is_by_word = !matches!(end.state, AttemptState::Lost | AttemptState::Killed);
        let Some(recorded) = self.recorded.get(&id).copied().filter(|_| is_by_word) else { return };
        self.ensure(recorded == (end.state, end.exit_code), "I10", || {
            let code =
                |code: Option<i32>| code.map_or_else(String::new, |code| format!(" with exit code {code}"));
            format!(
                "{id} is committed as {}{}, its executor has recorded it as {}{}",
                end.state,
                code(end.exit_code),
                recorded.0,
                code(recorded.1)
            )
        });
    }

    pub(crate) fn on_end_recorded(
        &mut self,
        executor: &ExecutorName,
        id: AttemptId,
        state: AttemptState,
        exit_code: Option<i32>,
    ) {
        let earlier = self.recorded.insert(id, (state, exit_code));
        self.ensure(earlier.is_none_or(|earlier| earlier == (state, exit_code)), "I9", || {
            format!("{executor} records {id} as {state} after it has recorded another end")
        });
    }

    pub(crate) fn on_received(&mut self, executor: &ExecutorName, spool: SpoolId, id: AttemptId) {
        let attempt = self.attempts.get(&id);
        let is_assigned = attempt.is_some_and(|at| at.executor == *executor && at.spool == spool);
        self.ensure(is_assigned, "I4", || {
            format!("{executor} receives {id}, which is not committed as assigned to it")
        });
    }

    pub(crate) fn on_released(&mut self, executor: &ExecutorName, id: AttemptId) {
        let attempt = self.attempts.get(&id);
        let is_durable = attempt.is_some_and(|at| at.end.is_some() || at.executor != *executor);
        self.ensure(is_durable, "I8", || format!("{executor} is to forget {id}, whose end is not committed"));
    }

    pub(crate) fn on_obeyed(&mut self, executor: &ExecutorName, spool: SpoolId, term: Term) {
        let before = self.obeyed.insert(spool, term).unwrap_or_default();
        self.ensure(before <= term, "I12", || format!("{executor} obeys term {term} after {before}"));
    }

    pub(crate) fn on_spawned(&mut self, id: AttemptId) {
        self.check_alone(id, "begins");
        let attempt = self.attempts.get(&id);
        let (is_committed, is_ended) =
            (attempt.is_some(), attempt.is_some_and(|attempt| attempt.end.is_some()));
        let earlier = self.processes.insert(id, Process { exit: None, was_frozen: false });
        self.ensure(earlier.is_none(), "I5", || format!("{id} is spawned a second time"));
        self.ensure(is_committed, "I4", || format!("{id} is spawned and not committed as assigned"));
        self.ensure(!is_ended || self.is_waived(Waiver::LeasesLie), "I13", || {
            format!("{id} is spawned after its end")
        });
    }

    pub(crate) fn on_exited(&mut self, id: AttemptId, exit: Exit) {
        match self.processes.get_mut(&id) {
            Some(process) if process.exit.is_none() => process.exit = Some(exit),
            Some(_) => self.fail("history", format!("{id} ends a second time")),
            None => self.fail("history", format!("{id} ends and never began")),
        }
    }

    pub(crate) fn on_frozen(&mut self, executor: &ExecutorName) {
        let attempts = &self.attempts;
        let ours = |id: &AttemptId| attempts.get(id).is_some_and(|attempt| attempt.executor == *executor);
        for (_, process) in self.processes.iter_mut().filter(|(id, _)| ours(id)) {
            process.was_frozen = true;
        }
    }
}
