//! How a test talks to a master: with the token that all programs here are given.

use std::time::Duration;

use millrace_proto::{
    MESSAGE_BYTES_MAX,
    v1::{control_service_client::ControlServiceClient, executor_service_client::ExecutorServiceClient},
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// The token of every program that is started here.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";
/// How long a connection may take, and how long an answer: one that stands still shall not hold up a test.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const CALL_TIME_MAX: Duration = Duration::from_secs(20);

/// A client of masters.
pub type Control = ControlServiceClient<InterceptedService<Channel, Bearer>>;
/// What an executor calls.
pub type Executors = ExecutorServiceClient<InterceptedService<Channel, Bearer>>;

/// Puts a token on every call.
#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    /// Returns one that presents `token`.
    ///
    /// # Panics
    /// Where the token cannot stand in a header.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(format!("Bearer {}", token.trim()).parse().expect("a token of visible characters"))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Connects to a master, such as `http://127.0.0.1:7070`.
///
/// # Errors
/// Where nobody listens there.
pub async fn connect(url: &str) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("the address of a master");
    let endpoint = endpoint.connect_timeout(CONNECT_TIME_MAX).timeout(CALL_TIME_MAX).tcp_nodelay(true);
    endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))
}

/// Connects to a master for what masterctl calls.
///
/// # Errors
/// Where nobody listens there.
pub async fn control(url: &str) -> Result<Control, Status> {
    Ok(control_over(connect(url).await?, TOKEN))
}

/// Calls a master over a channel, with a token.
#[must_use]
pub fn control_over(channel: Channel, token: &str) -> Control {
    ControlServiceClient::with_interceptor(channel, Bearer::new(token))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Connects to a master for what executors call.
///
/// # Errors
/// Where nobody listens there.
pub async fn executors(url: &str) -> Result<Executors, Status> {
    Ok(ExecutorServiceClient::with_interceptor(connect(url).await?, Bearer::new(TOKEN))
        .max_decoding_message_size(MESSAGE_BYTES_MAX))
}
