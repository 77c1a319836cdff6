//! The masters of this cluster, as they last said of themselves.

use tokio::sync::watch;

use crate::election::Record;

/// A master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) record: Record,
    /// Version of its program.
    pub(crate) version: String,
    /// Whether its process was there a moment ago.
    pub(crate) is_present: bool,
    /// What keeps it from using the database; nothing where that works.
    pub(crate) database_problem: Option<String>,
}

/// Follows who is there. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    own_name: String,
    members: watch::Receiver<Vec<Member>>,
}

/// Says who is there.
#[derive(Debug)]
pub(crate) struct FleetSender {
    members: watch::Sender<Vec<Member>>,
}

/// Makes the two ends for a master that knows of no other.
pub(crate) fn open(own_name: &str) -> (FleetSender, Fleet) {
    let (sender, members) = watch::channel(Vec::new());
    (FleetSender { members: sender }, Fleet { own_name: own_name.to_owned(), members })
}

impl FleetSender {
    pub(crate) fn publish(&self, members: Vec<Member>) {
        self.members.send_replace(members);
    }
}

impl Fleet {
    /// Returns all masters, this one among them.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.members.borrow().clone()
    }

    /// Returns the other masters.
    pub(crate) fn others(&self) -> Vec<Member> {
        self.members.borrow().iter().filter(|member| member.record.name != self.own_name).cloned().collect()
    }

    /// Tells whether the database works for another master that is there.
    pub(crate) fn has_database_elsewhere(&self) -> bool {
        let is_fit = |member: &Member| {
            member.record.name != self.own_name && member.is_present && member.database_problem.is_none()
        };
        self.members.borrow().iter().any(is_fit)
    }
}
