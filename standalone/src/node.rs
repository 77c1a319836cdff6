//! Master and executor side by side; when one ends, so does the other.

use std::{net::SocketAddr, pin::Pin};

use anyhow::Context;
use millrace_master::Ready;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::config::StandaloneConfig;

/// Runs both until `shutdown` is cancelled or one of them ends. `on_ready` is told the address once the master leads.
///
/// The executor stops first, so that the ends of what it ran still reach the master. Where the master fails, what runs is
/// left to the supervisor for the next start.
pub(crate) async fn run(
    config: StandaloneConfig,
    shutdown: CancellationToken,
    on_ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let StandaloneConfig { master, mut executor } = config;
    let (ready, leading) = oneshot::channel();
    let stop_master = CancellationToken::new();
    let mut master = std::pin::pin!(millrace_master::run(master, stop_master.clone(), ready));
    let address = tokio::select! {
        ended = &mut master => return ended.context("the master did not start"),
        leading = leading => leading.map(|Ready { address }| address).context("the master did not start")?,
    };
    on_ready(address);
    executor.masters = vec![format!("http://{address}")];
    let stop_executor = shutdown.child_token();
    let executor = millrace_executor::run(executor, stop_executor.clone());
    side_by_side((master, stop_master), (std::pin::pin!(executor), stop_executor)).await
}

/// Runs the halves, each with what stops it, until one of them has ended and the other with it.
async fn side_by_side(
    (mut master, stop_master): (Half<'_, impl Future<Output = anyhow::Result<()>>>, CancellationToken),
    (mut executor, stop_executor): (Half<'_, impl Future<Output = anyhow::Result<()>>>, CancellationToken),
) -> anyhow::Result<()> {
    tokio::select! {
        ended = &mut executor => {
            stop_master.cancel();
            master.await?;
            ended.context("the executor ended")
        }
        ended = &mut master => {
            // Nobody is there to take the ends of attempts, and nobody wanted them ended: the executor is dropped, which
            // its supervisor takes for a crash, and keeps what runs.
            if ended.is_ok() || stop_executor.is_cancelled() {
                stop_executor.cancel();
                executor.await?;
            }
            ended.context("the master ended")
        }
    }
}

/// One of the two, where it runs.
type Half<'a, F> = Pin<&'a mut F>;

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// Runs a master beside an executor that ends what it runs when it is told to stop, and returns how the two ended and
    /// whether the executor was told so.
    async fn ended(
        master: impl Future<Output = anyhow::Result<()>>,
        shutdown: &CancellationToken,
    ) -> (anyhow::Result<()>, bool) {
        let (stop_executor, has_ended_attempts) = (shutdown.child_token(), CancellationToken::new());
        let executor = async {
            stop_executor.cancelled().await;
            has_ended_attempts.cancel();
            Ok(())
        };
        let master = (std::pin::pin!(master), CancellationToken::new());
        let result = side_by_side(master, (std::pin::pin!(executor), stop_executor.clone())).await;
        (result, has_ended_attempts.is_cancelled())
    }

    #[tokio::test]
    async fn what_runs_is_kept_where_the_master_fails() {
        let (result, has_ended_attempts) =
            ended(async { bail!("the disk is full") }, &CancellationToken::new()).await;
        assert_eq!(result.unwrap_err().root_cause().to_string(), "the disk is full");
        assert!(!has_ended_attempts);
    }

    #[tokio::test]
    async fn what_runs_is_ended_by_a_stop_even_where_the_master_fails() {
        let shutdown = CancellationToken::new();
        let master = async {
            shutdown.cancel();
            bail!("the disk is full")
        };
        let (result, has_ended_attempts) = ended(master, &shutdown).await;
        result.unwrap_err();
        assert!(has_ended_attempts);
    }

    #[tokio::test]
    async fn what_runs_is_ended_with_a_master_that_stops() {
        let (result, has_ended_attempts) = ended(async { Ok(()) }, &CancellationToken::new()).await;
        result.unwrap();
        assert!(has_ended_attempts);
    }
}
