//! The task that ships output.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use millrace_common::{
    id::AttemptId,
    secret::Secret,
    time::{Clock as _, Uptime},
};
use millrace_proto::{
    convert,
    v1::{self, executor_service_client::ExecutorServiceClient},
};
use millrace_runtime::{Chain, SystemClock};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    Output,
    log::{Log, shown_bytes},
};
use crate::{runner::log_file, session::Peer};

/// How often the logs of living attempts are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Ended attempts whose output is shipped at once; the others wait.
const ENDED_AT_ONCE_MAX: usize = 16;
/// Pieces that wait for the network.
const PIECES_MAX: usize = 16;
/// Pieces that wait for their answer.
const UNANSWERED_MAX: usize = 256;
/// How long to wait after a broken connection.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How long the last output may take when the program is stopped.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// What the task needs.
pub(crate) struct ShipperSettings {
    pub(crate) output: Arc<Output>,
    /// Where the logs of ended attempts are.
    pub(crate) folder: PathBuf,
    /// What to hide in all output: every password of the configuration. It also covers output from before a restart, whose
    /// own secrets are forgotten.
    pub(crate) secrets: Vec<Secret>,
    /// Who leads, while there is a session.
    pub(crate) leader: watch::Receiver<Option<Peer>>,
}

/// Ships output until the program ends.
pub(crate) struct Shipper {
    settings: ShipperSettings,
    logs: BTreeMap<AttemptId, Log>,
    /// Ended attempts that are not shipped yet.
    waiting: VecDeque<(AttemptId, u64, Vec<Secret>)>,
    /// The attempt that was served last, so that all get their turn.
    last_served: Option<AttemptId>,
    link: Option<Link>,
    retry_at: Uptime,
}

struct Link {
    sender: mpsc::Sender<v1::OutputChunk>,
    answers: Streaming<v1::OutputKept>,
    /// Pieces without an answer: of which attempt and where they ended. Answers come in order.
    unanswered: VecDeque<(AttemptId, u64)>,
}

enum Wake {
    Stop,
    Leader,
    Note,
    Look,
    Connect,
    Answer(Result<Option<v1::OutputKept>, Status>),
    Room,
}

impl Shipper {
    /// Makes the task's state; logs that an earlier life left in the folder are shipped first.
    pub(crate) fn new(settings: ShipperSettings) -> Self {
        let waiting = left_over(&settings.folder)
            .into_iter()
            .map(|(attempt, bytes)| (attempt, shown_bytes(bytes), Vec::new()))
            .collect();
        Self {
            settings,
            logs: BTreeMap::new(),
            waiting,
            last_served: None,
            link: None,
            retry_at: Uptime::default(),
        }
    }

