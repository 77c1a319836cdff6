//! A master that does not lead: it reads from the store, and passes on to the leader what only that can do.
//!
//! A call is passed on once: the mark that it carries then tells a master that has just lost or won the leadership to
//! refuse it instead of sending it round. The leader's answer goes back as it is; where the leader cannot be reached the
//! caller is told to come again, and never that something was done.

use std::{error::Error as _, pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use millrace_proto::{MESSAGE_BYTES_MAX, v1::control_service_client::ControlServiceClient};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataMap, MetadataValue},
    transport::Channel,
};

use crate::{
    peer::Peers,
    role::{Role, Roles},
    rpc::status,
};

/// Marks a call that a master passed on.
const PASSED_ON_KEY: &str = "millrace-passed-on";
/// When a caller may expect a leader: an election takes this long where the leader's process has ended.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Tells calls that this master answers from those that it passes on.
#[derive(Debug, Clone)]
pub(crate) struct Standby {
    pub(crate) roles: Roles,
    pub(crate) peers: Peers,
}

impl Standby {
    /// Returns the way to the leader for a call that only a leader can answer; `None` where this master leads.
    ///
    /// # Errors
    /// Where nobody leads, or the call was passed on already.
    pub(crate) fn relay(&self, metadata: &MetadataMap) -> Result<Option<Relay>, Status> {
        let leader = match self.roles.now() {
            Role::Leading(_) => return Ok(None),
            Role::Following(leader) => leader,
            Role::Leaderless => return Err(no_leader()),
        };
        if metadata.contains_key(PASSED_ON_KEY) {
            return Err(status::later("the leadership is moving from one master to another", RETRY_AFTER));
        }
        let client = ControlServiceClient::new(self.peers.channel(&leader.address)?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Some(Relay { client, peers: self.peers.clone(), leader: leader.name }))
    }

    /// Returns where the leader is, for executors; empty where nobody leads.
    pub(crate) fn leader_address(&self) -> String {
        match self.roles.now() {
            Role::Following(leader) => leader.address,
            Role::Leading(_) | Role::Leaderless => String::new(),
        }
    }
}

/// Tells a caller that there is nobody who could do it.
pub(crate) fn no_leader() -> Status {
    status::later("no master leads at the moment: an election is under way, or cannot be held", RETRY_AFTER)
}

/// Tells whether a leader that was asked could not be reached, unlike one that answered, whatever that was.
pub(crate) fn is_unreachable<T>(answer: &Result<T, Status>) -> bool {
    answer.as_ref().is_err_and(|status| status.source().is_some())
}

/// A stream of the leader's that goes on to our caller.
type Relayed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The way to the leader for one call.
pub(crate) struct Relay {
    pub(crate) client: ControlServiceClient<Channel>,
    peers: Peers,
    leader: String,
}

/// Ends what is said of a leader that cannot be reached, for whoever asked it to do something.
pub(crate) const OUTCOME_UNKNOWN: &str = "; whether it did this is not known";

impl Relay {
    /// Makes the request that is sent to the leader.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.peers.request(message);
        let mark: MetadataValue<Ascii> = MetadataValue::from_static("1");
        request.metadata_mut().insert(PASSED_ON_KEY, mark);
        request
    }

    /// Turns the leader's answer into ours.
    pub(crate) fn answered<T>(&self, answer: Result<Response<T>, Status>) -> Result<Response<T>, Status> {
        answer.map(|answer| Response::new(answer.into_inner())).map_err(|status| self.told(status))
    }

    /// Turns the leader's stream into ours; it ends when this master stops.
    pub(crate) fn streamed<T: Send + 'static>(
        self,
        answer: Result<Response<Streaming<T>>, Status>,
        stop: &CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Relayed<T>>, Status> {
        let messages = answer.map_err(|status| self.told(status))?.into_inner();
        let stopped = stream::once(stop.clone().cancelled_owned()).map(|()| Err(status::stopping()));
        let messages = messages.map(move |message| {
            // One of the places for streams, taken until this one ends.
            let _ = &place;
            Some(message.map_err(|status| self.told(status)))
        });
        // The end of either ends the whole.
        let either = stream::select(messages.chain(stream::iter([None])), stopped.map(Some));
        Ok(Response::new(Box::pin(either.scan((), |(), part| std::future::ready(part)))))
    }

    /// What the leader said goes on; that it cannot be reached is said in our words.
    fn told(&self, status: Status) -> Status {
        if status.source().is_none() {
            return Status::with_details_and_metadata(
                status.code(),
                status.message(),
                status.details().to_vec().into(),
                retry_after_of(&status),
            );
        }
        tracing::debug!(leader = self.leader, error = %status, "the leader cannot be reached");
        let problem = format!("the leader, {}, cannot be reached{OUTCOME_UNKNOWN}", self.leader);
        status::later(problem, RETRY_AFTER)
    }
}

/// Of what came with a status only this is for our caller.
fn retry_after_of(status: &Status) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    if let Some(value) = status.metadata().get(status::RETRY_AFTER_KEY) {
        metadata.insert(status::RETRY_AFTER_KEY, value.clone());
    }
    metadata
}

#[cfg(test)]
mod tests {
    use millrace_common::secret::Secret;

    use super::*;
    use crate::{election::Record, role};

    fn standby() -> (role::RoleSender, Standby) {
        let (sender, roles) = role::open();
        (sender, Standby { roles, peers: Peers::new(&Secret::new("t".repeat(32))).unwrap() })
    }

    #[tokio::test]
    async fn without_a_leader_a_caller_is_told_when_to_come_again() {
        let (_sender, standby) = standby();
        let status = standby.relay(&MetadataMap::new()).err().unwrap();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    }

    #[tokio::test]
    async fn a_call_is_passed_on_once() {
        let (sender, standby) = standby();
        sender.follow(&Record::new("m2".to_owned(), "http://127.0.0.1:1".to_owned(), "i".to_owned()));
        let relay = standby.relay(&MetadataMap::new()).unwrap().unwrap();
        let passed = relay.request(());
        assert!(passed.metadata().contains_key("authorization"));
        let status = standby.relay(passed.metadata()).err().unwrap();
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }

    #[tokio::test]
    async fn a_leader_that_cannot_be_reached_is_not_said_to_have_refused() {
        let (sender, standby) = standby();
        sender.follow(&Record::new("m2".to_owned(), "http://127.0.0.1:1".to_owned(), "i".to_owned()));
        let mut relay = standby.relay(&MetadataMap::new()).unwrap().unwrap();
        let request = relay.request(millrace_proto::v1::GetClusterRequest {});
        let answer = relay.client.get_cluster(request).await;
        let status = relay.answered(answer).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().starts_with("the leader, m2, cannot be reached"), "{status:?}");
    }
}
