//! The session with the leader: one bidirectional stream, dialled from here.
//!
//! Owns the connection and the reports that have not left; decides nothing. Masters are tried in turn; one that does not
//! lead says who does, and that one is tried next. Between rounds the pause grows, with a random part so that a plant full of
//! executors does not return in step. A broken session is opened again at once: attempts go on meanwhile, and the next
//! greeting tells everything.

mod outbox;
mod peer;
mod wire;

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use millrace_common::{
    id::{AttemptId, SpoolId},
    secret::Secret,
    term::Term,
    time::{Clock as _, Uptime},
};
use millrace_proto::{
    MESSAGE_BYTES_MAX, PROTOCOL,
    v1::{self, executor_message::Body, executor_service_client::ExecutorServiceClient},
};
use millrace_runtime::{Chain, SystemClock, jitter, timer};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use self::{outbox::Outbox, wire::Said};
pub(crate) use self::{
    peer::{Peer, PeerError},
    wire::history_page,
};
use crate::ledger::{FromLeader, Greeting, Heartbeat, Report};

/// Messages that wait for the network; while there are as many, reports gather in the outbox.
const MESSAGES_MAX: usize = 16;
/// Pause after all masters were tried, at first and at most. Short at first: a leader that was killed is replaced within
/// some hundredths of a second, and a master that knows of no leader answers only when it does.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pause at most while masters answer that nobody leads: an election takes no longer than a lease.
const PAUSE_ELECTION_MAX: Duration = Duration::from_secs(1);
/// Masters in a row that may name another one as the leader before that counts as a failure.
const REFERRALS_MAX: usize = 3;

/// What this executor says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Introduction {
    pub(crate) executor: String,
    pub(crate) slots: u32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) kinds: Vec<String>,
    pub(crate) spool: SpoolId,
    pub(crate) boot: String,
    pub(crate) machine: String,
    /// Names this start of the program.
    pub(crate) process: String,
}

/// What happened to the session.
#[derive(Debug)]
pub(crate) enum News {
    /// A connection is open: a greeting is to be sent.
    Dialled,
    /// The leader said something.
    Said(Term, FromLeader),
    /// The session ended, if there was one.
    Closed,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Channel, tonic::transport::Error>> + Send>>;
type Opening = Pin<Box<dyn Future<Output = Result<Streaming<v1::LeaderMessage>, Status>> + Send>>;

enum State {
    /// Waiting before the next master is tried.
    Pausing(Uptime),
    Dialling(Dialling),
    /// Connected; the greeting is on its way from the ledger.
    Dialled(Channel),
    /// The greeting was sent; the leader has not answered.
    Opening {
        opening: Opening,
        sender: mpsc::Sender<v1::ExecutorMessage>,
        until: Uptime,
    },
    Open {
        messages: Box<Streaming<v1::LeaderMessage>>,
        sender: mpsc::Sender<v1::ExecutorMessage>,
        welcome_until: Option<Uptime>,
    },
}

/// The session, or the search for one.
pub(crate) struct Session {
    masters: Vec<Peer>,
    current: usize,
    /// The leader, as a master said that was asked before.
    told: Option<Peer>,
    referrals: usize,
    tried: usize,
    pause: Duration,
    answer_timeout: Duration,
    introduction: Introduction,
    outbox: Outbox,
    state: State,
    leader: watch::Sender<Option<Peer>>,
    /// What was said last about failing to find a leader, so that it is not repeated each time.
    complaint: String,
}

enum Wake {
    Paused,
    Connected(Result<Channel, tonic::transport::Error>),
    Opened(Result<Streaming<v1::LeaderMessage>, Status>),
    Message(Result<Option<v1::LeaderMessage>, Status>),
    Late,
    Room,
}

impl Session {
    pub(crate) fn new(
        addresses: &[String],
        token: &Secret,
        answer_timeout: Duration,
        introduction: Introduction,
    ) -> Result<Self, PeerError> {
        let masters = addresses.iter().map(|address| Peer::new(address, token)).collect::<Result<_, _>>()?;
        Ok(Self {
            masters,
            current: 0,
            told: None,
            referrals: 0,
            tried: 0,
            pause: PAUSE_MIN,
            answer_timeout,
            introduction,
            outbox: Outbox::default(),
            state: State::Pausing(Uptime::default()),
            leader: watch::Sender::new(None),
            complaint: String::new(),
        })
    }

    /// Follows who leads, while there is a session.
    pub(crate) fn leader(&self) -> watch::Receiver<Option<Peer>> {
        self.leader.subscribe()
    }

    /// Tells whether the leader has welcomed this executor.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { welcome_until: None, .. })
    }

