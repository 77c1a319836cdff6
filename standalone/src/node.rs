//! Master and executor side by side; when one ends, so does the other.

use std::net::SocketAddr;

use anyhow::Context;
use millrace_master::Ready;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::config::StandaloneConfig;

/// Runs both until `shutdown` is cancelled or one of them ends. `on_ready` is told the address once the master leads.
///
/// The executor stops first, so that the ends of what it ran still reach the master.
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
    let mut executor = std::pin::pin!(millrace_executor::run(executor, stop_executor.clone()));
    tokio::select! {
        ended = &mut executor => {
            stop_master.cancel();
            master.await?;
            ended.context("the executor ended")
        }
        ended = &mut master => {
            stop_executor.cancel();
            executor.await?;
            ended.context("the master ended")
        }
    }
}
