//! What other masters call.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use millrace_proto::{
    convert,
    v1::{self, peer_service_server::PeerService},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::status;
use crate::output::OutputStore;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct PeerCalls {
    /// Names this process.
    pub(crate) instance: Arc<str>,
    pub(crate) output: Arc<OutputStore>,
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

    async fn read_kept(
        &self,
        request: Request<v1::ReadKeptRequest>,
    ) -> Result<Response<v1::ReadKeptResponse>, Status> {
        let v1::ReadKeptRequest { attempt, offset } = request.into_inner();
        let attempt = convert::attempt(attempt.as_ref()).map_err(|error| status::of_wire(&error))?;
        let bytes = self.output.read(attempt, offset).await.map_err(|error| {
            tracing::error!(%attempt, %error, "output could not be read");
            Status::internal("the output could not be read; the master's log says why")
        })?;
        Ok(Response::new(v1::ReadKeptResponse { bytes }))
    }
}
