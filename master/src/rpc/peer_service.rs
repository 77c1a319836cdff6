//! What other masters call.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use millrace_proto::v1::{self, peer_service_server::PeerService};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::status;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct PeerCalls {
    /// Names this process.
    pub(crate) instance: Arc<str>,
    pub(crate) stop: CancellationToken,
}

#[tonic::async_trait]
impl PeerService for PeerCalls {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<v1::LinkResponse, Status>> + Send>>;

    async fn link(&self, request: Request<v1::LinkRequest>) -> Result<Response<Self::LinkStream>, Status> {
        tracing::debug!(master = request.into_inner().name, "another master follows");
        let first = Ok(v1::LinkResponse { instance: self.instance.to_string() });
        let stopped = stream::once(self.stop.clone().cancelled_owned()).map(|()| Err(status::stopping()));
        Ok(Response::new(Box::pin(stream::iter([first]).chain(stopped))))
    }
}
