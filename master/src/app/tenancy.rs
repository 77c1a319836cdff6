//! From standing by to the end of a term: everything between is owned here, and there is no way back.
//!
//! A term that is told to stop commits what it has decided, ends its sessions, and gives the leadership back, in this
//! order: whoever leads next does not wait for a lease, and nothing is said to an executor after the key is gone. A term
//! whose authority is over says nothing at all any more: its connections are cut at once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use millrace_common::{term::Term, time::Clock};
use millrace_core::{Input, Limits, Restored, Scheduler, lease::AuthorityEnd};
use millrace_runtime::Chain;
use millrace_store::{Store, Writer};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Ready, Stop};
use crate::{
    config::MasterConfig,
    database::Condition,
    election::{Authority, Candidate, Elected, Solo, Tenure},
    exit::TermLost,
    feed::Feed,
    fleet::Fleet,
    leader::{self, Pruner, TermEnd, TermParts},
    role::{RoleSender, Seat},
    settings::Keeper,
};

/// How long a commit that is under way may go on after authority is over. Whether it is done then is for the next leader
/// to read, as after any other crash.
const LAST_COMMIT_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a new leader waits for the live settings.
const SETTINGS_TIME_MAX: Duration = Duration::from_secs(2);

/// What a master needs to lead.
pub(super) struct Tenancy {
    pub(super) config: MasterConfig,
    pub(super) store: Store,
    pub(super) feed: Feed,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) roles: Arc<RoleSender>,
    /// Absent where this master is alone.
    pub(super) candidate: Option<Candidate>,
    /// Cancelled where the leader is to make way.
    pub(super) hand_over: CancellationToken,
    /// Who waits until this master answers.
    pub(super) ready: Option<oneshot::Sender<Ready>>,
    pub(super) address: SocketAddr,
    pub(super) settings: Keeper,
    pub(super) condition: Condition,
    pub(super) fleet: Fleet,
}

impl Tenancy {
    /// Stands by, leads, and gives the leadership back.
    ///
    /// # Errors
    /// Where it cannot lead, or its term ended other than by being told to stop.
    pub(super) async fn run(mut self, shutdown: &CancellationToken, stop: &Stop) -> anyhow::Result<()> {
        let is_alone = self.candidate.is_none();
        let Some(elected) = self.stand_by(shutdown).await? else { return Ok(()) };
        let Elected { term, writer, authority, tenure } = elected;
        let claimed = self.clock.now().uptime;
        let from = Durable { store: &self.store, settings: &self.settings };
        let scheduler = match from.restore(term, limits(&self.config), self.clock.as_ref()).await {
            Ok(scheduler) => scheduler,
            Err(error) => {
                give_back(tenure, stop).await;
                return Err(error);
            }
        };
        let restored_in_ms = self.clock.now().uptime.since(claimed).as_millis();
        tracing::info!(term = term.0, restored_in_ms, address = %self.address, "leading");
        let end = self.lead(scheduler, writer, authority, shutdown).await;
        if let TermEnd::AuthorityOver(_) = end {
            stop.cut.cancel();
        }
        give_back(tenure, stop).await;
        match end {
            TermEnd::Stopped if shutdown.is_cancelled() || is_alone => Ok(()),
            TermEnd::Stopped => Err(TermLost::HandedOver.into()),
            TermEnd::CommitFailed(error) => Err(TermLost::Commit(error).into()),
            TermEnd::AuthorityOver(end) => Err(TermLost::Authority(end).into()),
            TermEnd::Broken(problem) => Err(TermLost::Broken(problem).into()),
        }
    }

    /// Waits for the leadership; `None` where it was told to stop before.
    async fn stand_by(&mut self, shutdown: &CancellationToken) -> anyhow::Result<Option<Elected>> {
        let Some(candidate) = self.candidate.take() else {
            if shutdown.run_until_cancelled(self.condition.until_answered()).await.is_none() {
                return Ok(None);
            }
            let elected = Solo.elect(&self.store, &self.config.name).await;
            return elected.map(Some).context("cannot claim the leadership");
        };
        tracing::info!(address = %self.address, "standing by");
        self.announce();
        Ok(candidate.elect(shutdown).await?)
    }

