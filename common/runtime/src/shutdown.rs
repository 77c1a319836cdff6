//! Signals into cancellation.
//!
//! The first SIGTERM or SIGINT cancels the token: the program ends its parts in order. The second ends the process at
//! once, for the person who does not want to wait.

use std::{future::Future, io};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code after the second signal: 128 and the number of SIGTERM, as shells show it.
const EXIT_SIGNALLED: i32 = 143;

/// Runs a program until it is done; the token that it gets is cancelled at the first SIGTERM or SIGINT.
///
/// # Errors
/// Where the kernel refuses to deliver signals to this program.
pub async fn run_until_signalled<F: Future>(
    program: impl FnOnce(CancellationToken) -> F,
) -> io::Result<F::Output> {
    let signals = Signals::listen()?;
    let token = CancellationToken::new();
    let program = program(token.clone());
    tokio::select! {
        // Both arms are polled in turn; the second one never ends.
        output = program => Ok(output),
        never = signals.cancel(token) => match never {},
    }
}

/// SIGTERM and SIGINT, delivered here instead of ending the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts listening.
    ///
    /// # Errors
    /// Where the kernel refuses to deliver signals to this program.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancels `token` at the first signal and ends the process at the second.
    #[expect(
        clippy::disallowed_methods,
        reason = "the second signal asks for exactly this: no destructors, no flushing"
    )]
    pub async fn cancel(mut self, token: CancellationToken) -> std::convert::Infallible {
        let name = self.next().await;
        tracing::info!(signal = name, "stopping; a second signal ends the program at once");
        token.cancel();
        let name = self.next().await;
        tracing::warn!(signal = name, "ending at once");
        std::process::exit(EXIT_SIGNALLED);
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::{
        sys::signal::{Signal::SIGTERM, kill},
        unistd::Pid,
    };

    use super::*;

    #[tokio::test]
    async fn the_first_signal_lets_the_program_end_by_itself() {
        let program = |token: CancellationToken| async move {
            kill(Pid::this(), SIGTERM).expect("a signal to oneself");
            token.cancelled().await;
            "ended in order"
        };
        assert_eq!(run_until_signalled(program).await.expect("signals"), "ended in order");
    }
}
