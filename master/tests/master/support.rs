//! The master under test, its clients, and an executor that does what a test says.

use std::{
    fmt::Debug,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_common::id::RunId;
use millrace_master::{MasterConfig, Ready};
use millrace_proto::{
    MESSAGE_BYTES_MAX, PROTOCOL,
    v1::{
        self, AttemptState, control_service_client::ControlServiceClient, executor_message,
        executor_service_client::ExecutorServiceClient, leader_message,
    },
};
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status, Streaming,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// How long anything may take before a test gives up on it; generous, since machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at something that cannot be waited for.
const LOOK: Duration = Duration::from_millis(20);

/// A workflow with one task, and one with two that follow each other.
pub(crate) const ONE: &str = "workflow: one\nparams: { day: { default: monday, enum: [monday, friday] }, count: 1 }\ntasks:\n  a: { kind: shell, kill_grace: 1s, with: { command: [make] } }\n";
pub(crate) const TWO: &str = "workflow: two\ntasks:\n  a: { kind: shell, with: { command: [make] } }\n  b: { kind: shell, after: a, with: { command: [make] } }\n";

pub(crate) type Control = ControlServiceClient<InterceptedService<Channel, Token>>;
pub(crate) type Executors = ExecutorServiceClient<InterceptedService<Channel, Token>>;

/// Waits for `future`, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Looks until `look` finds something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    })
    .await
}

/// What a call carries as its authorization; nothing where empty.
#[derive(Debug, Clone)]
pub(crate) struct Token(pub(crate) String);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.0.is_empty() {
            request.metadata_mut().insert("authorization", MetadataValue::try_from(&self.0).unwrap());
        }
        Ok(request)
    }
}

/// A master that runs beside the test.
pub(crate) struct Master {
    pub(crate) address: SocketAddr,
    pub(crate) token: Token,
    stop: CancellationToken,
    end: oneshot::Receiver<anyhow::Result<()>>,
}

/// Settings of a master in `folder` on a free port.
pub(crate) fn config(folder: &Path) -> MasterConfig {
    let mut config = MasterConfig::in_folder(folder.join("master"));
    config.listen = (Ipv4Addr::LOCALHOST, 0).into();
    config
}

/// Runs a master in a thread of its own, as its program would; returns how it ended.
fn run_beside(
    config: MasterConfig,
    stop: CancellationToken,
    ready: oneshot::Sender<Ready>,
) -> oneshot::Receiver<anyhow::Result<()>> {
    let (sender, end) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let end = runtime.block_on(millrace_master::run(config, stop, ready));
        // What the master left running would show in the time that this takes.
        drop(runtime);
        // The test may have ended.
        let _ = sender.send(end);
    });
    end
}

/// Reads what the master wrote for its callers.
pub(crate) fn token_of(file: &Path) -> Token {
    Token(format!("Bearer {}", std::fs::read_to_string(file).unwrap().trim()))
}

async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    within("a connection", endpoint.connect()).await.unwrap()
}