    /// Runs until `stop`, and a little longer if there is something to ship and somebody to take it.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut drain_until = None;
        loop {
            self.take_notes();
            self.fill();
            if let Some(until) = drain_until {
                let is_done =
                    self.logs.is_empty() || self.link.is_none() || SystemClock.now().uptime >= until;
                if is_done {
                    return;
                }
            }
            match self.next(&stop, drain_until.is_some()).await {
                Wake::Stop => drain_until = Some(SystemClock.now().uptime + DRAIN_MAX),
                Wake::Leader => self.hang_up(),
                Wake::Note => {}
                Wake::Look => self.look(),
                Wake::Connect => self.connect().await,
                Wake::Answer(answer) => self.on_answer(answer),
                Wake::Room => self.send(),
            }
        }
    }

    async fn next(&mut self, stop: &CancellationToken, is_draining: bool) -> Wake {
        let has_more = self.logs.values().any(Log::has_more);
        let is_looking = is_draining || self.has_growing();
        let can_connect = self.link.is_none() && has_more && self.settings.leader.borrow().is_some();
        let connect_in = self.retry_at.since(SystemClock.now().uptime);
        let Settled { room, answer } = Settled::of(self.link.as_mut(), has_more);
        tokio::select! {
            () = stop.cancelled(), if !is_draining => Wake::Stop,
            Ok(()) = self.settings.leader.changed() => Wake::Leader,
            () = self.settings.output.wake.notified() => Wake::Note,
            answer = answer => Wake::Answer(answer),
            () = room => Wake::Room,
            () = tokio::time::sleep(connect_in), if can_connect => Wake::Connect,
            () = tokio::time::sleep(LOOK_INTERVAL), if is_looking => Wake::Look,
        }
    }

    fn has_growing(&self) -> bool {
        self.logs.values().any(Log::is_growing) || !self.settings.output.notes().growing.is_empty()
    }

    /// Takes over what the rest of the program noted.
    fn take_notes(&mut self) {
        let (ended, discarded, is_disk_full) = {
            let mut notes = self.settings.output.notes();
            let is_disk_full = std::mem::take(&mut notes.is_disk_full);
            (std::mem::take(&mut notes.ended), std::mem::take(&mut notes.discarded), is_disk_full)
        };
        for (attempt, bytes, secrets) in ended {
            match self.logs.get_mut(&attempt) {
                Some(log) => log.end(log_file(&self.settings.folder, attempt), bytes),
                None => self.waiting.push_back((attempt, bytes, secrets)),
            }
        }
        for attempt in discarded {
            self.waiting.retain(|(other, ..)| *other != attempt);
            self.logs.remove(&attempt);
            // It may have had no output.
            let _ = fs::remove_file(log_file(&self.settings.folder, attempt));
        }
        if is_disk_full {
            self.give_way();
        }
    }

    /// Takes up logs that wait for their turn.
    fn fill(&mut self) {
        let mut active = self.logs.values().filter(|log| !log.is_growing()).count();
        while active < ENDED_AT_ONCE_MAX
            && let Some((attempt, bytes, secrets)) = self.waiting.pop_front()
        {
            let path = log_file(&self.settings.folder, attempt);
            self.logs.insert(attempt, Log::whole(path, bytes, self.settings.secrets.iter().chain(&secrets)));
            active += 1;
        }
    }

    /// Looks at the logs of living attempts.
    fn look(&mut self) {
        let mut notes = self.settings.output.notes();
        let ended: Vec<AttemptId> = notes.ended.iter().map(|(attempt, ..)| *attempt).collect();
        for (attempt, source) in &notes.growing {
            if self.logs.contains_key(attempt) {
                continue;
            }
            // While the attempt stands in the notes, the file at this path is its own.
            match File::options().read(true).append(true).open(&source.path) {
                Ok(file) => {
                    let secrets = self.settings.secrets.iter().chain(&source.secrets);
                    self.logs.insert(*attempt, Log::growing(file, secrets));
                }
                Err(error) => tracing::warn!(%attempt, %error, "the output of an attempt cannot be read"),
            }
        }
        // What lives no more and did not end with output was silent.
        let growing = std::mem::take(&mut notes.growing);
        self.logs.retain(|attempt, log| {
            !log.is_growing() || growing.contains_key(attempt) || ended.contains(attempt)
        });
        notes.growing = growing;
        drop(notes);
        for (attempt, log) in &mut self.logs {
            if let Err(error) = log.look() {
                tracing::warn!(%attempt, %error, "the output of an attempt cannot be read");
            }
        }
    }

    async fn connect(&mut self) {
        let Some(peer) = self.settings.leader.borrow_and_update().clone() else { return };
        match open(&peer).await {
            Ok(link) => {
                self.logs.values_mut().for_each(Log::rewind);
                self.link = Some(link);
            }
            Err(status) => self.on_broken(&status),
        }
    }

    fn on_broken(&mut self, status: &Status) {
        tracing::debug!(error = %Chain(status), "the connection for output broke; it is opened again");
        self.retry_at = SystemClock.now().uptime + RETRY_DELAY;
        self.hang_up();
    }

    fn hang_up(&mut self) {
        self.link = None;
        self.logs.values_mut().for_each(Log::rewind);
    }

    /// Sends one piece, of the attempt whose turn it is.
    fn send(&mut self) {
        let Some(attempt) = self.next_turn() else { return };
        self.last_served = Some(attempt);
        let (Some(log), Some(link)) = (self.logs.get_mut(&attempt), self.link.as_mut()) else { return };
        match log.next_piece() {
            Ok(Some(piece)) => {
                link.unanswered.push_back((attempt, piece.offset + piece.bytes.len() as u64));
                let chunk = v1::OutputChunk {
                    attempt: Some(attempt.into()),
                    offset: piece.offset,
                    bytes: piece.bytes.into(),
                    is_last: piece.is_last,
                };
                // There was room a moment ago and nobody else sends; a broken link shows in its answers.
                let _ = link.sender.try_send(chunk);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%attempt, %error, "the output of an attempt cannot be read and is given up");
                self.logs.remove(&attempt);
            }
        }
    }

    fn next_turn(&self) -> Option<AttemptId> {
        let has_more = |(attempt, log): (&AttemptId, &Log)| log.has_more().then_some(*attempt);
        let later = self.last_served.and_then(|last| {
            self.logs.range(last..).filter(|(attempt, _)| **attempt > last).find_map(has_more)
        });
        later.or_else(|| self.logs.iter().find_map(has_more))
    }

    fn on_answer(&mut self, answer: Result<Option<v1::OutputKept>, Status>) {
        let kept = match answer {
            Ok(Some(kept)) => kept,
            Ok(None) => return self.on_broken(&Status::unavailable("the leader ended it")),
            Err(status) => return self.on_broken(&status),
        };
        let Ok(attempt) = convert::attempt(kept.attempt.as_ref()) else { return };
        let expected = self.link.as_mut().and_then(|link| link.unanswered.pop_front());
        let end = expected.filter(|(other, _)| *other == attempt).map_or(kept.offset, |(_, end)| end);
        let Some(log) = self.logs.get_mut(&attempt) else { return };
        log.on_kept(end, kept.offset);
        if kept.is_complete
            && !log.is_growing()
            && let Some(log) = self.logs.remove(&attempt)
        {
            log.remove();
        }
    }

    /// Gives up the output of ended attempts: their results need the space.
    fn give_way(&mut self) {
        let ended: Vec<_> =
            self.logs.iter().filter(|(_, log)| !log.is_growing()).map(|(attempt, _)| *attempt).collect();
        let count = ended.len() + self.waiting.len();
        tracing::error!(count, "the disk is full: output that is not shipped yet is given up");
        for log in ended.into_iter().filter_map(|attempt| self.logs.remove(&attempt)) {
            log.remove();
        }
        for (attempt, ..) in self.waiting.drain(..) {
            // Nothing is lost by a file that is gone already.
            let _ = fs::remove_file(log_file(&self.settings.folder, attempt));
        }
    }
}

