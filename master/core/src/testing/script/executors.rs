//! What executors say in a script, and what each of them holds meanwhile.

use std::collections::BTreeMap;

use millrace_common::{
    id::{AttemptId, ExecutorName, RunId, SessionId, SpoolId},
    state::AttemptState,
    time::Timestamp,
};

use super::{Outcome, Stage};
use crate::{
    batch::{AttemptEnd, Effect, Message, Proof, RejectReason, Verdict},
    input::{Held, Hello, Input, Report},
};

/// An executor on the stage.
#[derive(Clone)]
pub(super) struct Place {
    sessions: Vec<SessionId>,
    is_connected: bool,
    hello: Hello,
    held: BTreeMap<AttemptId, Report>,
}

impl Place {
    /// Returns the newest session.
    pub(super) fn present(&self) -> Option<SessionId> {
        self.sessions.last().copied()
    }

    /// Returns the session before that.
    pub(super) fn stale(&self) -> Option<SessionId> {
        self.sessions.iter().rev().nth(1).copied()
    }
}

impl Stage {
    pub(super) fn executor(&mut self, name: &str, words: &[&str]) -> Outcome {
        let executor: ExecutorName = name.parse().map_err(|error| format!("{error}"))?;
        let mut hello = Hello {
            executor,
            slots: 1,
            labels: BTreeMap::new(),
            kinds: vec!["shell".to_owned()],
            spool: self.new_spool(),
            machine: Some(format!("machine of {name}").into()),
            boot: "boot-1".into(),
            is_clean: true,
            is_space_low: false,
            version: "test".into(),
            process: Some(format!("first of {name}").into()),
            spool_facts: 0,
            held: Vec::new(),
        };
        for pair in words.chunks(2) {
            match pair {
                ["slots", count] => hello.slots = count.parse().map_err(|_| "slots is a number")?,
                ["kinds", kinds] => hello.kinds = kinds.split(',').map(str::to_owned).collect(),
                ["labels", labels] => {
                    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
                    hello.labels = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                }
                _ => return Err("an executor has slots, kinds and labels".to_owned()),
            }
        }
        self.connect(hello)
    }

    fn new_spool(&mut self) -> SpoolId {
        self.spools += 1;
        let run = RunId::new(Timestamp::default(), self.spools);
        SpoolId(run.to_string().parse().unwrap_or_default())
    }

    fn connect(&mut self, hello: Hello) -> Outcome {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let held = hello.held.iter().map(|held| (held.attempt, held.report.clone())).collect();
        let place = self.places.entry(hello.executor.clone()).or_insert_with(|| Place {
            sessions: Vec::new(),
            is_connected: true,
            hello: hello.clone(),
            held: BTreeMap::new(),
        });
        place.sessions.push(session);
        place.is_connected = true;
        place.hello = hello.clone();
        place.held = held;
        let done = self.harness.input(Input::ExecutorConnected(session, Box::new(hello)));
        self.show(done)
    }

    /// Lets the leader fail and every connected executor come to the next one with all that it holds.
    pub(super) fn fail_over_with_executors(&mut self) {
        let _ = self.fail_over();
        let connected: Vec<_> = self.places.values().filter(|place| place.is_connected).cloned().collect();
        for place in connected {
            let held =
                place.held.iter().map(|(attempt, report)| Held { attempt: *attempt, report: report.clone() });
            let hello = Hello { held: held.collect(), ..place.hello };
            let executor = hello.executor.to_string();
            let beat: &[&str] = if hello.is_space_low { &["0", "short"] } else { &["0"] };
            let _ = self.connect(hello);
            let _ = self.executor_says(&executor, "beats", beat, Place::present);
        }
    }

    pub(super) fn executor_says(
        &mut self,
        name: &str,
        verb: &str,
        rest: &[&str],
        session: fn(&Place) -> Option<SessionId>,
    ) -> Outcome {
        let place = self.places.get(name).cloned().ok_or("no such command or executor")?;
        let session = session(&place).ok_or("the executor has no such session")?;
        let input = match (verb, rest) {
            ("accepts", [attempt]) => self.report(name, session, attempt, Report::Accepted)?,
            ("starts", [attempt]) => {
                let at = self.harness.now.wall;
                self.report(name, session, attempt, Report::Started { at })?
            }
            ("kills", [attempt]) => self.report(name, session, attempt, Report::Killing)?,
            ("ends", [attempt, state, words @ ..]) => {
                let end = self.end(state, words)?;
                self.report(name, session, attempt, Report::Ended(end))?
            }
            ("beats", [number, words @ ..]) => {
                let is_space_low = words.first() == Some(&"short");
                if let Some(place) = self.places.get_mut(name) {
                    place.hello.is_space_low = is_space_low;
                }
                let words = words.get(usize::from(is_space_low)..).unwrap_or_default();
                let held = self.beaten(&place, words)?;
                let number = number.parse().map_err(|_| "a heartbeat has a number")?;
                let spool_facts = place.hello.spool_facts;
                Input::HeartbeatReceived { session, number, held, is_space_low, spool_facts }
            }
            ("leaves", []) => {
                if let Some(place) =
                    self.places.get_mut(name).filter(|place| place.present() == Some(session))
                {
                    place.is_connected = false;
                }
                Input::ExecutorDisconnected(session)
            }
            ("drains", []) => Input::ExecutorDraining(session),
            ("returns", words) => return self.returns(place.hello, words),
            _ => return Err("no such report".to_owned()),
        };
        let done = self.harness.input(input);
        self.show(done)
    }

