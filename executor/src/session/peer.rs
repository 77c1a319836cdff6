//! A master: its address and what opens its door.

use std::{fmt, sync::Arc, time::Duration};

use millrace_common::secret::Secret;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue, errors::InvalidMetadataValue},
    transport::{Channel, Endpoint, Error},
};

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A master that this executor may talk to.
#[derive(Clone)]
pub(crate) struct Peer {
    endpoint: Endpoint,
    authorization: Arc<MetadataValue<Ascii>>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.endpoint.uri())
    }
}

/// Why an address or a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("{0:?} is not the address of a master")]
    Address(String, #[source] Error),
    #[error("the token cannot travel in a header")]
    Token(#[source] InvalidMetadataValue),
}

impl Peer {
    pub(crate) fn new(address: &str, token: &Secret) -> Result<Self, PeerError> {
        let mut authorization: MetadataValue<Ascii> =
            format!("Bearer {}", token.expose()).parse().map_err(PeerError::Token)?;
        authorization.set_sensitive(true);
        Ok(Self { endpoint: endpoint(address)?, authorization: Arc::new(authorization) })
    }

    /// Returns the master at another address, which takes the same token.
    pub(crate) fn at(&self, address: &str) -> Result<Self, PeerError> {
        Ok(Self { endpoint: endpoint(address)?, authorization: Arc::clone(&self.authorization) })
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Channel, Error> {
        self.endpoint.connect().await
    }

    /// Makes a request that carries the token.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", MetadataValue::clone(&self.authorization));
        request
    }
}

fn endpoint(address: &str) -> Result<Endpoint, PeerError> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|source| PeerError::Address(address.to_owned(), source))?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true))
}
