//! The connection to a master: token, limits, time-outs and the one retry policy.

use std::time::Duration;

use anyhow::{Context, anyhow};
use millrace_common::text::ShowDuration;
use millrace_proto::{MESSAGE_BYTES_MAX, v1::control_service_client::ControlServiceClient};
use millrace_runtime::{chain::Chain, jitter, token};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{cli::Global, failure::Failure};

/// How long a master may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a master may take until its answer begins; its own limit is a little shorter and says why.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
/// How often an idle connection is asked whether the master is there, and how long that may take.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long a master may be away before following it is given up: a restart, or a change of leader.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// Pause between two tries, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A client that carries the token.
pub(crate) type Client = ControlServiceClient<InterceptedService<Channel, Bearer>>;

/// Connects to the first of the masters on the command line that answers: any master takes any call, and passes on to the
/// leader what only that can do. A connection that breaks later is opened again by the next call.
pub(crate) async fn connect(global: &Global) -> Result<Client, Failure> {
    let endpoints = global.masters.iter().map(|master| Ok((master, endpoint(master)?)));
    let endpoints = endpoints.collect::<anyhow::Result<Vec<_>>>()?;
    let bearer = bearer(global)?;
    let mut problems = Vec::new();
    for (master, endpoint) in endpoints {
        match endpoint.connect().await {
            Ok(channel) => {
                return Ok(ControlServiceClient::with_interceptor(channel, bearer)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX));
            }
            Err(error) => problems.push(format!("no master answers at {master}: {}", Chain(&error))),
        }
    }
    Err(Failure::Unreachable(format!("{}; name another with --master", problems.join("; "))))
}

/// Reads the address of a master. The token would travel in clear where somebody trusted in `https`, so that is refused.
fn endpoint(master: &str) -> anyhow::Result<Endpoint> {
    let wrong = || format!("{master:?} is not an address such as http://127.0.0.1:7070");
    let endpoint = Endpoint::from_shared(master.to_owned()).with_context(wrong)?;
    match endpoint.uri().scheme_str() {
        Some("http") => Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)),
        Some("https") => {
            Err(anyhow!("{master} cannot be reached: there is no TLS in this build, write http://"))
        }
        Some(_) | None => Err(anyhow!(wrong())),
    }
}

fn bearer(global: &Global) -> Result<Bearer, Failure> {
    let token = token::read_token_file(&global.token_file).map_err(|error| {
        Failure::Token(format!("{}; name the master's token file with --token-file", Chain(&error)))
    })?;
    let mut bearer: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
        .parse()
        .map_err(|_| Failure::Token("the token cannot travel in a header".to_owned()))?;
    bearer.set_sensitive(true);
    Ok(Bearer(bearer))
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

/// Bears with a master that is away: the one policy for calls that may be repeated.
#[derive(Debug)]
pub(crate) struct Patience {
    pause: Duration,
    /// How long was waited since the last answer.
    waited: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { pause: PAUSE_MIN, waited: Duration::ZERO }
    }
}

impl Patience {
    /// Notes that the master answered.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }

    /// Waits before another try; `say` is told once that there will be one.
    ///
    /// # Errors
    /// The failure itself where another try would not help, or the master was away for too long.
    pub(crate) async fn wait(&mut self, failure: Failure, say: impl FnOnce(&str)) -> Result<(), Failure> {
        if !failure.is_away() || self.waited >= AWAY_MAX {
            return Err(failure);
        }
        if self.waited.is_zero() {
            say(&format!("the master is away, trying again for {}", ShowDuration(AWAY_MAX)));
        }
        let pause = jitter::from_half(self.pause);
        tokio::time::sleep(pause).await;
        self.waited += pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        assert!(endpoint("http://127.0.0.1:7070").is_ok());
        for (wrong, word) in [
            ("127.0.0.1:7070", "http://127.0.0.1:7070"),
            ("localhost", "http://127.0.0.1:7070"),
            ("not an address", "http://127.0.0.1:7070"),
            ("https://127.0.0.1:7070", "no TLS"),
        ] {
            let problem = format!("{:#}", endpoint(wrong).unwrap_err());
            assert!(problem.contains(word), "{wrong}: {problem}");
        }
    }
}
