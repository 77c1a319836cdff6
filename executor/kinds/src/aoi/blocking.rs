//! Blocking work on a thread of its own, with its lines in the attempt's log.

use tokio::sync::mpsc;

use crate::run::Context;

/// Lines that may wait for the log; a full queue makes the work wait.
const LINES_MAX: usize = 256;

/// Where blocking work writes lines to.
#[derive(Debug, Clone)]
pub(crate) struct Log(mpsc::Sender<String>);

impl Log {
    /// Writes a line. A log that is gone never fails the work.
    pub(crate) fn line(&self, line: impl Into<String>) {
        let _ = self.0.blocking_send(line.into());
    }
}

/// Runs blocking work to its end and returns what it returns.
pub(crate) async fn run<T, F>(ctx: &Context, work: F) -> T
where
    T: Send + 'static,
    F: FnOnce(&Log) -> T + Send + 'static,
{
    let (tx, mut lines) = mpsc::channel(LINES_MAX);
    let work = tokio::task::spawn_blocking(move || work(&Log(tx)));
    while let Some(line) = lines.recv().await {
        ctx.log(line);
    }
    match work.await {
        Ok(result) => result,
        // A panic of the work is one of the attempt; the process ends and says where.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => unreachable!("blocking work is never cancelled: {error}"),
        },
    }
}
