use std::sync::atomic::{AtomicU32, Ordering};

use millrace_common::time::{Now, Timestamp};
use millrace_store::{Store, StoreConfig};

use super::*;
use crate::{
    election::Record,
    feed::Feed,
    fleet::{self, Member},
    leader::inbox,
};

/// A clock that is later at each reading, by more than a leader waits before it makes way.
#[derive(Default)]
struct Leaping(AtomicU32);

impl Clock for Leaping {
    fn now(&self) -> Now {
        let leaps = self.0.fetch_add(1, Ordering::Relaxed);
        Now {
            wall: Timestamp::from_micros(1_700_000_000_000_000),
            uptime: Uptime::new(MAKE_WAY_AFTER * 2 * leaps),
        }
    }
}

/// Writes while another master can read from the database; the first try fails like this, the next one would not.
async fn written(first: impl FnOnce(&Writer) -> CommitError) -> Result<Committed, CommitError> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreConfig::sqlite(&folder.path().join("m.db"))).await.unwrap();
    let mut writer = store.claim(store.stored_term().await.unwrap().next(), "test").await.unwrap();
    let (sender, fleet) = fleet::open("test");
    let record = Record::new("other".to_owned(), "http://127.0.0.1:1".to_owned(), "instance".to_owned());
    sender.publish(vec![Member {
        record,
        version: "1".to_owned(),
        is_present: true,
        database_problem: None,
    }]);
    let (_handle, inbox) = inbox::open();
    let mut desk = Desk::new(DeskParts {
        inbox,
        outbox: Outbox::new(writer.term(), Feed::new()),
        authority: Authority::unlimited(),
        clock: Arc::new(Leaping::default()),
        condition: Condition::default(),
        fleet,
        shutdown: CancellationToken::new(),
    });
    let error = first(&writer);
    desk.write(&mut writer, async move |_: &mut Writer| Err(error)).await
}

#[tokio::test]
async fn a_leader_makes_way_where_the_database_is_away_for_it_alone() {
    let refusal = written(|writer| CommitError::unavailable(writer.term(), 1)).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Unavailable { .. }), "{refusal:?}");
}

#[tokio::test]
async fn a_leader_waits_for_room_though_others_can_read() {
    assert_eq!(written(|_| CommitError::disk_full()).await.unwrap().seq, 0);
}