/// The futures of a link, or ones that never end where there is none.
struct Settled<R, A> {
    room: R,
    answer: A,
}

impl<'a> Settled<(), ()> {
    fn of(
        link: Option<&'a mut Link>,
        has_more: bool,
    ) -> Settled<
        impl Future<Output = ()> + use<'a>,
        impl Future<Output = Result<Option<v1::OutputKept>, Status>> + use<'a>,
    > {
        let (sender, answers) = match link {
            Some(link) => {
                let may_send = has_more && link.unanswered.len() < UNANSWERED_MAX;
                (may_send.then_some(&link.sender), Some(&mut link.answers))
            }
            None => (None, None),
        };
        let room = async move {
            match sender {
                // A closed channel counts as room: the answers tell why.
                Some(sender) if !sender.is_closed() => _ = sender.reserve().await,
                _ => std::future::pending().await,
            }
        };
        let answer = async move {
            match answers {
                Some(answers) => answers.message().await,
                None => std::future::pending().await,
            }
        };
        Settled { room, answer }
    }
}

async fn open(peer: &Peer) -> Result<Link, Status> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    // A channel of its own: a connection of its own.
    let channel = peer.connect().await.map_err(|error| Status::unavailable(Chain(&error).to_string()))?;
    let mut client = ExecutorServiceClient::new(channel);
    let request = peer.request(ReceiverStream::new(receiver));
    let answers = client.ship_output(request).await?.into_inner();
    Ok(Link { sender, answers, unanswered: VecDeque::new() })
}

/// Finds the logs that an earlier life left, oldest attempt first.
fn left_over(folder: &Path) -> Vec<(AttemptId, u64)> {
    let found = || -> io::Result<HashMap<AttemptId, u64>> {
        let mut logs = HashMap::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let attempt = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
            if let Some(attempt) = attempt {
                logs.insert(attempt, entry.metadata()?.len());
            }
        }
        Ok(logs)
    };
    let mut logs: Vec<_> = found().unwrap_or_default().into_iter().collect();
    logs.sort_unstable();
    logs
}
