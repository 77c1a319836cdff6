//! What this master is at the moment, for those who serve calls: it leads, it knows who does, or nobody does.

use std::time::Duration;

use millrace_common::term::Term;
use tokio::sync::watch;

use crate::{election::Record, leader::Handle};

/// What this master is.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// It leads.
    Leading(Seat),
    /// Another one leads.
    Following(Record),
    /// Nobody is known to lead.
    Leaderless,
}

/// The way to the leader of this process.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) term: Term,
    pub(crate) leader: Handle,
}

/// Follows the role. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Roles {
    current: watch::Receiver<Role>,
}

/// Says the role; held by who takes part in the election.
#[derive(Debug)]
pub(crate) struct RoleSender {
    current: watch::Sender<Role>,
}

/// Makes the two ends, for a master that knows nothing yet.
pub(crate) fn open() -> (RoleSender, Roles) {
    let (sender, receiver) = watch::channel(Role::Leaderless);
    (RoleSender { current: sender }, Roles { current: receiver })
}

impl Roles {
    /// Returns the role now.
    pub(crate) fn now(&self) -> Role {
        self.current.borrow().clone()
    }

    /// Waits until the role is another one.
    pub(crate) async fn changed(&mut self) {
        if self.current.changed().await.is_err() {
            // Nobody says the role any more: the program is about to end.
            std::future::pending().await
        }
    }

    /// Waits until somebody is known to lead, or for `wait`.
    pub(crate) async fn known(&self, wait: Duration) {
        let mut current = self.current.clone();
        let is_known = current.wait_for(|role| !matches!(role, Role::Leaderless));
        // Nobody leads even now, or nobody says the role any more: whoever asked finds that out.
        let _ = tokio::time::timeout(wait, is_known).await;
    }

    /// Returns the way to the leader of this process, where it leads.
    pub(crate) fn seat(&self) -> Option<Seat> {
        match &*self.current.borrow() {
            Role::Leading(seat) => Some(seat.clone()),
            Role::Following(_) | Role::Leaderless => None,
        }
    }
}

impl RoleSender {
    pub(crate) fn lead(&self, seat: Seat) {
        self.current.send_replace(Role::Leading(seat));
    }

    /// Notes who leads; says so in the log where that is news.
    pub(crate) fn follow(&self, record: &Record) {
        let is_news = self.current.send_if_modified(|role| {
            let is_news = !matches!(role, Role::Following(known) if known == record);
            if is_news {
                *role = Role::Following(record.clone());
            }
            is_news
        });
        if is_news {
            tracing::info!(leader = record.name, address = record.address, "following");
        }
    }

    /// Notes that nobody is known to lead.
    pub(crate) fn leave(&self) {
        self.current
            .send_if_modified(|role| !matches!(std::mem::replace(role, Role::Leaderless), Role::Leaderless));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Role, open};
    use crate::election::Record;

    const WAIT: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_while_nobody_leads_is_told_as_soon_as_somebody_does() {
        let (sender, roles) = open();
        let begun = Instant::now();
        roles.known(WAIT).await;
        assert_eq!(begun.elapsed(), WAIT, "nobody leads, and nobody waits longer for that");
        let [name, address, instance] = ["m2", "http://10.0.0.2:7070", "1"].map(str::to_owned);
        let record = Record::new(name, address, instance);
        let elected = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            sender.follow(&record);
        };
        let begun = Instant::now();
        tokio::join!(roles.known(WAIT), elected);
        assert_eq!(begun.elapsed(), Duration::from_millis(10));
        assert!(matches!(roles.now(), Role::Following(known) if known == record));
    }
}
