//! gRPC: where wire messages stop. Every listener asks for the token, reflection and health included.

pub(crate) mod auth;
mod control_service;
mod executor_service;
mod peer_service;
mod session;
pub(crate) mod status;
pub(crate) mod wire;

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context;
use millrace_proto::{
    DESCRIPTORS, MESSAGE_BYTES_MAX,
    v1::{
        control_service_server::ControlServiceServer, executor_service_server::ExecutorServiceServer,
        peer_service_server::PeerServiceServer,
    },
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{service::InterceptorLayer, transport::Server};
use tonic_health::server::HealthReporter;

use self::auth::BearerAuth;
pub(crate) use self::{
    control_service::{Control, Elective, Outlook},
    executor_service::Executors,
    peer_service::PeerCalls,
};
use crate::{database::Condition, door::Door};

/// How often an idle connection is asked whether its peer is there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the peer may take to say so.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a call may take until its answer begins, its message included: a definition of 10,000 tasks over a slow line.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Calls at once on one connection; an executor needs one, a person a few.
const CALLS_PER_CONNECTION_MAX: u32 = 256;
/// Bytes of the headers of a call: the token and what a client library adds.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Runs that are watched and outputs that are followed, at once.
const STREAMS_MAX: usize = 1_024;

/// The services of a master.
pub(crate) struct Services {
    pub(crate) executors: Executors,
    pub(crate) control: Control,
    pub(crate) peers: PeerCalls,
}

/// Makes the places for those who watch and follow.
pub(crate) fn stream_places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(STREAMS_MAX))
}

/// Serves whoever comes through the door until `stop` is cancelled and every call has ended.
pub(crate) async fn serve(
    door: Door,
    services: Services,
    auth: BearerAuth,
    condition: Condition,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Services { executors, control, peers } = services;
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<ExecutorServiceServer<Executors>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .timeout(ANSWER_TIME_MAX)
        .layer(InterceptorLayer::new(auth))
        .add_service(health)
        .add_service(reflection)
        .add_service(ExecutorServiceServer::new(executors).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            ControlServiceServer::new(control)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(PeerServiceServer::new(peers))
        .serve_with_incoming_shutdown(door.connections(), stop.cancelled_owned());
    // Whose end counts is the server.
    tokio::select! {
        served = serving => served.context("the server failed"),
        never = tell_health(health_reporter, &condition) => match never {},
    }
}

/// Keeps the health of what people's tools call up to date: without its database a master can do next to nothing.
async fn tell_health(reporter: HealthReporter, condition: &Condition) -> Infallible {
    let mut seen = condition.follow();
    loop {
        let is_well = seen.borrow_and_update().problem.is_none();
        if is_well {
            reporter.set_serving::<ControlServiceServer<Control>>().await;
        } else {
            reporter.set_not_serving::<ControlServiceServer<Control>>().await;
        }
        if seen.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
