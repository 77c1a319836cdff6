//! Follows the settings in etcd for as long as this master runs, whatever its role is.
//!
//! It reads everything, then waits for a watch that begins right after what it read, for a while, or for a change of role;
//! then it reads everything again. So a watch that ends, of a member that went or of a revision that was compacted, costs
//! one more reading and misses nothing.

use std::time::Duration;

use millrace_common::settings::{self, Setting};
use millrace_core::{Input, SettingsAccount};
use millrace_runtime::{Chain, jitter};
use millrace_store::Store;
use tokio_util::sync::CancellationToken;

use super::{EtcdKeeper, KeepError, set_filter};
use crate::role::Roles;

/// How often to read whatever the watch says.
const POLL_INTERVAL: Duration = Duration::from_secs(15);
/// Pause before it reads again: changes that come together are read together, and a watch that ends at once costs little.
const SETTLE: Duration = Duration::from_millis(100);
/// Pause after something did not answer, at most.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Follows the settings.
pub(crate) struct Follower {
    pub(crate) keeper: EtcdKeeper,
    pub(crate) store: Store,
    pub(crate) roles: Roles,
}

impl Follower {
    /// Hands on what there is until `stop` is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // Nothing of it has to run to its end.
        stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        self.begin_with_last_good().await;
        let mut complaint = String::new();
        loop {
            let read = self.keeper.read().await;
            if let Err(error) = &read {
                complain(error, &mut complaint);
                tokio::time::sleep(jitter::from_half(RETRY_PAUSE)).await;
                continue;
            }
            let Ok(account) = read else { continue };
            complaint.clear();
            let revision = account.revision;
            self.hand_on(account).await;
            tokio::select! {
                () = self.keeper.changed(revision) => {}
                () = self.roles.changed() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// A master that starts while the key of its log lines holds rubbish goes by what was good last.
    async fn begin_with_last_good(&self) {
        let Ok(rows) = self.store.settings().await else { return };
        let log = rows.iter().find(|row| &*row.name == "log").and_then(|row| row.value.as_ref());
        if let Some(Ok(Setting::Log(filter))) = log.map(|value| settings::read("log", value.text.as_bytes()))
        {
            set_filter(Some(&filter));
        }
    }

    async fn hand_on(&self, account: SettingsAccount) {
        let Some(seat) = self.roles.seat() else { return filter_log(&account) };
        // A term that is over at this moment ends the process.
        let _ = seat.leader.input(Input::SettingsRead(Box::new(account))).await;
    }
}

/// A standby goes by what the leader will find: a filter that is refused changes nothing.
fn filter_log(account: &SettingsAccount) {
    let given = account.given.iter().find(|given| &*given.name == "log");
    match given.map(|given| settings::read("log", &given.text)) {
        None => set_filter(None),
        Some(Ok(Setting::Log(filter))) => set_filter(Some(&filter)),
        Some(Ok(_) | Err(_)) => {}
    }
}

fn complain(error: &KeepError, last: &mut String) {
    let text = Chain(error).to_string();
    if text != *last {
        tracing::warn!(error = text, "live settings cannot be read, those in force stay");
        *last = text;
    }
}
