//! The connection to a master: token, limits and time-outs in one place.

use std::time::Duration;

use anyhow::Context;
use millrace_proto::{MESSAGE_BYTES_MAX, v1::control_service_client::ControlServiceClient};
use millrace_runtime::token;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{cli::Global, failure::Failure};

/// How long a master may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that carries the token.
pub(crate) type Client = ControlServiceClient<InterceptedService<Channel, Bearer>>;

/// Connects to the master that the command line names.
pub(crate) async fn connect(global: &Global) -> Result<Client, Failure> {
    let token = token::read_token_file(&global.token_file).with_context(|| {
        format!("no token from {}; name the master's file with --token-file", global.token_file.display())
    })?;
    let bearer = format!("Bearer {}", token.expose()).parse().context("the token is not plain ASCII")?;
    let endpoint = Endpoint::from_shared(global.master.clone())
        .with_context(|| format!("{:?} is not an address such as http://127.0.0.1:7070", global.master))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(|error| {
        let cause = millrace_runtime::chain::Chain(&error).to_string();
        Failure::Unreachable(format!(
            "no master answers at {}: {cause}; name another with --master",
            global.master
        ))
    })?;
    Ok(ControlServiceClient::with_interceptor(channel, Bearer(bearer))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

/// Puts the token on every call.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}
