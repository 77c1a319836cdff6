//! Calls to etcd: each has a deadline, and goes to another member where one does not answer.
//!
//! Every call may be repeated without harm, so one policy fits all: members are tried in turn, once each, beginning with
//! the one that answered last. What was repeated may have been done twice: a claim of the key is idempotent, a deletion
//! is guarded by the revision, a lease too many runs out. That a call failed does not tell that it was not done.
//!
//! The only place that knows etcd's messages.

mod connect;
mod member;
mod range;

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use millrace_common::secret::Secret;
use millrace_proto::etcd::{
    AuthenticateRequest, Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, StatusRequest, TxnRequest,
    WatchCreateRequest, WatchRequest, WatchResponse, auth_client::AuthClient, compare, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, request_op::Request as Op,
    watch_client::WatchClient, watch_request::RequestUnion,
};
use thiserror::Error;
use tokio_stream::StreamExt as _;
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

#[cfg(test)]
pub(crate) use self::range::Entry;
pub(crate) use self::{connect::ConnectError, member::MemberState, range::Range};
use super::{settings::EtcdSettings, version::Version};

/// The name under which etcd expects the token of an authenticated user.
const TOKEN_KEY: &str = "token";
/// Asks a member to end a stream while it knows no leader of etcd, instead of keeping it silently.
const NEEDS_LEADER_KEY: &str = "hasleader";

/// etcd, by all its members. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Etcd {
    inner: Arc<Inner>,
}

struct Inner {
    members: Vec<Member>,
    /// The member that answered last.
    current: AtomicUsize,
    call_timeout: Duration,
    credentials: Option<(String, Secret)>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
}

struct Member {
    address: String,
    channel: Channel,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<&str> = self.members.iter().map(|member| &*member.address).collect();
        f.debug_struct("Etcd").field("members", &members).finish_non_exhaustive()
    }
}

