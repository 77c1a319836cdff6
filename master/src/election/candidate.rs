//! A master that takes part in the election: follows whoever leads, and tries where nobody does.
//!
//! | what etcd says | what the candidate does |
//! |---|---|
//! | nothing | goes on asking |
//! | another master holds the key | follows it, and looks again when the key changed, when the leader's process has ended, and now and then |
//! | nobody holds the key | asks the database; where that works, takes the key under a lease and reads it back |
//! | it holds the key | claims the term in SQL; where that fails, gives the key back and lets others try first |
//!
//! A candidate whose database does not work never tries: it would win again and again, and nobody else could lead.
//! Whether a call to take the key was answered does not matter: what counts is what is read afterwards.

mod claim;

use std::{pin::Pin, sync::Arc, time::Duration};

use millrace_common::time::{Clock, Uptime};
use millrace_core::lease::AuthorityEnd;
use millrace_runtime::{Chain, jitter};
use millrace_store::{ClaimError, Generation, GenerationError, Store};
use thiserror::Error;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::claim::Claim;
use super::{
    Elected,
    etcd::{ConnectError, Etcd, EtcdError, EtcdId},
    link,
    record::{Held, Record},
    settings::EtcdSettings,
    tenure::Tenure,
    version::Version,
};
use crate::{
    peer::Peers,
    role::RoleSender,
    settings::{EtcdKeeper, KeepError},
};

/// How often to look at the key whatever the watch says.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after something did not answer, at most.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the database may take to show that it works.
const PROBE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long to let others try first where a claim failed, at most; half of it is random. Long enough for another master to
/// probe its database and to claim, short enough that the only healthy one leads again within half a minute.
const STAND_BACK: Duration = Duration::from_secs(8);

/// Takes part in the election.
pub(crate) struct Candidate {
    pub(crate) etcd: Etcd,
    pub(crate) settings: EtcdSettings,
    pub(crate) me: Record,
    pub(crate) store: Store,
    pub(crate) keeper: EtcdKeeper,
    pub(crate) peers: Peers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: TaskTracker,
    pub(crate) roles: Arc<RoleSender>,
}

