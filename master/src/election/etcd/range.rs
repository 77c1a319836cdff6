//! Many keys at once: everything below a prefix, at one revision, and writes of several keys that are seen together.

use millrace_proto::etcd::{
    DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, kv_client::KvClient, request_op::Request as Op,
};
use tonic::Response;

use super::{Compare, Etcd, EtcdError, EtcdId, ResponseHeader, compare, compared, header};

/// All keys of a range, as they were at one revision.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) entries: Vec<Entry>,
    /// Whether there are more than were asked for.
    pub(crate) is_more: bool,
    /// etcd's revision then: changes after it are later.
    pub(crate) revision: i64,
    /// Which etcd said so.
    pub(crate) etcd: EtcdId,
}

/// A key and what is at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// The revision of its last change.
    pub(crate) modified_at: i64,
}

impl From<KeyValue> for Entry {
    fn from(found: KeyValue) -> Self {
        Self { key: found.key, value: found.value, modified_at: found.mod_revision }
    }
}

impl Etcd {
    /// Reads the keys from `first` up to `end`, at most `limit`; the answer is not older than the question.
    pub(crate) async fn range(&self, first: &str, end: &str, limit: i64) -> Result<Range, EtcdError> {
        let asked = "to read many keys";
        let request = RangeRequest { key: first.into(), range_end: end.into(), limit };
        let answer = self.call(asked, move |way| {
            let request = request.clone();
            Box::pin(async move {
                let mut client = KvClient::new(way.channel.clone());
                client.range(way.request(request)).await.map(Response::into_inner)
            })
        });
        let answer = answer.await?;
        let ResponseHeader { revision, cluster_id, .. } = header(asked, answer.header)?;
        let entries = answer.kvs.into_iter().map(Entry::from).collect();
        Ok(Range { entries, is_more: answer.more, revision, etcd: EtcdId(cluster_id) })
    }

    /// Writes keys, and deletes those without a value, all in one change.
    pub(crate) async fn write_all(&self, keys: &[(String, Option<String>)]) -> Result<(), EtcdError> {
        let op = |(key, value): &(String, Option<String>)| match value {
            Some(value) => Op::RequestPut(PutRequest {
                key: key.as_str().into(),
                value: value.as_str().into(),
                lease: 0,
            }),
            None => {
                Op::RequestDeleteRange(DeleteRangeRequest { key: key.as_str().into(), range_end: Vec::new() })
            }
        };
        self.transact_all("to write keys", Vec::new(), keys.iter().map(op).collect()).await
    }

    /// Writes a key unless it is there.
    pub(crate) async fn write_if_absent(&self, key: &str, value: &str) -> Result<(), EtcdError> {
        let put = PutRequest { key: key.into(), value: value.into(), lease: 0 };
        self.transact("to write a key", compared(key, 0), Op::RequestPut(put)).await
    }

    /// Deletes a key unless it changed after this revision.
    pub(crate) async fn delete_if_modified_at(&self, key: &str, revision: i64) -> Result<(), EtcdError> {
        let compare = Compare {
            result: compare::Result::Equal.into(),
            target: compare::Target::Mod.into(),
            key: key.into(),
            target_union: Some(compare::TargetUnion::ModRevision(revision)),
        };
        let delete = DeleteRangeRequest { key: key.into(), range_end: Vec::new() };
        self.transact("to delete a key", compare, Op::RequestDeleteRange(delete)).await
    }

    /// Waits until a key from `first` up to `end` changed after `revision`, or may have: a watch is a hint.
    pub(crate) async fn range_changed(&self, first: &str, end: &str, revision: i64) {
        self.changed_between(first, end.as_bytes(), revision).await;
    }
}