    /// Returns what a heartbeat tells of attempts.
    fn beaten(&self, place: &Place, words: &[&str]) -> Result<Vec<(AttemptId, AttemptState)>, String> {
        Ok(match words {
            [] => place.held.iter().map(|(attempt, report)| (*attempt, state_of(report))).collect(),
            ["holding", "nothing"] => Vec::new(),
            words => {
                let held = self.holding(words)?;
                held.iter().map(|held| (held.attempt, state_of(&held.report))).collect()
            }
        })
    }

    fn returns(&mut self, mut hello: Hello, words: &[&str]) -> Outcome {
        (hello.is_clean, hello.is_space_low) = (false, false);
        let mut rest = words;
        while let [word, after @ ..] = rest {
            match *word {
                "clean" => hello.is_clean = true,
                "new" => hello.spool = self.new_spool(),
                "booted" => hello.boot = format!("boot-{}", self.sessions + 1).into(),
                "moved" => hello.machine = Some(format!("machine {}", self.sessions + 1).into()),
                "home" => hello.machine = Some(format!("machine of {}", hello.executor).into()),
                "nameless" => hello.machine = None,
                "short" => hello.is_space_low = true,
                "restarted" => hello.process = Some(format!("process {}", self.sessions + 1).into()),
                "holding" => break,
                word if word.starts_with("facts=") => {
                    hello.spool_facts = word["facts=".len()..].parse().map_err(|_| "facts=5")?;
                }
                _ => return Err(format!("no such circumstance: {word}")),
            }
            rest = after;
        }
        hello.held = self.holding(rest)?;
        self.connect(hello)
    }

    fn holding(&self, words: &[&str]) -> Result<Vec<Held>, String> {
        let mut all = Vec::new();
        for triple in words.chunks(3) {
            let ["holding", attempt, state] = triple else {
                return Err("holding an attempt in a state".to_owned());
            };
            let report = match *state {
                "accepted" => Report::Accepted,
                "running" => Report::Started { at: self.harness.now.wall },
                "killing" => Report::Killing,
                ended => Report::Ended(self.end(ended, &[])?),
            };
            all.push(Held { attempt: self.attempt(attempt)?, report });
        }
        Ok(all)
    }

    fn report(
        &mut self,
        name: &str,
        session: SessionId,
        attempt: &str,
        report: Report,
    ) -> Result<Input, String> {
        let attempt = self.attempt(attempt)?;
        // What comes late over an earlier session does not say what the executor holds now.
        if let Some(place) = self.places.get_mut(name).filter(|place| place.present() == Some(session)) {
            place.held.insert(attempt, report.clone());
        }
        Ok(Input::AttemptReported { session, attempt, report })
    }

    fn end(&self, state: &str, words: &[&str]) -> Result<AttemptEnd, String> {
        let state: AttemptState = state.parse().map_err(|error| format!("{error}"))?;
        let values = words.iter().position(|word| *word == "values").and_then(|at| words.get(at + 1));
        Ok(AttemptEnd {
            state,
            exit_code: None,
            reason: "".into(),
            values: values.map(|text| (*text).into()),
            is_skipped: words.contains(&"skipped"),
            is_permanent: words.contains(&"permanent"),
            started_at: None,
            ended_at: self.harness.now.wall,
            log_bytes: 0,
            reject_reason: match words {
                ["short"] => RejectReason::SpaceLow,
                ["draining"] => RejectReason::Draining,
                ["failing"] => RejectReason::CannotStart,
                _ => RejectReason::Other,
            },
            is_planned: words.contains(&"planned"),
            proof: if state == AttemptState::Rejected { Proof::Refused } else { Proof::Reported },
        })
    }

    /// Lets an executor do what it is told: forget what is acknowledged.
    pub(super) fn hear(&mut self, effect: &Effect) {
        let Effect::Send(session, message) = effect else { return };
        let Some(place) = self.places.values_mut().find(|place| place.present() == Some(*session)) else {
            return;
        };
        match message {
            Message::Ack(attempt) => drop(place.held.remove(attempt)),
            Message::Welcome(verdicts) => {
                for (attempt, _) in verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Discard) {
                    place.held.remove(attempt);
                }
            }
            Message::Refused(_)
            | Message::SpoolOld(_)
            | Message::HeartbeatAnswer(_)
            | Message::Start(_)
            | Message::Kill { .. } => {}
        }
    }

    pub(super) fn executor_of(&self, session: SessionId) -> Option<String> {
        let place = self.places.values().find(|place| place.sessions.contains(&session))?;
        let is_present = place.present() == Some(session);
        Some(format!("{}{}", place.hello.executor, if is_present { "" } else { " (stale)" }))
    }
}

fn state_of(report: &Report) -> AttemptState {
    match report {
        Report::Accepted => AttemptState::Accepted,
        Report::Started { .. } => AttemptState::Running,
        Report::Killing => AttemptState::Killing,
        Report::Ended(end) => end.state,
    }
}