    /// Tells whether every report has left.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Waits for the next news, sending what there is to send meanwhile. May be dropped and called again at any time.
    pub(crate) async fn next(&mut self) -> News {
        loop {
            let wake = self.wake().await;
            if let Some(news) = self.step(wake) {
                return news;
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let now = SystemClock.now().uptime;
        match &mut self.state {
            State::Pausing(until) => {
                tokio::time::sleep(until.since(now)).await;
                Wake::Paused
            }
            State::Dialling(dialling) => Wake::Connected(dialling.await),
            State::Dialled(_) => std::future::pending().await,
            State::Opening { opening, until, .. } => tokio::select! {
                opened = opening => Wake::Opened(opened),
                () = tokio::time::sleep(until.since(now)) => Wake::Late,
            },
            State::Open { messages, sender, welcome_until } => {
                let due = self.outbox.due();
                let room = async {
                    timer::sleep(due.unwrap_or_default().since(now)).await;
                    // The permit is taken again when the message is made; a closed channel shows in the messages.
                    if sender.reserve().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                let late = tokio::time::sleep(welcome_until.unwrap_or_default().since(now));
                tokio::select! {
                    message = messages.message() => Wake::Message(message),
                    () = room, if due.is_some() => Wake::Room,
                    () = late, if welcome_until.is_some() => Wake::Late,
                }
            }
        }
    }

    fn step(&mut self, wake: Wake) -> Option<News> {
        match wake {
            Wake::Paused => {
                self.dial();
                None
            }
            Wake::Connected(Ok(channel)) => {
                self.state = State::Dialled(channel);
                Some(News::Dialled)
            }
            Wake::Connected(Err(error)) => self.fail(&Chain(&error).to_string()),
            Wake::Opened(Ok(messages)) => {
                self.on_opened(messages);
                None
            }
            Wake::Message(Ok(Some(message))) => self.on_message(message),
            Wake::Message(Ok(None)) => self.fail("the leader ended the session"),
            Wake::Opened(Err(status)) | Wake::Message(Err(status)) => self.fail(&describe(&status)),
            Wake::Late => self.fail("the leader does not answer"),
            Wake::Room => {
                self.send_reports();
                None
            }
        }
    }

    fn dial(&mut self) {
        let Some(peer) = self.peer().cloned() else { return };
        self.state = State::Dialling(Box::pin(async move { peer.connect().await }));
    }

    /// Returns the master that is being tried, or that this session is with.
    fn peer(&self) -> Option<&Peer> {
        self.told.as_ref().or_else(|| self.masters.get(self.current))
    }

    /// Opens the stream with a greeting.
    pub(crate) fn greet(&mut self, greeting: Greeting) {
        let State::Dialled(channel) = &self.state else { return };
        let Some(peer) = self.peer().cloned() else { return };
        let hello = self.hello(greeting);
        // The greeting tells all of it.
        self.outbox.clear();
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        let _ = sender.try_send(v1::ExecutorMessage { body: Some(Body::Hello(hello)) });
        let mut client =
            ExecutorServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = peer.request(ReceiverStream::new(receiver));
        let opening = Box::pin(async move { Ok(client.session(request).await?.into_inner()) });
        let until = SystemClock.now().uptime + self.answer_timeout;
        self.state = State::Opening { opening, sender, until };
    }

    fn hello(&self, greeting: Greeting) -> v1::Hello {
        let Greeting { term_seen, spool_facts, held, is_clean, is_space_low } = greeting;
        let own = self.introduction.clone();
        v1::Hello {
            protocol: PROTOCOL,
            executor: own.executor,
            slots: own.slots,
            labels: own.labels.into_iter().collect(),
            kinds: own.kinds,
            spool_id: own.spool.0.as_bytes().to_vec(),
            boot_id: own.boot,
            term_seen: term_seen.0,
            is_clean,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            held: held.into_iter().map(wire::held).collect(),
            machine_id: own.machine,
            is_space_low,
            process: own.process,
            spool_facts,
            has_history: true,
        }
    }

    fn on_opened(&mut self, messages: Streaming<v1::LeaderMessage>) {
        let pausing = State::Pausing(Uptime::default());
        if let State::Opening { sender, until, .. } = std::mem::replace(&mut self.state, pausing) {
            self.state = State::Open { messages: Box::new(messages), sender, welcome_until: Some(until) };
        }
    }

    fn on_message(&mut self, message: v1::LeaderMessage) -> Option<News> {
        match wire::said(message) {
            Ok(Said::Ledger(term, said)) => {
                if matches!(said, FromLeader::Welcome(_)) {
                    self.on_welcome(term);
                }
                Some(News::Said(term, said))
            }
            Ok(Said::Refused(reason)) => self.fail(&format!("refused: {reason}")),
            Ok(Said::NotLeader(address)) => self.on_referred(&address),
            Err(error) => self.fail(&format!("not understood: {}", Chain(&error))),
        }
    }

    /// Turns to the master that is said to lead.
    fn on_referred(&mut self, address: &str) -> Option<News> {
        if address.is_empty() {
            self.pause = self.pause.min(PAUSE_ELECTION_MAX);
            return self.fail("nobody leads");
        }
        self.referrals += 1;
        if self.referrals > REFERRALS_MAX {
            return self.fail("the masters name each other as the leader");
        }
        let told = self.peer().map(|peer| peer.at(address));
        match told {
            Some(Ok(told)) => {
                self.told = Some(told);
                self.state = State::Pausing(Uptime::default());
                Some(News::Closed)
            }
            Some(Err(error)) => self.fail(&Chain(&error).to_string()),
            None => self.fail("there is no master"),
        }
    }

    fn on_welcome(&mut self, term: Term) {
        if let State::Open { welcome_until, .. } = &mut self.state {
            *welcome_until = None;
        }
        let peer = self.peer().cloned();
        tracing::info!(leader = ?peer, %term, "connected to the leader");
        self.leader.send_replace(peer);
        self.tried = 0;
        self.referrals = 0;
        self.pause = PAUSE_MIN;
        self.complaint.clear();
    }

    /// Gives up this session and turns to the next master.
    fn fail(&mut self, reason: &str) -> Option<News> {
        let peer = self.peer();
        let was_open = self.is_open();
        let complaint = format!("{peer:?}: {reason}");
        if was_open {
            tracing::warn!(leader = ?peer, error = reason, "the session with the leader ended; attempts go on");
        } else if complaint != self.complaint {
            tracing::warn!(master = ?peer, error = reason, "no session with this master");
            self.complaint = complaint;
        }
        self.leader.send_if_modified(|leader| leader.take().is_some());
        self.told = None;
        self.referrals = 0;
        self.tried += 1;
        self.current = (self.current + 1) % self.masters.len().max(1);
        let pause = if self.tried.is_multiple_of(self.masters.len().max(1)) {
            self.next_pause()
        } else {
            Duration::ZERO
        };
        self.state = State::Pausing(SystemClock.now().uptime + pause);
        Some(News::Closed)
    }

    /// Doubles the pause up to its bound; half of it is random.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        jitter::from_half(pause)
    }

    /// Ends the session; the search for a leader begins anew.
    pub(crate) fn close(&mut self, reason: &str) {
        // The caller knows.
        let _ = self.fail(reason);
    }

    /// Hands over a report; it leaves with the next message.
    pub(crate) fn report(&mut self, attempt: AttemptId, report: Report) {
        self.outbox.push(SystemClock.now().uptime, attempt, report);
    }

    /// Sends a heartbeat, unless the network takes nothing: then it would not be answered in time either.
    pub(crate) fn heartbeat(&mut self, heartbeat: Heartbeat) {
        let Heartbeat { number, spool_facts, held, is_space_low } = heartbeat;
        let State::Open { sender, .. } = &self.state else { return };
        let held = held.into_iter().map(wire::held).collect();
        let body = Body::Heartbeat(v1::Heartbeat { number, held, is_space_low, spool_facts });
        if sender.try_send(v1::ExecutorMessage { body: Some(body) }).is_err() {
            tracing::debug!(number, "a heartbeat found no room");
        }
    }

    /// Sends a part of the history, unless the network takes nothing: then it is asked for again.
    pub(crate) fn tell_history(&self, page: v1::HistoryPage) {
        let State::Open { sender, .. } = &self.state else { return };
        let number = page.number;
        if sender.try_send(v1::ExecutorMessage { body: Some(Body::HistoryPage(page)) }).is_err() {
            tracing::debug!(number, "a part of the history found no room");
        }
    }

    /// Tells the leader that no more starts are taken. Where there is no room for it, starts are refused one by one.
    pub(crate) fn announce_draining(&self) {
        let State::Open { sender, .. } = &self.state else { return };
        if sender.try_send(v1::ExecutorMessage { body: Some(Body::Draining(v1::Draining {})) }).is_err() {
            tracing::debug!("the leader was not told that no more starts are taken");
        }
    }

    fn send_reports(&mut self) {
        let State::Open { sender, .. } = &self.state else { return };
        if let Ok(permit) = sender.try_reserve() {
            let reports = self.outbox.take(SystemClock.now().uptime);
            permit.send(v1::ExecutorMessage { body: Some(Body::Reports(reports)) });
        }
    }
}

fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
