use std::{sync::Arc, time::Duration};

use millrace_common::{
    Value,
    id::{InstanceId, RunId, SpoolId},
    interval::DataInterval,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::leader::sessions::SessionSender;

const ONE: SessionId = SessionId(1);
const TWO: SessionId = SessionId(2);

fn attempt(index: u32) -> AttemptId {
    InstanceId { run: RunId::new(Timestamp::from_micros(1_000_000), 7), index }.attempt(1)
}

fn start(index: u32, params: usize) -> Message {
    Message::Start(Box::new(Start {
        attempt: attempt(index),
        spool: SpoolId(uuid::Uuid::from_u128(1)),
        workflow: "w".parse().unwrap(),
        task: "t".parse().unwrap(),
        kind: "shell".parse().unwrap(),
        with: Arc::new(Value::Null),
        is_templated: false,
        interval: DataInterval::at(Timestamp::default()),
        timezone: "UTC".into(),
        params: "x".repeat(params).into(),
        values: BTreeMap::new(),
        timeout: None,
        kill_grace: Duration::from_secs(1),
        orphan_timeout: None,
    }))
}

fn kill(index: u32) -> Message {
    Message::Kill { attempt: attempt(index), grace: Duration::from_secs(1), reason: "enough".into() }
}

fn ack(index: u32) -> Message {
    Message::Ack(attempt(index))
}

/// An outbox with two sessions, and what arrives at the other ends.
struct Ends {
    outbox: Outbox,
    one: mpsc::Receiver<v1::LeaderMessage>,
    two: mpsc::Receiver<v1::LeaderMessage>,
    too_slow: CancellationToken,
}

fn ends(queue: usize) -> Ends {
    let mut outbox = Outbox::new(Term(5), Feed::new());
    let too_slow = CancellationToken::new();
    let mut open = |session| {
        let (queue, receiver) = mpsc::channel(queue);
        outbox.sessions.open(session, SessionSender { queue, too_slow: too_slow.clone() });
        receiver
    };
    let (one, two) = (open(ONE), open(TWO));
    Ends { outbox, one, two, too_slow }
}

/// What arrived, in words.
fn arrived(receiver: &mut mpsc::Receiver<v1::LeaderMessage>) -> Vec<String> {
    let indexes = |attempts: Vec<v1::AttemptId>| {
        attempts.iter().map(|one| one.index.to_string()).collect::<Vec<_>>().join(",")
    };
    let mut words = Vec::new();
    while let Ok(message) = receiver.try_recv() {
        assert_eq!(message.term, 5);
        words.push(match message.body.unwrap() {
            Body::Welcome(_) => "welcome".to_owned(),
            Body::HeartbeatAnswer(answer) => format!("beat {}", answer.number),
            Body::Starts(starts) => {
                format!(
                    "start {}",
                    indexes(starts.starts.into_iter().filter_map(|start| start.attempt).collect())
                )
            }
            Body::Kill(kill) => format!("kill {}", kill.attempt.unwrap().index),
            Body::Acks(acks) => format!("ack {}", indexes(acks.attempts)),
            Body::NotLeader(other) => format!("not the leader, that is {}", other.address),
            Body::Refused(_) => "refused".to_owned(),
            Body::HistoryRequest(request) => format!("question {}", request.number),
        });
    }
    words
}

fn released(messages: impl IntoIterator<Item = Message>) -> Vec<String> {
    let mut ends = ends(1_024);
    ends.outbox.release(&[], messages.into_iter().map(|message| Effect::Send(ONE, message)).collect());
    arrived(&mut ends.one)
}

#[test]
fn a_kill_stays_behind_the_start_that_it_ends() {
    assert_eq!(released([start(1, 0), kill(1), start(2, 0)]), ["start 1", "kill 1", "start 2"]);
}

#[test]
fn what_follows_each_other_shares_a_message() {
    let messages = [ack(1), ack(2), start(3, 0), start(4, 0), ack(5), Message::HeartbeatAnswer(9), ack(6)];
    assert_eq!(released(messages), ["ack 1,2", "start 3,4", "ack 5", "beat 9", "ack 6"]);
}

#[test]
fn messages_are_bounded_by_count_and_by_bytes() {
    let count = |messages: Vec<String>| -> Vec<usize> {
        messages.iter().map(|message| message.split(',').count()).collect()
    };
    assert_eq!(count(released((0..150).map(|index| start(index, 0)))), [64, 64, 22]);
    assert_eq!(count(released((0..1_500).map(ack))), [1_024, 476]);
    let large = 300 << 10;
    assert_eq!(count(released((0..7).map(|index| start(index, large)))), [3, 3, 1]);
}

#[test]
fn sessions_do_not_mix() {
    let mut ends = ends(16);
    let effects = [(ONE, start(1, 0)), (TWO, start(2, 0)), (ONE, start(3, 0)), (TWO, kill(2))];
    ends.outbox.release(&[], effects.map(|(session, message)| Effect::Send(session, message)).into());
    assert_eq!(arrived(&mut ends.one), ["start 1,3"]);
    assert_eq!(arrived(&mut ends.two), ["start 2", "kill 2"]);
}

#[test]
fn a_start_that_no_message_can_carry_is_refused_for_good() {
    let mut ends = ends(16);
    let effects = [start(1, MESSAGE_BYTES_MAX), start(2, 0)].map(|message| Effect::Send(ONE, message));
    ends.outbox.release(&[], effects.into());
    assert_eq!(arrived(&mut ends.one), ["start 2"]);
    let inputs = ends.outbox.take_inputs(Timestamp::from_micros(3));
    let [Input::AttemptReported { session: ONE, attempt: refused, report: Report::Ended(end) }] = &inputs[..]
    else {
        panic!("one report: {inputs:?}")
    };
    assert_eq!((*refused, end.state, end.is_permanent), (attempt(1), AttemptState::Rejected, true));
    assert!(end.reason.contains("hand on less"), "{}", end.reason);
    assert!(ends.outbox.take_inputs(Timestamp::default()).is_empty());
}

#[test]
fn an_executor_that_does_not_read_loses_its_session() {
    let mut ends = ends(2);
    let effects = (0..4).map(|number| Effect::Send(ONE, Message::HeartbeatAnswer(number)));
    ends.outbox.release(&[], effects.collect());
    assert!(ends.too_slow.is_cancelled());
    let inputs = ends.outbox.take_inputs(Timestamp::default());
    assert!(matches!(inputs[..], [Input::ExecutorDisconnected(ONE)]), "{inputs:?}");
    ends.outbox.release(&[], vec![Effect::Send(TWO, Message::HeartbeatAnswer(7))]);
    assert_eq!(arrived(&mut ends.two), ["beat 7"]);
}

#[test]
fn a_refused_session_ends_after_it_was_told() {
    let mut ends = ends(4);
    ends.outbox.release(&[], vec![Effect::Send(ONE, Message::Refused("a newer session".into()))]);
    assert_eq!(arrived(&mut ends.one), ["refused"]);
    assert!(matches!(ends.one.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    assert!(!ends.too_slow.is_cancelled());
}

#[test]
fn an_answer_goes_to_its_caller_and_a_caller_that_left_asks_nothing() {
    let mut outbox = Outbox::new(Term(5), Feed::new());
    let (sender, mut receiver) = oneshot::channel();
    let ask = |sender| Inbound::Request(millrace_core::Request::CountWork, sender);
    let Some(Input::Requested(id, _)) = outbox.admit(ask(sender)) else { panic!("a request") };
    outbox.release(&[], vec![Effect::Answer(id, Answer::RunMoved(millrace_common::state::RunState::Paused))]);
    assert!(matches!(receiver.try_recv(), Ok(Ok(Answer::RunMoved(_)))));
    let (sender, receiver) = oneshot::channel();
    drop(receiver);
    assert!(outbox.admit(ask(sender)).is_none());
    assert!(outbox.callers.is_empty());
}