/// Why there is no election, or not now.
#[derive(Debug, Error)]
pub(crate) enum ElectionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error(
        "etcd is version {0}, which has known faults in its leases: upgrade it to {floors} or later, or set \
         `etcd.allow_old_etcd = true` where that is known and accepted",
        floors = Version::floors()
    )]
    OldEtcd(Version),
    #[error(
        "etcd {found} is not the one that this cluster belongs to, which is {known}: it was made anew, or `etcd.endpoints` \
         names another one; if it is the right one, run `masterctl cluster adopt-etcd`"
    )]
    UnknownEtcd { found: EtcdId, known: Arc<str> },
    #[error("the database does not work, and without one nobody can lead")]
    Database(#[source] GenerationError),
    #[error("the database has not been there since this master started, and without one nobody can lead")]
    DatabaseAbsent,
    #[error("the database does not answer within {} s, and without one nobody can lead", PROBE_TIME_MAX.as_secs())]
    DatabaseLate,
    #[error(
        "etcd counts lower than it did when term {0} was claimed: it was restored from a backup; run `masterctl cluster \
         adopt-etcd`"
    )]
    Behind(millrace_common::term::Term, #[source] ClaimError),
    #[error("the term could not be claimed")]
    Claim(#[source] ClaimError),
    #[error("the database did not let the term be claimed within {} s", claim::TIME_MAX.as_secs())]
    ClaimLate,
    #[error("the live settings could not be taken over into etcd")]
    Settings(#[from] KeepError),
    #[error("the leadership was lost before it began")]
    Authority(#[from] AuthorityEnd),
    #[error(
        "generation {0} and revision {1} do not fit into a term: the database or etcd is not what it should be"
    )]
    Term(u32, i64),
}

impl ElectionError {
    /// Tells whether only a person can mend it, by settings.
    const fn is_final(&self) -> bool {
        match self {
            Self::Connect(_) | Self::OldEtcd(_) | Self::Etcd(EtcdError::Credentials { .. }) => true,
            Self::Etcd(_)
            | Self::UnknownEtcd { .. }
            | Self::Database(_)
            | Self::DatabaseAbsent
            | Self::DatabaseLate
            | Self::Behind(..)
            | Self::Claim(_)
            | Self::ClaimLate
            | Self::Settings(_)
            | Self::Authority(_)
            | Self::Term(..) => false,
        }
    }
}

/// What to do after a look at the key.
enum Next {
    Lead(Box<Elected>),
    /// Another one leads, by the key as it was at this revision.
    Follow(Held, i64),
    Wait(Duration),
}

/// Ends with the process that it links to.
type Link = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a candidate remembers between two looks.
#[derive(Default)]
struct Memory {
    /// The link to the leader's process, and which process that is.
    link: Option<(String, Link)>,
    /// A claim that was given up and whose end is not known.
    claim: Option<Claim>,
    /// Others may try until then, unless an operator adopted etcd since: the generation in which a claim failed.
    stands_back_until: Uptime,
    failed_in: u32,
    is_etcd_sound: bool,
    complaint: String,
}

impl Candidate {
    /// Waits until this master has won; `None` where it is told to stop before.
    ///
    /// The future must run to its end.
    ///
    /// # Errors
    /// Where the settings have to be changed first.
    pub(crate) async fn elect(&self, stop: &CancellationToken) -> Result<Option<Elected>, ElectionError> {
        let mut memory = Memory::default();
        while !stop.is_cancelled() {
            let next = match self.look(&mut memory).await {
                Ok(next) => next,
                Err(error) if error.is_final() => return Err(error),
                Err(error) => self.complain(&mut memory, &error),
            };
            // Nothing of a wait has to run to its end.
            match next {
                Next::Lead(elected) => return Ok(Some(*elected)),
                Next::Follow(held, revision) => {
                    stop.run_until_cancelled(self.follow(&mut memory, held, revision)).await;
                }
                Next::Wait(pause) => {
                    stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                }
            }
        }
        Ok(None)
    }

    /// Says what keeps this master from taking part, once.
    ///
    /// Where only etcd does not answer, whoever led before may still lead, and refuses what it should not do.
    fn complain(&self, memory: &mut Memory, error: &ElectionError) -> Next {
        if !matches!(error, ElectionError::Etcd(error) if error.is_passing()) {
            self.roles.leave();
        }
        let text = Chain(error).to_string();
        if text != memory.complaint {
            tracing::warn!(error = text, "this master cannot lead now, it goes on trying");
            memory.complaint = text;
        }
        Next::Wait(jitter::from_half(RETRY_PAUSE))
    }

    async fn look(&self, memory: &mut Memory) -> Result<Next, ElectionError> {
        if !memory.is_etcd_sound {
            self.check_version().await?;
            memory.is_etcd_sound = true;
        }
        let found = self.etcd.get(&self.settings.leader_key()).await?;
        if let Some(entry) = &found.entry {
            memory.complaint.clear();
            return Ok(Next::Follow(Held::read(entry), found.revision));
        }
        self.roles.leave();
        if memory.claim.as_ref().is_some_and(|claim| !claim.has_ended()) {
            // Two claims of one process would be each other's rivals.
            return Ok(Next::Wait(RETRY_PAUSE));
        }
        let generation = self.generation().await?;
        let now = self.clock.now().uptime;
        if now < memory.stands_back_until && generation.number == memory.failed_in {
            return Ok(Next::Wait(memory.stands_back_until.since(now).min(POLL_INTERVAL)));
        }
        let result = self.campaign(memory, &generation).await;
        if matches!(
            result,
            Err(ElectionError::Claim(_) | ElectionError::ClaimLate | ElectionError::Behind(..))
        ) {
            memory.stands_back_until = self.clock.now().uptime + jitter::from_half(STAND_BACK);
            memory.failed_in = generation.number;
        }
        result
    }

    async fn check_version(&self) -> Result<(), ElectionError> {
        let (_, version) = self.etcd.identity().await?;
        if version.is_sound() {
            return Ok(());
        }
        if !self.settings.allow_old_etcd {
            return Err(ElectionError::OldEtcd(version));
        }
        tracing::warn!(%version, "etcd is older than it should be, as `etcd.allow_old_etcd` permits");
        Ok(())
    }

    /// Asks the database whether it works, and for the generation of the etcd that we are connected to.
    async fn generation(&self) -> Result<Generation, ElectionError> {
        let (id, _) = self.etcd.identity().await?;
        let generation = self.probe().await?;
        match &generation.service {
            Some(service) if **service == *id.to_string() => Ok(generation),
            Some(service) => Err(ElectionError::UnknownEtcd { found: id, known: Arc::clone(service) }),
            None => {
                // The first etcd of a database needs nobody's word.
                self.keeper.carry_over().await?;
                let adopted = self.store.adopt(&id.to_string(), &generation).await;
                let adopted = adopted.map_err(ElectionError::Database)?;
                tracing::info!(etcd = %id, generation = adopted.number, "etcd adopted");
                Ok(adopted)
            }
        }
    }

    async fn probe(&self) -> Result<Generation, ElectionError> {
        if !self.store.is_ready() {
            return Err(ElectionError::DatabaseAbsent);
        }
        // Dropping the future of a query is safe.
        match tokio::time::timeout(PROBE_TIME_MAX, self.store.generation()).await {
            Ok(generation) => generation.map_err(ElectionError::Database),
            Err(_) => Err(ElectionError::DatabaseLate),
        }
    }

    /// Tries to take the key and, where that succeeds, to claim the term.
    async fn campaign(&self, memory: &mut Memory, generation: &Generation) -> Result<Next, ElectionError> {
        let tenure = Tenure::begin(&self.etcd, &self.settings, &self.clock, &self.tasks).await?;
        let claimed = async {
            let Some(created_at) = self.take_key(&tenure, generation).await? else { return Ok(None) };
            tenure.hold(created_at);
            let term = claim::term(generation.number, created_at)?;
            let mut claim = Claim::begin(&self.store, &self.tasks, term, &self.me.name);
            let writer = match claim.wait().await {
                Some(claimed) => claimed?,
                None => {
                    memory.claim = Some(claim);
                    return Err(ElectionError::ClaimLate);
                }
            };
            tenure.authority().check(self.clock.as_ref())?;
            Ok(Some((term, writer)))
        };
        match claimed.await {
            Ok(Some((term, writer))) => {
                let authority = tenure.authority().clone();
                Ok(Next::Lead(Box::new(Elected { term, writer, authority, tenure: Some(tenure) })))
            }
            Ok(None) => {
                tenure.resign().await;
                Ok(Next::Wait(Duration::ZERO))
            }
            Err(error) => {
                tenure.resign().await;
                Err(error)
            }
        }
    }

    /// Takes the key, or does not; returns which change created it where it is ours.
    ///
    /// The number counts only by the etcd that numbers this generation: settings may name members of two.
    async fn take_key(&self, tenure: &Tenure, generation: &Generation) -> Result<Option<i64>, ElectionError> {
        let key = self.settings.leader_key();
        match self.etcd.put_if_absent(&key, &self.me.to_value(), tenure.lease()).await {
            Err(error) if !error.is_passing() => return Err(error.into()),
            // What there is now counts, and not what was answered.
            Ok(()) | Err(_) => {}
        }
        loop {
            tenure.authority().check(self.clock.as_ref())?;
            match self.etcd.get(&key).await {
                Ok(found) => {
                    let held = found.entry.as_ref().map(Held::read);
                    let is_known = generation.service.as_deref() == Some(&*found.etcd.to_string());
                    let ours = held.filter(|held| is_known && held.lease == Some(tenure.lease()));
                    return Ok(ours.map(|held| held.created_at));
                }
                Err(error) if error.is_passing() => tokio::time::sleep(jitter::from_half(RETRY_PAUSE)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until it is worth to look again.
    async fn follow(&self, memory: &mut Memory, held: Held, revision: i64) {
        let key = self.settings.leader_key();
        let record = match &held.record {
            Ok(record) => record,
            Err(error) => {
                self.roles.leave();
                tracing::warn!(error = %Chain(error), key, "somebody leads who cannot be understood");
                return tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        if (&record.name, &record.address) == (&self.me.name, &self.me.address) {
            // It listened where this process listens now.
            return self.depose(&held).await;
        }
        self.roles.follow(record);
        let is_linked = memory.link.as_ref().is_some_and(|(instance, _)| *instance == record.instance);
        if !is_linked {
            let instance = record.instance.clone();
            let (record, name, peers) = (record.clone(), self.me.name.clone(), self.peers.clone());
            let ended = async move { link::ended(&record, &name, &peers).await };
            memory.link = Some((instance, Box::pin(ended)));
        }
        let Some((_, link)) = &mut memory.link else { return };
        tokio::select! {
            () = self.etcd.changed(&key, revision) => {}
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = link => {
                memory.link = None;
                self.depose(&held).await;
            }
        }
    }

    /// Ends the lease of a leader whose process has ended.
    async fn depose(&self, held: &Held) {
        let (Some(lease), Ok(record)) = (held.lease, &held.record) else {
            tracing::warn!("the leader's key has no lease: somebody wrote it by hand, and has to delete it");
            return tokio::time::sleep(POLL_INTERVAL).await;
        };
        self.roles.leave();
        tracing::info!(leader = record.name, "the leader's process has ended: its lease is revoked");
        if let Err(error) = self.etcd.revoke(lease).await {
            tracing::warn!(error = %Chain(&error), "the lease of the ended leader could not be revoked");
        }
    }
}
