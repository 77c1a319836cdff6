//! `cargo xtask bench --cluster`: several masters, an etcd of three members, PostgreSQL and executors, all on this machine.
//!
//! Each work has a cluster of its own, whose servers sync to the disk. A work that cannot be done here, or that fails,
//! says so in the place of its figures; the others go on.

mod crowd;
mod dispatch;
mod fail_over;
mod fan_out;
mod living;
mod network;
mod schedule;
mod site;

use std::{any::Any, panic::AssertUnwindSafe, path::PathBuf, time::Duration};

use futures_util::FutureExt as _;
use millrace_servers::{etcd, postgres};

use crate::figure::Figure;

/// Names of the works, in their order.
pub(crate) const WORKS: [&str; 10] =
    ["killed", "frozen", "cut-off", "hand-over", "W1p", "crowd", "restore", "memory", "cron", "due"];

/// What is measured, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Folder of the programs.
    pub(crate) programs: PathBuf,
    pub(crate) rounds: u32,
    pub(crate) tasks: u32,
    /// Slots of all executors together.
    pub(crate) slots: u32,
    /// Lifetime of the leader's lease.
    pub(crate) ttl: Duration,
    /// Sessions of the crowd.
    pub(crate) sessions: u32,
    /// Live task instances whose memory is measured.
    pub(crate) live: u32,
}

/// Takes the figures of the works that are wanted.
pub(crate) async fn figures(plan: &Plan, wants: impl Fn(&str) -> bool) -> Vec<Figure> {
    let missing = etcd::missing().or_else(postgres::missing);
    let mut figures = Vec::new();
    for work in WORKS.into_iter().filter(|work| wants(work)) {
        if let Some(reason) = &missing {
            figures.push(Figure::not_taken(work, reason));
            continue;
        }
        // What does not start panics.
        let taken = AssertUnwindSafe(Box::pin(take(plan, work))).catch_unwind().await;
        match taken {
            Ok(Ok(taken)) => figures.extend(taken),
            Ok(Err(error)) => figures.push(Figure::not_taken(work, &format!("{error:#}"))),
            Err(panic) => figures.push(Figure::not_taken(work, text_of(panic.as_ref()))),
        }
    }
    figures
}

async fn take(plan: &Plan, work: &str) -> anyhow::Result<Vec<Figure>> {
    match work {
        "killed" => fail_over::killed(plan).await,
        "frozen" => fail_over::frozen(plan).await,
        "cut-off" => fail_over::cut_off(plan).await,
        "hand-over" => fail_over::handed_over(plan).await,
        "W1p" => fan_out::figures(plan).await,
        "crowd" => crowd::figures(plan).await,
        "restore" => living::restore(plan).await,
        "memory" => living::memory(plan).await,
        "cron" => schedule::lateness(plan).await,
        _ => schedule::due(plan).await,
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}
