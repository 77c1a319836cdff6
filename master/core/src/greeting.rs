//! Greetings that a leader does not go on with.
//!
//! | greeting | what is done |
//! |---|---|
//! | of another process than the one that has the session and was heard a moment ago | refused: two executors have one name; the first keeps its session |
//! | of the same process, and older than what it said since | refused: the network held it back |
//! | of a spool that shows less than it once did | refused: an older copy took its place, and a new spool is to begin |
//!
//! A spool shows less where it has taken in fewer facts than it said before, or does not hold an attempt that it had
//! accepted: an honest one holds that until the leader has acknowledged its end. What such a spool does not show is not
//! thereby proven to have ended. Facts are known from this term only; attempts also from before it.

use std::{sync::Arc, time::Duration};

use millrace_common::{
    id::{AttemptId, SessionId},
    state::AttemptState,
};

#[cfg(feature = "testing")]
use crate::testing::Mutation;
use crate::{
    batch::{Alarm, Effect, Message},
    input::Hello,
    scheduler::Scheduler,
    state::Executor,
};

/// For how long the one that was heard last keeps its session against another one: more than two heartbeats. A restart of
/// the program ends its session at once, so it waits for this only where a whole machine was lost.
const RIVAL_SILENCE: Duration = Duration::from_secs(10);

/// What is wrong with a greeting.
enum Doubt {
    /// Somebody else has the name.
    Rival(String),
    /// It was overtaken.
    Overtaken,
    /// The spool is an older copy of itself.
    OldSpool(String),
}

impl Scheduler {
    /// Refuses a greeting that is not to be gone on with, and tells whether it did.
    pub(crate) fn refuse_doubtful(&mut self, session: SessionId, hello: &Hello) -> bool {
        let Some(doubt) = self.doubt(hello) else { return false };
        let message = match doubt {
            Doubt::Rival(reason) => {
                self.count_refusal("another_executor_of_that_name");
                self.tell_rival(hello);
                Message::Refused(reason.into())
            }
            Doubt::Overtaken => {
                self.count_refusal("overtaken_greeting");
                Message::Refused("a newer session of this executor took its place".into())
            }
            Doubt::OldSpool(reason) => {
                self.count_refusal("old_spool");
                let reason: Arc<str> = reason.into();
                let (executor, spool) = (hello.executor.clone(), hello.spool);
                let alarm = Alarm::SpoolOld { executor, spool, reason: Arc::clone(&reason) };
                self.push_effect(Effect::Alarm(alarm));
                Message::SpoolOld(reason)
            }
        };
        self.push_effect(Effect::Send(session, message));
        true
    }

    fn doubt(&self, hello: &Hello) -> Option<Doubt> {
        let executor = self.state.executors.get(&hello.executor)?;
        if let Some(rival) = self.rival(executor, hello) {
            return Some(Doubt::Rival(rival));
        }
        let what = self.shows_less(executor, hello)?;
        let is_overtaken =
            executor.is_connected() && hello.process.is_some() && executor.process == hello.process;
        Some(if is_overtaken { Doubt::Overtaken } else { Doubt::OldSpool(what) })
    }

    /// Says that another process has the name, where one was heard a moment ago.
    fn rival(&self, executor: &Executor, hello: &Hello) -> Option<String> {
        let (known, _) = executor.process.as_ref().zip(hello.process.as_ref())?;
        let silence = self.now.uptime.since(executor.spoke_at);
        let is_rival = Some(known) != hello.process.as_ref() && executor.is_connected();
        (is_rival && silence <= RIVAL_SILENCE).then(|| {
            let machine = executor.machine.as_deref().unwrap_or("unknown");
            format!(
                "an executor named {} is connected already, from machine {machine}, and was heard {} s ago: no two may have \
                 one name, nor data folders that are copies of each other; give this one a `name` and a `data_dir` of its own",
                hello.executor,
                silence.as_secs()
            )
        })
    }

    /// Raises an alarm once for each process that wants the name of another one.
    fn tell_rival(&mut self, hello: &Hello) {
        let Some(executor) = self.state.executors.get_mut(&hello.executor) else { return };
        if executor.rival == hello.process {
            return;
        }
        executor.rival.clone_from(&hello.process);
        let (executor, machine) = (hello.executor.clone(), hello.machine.clone());
        self.push_effect(Effect::Alarm(Alarm::Rival { executor, machine }));
    }

    /// Says what a spool no longer shows.
    fn shows_less(&self, executor: &Executor, hello: &Hello) -> Option<String> {
        if let Some((_, known)) = executor.spool_facts.filter(|(spool, _)| *spool == hello.spool)
            && hello.spool_facts < known
        {
            let told = hello.spool_facts;
            return Some(format!("spool {} has {told} facts and had {known} before", hello.spool));
        }
        // Whoever takes a greeting for a proof does not doubt it.
        #[cfg(feature = "testing")]
        if self.is_planted(Mutation::GreetingProves) {
            return None;
        }
        let attempt = executor.live.iter().find(|attempt| self.is_forgotten(**attempt, hello))?;
        Some(format!("spool {} does not hold attempt {attempt}, which it had accepted", hello.spool))
    }

    /// Tells whether an attempt was accepted by this very spool, which does not hold it.
    fn is_forgotten(&self, attempt: AttemptId, hello: &Hello) -> bool {
        let live = self.state.live(attempt.instance).filter(|live| live.number == attempt.number);
        // One that is being ended may never have been accepted.
        let is_accepted = live.is_some_and(|live| {
            live.spool == hello.spool && matches!(live.state, AttemptState::Accepted | AttemptState::Running)
        });
        is_accepted && !hello.held.iter().any(|held| held.attempt == attempt)
    }
}