    /// Says that this master answers, once.
    fn announce(&mut self) {
        if let Some(ready) = self.ready.take() {
            // Nobody waiting is fine.
            let _ = ready.send(Ready { address: self.address });
        }
    }

    /// Leads until the term ends.
    async fn lead(
        mut self,
        scheduler: Scheduler,
        writer: Writer,
        authority: Authority,
        shutdown: &CancellationToken,
    ) -> TermEnd {
        let (leader, inbox) = leader::inbox::open();
        self.roles.lead(Seat { term: scheduler.term(), leader });
        self.announce();
        let Self { config, feed, clock, roles, hand_over, condition, fleet, .. } = self;
        let pruner = Pruner::new(config.keeps(), clock.now());
        let watched = authority.clone();
        let clock_of_term = Arc::clone(&clock);
        let parts = TermParts {
            scheduler,
            writer,
            authority,
            inbox,
            feed,
            clock: clock_of_term,
            pruner,
            condition,
            fleet,
        };
        let told = shutdown.child_token();
        let term = leader::run_term(parts, told.clone());
        let term = until_over(term, &watched, clock.as_ref());
        let make_way = async {
            hand_over.cancelled().await;
            told.cancel();
            std::future::pending().await
        };
        let end = tokio::select! { end = term => end, end = make_way => end };
        roles.leave();
        end
    }
}

/// Waits for the end of a term, but not much longer than it has authority.
async fn until_over(
    term: impl Future<Output = TermEnd>,
    authority: &Authority,
    clock: &dyn Clock,
) -> TermEnd {
    let given_up = async {
        authority.over().await;
        tokio::time::sleep(LAST_COMMIT_TIME_MAX).await;
        authority.check(clock).err().unwrap_or(AuthorityEnd::Expired)
    };
    tokio::select! {
        biased;
        end = term => end,
        end = given_up => TermEnd::AuthorityOver(end),
    }
}

/// Ends what is being said, and then the leadership.
async fn give_back(tenure: Option<Tenure>, stop: &Stop) {
    stop.serving.cancel();
    if let Some(tenure) = tenure {
        tenure.resign().await;
    }
}

pub(super) fn limits(config: &MasterConfig) -> Limits {
    let limits = Limits::default();
    Limits {
        pools: config.pools.clone(),
        runs_per_workflow_max: config.runs_per_workflow_max,
        authority: config.etcd.as_ref().map_or(limits.authority, |etcd| etcd.authority),
        ..limits
    }
}

/// What a term is restored from.
struct Durable<'a> {
    store: &'a Store,
    settings: &'a Keeper,
}

impl Durable<'_> {
    async fn restore(&self, term: Term, limits: Limits, clock: &dyn Clock) -> anyhow::Result<Scheduler> {
        let loaded = self.store.load().await.context("cannot load what is unfinished")?;
        for problem in &loaded.problems {
            tracing::error!(error = %Chain(problem), "taken out of scheduling");
        }
        let Restored { mut scheduler, quarantined } =
            Scheduler::restore(term, loaded.snapshot, limits, clock.now())?;
        for (run, problem) in quarantined {
            tracing::error!(run_id = %run, problem, "run taken out of scheduling: its rows contradict each other");
        }
        self.read_settings(&mut scheduler, clock).await;
        Ok(scheduler)
    }

    /// Hands a new leader's scheduler what etcd has of live settings, before it decides anything.
    ///
    /// Where that does not answer, those that the last leader committed stay in force, and whoever follows them goes on
    /// asking.
    async fn read_settings(&self, scheduler: &mut Scheduler, clock: &dyn Clock) {
        let Keeper::Etcd(keeper) = self.settings else { return };
        match tokio::time::timeout(SETTINGS_TIME_MAX, keeper.read()).await {
            Ok(Ok(account)) => scheduler.handle(clock.now(), Input::SettingsRead(Box::new(account))),
            Ok(Err(error)) => {
                tracing::warn!(error = %Chain(&error), "live settings cannot be read, the last ones stay in force");
            }
            Err(_) => tracing::warn!("live settings cannot be read in time, the last ones stay in force"),
        }
    }
}
