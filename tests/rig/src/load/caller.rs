//! Calls of masters, each with a deadline, and what is known after them.

use std::time::Duration;

use millrace_proto::v1;
use millrace_servers::client::{Control, TOKEN, control_over};
use tonic::{Code, Status, transport::Endpoint};

/// How long an answer may take before somebody else is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// What is known after a call.
#[derive(Debug)]
pub(super) enum Told {
    /// It is done.
    Yes(String),
    /// It is refused for good.
    No,
    /// It may have been done, or not.
    Nothing,
}

/// Connections to all masters, made when they are needed.
pub(super) struct Caller {
    masters: Vec<Control>,
}

impl Caller {
    pub(super) fn new(masters: &[String]) -> anyhow::Result<Self> {
        let connect = |url: &String| {
            let endpoint =
                Endpoint::from_shared(url.clone())?.connect_timeout(CONNECT_WITHIN).tcp_nodelay(true);
            let endpoint = endpoint
                .timeout(ANSWER_WITHIN)
                .http2_keep_alive_interval(ANSWER_WITHIN)
                .keep_alive_timeout(ANSWER_WITHIN)
                .keep_alive_while_idle(true);
            Ok(control_over(endpoint.connect_lazy(), TOKEN))
        };
        Ok(Self { masters: masters.iter().map(connect).collect::<anyhow::Result<_>>()? })
    }

    pub(super) const fn count(&self) -> usize {
        self.masters.len()
    }

    pub(super) async fn start_run(&self, master: usize, workflow: &str, key: &str) -> Told {
        let request = v1::StartRunRequest {
            workflow: workflow.to_owned(),
            idempotency_key: key.to_owned(),
            ..Default::default()
        };
        told(self.masters[master].clone().start_run(request).await.map(|answer| answer.into_inner().run))
    }

    pub(super) async fn cancel_run(&self, master: usize, run: &str) -> Told {
        let request = v1::RunRequest { run: run.to_owned() };
        told(self.masters[master].clone().cancel_run(request).await.map(|answer| answer.into_inner().state))
    }
}

fn told(answer: Result<String, Status>) -> Told {
    match answer {
        Ok(text) => Told::Yes(text),
        Err(status) => match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::OutOfRange => Told::No,
            _ => Told::Nothing,
        },
    }
}
