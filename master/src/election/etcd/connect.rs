//! The way to a member of etcd: address, certificates, password.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_common::secret::Secret;
use thiserror::Error;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error as TransportError, Identity};

use crate::election::settings::{EtcdSettings, EtcdTls};

/// Bytes of the longest file with a certificate or a password.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the way to etcd cannot be opened.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// A file cannot be read.
    #[error("cannot read {} (`{key}`)", path.display())]
    File {
        key: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file holds nothing.
    #[error("{} (`{key}`) is empty", path.display())]
    Empty { key: &'static str, path: PathBuf },
    /// The address or the certificates cannot be used.
    #[error("cannot use {address:?} of `etcd.endpoints` with the certificates of `etcd.tls`")]
    Endpoint {
        address: String,
        #[source]
        source: TransportError,
    },
}

/// How often a connection in use is asked whether the member is there, and how long that may take. etcd ends connections
/// that ask more often than every 5 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes a channel that connects when it is first used, and again after it broke.
pub(super) fn channel(settings: &EtcdSettings, address: &str) -> Result<Channel, ConnectError> {
    let failed = |source| ConnectError::Endpoint { address: address.to_owned(), source };
    let timeout = settings.call_timeout();
    let mut endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(failed)?
        .connect_timeout(timeout)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .tcp_nodelay(true);
    if let Some(tls) = &settings.tls {
        endpoint = endpoint.tls_config(certificates(tls)?).map_err(failed)?;
    }
    Ok(endpoint.connect_lazy())
}

fn certificates(tls: &EtcdTls) -> Result<ClientTlsConfig, ConnectError> {
    let mut config =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("etcd.tls.ca_file", &tls.ca_file)?));
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        let cert = read("etcd.tls.cert_file", cert)?;
        config = config.identity(Identity::from_pem(cert, read("etcd.tls.key_file", key)?));
    }
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name.clone());
    }
    Ok(config)
}

/// Reads the user's password; absent where authentication is off.
pub(super) fn credentials(settings: &EtcdSettings) -> Result<Option<(String, Secret)>, ConnectError> {
    let (Some(user), Some(file)) = (&settings.user, &settings.password_file) else { return Ok(None) };
    let password = read("etcd.password_file", file)?;
    let password = password.trim_end_matches(['\n', '\r']).to_owned();
    Ok(Some((user.clone(), Secret::new(password))))
}

fn read(key: &'static str, path: &Path) -> Result<String, ConnectError> {
    let unread = |source| ConnectError::File { key, path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(unread)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(unread(io::Error::other(format!(
            "it has {bytes} bytes, at most {FILE_BYTES_MAX} are read"
        ))));
    }
    let text = fs::read_to_string(path).map_err(unread)?;
    if text.trim().is_empty() {
        return Err(ConnectError::Empty { key, path: path.to_owned() });
    }
    Ok(text)
}
