//! A leader that does what a test says, and the executor's program with its own folder.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use millrace_common::{
    id::{AttemptId, InstanceId, RunId},
    state::AttemptState,
};
use millrace_proto::{
    convert,
    v1::{
        self,
        executor_message::Body,
        executor_service_server::{ExecutorService, ExecutorServiceServer},
        leader_message::Body as LeaderBody,
        report::Body as ReportBody,
    },
};
use nix::sys::signal::{Signal, kill};
use tokio::sync::mpsc;
use tokio_stream::{
    StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
const TOKEN: &str = "0123456789abcdef0123456789abcdef0123";

/// Waits until `found` gives something, looking often.
pub(crate) async fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let wait = async {
        loop {
            ticks.tick().await;
            if let Some(value) = found() {
                return value;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Returns an attempt of a task instance.
pub(crate) fn attempt(index: u32, number: u32) -> AttemptId {
    static RUN: OnceLock<RunId> = OnceLock::new();
    let run = *RUN.get_or_init(|| RunId::from_bytes(*uuid::Uuid::now_v7().as_bytes()));
    InstanceId { run, index }.attempt(number)
}

/// What was shipped of an attempt, and whether all of it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shipped {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_complete: bool,
}

type Outputs = Arc<Mutex<HashMap<AttemptId, Shipped>>>;

/// A leader under the test's control.
pub(crate) struct Leader {
    pub(crate) address: SocketAddr,
    sessions: mpsc::Receiver<Session>,
    outputs: Outputs,
    _server: tokio::task::JoinSet<()>,
}

/// A session with the executor.
pub(crate) struct Session {
    pub(crate) hello: v1::Hello,
    pub(crate) term: u64,
    messages: Streaming<v1::ExecutorMessage>,
    sender: mpsc::Sender<Result<v1::LeaderMessage, Status>>,
    pub(crate) answers_heartbeats: bool,
    /// What the newest heartbeat said of the executor's disk.
    pub(crate) is_space_low: bool,
    /// Pages of its history that arrived.
    pub(crate) pages: Vec<v1::HistoryPage>,
    reports: BTreeMap<AttemptId, Vec<ReportBody>>,
}

struct Service {
    tasks: TaskTracker,
    sessions: mpsc::Sender<Session>,
    outputs: Outputs,
}

#[tonic::async_trait]
impl ExecutorService for Service {
    type SessionStream = ReceiverStream<Result<v1::LeaderMessage, Status>>;
    type ShipOutputStream = ReceiverStream<Result<v1::OutputKept, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::ExecutorMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        assert_eq!(given, Some(format!("Bearer {TOKEN}").as_str()));
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.body);
        let Some(Body::Hello(hello)) = first else { return Err(Status::invalid_argument("no hello")) };
        let (sender, receiver) = mpsc::channel(1_024);
        let session = Session {
            is_space_low: hello.is_space_low,
            hello,
            term: 1,
            messages,
            sender,
            answers_heartbeats: true,
            pages: Vec::new(),
            reports: BTreeMap::new(),
        };
        self.sessions.send(session).await.map_err(|_| Status::unavailable("the test has ended"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn ship_output(
        &self,
        request: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<Self::ShipOutputStream>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        let outputs = Arc::clone(&self.outputs);
        let mut chunks = request.into_inner();
        self.tasks.spawn(async move {
            while let Some(Ok(chunk)) = chunks.next().await {
                let kept = keep(&outputs, &chunk);
                if sender.send(Ok(kept)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn keep(outputs: &Outputs, chunk: &v1::OutputChunk) -> v1::OutputKept {
    let attempt = convert::attempt(chunk.attempt.as_ref()).unwrap();
    let mut outputs = outputs.lock().unwrap();
    let shipped = outputs.entry(attempt).or_default();
    let length = shipped.bytes.len() as u64;
    if chunk.offset <= length {
        let known = (length - chunk.offset) as usize;
        shipped.bytes.extend_from_slice(chunk.bytes.get(known..).unwrap_or_default());
        shipped.is_complete |= chunk.is_last;
    }
    v1::OutputKept {
        attempt: chunk.attempt.clone(),
        offset: shipped.bytes.len() as u64,
        is_complete: shipped.is_complete && chunk.is_last,
    }
}

impl Leader {
    /// Starts listening on a free port.
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, sessions) = mpsc::channel(16);
        let outputs = Outputs::default();
        let service = Service { tasks: TaskTracker::new(), sessions: sender, outputs: Arc::clone(&outputs) };
        let server = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(ExecutorServiceServer::new(service));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(
            async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() },
        );
        Self { address, sessions, outputs, _server: tasks }
    }

    /// Waits for the next greeting.
    pub(crate) async fn greeted(&mut self) -> Session {
        tokio::time::timeout(PATIENCE, self.sessions.recv())
            .await
            .expect("a session in time")
            .expect("a session")
    }

    /// Waits for the next greeting and welcomes it, adopting everything.
    pub(crate) async fn session(&mut self) -> Session {
        let session = self.greeted().await;
        session.welcome(&[]).await;
        session
    }

    /// Returns what was shipped of an attempt so far.
    pub(crate) fn output(&self, attempt: AttemptId) -> Option<Shipped> {
        self.outputs.lock().unwrap().get(&attempt).cloned()
    }

    /// Waits until all output of an attempt was shipped.
    pub(crate) async fn whole_output(&self, attempt: AttemptId) -> Vec<u8> {
        eventually("all of the output", || self.output(attempt).filter(|shipped| shipped.is_complete))
            .await
            .bytes
    }
}

impl Session {
    pub(crate) async fn send(&self, body: LeaderBody) {
        let message = v1::LeaderMessage { term: self.term, body: Some(body) };
        self.sender.send(Ok(message)).await.expect("the executor listens");
    }

    pub(crate) async fn welcome(&self, verdicts: &[(AttemptId, v1::verdict::Kind)]) {
        let verdicts = verdicts
            .iter()
            .map(|(attempt, kind)| v1::Verdict { attempt: Some((*attempt).into()), kind: (*kind).into() })
            .collect();
        self.send(LeaderBody::Welcome(v1::Welcome { verdicts })).await;
    }

    /// Returns the message that starts a shell command.
    pub(crate) fn shell(&self, attempt: AttemptId, command: &[&str]) -> v1::Start {
        self.task(attempt, "shell", &serde_json::json!({ "command": command }))
    }

    pub(crate) fn task(&self, attempt: AttemptId, kind: &str, with: &serde_json::Value) -> v1::Start {
        v1::Start {
            attempt: Some(attempt.into()),
            spool_id: self.hello.spool_id.clone(),
            workflow: "nightly".into(),
            task: "load".into(),
            kind: kind.into(),
            with: serde_json::to_vec(with).unwrap().into(),
            is_templated: false,
            run: Some(v1::RunFacts { timezone: "UTC".into(), ..v1::RunFacts::default() }),
            values: HashMap::default(),
            timeout_ms: 0,
            kill_grace_ms: 10_000,
            orphan_timeout_ms: 60_000,
        }
    }

    pub(crate) async fn start(&self, start: v1::Start) {
        self.send(LeaderBody::Starts(v1::Starts { starts: vec![start] })).await;
    }

    pub(crate) async fn kill(&self, attempt: AttemptId, grace: Duration) {
        let grace_ms = grace.as_millis() as u64;
        self.send(LeaderBody::Kill(v1::Kill {
            attempt: Some(attempt.into()),
            grace_ms,
            reason: "asked".into(),
        }))
        .await;
    }

    pub(crate) async fn ack(&self, attempt: AttemptId) {
        self.send(LeaderBody::Acks(v1::Acks { attempts: vec![attempt.into()] })).await;
    }

    /// Starts a shell command and waits for its end, which is acknowledged.
    pub(crate) async fn run(&mut self, attempt: AttemptId, command: &[&str]) -> v1::AttemptEnd {
        self.start(self.shell(attempt, command)).await;
        self.end_of(attempt).await
    }

    /// Waits for the end of an attempt and acknowledges it.
    pub(crate) async fn end_of(&mut self, attempt: AttemptId) -> v1::AttemptEnd {
        let end = self.until(attempt, |report| match report {
            ReportBody::Ended(end) => Some(end.clone()),
            _ => None,
        });
        let end = end.await;
        self.ack(attempt).await;
        end
    }

    /// Waits until an attempt was told to run.
    pub(crate) async fn pid_of(&mut self, attempt: AttemptId) -> u32 {
        self.until(attempt, |report| match report {
            ReportBody::Started(started) => Some(started.pid),
            _ => None,
        })
        .await
    }

    async fn until<T>(&mut self, attempt: AttemptId, found: impl Fn(&ReportBody) -> Option<T>) -> T {
        let wait = async {
            loop {
                let told = self.reports.get(&attempt).and_then(|reports| reports.iter().find_map(&found));
                if let Some(value) = told {
                    return value;
                }
                assert!(self.receive().await, "the session ended while waiting for {attempt}");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no such report of {attempt}"))
    }

    /// Takes in one message; `false` where the session has ended.
    pub(crate) async fn receive(&mut self) -> bool {
        let Ok(Some(message)) = self.messages.message().await else { return false };
        match message.body {
            Some(Body::Heartbeat(heartbeat)) => {
                self.is_space_low = heartbeat.is_space_low;
                if self.answers_heartbeats {
                    let answer = v1::HeartbeatAnswer { number: heartbeat.number };
                    self.send(LeaderBody::HeartbeatAnswer(answer)).await;
                }
            }
            Some(Body::Reports(reports)) => {
                for report in reports.reports {
                    let attempt = convert::attempt(report.attempt.as_ref()).unwrap();
                    self.reports.entry(attempt).or_default().extend(report.body);
                }
            }
            Some(Body::HistoryPage(page)) => self.pages.push(page),
            _ => {}
        }
        true
    }

    /// Returns every end that was told of an attempt.
    pub(crate) fn ends(&self, attempt: AttemptId) -> usize {
        let reports = self.reports.get(&attempt).into_iter().flatten();
        reports.filter(|report| matches!(report, ReportBody::Ended(_))).count()
    }
}

/// A leader, an executor that it has welcomed, and the folder of both.
pub(crate) struct Stage {
    pub(crate) leader: Leader,
    pub(crate) session: Session,
    pub(crate) executor: Executor,
    pub(crate) _sweeper: Sweeper,
    pub(crate) folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// With more lines of configuration.
    pub(crate) async fn with(more: &str) -> Self {
        Self::of(Path::new(env!("CARGO_BIN_EXE_millrace-executor")), tempfile::tempdir().unwrap(), more).await
    }

    /// With the program of another file.
    pub(crate) async fn of(program: &Path, folder: tempfile::TempDir, more: &str) -> Self {
        let mut leader = Leader::start().await;
        let executor = Executor::start_program(program, folder.path(), leader.address, more);
        let session = leader.session().await;
        Self { leader, session, executor, _sweeper: Sweeper(folder.path().to_owned()), folder }
    }

    /// Returns a file in the test's folder, for scripts to write to.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

/// Returns the state of an end.
pub(crate) fn state(end: &v1::AttemptEnd) -> AttemptState {
    convert::attempt_state(end.state).unwrap()
}

/// The executor's program.
pub(crate) struct Executor {
    child: Child,
}

impl Executor {
    /// Starts it in `folder`, with more lines of configuration.
    pub(crate) fn start(folder: &Path, leader: SocketAddr, more: &str) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_millrace-executor")), folder, leader, more)
    }

    /// Starts the program of another file.
    pub(crate) fn start_program(program: &Path, folder: &Path, leader: SocketAddr, more: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let (config, token) = (folder.join("executor.toml"), folder.join("token"));
        fs::write(&token, TOKEN).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        let data_dir = folder.join("data");
        let text = format!(
            "name = 'exec-1'\nmasters = ['http://{leader}']\ntoken_file = {token:?}\ndata_dir = {data_dir:?}\n\
             heartbeat_interval = '200ms'\nanswer_timeout = '2s'\nmin_free = '1MiB'\n{more}"
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::options().create(true).append(true).open(folder.join("executor.log")).unwrap();
        let child = Command::new(program)
            .args(["run", "--config"])
            .arg(config)
            .env("MILLRACE_LOG", "debug,h2=info,hyper=info,tower=info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash does.
    pub(crate) fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn terminate(&self) {
        signal(self.child.id(), Signal::SIGTERM);
    }

    pub(crate) async fn exit(mut self) -> ExitStatus {
        eventually("the end of the executor", || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process of this test.
pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
}

/// Returns the process of the supervisor of a test's executor, if one lives.
pub(crate) fn supervisor_of(folder: &Path) -> Option<u32> {
    let data_dir = fs::canonicalize(folder.join("data")).ok()?;
    let expected = [b"supervise\0", data_dir.as_os_str().as_encoded_bytes(), b"\0"].concat();
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut pids = pids.filter(|pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(&expected))
    });
    pids.find(|pid| is_alive(*pid))
}

/// Ends, after a test, what an executor that was killed leaves to its supervisor.
pub(crate) struct Sweeper(pub(crate) PathBuf);

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(pid) = supervisor_of(&self.0) {
            let _ = kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        let Ok(cgroup) = fs::read_to_string(self.0.join("data/supervisor/cgroup")) else { return };
        // Empty where there are no control groups: then their names would be files of this folder.
        if cgroup.is_empty() {
            return;
        }
        let _ = fs::write(Path::new(&cgroup).join("cgroup.kill"), "1");
        // Its processes take a moment to be gone, and a test that has ended does not wait for long.
        for _ in 0..1_000 {
            for entry in fs::read_dir(&cgroup).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path());
            }
            let _ = fs::remove_dir(&cgroup);
            if !Path::new(&cgroup).exists() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Tells whether a process lives.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Waits until a process has written its number to a file.
pub(crate) async fn pid_in(path: &Path) -> u32 {
    eventually("a file with a process number", || fs::read_to_string(path).ok()?.trim().parse().ok()).await
}
