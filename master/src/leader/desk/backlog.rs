//! What came in during a write, in its order. Of a session's heartbeats only the last is kept: each tells everything.

use std::collections::{BTreeMap, VecDeque};

use millrace_common::id::SessionId;
use millrace_core::Input;

use super::super::inbox::Inbound;

/// Things that are kept: a heartbeat of each of 10,000 executors, and what their attempts report in half a minute.
const KEPT_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Empty where a later heartbeat took the place of an earlier one.
    places: VecDeque<Option<Inbound>>,
    /// Where the last heartbeat of each session is.
    beats: BTreeMap<SessionId, usize>,
    kept: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.kept == 0
    }

    pub(super) fn has_room(&self) -> bool {
        self.kept < KEPT_MAX
    }

    pub(super) fn push(&mut self, item: Inbound) {
        if let Inbound::Input(Input::HeartbeatReceived { session, .. }) = &item
            && let Some(earlier) = self.beats.insert(*session, self.places.len())
            && let Some(place) = self.places.get_mut(earlier)
            && place.take().is_some()
        {
            self.kept -= 1;
        }
        self.places.push_back(Some(item));
        self.kept += 1;
        if self.places.len() > 2 * KEPT_MAX {
            self.close_up();
        }
    }

    /// Gives out everything.
    pub(super) fn drain(&mut self, into: &mut Vec<Inbound>) {
        into.extend(self.places.drain(..).flatten());
        self.beats.clear();
        self.kept = 0;
    }

    /// Takes out what `is_wanted` says, and keeps the rest.
    pub(super) fn take_if(&mut self, is_wanted: impl Fn(&Inbound) -> bool) -> Vec<Inbound> {
        let places = self.places.iter_mut().filter(|place| place.as_ref().is_some_and(&is_wanted));
        let taken: Vec<Inbound> = places.filter_map(Option::take).collect();
        self.kept -= taken.len();
        taken
    }

    fn close_up(&mut self) {
        let mut kept = Vec::with_capacity(self.kept);
        self.drain(&mut kept);
        kept.into_iter().for_each(|item| self.push(item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(session: u64, number: u64) -> Inbound {
        let session = SessionId(session);
        Inbound::Input(Input::HeartbeatReceived {
            session,
            number,
            held: Vec::new(),
            is_space_low: false,
            spool_facts: 0,
        })
    }

    fn left(session: u64) -> Inbound {
        Inbound::Input(Input::ExecutorDisconnected(SessionId(session)))
    }

    fn shown(items: &[Inbound]) -> Vec<String> {
        let one = |item: &Inbound| match item {
            Inbound::Input(Input::HeartbeatReceived { session, number, .. }) => {
                format!("beat {number} of {}", session.0)
            }
            Inbound::Input(Input::ExecutorDisconnected(session)) => format!("end of {}", session.0),
            other => format!("{other:?}"),
        };
        items.iter().map(one).collect()
    }

    #[test]
    fn the_last_heartbeat_of_a_session_stands_where_it_came_in() {
        let mut backlog = Backlog::default();
        [beat(1, 1), beat(2, 1), beat(1, 2), left(1), beat(2, 2)]
            .into_iter()
            .for_each(|item| backlog.push(item));
        assert_eq!(backlog.kept, 3);
        let mut taken = Vec::new();
        backlog.drain(&mut taken);
        assert_eq!(shown(&taken), ["beat 2 of 1", "end of 1", "beat 2 of 2"]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn heartbeats_take_up_one_place_however_many_come() {
        let mut backlog = Backlog::default();
        for number in 0..5 * KEPT_MAX as u64 {
            backlog.push(beat(number % 3, number));
        }
        assert_eq!(backlog.kept, 3);
        assert!(backlog.places.len() <= 2 * KEPT_MAX);
        assert!(backlog.has_room());
    }

    #[test]
    fn it_has_room_until_it_is_full() {
        let mut backlog = Backlog::default();
        for session in 0..KEPT_MAX as u64 {
            assert!(backlog.has_room());
            backlog.push(left(session));
        }
        assert!(!backlog.has_room());
        assert_eq!(backlog.take_if(|_| true).len(), KEPT_MAX);
        assert!(backlog.has_room() && backlog.is_empty());
    }
}