pub(crate) async fn control(address: SocketAddr, token: &Token) -> Control {
    ControlServiceClient::with_interceptor(channel(address).await, token.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
}

impl Drop for Master {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Master {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(config(folder)).await.unwrap()
    }

    pub(crate) async fn start_with(config: MasterConfig) -> anyhow::Result<Self> {
        let token_file = config.token_file.clone();
        let stop = CancellationToken::new();
        let (sender, ready) = oneshot::channel();
        let end = run_beside(config, stop.clone(), sender);
        match within("the master to lead", ready).await {
            Ok(Ready { address }) => Ok(Self { address, token: token_of(&token_file), stop, end }),
            Err(_) => Err(within("the master to end", end).await.unwrap().unwrap_err()),
        }
    }

    /// Tells it to stop, waits for that, and returns how it ended and how long that took.
    pub(crate) async fn stop(self) -> (anyhow::Result<()>, Duration) {
        self.stop.cancel();
        let start = tokio::time::Instant::now();
        let end = self.ended().await;
        (end, start.elapsed())
    }

    /// Waits until it has ended, and returns how.
    pub(crate) async fn ended(mut self) -> anyhow::Result<()> {
        within("the master to end", &mut self.end).await.unwrap()
    }

    pub(crate) async fn channel(&self) -> Channel {
        channel(self.address).await
    }

    pub(crate) async fn control(&self) -> Control {
        control(self.address, &self.token).await
    }

    pub(crate) async fn executors(&self) -> Executors {
        ExecutorServiceClient::with_interceptor(self.channel().await, self.token.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Connects an executor with two slots that holds nothing.
    pub(crate) async fn executor(&self, name: &str) -> Executor {
        self.executor_with(hello(name)).await.unwrap()
    }

    /// Connects an executor that says this of itself, and waits until it is welcome.
    pub(crate) async fn executor_with(&self, hello: v1::Hello) -> Result<Executor, Status> {
        let mut executor = self.session(executor_message::Body::Hello(hello)).await?;
        match executor.next().await? {
            leader_message::Body::Welcome(welcome) => executor.welcome = welcome,
            other => panic!("a welcome, not {other:?}"),
        }
        Ok(executor)
    }

    /// Opens a session whose first message is `first`.
    pub(crate) async fn session(&self, first: executor_message::Body) -> Result<Executor, Status> {
        Executor::open(&mut self.executors().await, first).await
    }

    /// Puts a definition in force.
    pub(crate) async fn apply(&self, source: &str) {
        let request = v1::ApplyWorkflowRequest { source: source.to_owned(), dry_run: false };
        self.control().await.apply_workflow(request).await.unwrap();
    }

    /// Starts a run and returns its id.
    pub(crate) async fn run(&self, workflow: &str) -> String {
        let request = v1::StartRunRequest { workflow: workflow.to_owned(), ..Default::default() };
        self.control().await.start_run(request).await.unwrap().into_inner().run
    }

    pub(crate) async fn show(&self, run: &str) -> v1::GetRunResponse {
        let request = v1::GetRunRequest { run: run.to_owned() };
        self.control().await.get_run(request).await.unwrap().into_inner()
    }

    /// Tells whether the leader has an executor that is connected.
    pub(crate) async fn has_connected_executor(&self) -> bool {
        let listed = self.control().await.list_executors(v1::ListExecutorsRequest {}).await;
        listed.unwrap().into_inner().executors.iter().any(|executor| executor.state == "connected")
    }

    /// Waits until a run is in a state.
    pub(crate) async fn reaches(&self, run: &str, state: &str) -> v1::GetRunResponse {
        until(&format!("the run to be {state}"), async || {
            let view = self.show(run).await;
            (view.run.as_ref().unwrap().state == state).then_some(view)
        })
        .await
    }
}

/// What an executor says of itself.
pub(crate) fn hello(name: &str) -> v1::Hello {
    v1::Hello {
        protocol: PROTOCOL,
        executor: name.to_owned(),
        slots: 2,
        kinds: vec!["shell".to_owned()],
        spool_id: vec![7; 16],
        boot_id: "boot-1".to_owned(),
        version: "0.0.0".to_owned(),
        ..v1::Hello::default()
    }
}

/// An executor that does what a test says.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) sender: mpsc::Sender<v1::ExecutorMessage>,
    pub(crate) messages: Streaming<v1::LeaderMessage>,
    pub(crate) welcome: v1::Welcome,
    /// The term of the last message.
    pub(crate) term: u64,
    starts: Vec<v1::Start>,
}

impl Executor {
    /// Opens a session whose first message is `first`.
    pub(crate) async fn open<I: Interceptor>(
        calls: &mut ExecutorServiceClient<InterceptedService<Channel, I>>,
        first: executor_message::Body,
    ) -> Result<Self, Status> {
        let (sender, receiver) = mpsc::channel(64);
        sender.send(v1::ExecutorMessage { body: Some(first) }).await.unwrap();
        let messages =
            within("the session", calls.session(ReceiverStream::new(receiver))).await?.into_inner();
        Ok(Self { sender, messages, welcome: v1::Welcome::default(), term: 0, starts: Vec::new() })
    }

    /// Returns the next message.
    pub(crate) async fn next(&mut self) -> Result<leader_message::Body, Status> {
        let message = within("a message from the leader", self.messages.message()).await?;
        let message = message.ok_or_else(|| Status::cancelled("the leader ended the session"))?;
        self.term = message.term;
        Ok(message.body.unwrap())
    }

    /// Returns why the session ends; whatever comes before does not matter.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }

    pub(crate) async fn say(&self, body: executor_message::Body) {
        within("room for a message", self.sender.send(v1::ExecutorMessage { body: Some(body) }))
            .await
            .unwrap();
    }

    pub(crate) async fn beat(&mut self, number: u64, held: Vec<v1::Held>) {
        self.say(executor_message::Body::Heartbeat(v1::Heartbeat { number, held, ..Default::default() }))
            .await;
        loop {
            if let leader_message::Body::HeartbeatAnswer(answer) = self.next().await.unwrap() {
                assert_eq!(answer.number, number);
                return;
            }
        }
    }

    /// Says things that need a long answer and reads nothing of it, until the leader has ended the session.
    ///
    /// Whether `sender` learns of the end depends on who was faster: once this side's window is full, nothing gets through
    /// to it until it reads. So the leader is asked.
    pub(crate) async fn overflow(&self, master: &Master, held: Vec<v1::Held>) {
        // Each attempt that the leader does not know is to be killed, which takes a message.
        let unknown = (0..5_000).map(|index| v1::Held {
            attempt: Some(v1::AttemptId { run: vec![1; 16], index, number: 1 }),
            state: AttemptState::Running.into(),
            end: None,
        });
        let held: Vec<_> = held.into_iter().chain(unknown).collect();
        let beat = executor_message::Body::Heartbeat(v1::Heartbeat { number: 1, held, ..Default::default() });
        until("the session to end", async || {
            // No room, or nobody who listens: the session is about to be over.
            let _ = self.sender.try_send(v1::ExecutorMessage { body: Some(beat.clone()) });
            (!master.has_connected_executor().await).then_some(())
        })
        .await;
    }

    /// Waits for the next start.
    pub(crate) async fn start(&mut self) -> v1::Start {
        while self.starts.is_empty() {
            if let leader_message::Body::Starts(starts) = self.next().await.unwrap() {
                self.starts = starts.starts;
            }
        }
        self.starts.remove(0)
    }

    pub(crate) async fn accept(&self, start: &v1::Start) {
        self.report(start, v1::report::Body::Accepted(v1::Accepted {})).await;
        self.report(start, v1::report::Body::Started(v1::Started { at: 1_000_000, pid: 7 })).await;
    }

    pub(crate) async fn report(&self, start: &v1::Start, body: v1::report::Body) {
        let report = v1::Report { attempt: start.attempt.clone(), body: Some(body) };
        self.say(executor_message::Body::Reports(v1::Reports { reports: vec![report] })).await;
    }

    /// Reports an end and waits until it is acknowledged.
    pub(crate) async fn finish(&mut self, start: &v1::Start, end: v1::AttemptEnd) {
        self.report(start, v1::report::Body::Ended(end)).await;
        loop {
            match self.next().await.unwrap() {
                leader_message::Body::Acks(acks)
                    if acks.attempts.contains(start.attempt.as_ref().unwrap()) =>
                {
                    return;
                }
                leader_message::Body::Starts(starts) => self.starts.extend(starts.starts),
                _ => {}
            }
        }
    }
}

/// An end in a state.
pub(crate) fn ended(state: AttemptState) -> v1::AttemptEnd {
    v1::AttemptEnd { state: state.into(), ended_at: 2_000_000, ..v1::AttemptEnd::default() }
}

/// An attempt in a spool.
pub(crate) fn held(start: &v1::Start, state: AttemptState) -> v1::Held {
    v1::Held { attempt: start.attempt.clone(), state: state.into(), end: None }
}

/// The id of a run that never was.
pub(crate) fn nobody() -> String {
    RunId::from_bytes([1; 16]).to_string()
}

/// The status of a call that must fail.
pub(crate) fn refused<T: Debug>(result: Result<T, Status>) -> Status {
    result.unwrap_err()
}

/// The folder of the master's data.
pub(crate) fn data_dir(folder: &Path) -> PathBuf {
    folder.join("master")
}
