//! Released effects go out here: messages to sessions, answers to waiting callers, notices to the feed.
//!
//! Messages of one session leave in the order in which the scheduler made them. Starts that follow each other share a
//! wire message, and so do acknowledgements: a thousand short tasks would be a thousand packets otherwise.

use std::collections::BTreeMap;

use millrace_common::{
    id::{AttemptId, SessionId},
    state::AttemptState,
    term::Term,
    time::Timestamp,
};
use millrace_core::{
    Alarm, Answer, AttemptEnd, Change, Effect, Input, Message, Proof, RejectReason, Report, RequestId, Start,
};
use millrace_proto::{
    MESSAGE_BYTES_MAX,
    v1::{self, leader_message::Body},
};
use tokio::sync::oneshot;

use super::{
    inbox::{AskError, Inbound},
    sessions::Sessions,
};
use crate::{feed::Feed, rpc::wire};

/// Starts in one message; more gain nothing.
const STARTS_PER_MESSAGE_MAX: usize = 64;
/// Bytes of the starts in one message, where it holds more than one.
const STARTS_BYTES_MAX: usize = 1 << 20;
/// Bytes of one start: what a message may have, less what the message needs around it.
const START_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1_024;
/// Acknowledgements in one message.
const ACKS_PER_MESSAGE_MAX: usize = 1_024;

/// Where effects go.
#[derive(Debug)]
pub(super) struct Outbox {
    term: Term,
    feed: Feed,
    sessions: Sessions,
    callers: BTreeMap<RequestId, oneshot::Sender<Result<Answer, AskError>>>,
    requests: u64,
    /// Attempts that no message can carry, with the size of their start in bytes.
    too_large: Vec<(SessionId, AttemptId, usize)>,
}

impl Outbox {
    pub(super) fn new(term: Term, feed: Feed) -> Self {
        Self {
            term,
            feed,
            sessions: Sessions::default(),
            callers: BTreeMap::new(),
            requests: 0,
            too_large: Vec::new(),
        }
    }

    /// Remembers where answers go and returns what the scheduler is to be told.
    pub(super) fn admit(&mut self, inbound: Inbound) -> Option<Input> {
        match inbound {
            Inbound::Request(_, caller) if caller.is_closed() => None,
            Inbound::Request(request, caller) => {
                self.requests += 1;
                let id = RequestId(self.requests);
                self.callers.insert(id, caller);
                Some(Input::Requested(id, request))
            }
            Inbound::Connected { session, hello, sender } => {
                self.sessions.open(session, sender);
                Some(Input::ExecutorConnected(session, hello))
            }
            Inbound::Question(session, request) => {
                // Nothing has to be durable for a question; the right to speak was looked at right before.
                self.send(session, Body::HistoryRequest(request));
                None
            }
            Inbound::Input(input) => {
                if let Input::ExecutorDisconnected(session) = &input {
                    self.sessions.close(*session);
                }
                Some(input)
            }
        }
    }

