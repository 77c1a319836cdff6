//! Other masters: the way to one, with the token that all of them share.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use millrace_common::secret::Secret;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

/// How long a master may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection is asked whether its peer is there, and how long that may take.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Opens ways to other masters; keeps the last one, since there is one leader. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    authorization: MetadataValue<Ascii>,
    last: Mutex<Option<(String, Channel)>>,
}

impl Peers {
    /// Makes the ways for callers that present this token.
    ///
    /// # Errors
    /// Where the token cannot travel in a header.
    pub(crate) fn new(token: &Secret) -> anyhow::Result<Self> {
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {}", token.expose()).parse()?;
        authorization.set_sensitive(true);
        Ok(Self { inner: Arc::new(Inner { authorization, last: Mutex::default() }) })
    }

    /// Returns a channel to an address; it connects when it is used.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, Status> {
        let mut last = self.inner.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, channel)) = &*last
            && known == address
        {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(address.to_owned());
        let endpoint = endpoint.map_err(|_| Status::unavailable("the leader's address cannot be used"))?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_lazy();
        *last = Some((address.to_owned(), channel.clone()));
        Ok(channel)
    }

    /// Makes a request that carries the token.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.inner.authorization.clone());
        request
    }
}
