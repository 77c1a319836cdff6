//! Time as the rig sees it: microseconds of the boot-time clock, and waits that have a bound and heed an interrupt.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::bail;
use millrace_common::time::Clock as _;
use millrace_runtime::clock::SystemClock;

/// Pause between two looks at something that is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Set once somebody asked the rig to stop: every wait ends then, and what was started is removed on the way out.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Reads the boot-time clock, in microseconds: the clock of every event in a history.
pub(crate) fn now() -> u64 {
    micros(SystemClock.now().uptime.since_boot())
}

/// Reads the wall clock, in microseconds since 1970.
pub(crate) fn wall() -> i64 {
    SystemClock.now().wall.as_micros()
}

/// Returns what has to be added to a reading of the wall clock to get one of the boot-time clock.
pub(crate) fn wall_to_boot() -> i64 {
    let now = SystemClock.now();
    i64::try_from(micros(now.uptime.since_boot())).unwrap_or(i64::MAX) - now.wall.as_micros()
}

/// Returns a duration in microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Fails where somebody asked the rig to stop.
pub(crate) fn heed_interrupt() -> anyhow::Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Waits until `look` gives something, at most `bound`.
pub(crate) fn wait_for<T>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = now() + micros(bound);
    loop {
        heed_interrupt()?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if now() >= end {
            bail!("waited {bound:?} in vain for {what}");
        }
        thread::sleep(LOOK);
    }
}
