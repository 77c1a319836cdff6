//! From standing by to the end of a term: everything between is owned here, and there is no way back.
//!
//! A term that is told to stop commits what it has decided, ends its sessions, and gives the leadership back, in this
//! order: whoever leads next does not wait for a lease, and nothing is said to an executor after the key is gone. A term
//! whose authority is over says nothing at all any more: its connections are cut at once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use millrace_common::{term::Term, time::Clock};
use millrace_core::{Limits, Restored, Scheduler, lease::AuthorityEnd};
use millrace_runtime::Chain;
use millrace_store::Store;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Ready, Stop};
use crate::{
    config::MasterConfig,
    election::{Authority, Candidate, Elected, Solo, Tenure},
    exit::TermLost,
    feed::Feed,
    leader::{self, Pruner, TermEnd, TermParts},
    role::{RoleSender, Seat},
};

/// How long a commit that is under way may go on after authority is over. Whether it is done then is for the next leader
/// to read, as after any other crash.
const LAST_COMMIT_TIME_MAX: Duration = Duration::from_secs(1);

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
    pub(super) ready: oneshot::Sender<Ready>,
    pub(super) address: SocketAddr,
}

impl Tenancy {
    /// Stands by, leads, and gives the leadership back.
    ///
    /// # Errors
    /// Where it cannot lead, or its term ended other than by being told to stop.
    pub(super) async fn run(self, shutdown: &CancellationToken, stop: &Stop) -> anyhow::Result<()> {
        let Self { config, store, feed, clock, roles, candidate, hand_over, ready, address } = self;
        let is_alone = candidate.is_none();
        let mut ready = Some(ready);
        let mut announce = || {
            // Nobody waiting is fine.
            let _ = ready.take().map(|ready| ready.send(Ready { address }));
        };
        let elected = match candidate {
            None => Solo.elect(&store, &config.name).await.context("cannot claim the leadership")?,
            Some(candidate) => {
                tracing::info!(%address, "standing by");
                announce();
                let Some(elected) = candidate.elect(shutdown).await? else { return Ok(()) };
                elected
            }
        };
        let Elected { term, writer, authority, tenure } = elected;
        let scheduler = match restore(&store, term, limits(&config), clock.as_ref()).await {
            Ok(scheduler) => scheduler,
            Err(error) => {
                give_back(tenure, stop).await;
                return Err(error);
            }
        };
        let (leader, inbox) = leader::inbox::open();
        let pruner = Pruner::new(config.keeps(), clock.now());
        let watched = authority.clone();
        let parts =
            TermParts { scheduler, writer, authority, inbox, feed, clock: Arc::clone(&clock), pruner };
        roles.lead(Seat { term, leader });
        tracing::info!(term = term.0, %address, "leading");
        announce();
        let told = shutdown.child_token();
        let end = {
            let term = leader::run_term(parts, told.clone());
            let term = until_over(term, &watched, clock.as_ref());
            let make_way = async {
                hand_over.cancelled().await;
                told.cancel();
                std::future::pending().await
            };
            tokio::select! { end = term => end, end = make_way => end }
        };
        roles.leave();
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

fn limits(config: &MasterConfig) -> Limits {
    let limits = Limits::default();
    Limits {
        pools: config.pools.clone(),
        runs_per_workflow_max: config.runs_per_workflow_max,
        authority: config.etcd.as_ref().map_or(limits.authority, |etcd| etcd.authority),
        ..limits
    }
}

async fn restore(store: &Store, term: Term, limits: Limits, clock: &dyn Clock) -> anyhow::Result<Scheduler> {
    let loaded = store.load().await.context("cannot load what is unfinished")?;
    for problem in &loaded.problems {
        tracing::error!(error = %Chain(problem), "taken out of scheduling");
    }
    let Restored { scheduler, quarantined } = Scheduler::restore(term, loaded.snapshot, limits, clock.now())?;
    for (run, problem) in quarantined {
        tracing::error!(run_id = %run, problem, "run taken out of scheduling: its rows contradict each other");
    }
    Ok(scheduler)
}