/// Why etcd did not do what it was asked for. Only a refusal tells that it was not done.
#[derive(Debug, Error)]
pub(crate) enum EtcdError {
    /// No member answered in time.
    #[error("no member of etcd answers ({asked}); the last one, {address}, said: {}", said(.status))]
    Unreachable { asked: &'static str, address: String, status: Status },
    /// It answered that it does not do it.
    #[error("etcd at {address} refuses ({asked}): {}", said(.status))]
    Refused { asked: &'static str, address: String, status: Status },
    /// It does not know us.
    #[error("etcd at {address} does not accept `etcd.user` with the password in `etcd.password_file`: {}", said(.status))]
    Credentials { address: String, status: Status },
    /// It answered something that makes no sense.
    #[error("etcd's answer makes no sense ({asked}): {problem}")]
    Senseless { asked: &'static str, problem: &'static str },
}

impl EtcdError {
    /// Tells whether another try can go better without anybody changing anything.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Returns what the member said, without where it is.
    fn said(&self) -> String {
        match self {
            Self::Unreachable { status, .. }
            | Self::Refused { status, .. }
            | Self::Credentials { status, .. } => said(status),
            Self::Senseless { problem, .. } => (*problem).to_owned(),
        }
    }
}

fn said(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// Opens the way to a member: what a call is sent with.
#[derive(Clone)]
struct Way {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Way {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert(TOKEN_KEY, token.clone());
        }
        request.metadata_mut().insert(NEEDS_LEADER_KEY, MetadataValue::from_static("true"));
        request
    }
}

type Call<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// What is at a key, and when it was read.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) entry: Option<KeyValue>,
    /// etcd's revision then: changes after it are later.
    pub(crate) revision: i64,
    /// Which etcd said so.
    pub(crate) etcd: EtcdId,
}

/// Names an etcd cluster; another one after it was made anew or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EtcdId(pub(crate) u64);

impl fmt::Display for EtcdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A lease that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseId(pub(crate) i64);

impl Etcd {
    /// Reads the certificates and the password; connects to nobody yet.
    ///
    /// # Errors
    /// Where a file cannot be used.
    pub(crate) fn new(settings: &EtcdSettings) -> Result<Self, ConnectError> {
        let members = settings.endpoints.iter().map(|address| {
            let channel = connect::channel(settings, address)?;
            Ok(Member { address: address.clone(), channel })
        });
        let inner = Inner {
            members: members.collect::<Result<_, ConnectError>>()?,
            current: AtomicUsize::new(0),
            call_timeout: settings.call_timeout(),
            credentials: connect::credentials(settings)?,
            token: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns which etcd this is, and the version of the member that answers.
    pub(crate) async fn identity(&self) -> Result<(EtcdId, Version), EtcdError> {
        let asked = "which version it is";
        let answer = self.call(asked, |way| {
            Box::pin(async move {
                let mut client = MaintenanceClient::new(way.channel.clone());
                client.status(way.request(StatusRequest {})).await.map(Response::into_inner)
            })
        });
        let answer = answer.await?;
        let cluster = header(asked, answer.header)?.cluster_id;
        let version = answer.version.parse();
        let version =
            version.map_err(|_| EtcdError::Senseless { asked, problem: "its version is not a version" })?;
        Ok((EtcdId(cluster), version))
    }

    /// Reads a key; the answer is not older than the question.
    pub(crate) async fn get(&self, key: &str) -> Result<Found, EtcdError> {
        let asked = "to read a key";
        let request = range(key);
        let answer = self.call(asked, move |way| {
            let request = request.clone();
            Box::pin(async move {
                let mut client = KvClient::new(way.channel.clone());
                client.range(way.request(request)).await.map(Response::into_inner)
            })
        });
        let answer = answer.await?;
        let ResponseHeader { revision, cluster_id, .. } = header(asked, answer.header)?;
        Ok(Found { entry: answer.kvs.into_iter().next(), revision, etcd: EtcdId(cluster_id) })
    }

    /// Writes a key that is bound to a lease, unless the key is there.
    pub(crate) async fn put_if_absent(
        &self,
        key: &str,
        value: &str,
        lease: LeaseId,
    ) -> Result<(), EtcdError> {
        let put = PutRequest { key: key.into(), value: value.into(), lease: lease.0 };
        self.transact("to take a key", compared(key, 0), Op::RequestPut(put)).await
    }

    /// Deletes a key that was created by the change with this revision, and no later one.
    pub(crate) async fn delete_if_created_at(&self, key: &str, revision: i64) -> Result<(), EtcdError> {
        let delete = DeleteRangeRequest { key: key.into(), range_end: Vec::new() };
        self.transact("to delete a key", compared(key, revision), Op::RequestDeleteRange(delete)).await
    }

    /// Whether the comparison held is not told: after a repeat it says nothing.
    async fn transact(&self, asked: &'static str, compare: Compare, success: Op) -> Result<(), EtcdError> {
        self.transact_all(asked, vec![compare], vec![success]).await
    }

    async fn transact_all(
        &self,
        asked: &'static str,
        compare: Vec<Compare>,
        success: Vec<Op>,
    ) -> Result<(), EtcdError> {
        let success = success.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
        let request = TxnRequest { compare, success, failure: Vec::new() };
        let answer = self.call(asked, move |way| {
            let request = request.clone();
            Box::pin(async move {
                let mut client = KvClient::new(way.channel.clone());
                client.txn(way.request(request)).await.map(Response::into_inner)
            })
        });
        answer.await.map(drop)
    }

    /// Asks for a lease.
    pub(crate) async fn grant(&self, ttl: Duration) -> Result<LeaseId, EtcdError> {
        let asked = "for a lease";
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let answer = self.call(asked, move |way| {
            Box::pin(async move {
                let mut client = LeaseClient::new(way.channel.clone());
                let request = LeaseGrantRequest { ttl: seconds, id: 0 };
                client.lease_grant(way.request(request)).await.map(Response::into_inner)
            })
        });
        let answer = answer.await?;
        if answer.ttl < seconds {
            return Err(EtcdError::Senseless { asked, problem: "the lease is shorter than was asked for" });
        }
        Ok(LeaseId(answer.id))
    }

    /// Renews a lease; returns how long it is valid, zero where it is gone.
    pub(crate) async fn renew(&self, lease: LeaseId) -> Result<Duration, EtcdError> {
        let answer = self.call("to renew a lease", move |way| {
            Box::pin(async move {
                let mut client = LeaseClient::new(way.channel.clone());
                // The stream stays open until the answer is there: a call with one question and one answer.
                let question = tokio_stream::iter([LeaseKeepAliveRequest { id: lease.0 }]);
                let question = question.chain(tokio_stream::pending());
                let mut answers = client.lease_keep_alive(way.request(question)).await?.into_inner();
                answers
                    .message()
                    .await?
                    .ok_or_else(|| Status::unavailable("the stream ended without an answer"))
            })
        });
        Ok(Duration::from_secs(u64::try_from(answer.await?.ttl).unwrap_or(0)))
    }

    /// Ends a lease and deletes what is bound to it. One that is gone already is fine.
    pub(crate) async fn revoke(&self, lease: LeaseId) -> Result<(), EtcdError> {
        let answer = self.call("to end a lease", move |way| {
            Box::pin(async move {
                let mut client = LeaseClient::new(way.channel.clone());
                match client.lease_revoke(way.request(LeaseRevokeRequest { id: lease.0 })).await {
                    Err(status) if status.code() != Code::NotFound => Err(status),
                    Ok(_) | Err(_) => Ok(()),
                }
            })
        });
        answer.await
    }

    /// Waits until a key changed after `revision`, or may have: a watch is a hint, and its end is one, too.
    pub(crate) async fn changed(&self, key: &str, revision: i64) {
        self.changed_between(key, &[], revision).await;
    }

    /// Waits until a key from `first` up to `end`, or `first` alone where that is empty, changed after `revision`, or may have.
    ///
    /// A revision that etcd has compacted ends the watch, and so does a member that goes: whoever waits reads anew then.
    async fn changed_between(&self, first: &str, end: &[u8], revision: i64) {
        let Ok(mut answers) = self.watch(first, end, revision).await else {
            // The caller looks by itself, now and then.
            return std::future::pending().await;
        };
        loop {
            match answers.message().await {
                Ok(Some(answer)) if answer.events.is_empty() && !answer.canceled => {}
                Ok(Some(_) | None) | Err(_) => return,
            }
        }
    }

    async fn watch(
        &self,
        key: &str,
        end: &[u8],
        revision: i64,
    ) -> Result<Streaming<WatchResponse>, EtcdError> {
        let create =
            WatchCreateRequest { key: key.into(), range_end: end.to_vec(), start_revision: revision + 1 };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        self.call("to watch a key", move |way| {
            let questions = tokio_stream::iter([create.clone()]).chain(tokio_stream::pending());
            Box::pin(async move {
                let mut client = WatchClient::new(way.channel.clone());
                client.watch(way.request(questions)).await.map(Response::into_inner)
            })
        })
        .await
    }

    /// Asks members in turn until one answers.
    async fn call<T>(
        &self,
        asked: &'static str,
        ask: impl Fn(Way) -> Call<T> + Send + Sync,
    ) -> Result<T, EtcdError> {
        let first = self.inner.current.load(Ordering::Relaxed);
        let count = self.inner.members.len();
        let mut failed = EtcdError::Senseless { asked, problem: "there is no member" };
        for index in (first..first + count).map(|index| index % count) {
            match self.call_member(index, asked, &ask).await {
                Err(error @ EtcdError::Unreachable { .. }) => failed = error,
                answered => {
                    self.inner.current.store(index, Ordering::Relaxed);
                    return answered;
                }
            }
        }
        Err(failed)
    }

    /// Asks one member; where our token has run out, once more with a new one.
    async fn call_member<T>(
        &self,
        index: usize,
        asked: &'static str,
        ask: &(impl Fn(Way) -> Call<T> + Send + Sync),
    ) -> Result<T, EtcdError> {
        let member = &self.inner.members[index];
        let failed = |status: Status| {
            let address = member.address.clone();
            if is_elsewhere_better(status.code()) {
                EtcdError::Unreachable { asked, address, status }
            } else {
                EtcdError::Refused { asked, address, status }
            }
        };
        let asked_twice = async {
            let token = self.token(member).await?;
            let way = Way { channel: member.channel.clone(), token: token.clone() };
            match ask(way).await {
                Err(status) if is_token_refused(&status) && token.is_some() => {}
                answer => return answer.map_err(failed),
            }
            *self.inner.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let way = Way { channel: member.channel.clone(), token: self.token(member).await? };
            ask(way).await.map_err(failed)
        };
        let late =
            || failed(Status::deadline_exceeded(format!("no answer in {:?}", self.inner.call_timeout)));
        tokio::time::timeout(self.inner.call_timeout, asked_twice).await.unwrap_or_else(|_| Err(late()))
    }

    /// Returns the token of our user, asking for one where there is none.
    async fn token(&self, member: &Member) -> Result<Option<MetadataValue<Ascii>>, EtcdError> {
        let Some((user, password)) = &self.inner.credentials else { return Ok(None) };
        if let Some(token) = self.inner.token.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(Some(token));
        }
        let request = AuthenticateRequest { name: user.clone(), password: password.expose().to_owned() };
        let answer = AuthClient::new(member.channel.clone()).authenticate(request).await;
        let answer = answer.map_err(|status| {
            let address = member.address.clone();
            match status.code() {
                code if is_elsewhere_better(code) => {
                    EtcdError::Unreachable { asked: "who we are", address, status }
                }
                _ => EtcdError::Credentials { address, status },
            }
        })?;
        let mut token: MetadataValue<Ascii> = answer.into_inner().token.parse().map_err(|_| {
            EtcdError::Senseless { asked: "who we are", problem: "the token cannot travel in a header" }
        })?;
        token.set_sensitive(true);
        *self.inner.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(Some(token))
    }
}

fn header(asked: &'static str, header: Option<ResponseHeader>) -> Result<ResponseHeader, EtcdError> {
    header.ok_or(EtcdError::Senseless { asked, problem: "it has no header" })
}

fn range(key: &str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: Vec::new(), limit: 1 }
}

/// Holds where the key was created by the change with this revision; 0 where it is not there.
fn compared(key: &str, revision: i64) -> Compare {
    Compare {
        result: compare::Result::Equal.into(),
        target: compare::Target::Create.into(),
        key: key.into(),
        target_union: Some(compare::TargetUnion::CreateRevision(revision)),
    }
}

/// Tells whether another member may do what this one did not.
const fn is_elsewhere_better(code: Code) -> bool {
    match code {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::DataLoss => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => false,
    }
}

/// A token that ran out is refused with `Unauthenticated`; one of an earlier state of the users with `InvalidArgument`.
fn is_token_refused(status: &Status) -> bool {
    match status.code() {
        Code::Unauthenticated => true,
        Code::InvalidArgument => status.message().contains("auth"),
        _ => false,
    }
}
