//! A leader's authority: the belief in its lease, shared by who renews it and who asks.
//!
//! The belief is the core's. Here are its clock, and the task that renews the lease for as long as the leadership is
//! held. Whoever is about to let something out asks [`Authority::check`], which reads the clock then: timers do not run
//! while a machine is suspended, so none of them is relied upon.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use millrace_common::time::{Clock, Uptime};
use millrace_core::lease::{AuthorityEnd, Lease};
use millrace_runtime::Chain;
use tokio_util::sync::CancellationToken;

use super::etcd::{Etcd, EtcdError, LeaseId};

/// Pause after a renewal that nobody answered.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Tells whether this process may act as the leader. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    /// Absent where nobody else can lead: the lock on the data folder sees to that.
    leased: Option<Arc<Leased>>,
}

#[derive(Debug)]
struct Leased {
    belief: Mutex<Lease>,
    /// Cancelled once the belief has ended.
    over: CancellationToken,
}

impl Authority {
    /// The authority of a master that is alone.
    pub(crate) const fn unlimited() -> Self {
        Self { leased: None }
    }

    /// The authority that a lease gives.
    pub(crate) fn leased(lease: Lease) -> Self {
        let leased = Leased { belief: Mutex::new(lease), over: CancellationToken::new() };
        Self { leased: Some(Arc::new(leased)) }
    }

    /// Tells whether it can end, because another master may lead.
    pub(crate) const fn is_leased(&self) -> bool {
        self.leased.is_some()
    }

    /// Tells whether there is authority now; once there was none, there never is again.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn check(&self, clock: &dyn Clock) -> Result<(), AuthorityEnd> {
        self.with(|lease| lease.check(clock.now().uptime)).unwrap_or(Ok(()))
    }

    /// Waits until somebody has found that authority is over.
    pub(crate) async fn over(&self) {
        match &self.leased {
            Some(leased) => leased.over.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Does something with the belief, and tells everybody where it has ended.
    fn with<T>(&self, act: impl FnOnce(&mut Lease) -> T) -> Option<T> {
        let leased = self.leased.as_ref()?;
        let mut belief = leased.belief.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut belief);
        if belief.has_ended() {
            leased.over.cancel();
        }
        Some(result)
    }

    fn until(&self) -> Uptime {
        self.with(|lease| lease.until()).unwrap_or_default()
    }
}

/// What renews a lease.
pub(super) struct Renewing {
    pub(super) etcd: Etcd,
    pub(super) key: String,
    pub(super) lease: LeaseId,
    /// The change that created the key under our lease; 0 while we do not hold it.
    pub(super) created_at: Arc<AtomicI64>,
    pub(super) interval: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

impl Renewing {
    /// Renews until authority is over; returns then, and not before.
    pub(super) async fn run(self, authority: Authority) {
        let mut pause = self.interval;
        loop {
            // Not beyond the end of authority, so that it is noticed then.
            let left = authority.until().since(self.clock.now().uptime);
            tokio::time::sleep(pause.min(left)).await;
            if let Err(end) = authority.check(self.clock.as_ref()) {
                tracing::error!(error = %end, "the authority to lead is over");
                return;
            }
            pause = match self.renew(&authority).await {
                Ok(()) if authority.check(self.clock.as_ref()).is_err() => Duration::ZERO,
                Ok(()) => self.interval,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the lease could not be renewed, trying again");
                    RETRY_PAUSE
                }
            };
        }
    }

    async fn renew(&self, authority: &Authority) -> Result<(), EtcdError> {
        // Read before the send: what is answered was renewed after this moment.
        let sent = self.clock.now().uptime;
        let Some(renewal) = authority.with(|belief| belief.on_renewal_sent(sent)) else { return Ok(()) };
        let left = authority.until().since(sent);
        let answer = tokio::time::timeout(left, self.ask()).await;
        let now = self.clock.now().uptime;
        authority.with(|belief| match &answer {
            Ok(Ok(left)) => belief.on_renewal_answered(now, renewal, *left),
            Ok(Err(_)) | Err(_) => belief.on_renewal_failed(renewal),
        });
        answer.map_or(Ok(()), |answer| answer.map(drop))
    }

    /// Returns how long the lease is valid, zero where it is gone or no longer what the key is held under.
    ///
    /// A renewal is answered from the memory of one member, which may have been cut off from the others, or forget that
    /// the lease was revoked. A read of the key is answered by a majority.
    async fn ask(&self) -> Result<Duration, EtcdError> {
        let left = self.etcd.renew(self.lease).await?;
        let created_at = self.created_at.load(Ordering::Relaxed);
        if created_at == 0 || left.is_zero() {
            return Ok(left);
        }
        let found = self.etcd.get(&self.key).await?;
        let is_ours = found.entry.is_some_and(|entry| entry.create_revision == created_at);
        Ok(if is_ours { left } else { Duration::ZERO })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use futures_util::FutureExt as _;
    use millrace_common::time::Now;

    use super::*;

    #[derive(Default)]
    struct Hands(AtomicU64);

    impl Clock for Hands {
        fn now(&self) -> Now {
            let uptime = Uptime::new(Duration::from_millis(self.0.load(Ordering::Relaxed)));
            Now { uptime, ..Now::default() }
        }
    }

    #[test]
    fn whoever_finds_that_authority_is_over_tells_everybody() {
        let clock = Hands::default();
        let authority = Authority::leased(Lease::granted(clock.now().uptime, Duration::from_secs(6)));
        let other = authority.clone();
        assert_eq!(authority.check(&clock), Ok(()));
        assert!(other.over().now_or_never().is_none());
        clock.0.store(6_000, Ordering::Relaxed);
        assert!(other.over().now_or_never().is_none(), "nobody has looked");
        assert_eq!(authority.check(&clock), Err(AuthorityEnd::Expired));
        assert!(other.over().now_or_never().is_some());
    }

    #[test]
    fn a_master_that_is_alone_has_authority() {
        let authority = Authority::unlimited();
        assert_eq!(authority.check(&Hands::default()), Ok(()));
        assert!(authority.over().now_or_never().is_none());
    }
}
