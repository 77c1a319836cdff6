//! Released effects go out here: messages to sessions, answers to waiting callers, notices to the feed.

use std::collections::BTreeMap;

use millrace_common::{id::SessionId, term::Term};
use millrace_core::{Answer, Change, Effect, Input, Message, RequestId};
use millrace_proto::v1;
use tokio::sync::oneshot;

use super::{inbox::Inbound, sessions::Sessions};
use crate::{feed::Feed, rpc::wire};

/// Starts in one message: far below the message limit even where each carries long parameters.
const STARTS_PER_MESSAGE_MAX: usize = 64;

/// Where effects go.
#[derive(Debug)]
pub(super) struct Outbox {
    term: Term,
    feed: Feed,
    sessions: Sessions,
    callers: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    requests: u64,
}

impl Outbox {
    pub(super) fn new(term: Term, feed: Feed) -> Self {
        Self { term, feed, sessions: Sessions::default(), callers: BTreeMap::new(), requests: 0 }
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
            Inbound::Input(input) => {
                if let Input::ExecutorDisconnected(session) = &input {
                    self.sessions.close(*session);
                }
                Some(input)
            }
        }
    }

    /// Does what the committed batch says.
    pub(super) fn release(&mut self, changes: Vec<Change>, effects: Vec<Effect>) {
        let mut pending = Pending::default();
        for effect in effects {
            match effect {
                Effect::Answer(id, answer) => self.answer(id, answer),
                Effect::Send(session, message) => self.queue(&mut pending, session, message),
            }
        }
        self.flush_all(pending);
        self.feed.publish(&changes);
    }

    /// Returns what the scheduler must learn about sessions that broke while sending.
    pub(super) fn broken_sessions(&mut self) -> Vec<Input> {
        self.sessions.take_broken().into_iter().map(Input::ExecutorDisconnected).collect()
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        if let Some(caller) = self.callers.remove(&id) {
            // A caller that has gone does not take the fact with it.
            let _ = caller.send(answer);
        }
    }

    /// Gathers starts and acknowledgements per session; anything else keeps its place in the order.
    fn queue(&mut self, pending: &mut Pending, session: SessionId, message: Message) {
        let gathered = pending.sessions.entry(session).or_default();
        match message {
            Message::Start(start) => {
                gathered.starts.push(wire::start(*start));
                if gathered.starts.len() < STARTS_PER_MESSAGE_MAX {
                    return;
                }
            }
            Message::Ack(attempt) => return gathered.acks.push(attempt.into()),
            Message::Welcome(_) | Message::Refused(_) | Message::HeartbeatAnswer(_) | Message::Kill { .. } => {
                let before = std::mem::take(gathered);
                self.flush(session, before);
                return self.send(session, wire::leader_message(message));
            }
        }
        let full = std::mem::take(gathered);
        self.flush(session, full);
    }

    fn flush_all(&mut self, pending: Pending) {
        for (session, gathered) in pending.sessions {
            self.flush(session, gathered);
        }
    }

    fn flush(&mut self, session: SessionId, gathered: Gathered) {
        let Gathered { starts, acks } = gathered;
        if !acks.is_empty() {
            self.send(session, v1::leader_message::Body::Acks(v1::Acks { attempts: acks }));
        }
        if !starts.is_empty() {
            self.send(session, v1::leader_message::Body::Starts(v1::Starts { starts }));
        }
    }

    fn send(&mut self, session: SessionId, body: v1::leader_message::Body) {
        let message = v1::LeaderMessage { term: self.term.0, body: Some(body) };
        self.sessions.send(session, message);
    }
}

#[derive(Debug, Default)]
struct Pending {
    sessions: BTreeMap<SessionId, Gathered>,
}

#[derive(Debug, Default)]
struct Gathered {
    starts: Vec<v1::Start>,
    acks: Vec<v1::AttemptId>,
}