    /// Does what the committed batch says.
    pub(super) fn release(&mut self, changes: &[Change], effects: Vec<Effect>) {
        let mut pending = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Answer(id, answer) => self.answer(id, answer),
                Effect::Send(session, message) => self.queue(&mut pending, session, message),
                Effect::Alarm(alarm) => raise(&alarm),
            }
        }
        for (session, gathered) in pending {
            self.flush(session, gathered);
        }
        self.feed.publish(changes);
    }

    /// Answers a heartbeat before the scheduler has seen it, where the session's first was answered by the scheduler.
    pub(super) fn renew_contact(&mut self, session: SessionId, number: u64) {
        if self.sessions.is_proven(session) {
            self.send(session, wire::leader_message(Message::HeartbeatAnswer(number)));
        }
    }

    /// Returns what the scheduler must learn about what could not be sent.
    pub(super) fn take_inputs(&mut self, now: Timestamp) -> Vec<Input> {
        let refused = std::mem::take(&mut self.too_large).into_iter().map(|one| refused(now, one));
        let broken = self.sessions.take_broken().into_iter().map(Input::ExecutorDisconnected);
        refused.chain(broken).collect()
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        if let Some(caller) = self.callers.remove(&id) {
            // A caller that has gone does not take the fact with it.
            let _ = caller.send(Ok(answer));
        }
    }

    /// Adds a message to what is gathered for its session, or sends that and begins anew.
    fn queue(&mut self, pending: &mut BTreeMap<SessionId, Gathered>, session: SessionId, message: Message) {
        let gathered = pending.entry(session).or_default();
        let (next, bytes) = match message {
            Message::Start(start) => match self.measured(session, *start) {
                Some((start, bytes)) => (Gathered::Starts(vec![start], bytes), bytes),
                None => return,
            },
            Message::Ack(attempt) => (Gathered::Acks(vec![attempt.into()]), 0),
            other @ (Message::Welcome(_)
            | Message::Refused(_)
            | Message::SpoolOld(_)
            | Message::HeartbeatAnswer(_)
            | Message::Kill { .. }) => {
                let is_last = matches!(other, Message::Refused(_) | Message::SpoolOld(_));
                if matches!(other, Message::HeartbeatAnswer(_)) {
                    self.sessions.prove(session);
                }
                let before = std::mem::take(gathered);
                self.flush(session, before);
                self.send(session, wire::leader_message(other));
                if is_last {
                    self.sessions.close(session);
                }
                return;
            }
        };
        if let Some(next) = gathered.merge(next, bytes) {
            let full = std::mem::replace(gathered, next);
            self.flush(session, full);
        }
    }

    /// Returns the message and its size; `None`, noted, where it is too large to be sent.
    fn measured(&mut self, session: SessionId, start: Start) -> Option<(v1::Start, usize)> {
        let attempt = start.attempt;
        let start = wire::start(start);
        let bytes = wire::start_bytes(&start);
        if bytes > START_BYTES_MAX {
            tracing::warn!(%attempt, bytes, "an attempt cannot be sent: it is too large");
            self.too_large.push((session, attempt, bytes));
            return None;
        }
        Some((start, bytes))
    }

    fn flush(&mut self, session: SessionId, gathered: Gathered) {
        match gathered {
            Gathered::Nothing => {}
            Gathered::Starts(starts, _) => self.send(session, Body::Starts(v1::Starts { starts })),
            Gathered::Acks(attempts) => self.send(session, Body::Acks(v1::Acks { attempts })),
        }
    }

    fn send(&mut self, session: SessionId, body: Body) {
        let message = v1::LeaderMessage { term: self.term.0, body: Some(body) };
        self.sessions.send(session, message);
    }
}

/// Messages of one kind to one session that have not left.
#[derive(Debug, Default)]
enum Gathered {
    #[default]
    Nothing,
    /// Starts, and their bytes.
    Starts(Vec<v1::Start>, usize),
    Acks(Vec<v1::AttemptId>),
}

impl Gathered {
    /// Takes in one more; gives it back where what is gathered has to leave first.
    fn merge(&mut self, next: Self, bytes: usize) -> Option<Self> {
        match (&mut *self, next) {
            (Self::Nothing, next) => {
                *self = next;
                None
            }
            (Self::Starts(starts, total), Self::Starts(more, _))
                if starts.len() < STARTS_PER_MESSAGE_MAX && *total + bytes <= STARTS_BYTES_MAX =>
            {
                starts.extend(more);
                *total += bytes;
                None
            }
            (Self::Acks(acks), Self::Acks(more)) if acks.len() < ACKS_PER_MESSAGE_MAX => {
                acks.extend(more);
                None
            }
            (_, next) => Some(next),
        }
    }
}

/// Tells whoever looks after the cluster.
fn raise(alarm: &Alarm) {
    match alarm {
        Alarm::AliveAfterEnd { executor, attempt } => {
            tracing::error!(
                executor_id = %executor, %attempt,
                "an attempt is alive although its end is recorded: it is being ended, and may have run beside a later one"
            );
        }
        Alarm::SpoolOld { executor, spool, reason } => {
            tracing::error!(
                executor_id = %executor, spool = %spool, %reason,
                "an older copy of a spool took its place: the executor is told to begin a new one"
            );
        }
        Alarm::Rival { executor, machine } => {
            tracing::error!(
                executor_id = %executor, machine = machine.as_deref().unwrap_or("unknown"),
                "a second executor wants a name that is taken: it is refused until the first is gone"
            );
        }
    }
}

/// Says of an attempt that it was never sent and never can be; no other try would be smaller.
fn refused(now: Timestamp, (session, attempt, bytes): (SessionId, AttemptId, usize)) -> Input {
    let reason = format!(
        "its parameters and the values handed to it have {bytes} bytes, an executor takes {START_BYTES_MAX}: hand on less"
    );
    let end = AttemptEnd {
        state: AttemptState::Rejected,
        exit_code: None,
        reason: reason.into(),
        values: None,
        is_skipped: false,
        is_permanent: true,
        started_at: None,
        ended_at: now,
        log_bytes: 0,
        reject_reason: RejectReason::Other,
        is_planned: false,
        proof: Proof::Refused,
    };
    Input::AttemptReported { session, attempt, report: Report::Ended(end) }
}

#[cfg(test)]
mod tests;
