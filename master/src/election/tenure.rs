//! A lease, the key that is held under it, and the task that renews it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use millrace_common::time::Clock;
use millrace_core::lease::Lease;
use millrace_runtime::Chain;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{
    authority::{Authority, Renewing},
    etcd::{Etcd, EtcdError, LeaseId},
    settings::EtcdSettings,
};

/// What a candidate holds in etcd, and a leader as long as it leads. Dropping it ends the renewals; the lease then runs
/// out.
#[derive(Debug)]
pub(crate) struct Tenure {
    etcd: Etcd,
    key: String,
    lease: LeaseId,
    /// The change that created the key under our lease; 0 while we do not hold it.
    created_at: Arc<AtomicI64>,
    authority: Authority,
    _renewing: AbortOnDropHandle<()>,
}

impl Tenure {
    /// Asks for a lease and renews it from then on.
    pub(super) async fn begin(
        etcd: &Etcd,
        settings: &EtcdSettings,
        clock: &Arc<dyn Clock>,
        tasks: &TaskTracker,
    ) -> Result<Self, EtcdError> {
        let sent = clock.now().uptime;
        let lease = etcd.grant(settings.ttl).await?;
        let authority = Authority::leased(Lease::granted(sent, settings.authority));
        let (key, created_at) = (settings.leader_key(), Arc::new(AtomicI64::new(0)));
        let renewing = Renewing {
            etcd: etcd.clone(),
            key: key.clone(),
            lease,
            created_at: Arc::clone(&created_at),
            interval: settings.renewal,
            clock: Arc::clone(clock),
        };
        let task = tasks.spawn(renewing.run(authority.clone()));
        let _renewing = AbortOnDropHandle::new(task);
        Ok(Self { etcd: etcd.clone(), key, lease, created_at, authority, _renewing })
    }

    pub(super) const fn lease(&self) -> LeaseId {
        self.lease
    }

    pub(super) const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Notes that the key is ours: from now on renewals count only while it is.
    pub(super) fn hold(&self, created_at: i64) {
        self.created_at.store(created_at, Ordering::Relaxed);
    }

    /// Gives back what is held, so that nobody has to wait for the lease to run out; it does where etcd does not answer.
    pub(crate) async fn resign(self) {
        let created_at = self.created_at.load(Ordering::Relaxed);
        let deleted = async {
            if created_at != 0 {
                self.etcd.delete_if_created_at(&self.key, created_at).await?;
            }
            self.etcd.revoke(self.lease).await
        };
        match tokio::time::timeout(RESIGN_TIME_MAX, deleted).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %Chain(&error), "the lease could not be given back, it runs out by itself");
            }
            Err(_) => tracing::warn!("etcd does not answer, the lease runs out by itself"),
        }
    }
}

/// How long giving back may take; then the lease is left to run out.
const RESIGN_TIME_MAX: Duration = Duration::from_secs(3);
