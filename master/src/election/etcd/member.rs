//! What masters say of themselves, and how etcd's own members are.

use futures_util::future::join_all;
use millrace_proto::etcd::{
    PutRequest, StatusRequest, maintenance_client::MaintenanceClient, request_op::Request as Op,
};
use tonic::Response;

use super::{Etcd, EtcdError, LeaseId};

/// A member of etcd, as one call found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberState {
    /// Where it was asked.
    pub(crate) address: String,
    /// Version of its program, or why it did not say.
    pub(crate) version: Result<String, String>,
}

impl Etcd {
    /// Writes a key, whatever is there; with a lease it goes when that ends.
    pub(crate) async fn put(&self, key: &str, value: &str, lease: Option<LeaseId>) -> Result<(), EtcdError> {
        let lease = lease.map_or(0, |lease| lease.0);
        let put = PutRequest { key: key.into(), value: value.into(), lease };
        self.transact_all("to write a key", Vec::new(), vec![Op::RequestPut(put)]).await
    }

    /// Asks every member by itself how it is.
    pub(crate) async fn members(&self) -> Vec<MemberState> {
        let asked = (0..self.inner.members.len()).map(|index| self.member(index));
        join_all(asked).await
    }

    async fn member(&self, index: usize) -> MemberState {
        let ask = |way: super::Way| -> super::Call<_> {
            Box::pin(async move {
                let mut client = MaintenanceClient::new(way.channel.clone());
                client.status(way.request(StatusRequest {})).await.map(Response::into_inner)
            })
        };
        let answer = self.call_member(index, "how it is", &ask).await;
        MemberState {
            address: self.inner.members[index].address.clone(),
            version: answer.map(|answer| answer.version).map_err(|error| error.said()),
        }
    }
}
