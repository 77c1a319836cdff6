//! Live settings, on every master: where they are kept, and how what is kept reaches those who go by it.
//!
//! With etcd the truth is etcd: below the cluster's prefix stands one key for each setting. Every master watches them, and
//! reads them now and then as well, because a watch is a hint. The leader hands the scheduler all of them each time, which
//! judges them and commits what is different; so what is in force, what is refused and what was done stand in the store,
//! where any master reads them, and where the next leader finds the last good values if etcd has something else. The
//! filter of log lines is each master's own: standbys judge it by themselves.
//!
//! Without etcd the store keeps them, and the scheduler is asked to set them.

mod etcd;
mod follow;
mod statics;

use millrace_common::settings;
use millrace_core::Settings;
use millrace_runtime::{Chain, telemetry};

pub(crate) use self::{
    etcd::{EtcdKeeper, KeepError},
    follow::Follower,
    statics::Statics,
};

/// Where settings are kept.
#[derive(Debug, Clone)]
pub(crate) enum Keeper {
    /// In the store, by the leader.
    Store,
    /// In etcd, by whoever writes there.
    Etcd(EtcdKeeper),
}

/// Who is said to have set what nobody put a name to.
pub(crate) const ANYBODY: &str = "directly in etcd";

/// Lets this process write the log lines that the settings ask for.
pub(crate) fn filter_log(settings: &Settings) {
    set_filter(settings.log().map(|filter| &**filter));
}

fn set_filter(filter: Option<&str>) {
    if let Err(error) = telemetry::set_filter(filter) {
        tracing::warn!(error = %Chain(&error), "the filter of log lines stays as it is");
    }
}

/// Returns a person's or program's name as it is kept; empty where it said none.
pub(crate) fn name_of(caller: &str) -> String {
    settings::shown_text(caller.as_bytes())
}
