//! What an operator sets about etcd, and how the timing values must relate.
//!
//! ```text
//! election_timeout < ttl / 1.5                                a lease survives an election inside etcd
//! authority <= (ttl - 2 * election_timeout) * 0.99 - 1 s      authority ends before the lease can
//! 3 * renewal <= authority                                    two renewals may fail
//! ```
//!
//! The second is what keeps an old leader silent before a new one speaks; the fence in SQL keeps both from writing.

use std::{path::PathBuf, time::Duration};

use millrace_common::text::ShowDuration;
use millrace_runtime::config::duration_text;
use serde::Deserialize;
use thiserror::Error;

/// How far the rates of two machines' clocks may differ, in percent; the core's own limit says the same.
const CLOCK_RATE_ERROR_PERCENT: u32 = 1;
/// What is left between the end of authority and the earliest end of the lease, for what is on its way.
const AUTHORITY_MARGIN: Duration = Duration::from_secs(1);
/// etcd counts leases in seconds and refuses shorter ones than one and a half of its election time-outs.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(10 * 60);
/// Renewals that fit into the time of authority.
const RENEWALS_IN_AUTHORITY: u32 = 3;
/// The longest that one call to etcd may take; shorter than the pause between renewals.
const CALL_TIME_MAX: Duration = Duration::from_millis(1_500);
const RENEWAL_MIN: Duration = Duration::from_millis(50);
/// Bytes of the prefix of our keys.
const PREFIX_BYTES_MAX: usize = 191;

/// How masters find each other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EtcdSettings {
    /// Addresses of etcd's members, such as `https://10.0.0.1:2379`; one that answers is enough.
    pub endpoints: Vec<String>,
    /// Beginning of every key; masters of one cluster have the same, clusters that share an etcd have different ones.
    pub prefix: String,
    /// How long the leader's lease is valid unless renewed; whole seconds.
    #[serde(with = "duration_text")]
    pub ttl: Duration,
    /// How often the lease is renewed.
    #[serde(with = "duration_text")]
    pub renewal: Duration,
    /// How long after the send of the last answered renewal a leader acts as one. The same on every master.
    #[serde(with = "duration_text")]
    pub authority: Duration,
    /// What etcd's members have as `--election-timeout`.
    #[serde(with = "duration_text")]
    pub election_timeout: Duration,
    /// User of etcd, where its authentication is on.
    pub user: Option<String>,
    /// File with that user's password.
    pub password_file: Option<PathBuf>,
    /// Certificates, where the endpoints are `https`.
    pub tls: Option<EtcdTls>,
    /// Whether etcd may be older than the oldest version without known faults in its leases.
    pub allow_old_etcd: bool,
}

/// Certificates for the way to etcd, as PEM files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdTls {
    /// The authority that signed etcd's certificates.
    pub ca_file: PathBuf,
    /// Our own certificate, where etcd asks for one.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// The key of our own certificate.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// The name in etcd's certificates, where it is not that of the endpoint.
    #[serde(default)]
    pub server_name: Option<String>,
}

impl Default for EtcdSettings {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: "/millrace".to_owned(),
            ttl: Duration::from_secs(10),
            renewal: Duration::from_secs(2),
            authority: Duration::from_secs(6),
            election_timeout: Duration::from_secs(1),
            user: None,
            password_file: None,
            tls: None,
            allow_old_etcd: false,
        }
    }
}

/// A setting about etcd that a master cannot run with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EtcdSettingsError {
    /// Nobody to ask.
    #[error("`etcd.endpoints` is empty; name etcd's members, such as [\"http://10.0.0.1:2379\"]")]
    NoEndpoint,
    /// Not an address.
    #[error("`etcd.endpoints` has {0:?}; write it as http://host:port or https://host:port")]
    Endpoint(String),
    /// Keys would not be where the other masters look.
    #[error(
        "`etcd.prefix` is {0:?}; it must begin with `/`, not end with one, and have at most {PREFIX_BYTES_MAX} visible \
         ASCII characters"
    )]
    Prefix(String),
    /// Encrypted, and nobody to trust.
    #[error("`etcd.endpoints` has {0:?} and `etcd.tls` is not set; set `etcd.tls.ca_file`")]
    NoAuthority(String),
    /// Certificates that nothing is encrypted with.
    #[error("`etcd.tls` is set and `etcd.endpoints` has {0:?}; write it as https://host:port")]
    NotEncrypted(String),
    /// One half of an identity.
    #[error("`etcd.tls.cert_file` and `etcd.tls.key_file` belong together; set both or none")]
    Identity,
    /// One half of the credentials.
    #[error("`etcd.user` and `etcd.password_file` belong together; set both or none")]
    Credentials,
    /// etcd could not grant it.
    #[error(
        "`etcd.ttl` is {}; it must be a number of whole seconds, from {} to {}",
        ShowDuration(*.0), ShowDuration(TTL_MIN), ShowDuration(TTL_MAX)
    )]
    Ttl(Duration),
    /// Renewed more often than it can be answered.
    #[error("`etcd.renewal` is {}; it must be at least {}", ShowDuration(*.0), ShowDuration(RENEWAL_MIN))]
    Renewal(Duration),
    /// etcd would grant a longer one.
    #[error(
        "`etcd.ttl` is {} and `etcd.election_timeout` is {}; etcd grants no lease shorter than 1.5 election time-outs",
        ShowDuration(*.ttl), ShowDuration(*.election_timeout)
    )]
    TtlBelowElection {
        /// The time to live.
        ttl: Duration,
        /// The election time-out of etcd's members.
        election_timeout: Duration,
    },
    /// An old leader could act beside a new one.
    #[error(
        "`etcd.authority` is {}; with `etcd.ttl` {} and `etcd.election_timeout` {} it must be at most {}, so that it ends \
         before the lease can",
        ShowDuration(*.authority), ShowDuration(*.ttl), ShowDuration(*.election_timeout), ShowDuration(*.max)
    )]
    Authority {
        /// How long a leader acts after a renewal.
        authority: Duration,
        /// The time to live.
        ttl: Duration,
        /// The election time-out of etcd's members.
        election_timeout: Duration,
        /// The longest authority that goes with them.
        max: Duration,
    },
    /// One lost message would end a term.
    #[error(
        "`etcd.renewal` is {} and `etcd.authority` is {}; three renewals must fit into the time of authority",
        ShowDuration(*.renewal), ShowDuration(*.authority)
    )]
    Renewals {
        /// The pause between renewals.
        renewal: Duration,
        /// How long a leader acts after one.
        authority: Duration,
    },
}

impl EtcdSettings {
    /// Returns everything that is wrong with the settings.
    #[must_use]
    pub fn problems(&self) -> Vec<EtcdSettingsError> {
        let mut problems = self.address_problems();
        if self.user.is_some() != self.password_file.is_some() {
            problems.push(EtcdSettingsError::Credentials);
        }
        problems.extend(self.timing_problems());
        problems
    }

    fn address_problems(&self) -> Vec<EtcdSettingsError> {
        let mut problems = Vec::new();
        if self.endpoints.is_empty() {
            problems.push(EtcdSettingsError::NoEndpoint);
        }
        for endpoint in &self.endpoints {
            let uri = endpoint.parse::<tonic::transport::Uri>().ok();
            let scheme = uri.as_ref().filter(|uri| uri.port().is_some()).and_then(|uri| uri.scheme_str());
            match (scheme, &self.tls) {
                (Some("http"), None) | (Some("https"), Some(_)) => {}
                (Some("https"), None) => problems.push(EtcdSettingsError::NoAuthority(endpoint.clone())),
                (Some("http"), Some(_)) => problems.push(EtcdSettingsError::NotEncrypted(endpoint.clone())),
                _ => problems.push(EtcdSettingsError::Endpoint(endpoint.clone())),
            }
        }
        let is_plain = self.prefix.bytes().all(|byte| byte.is_ascii_graphic());
        let is_path = self.prefix.len() > 1 && self.prefix.starts_with('/') && !self.prefix.ends_with('/');
        if !is_plain || !is_path || self.prefix.len() > PREFIX_BYTES_MAX {
            problems.push(EtcdSettingsError::Prefix(self.prefix.clone()));
        }
        if self.tls.as_ref().is_some_and(|tls| tls.cert_file.is_some() != tls.key_file.is_some()) {
            problems.push(EtcdSettingsError::Identity);
        }
        problems
    }

    fn timing_problems(&self) -> Vec<EtcdSettingsError> {
        let Self { ttl, renewal, authority, election_timeout, .. } = *self;
        let mut problems = Vec::new();
        if ttl.subsec_nanos() != 0 || ttl < TTL_MIN || ttl > TTL_MAX {
            problems.push(EtcdSettingsError::Ttl(ttl));
        }
        if renewal < RENEWAL_MIN {
            problems.push(EtcdSettingsError::Renewal(renewal));
        }
        if ttl.saturating_mul(2) < election_timeout.saturating_mul(3) {
            problems.push(EtcdSettingsError::TtlBelowElection { ttl, election_timeout });
        }
        let max = authority_max(ttl, election_timeout);
        if authority > max {
            problems.push(EtcdSettingsError::Authority { authority, ttl, election_timeout, max });
        }
        if renewal.saturating_mul(RENEWALS_IN_AUTHORITY) > authority {
            problems.push(EtcdSettingsError::Renewals { renewal, authority });
        }
        problems
    }

    /// Returns how long one call may take.
    pub(crate) fn call_timeout(&self) -> Duration {
        (self.renewal * 3 / 4).min(CALL_TIME_MAX)
    }

    /// Returns the key that the leader holds.
    pub(crate) fn leader_key(&self) -> String {
        format!("{}/leader", self.prefix)
    }
}

/// Returns the longest time of authority that ends before the lease can, whichever way the clocks err.
fn authority_max(ttl: Duration, election_timeout: Duration) -> Duration {
    let sure = ttl.saturating_sub(election_timeout.saturating_mul(2));
    (sure * (100 - CLOCK_RATE_ERROR_PERCENT) / 100).saturating_sub(AUTHORITY_MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> EtcdSettings {
        EtcdSettings { endpoints: vec!["http://127.0.0.1:2379".to_owned()], ..EtcdSettings::default() }
    }

    fn timed(ttl: u64, renewal: u64, authority: u64, election_timeout: u64) -> Vec<EtcdSettingsError> {
        let [ttl, renewal, authority, election_timeout] =
            [ttl, renewal, authority, election_timeout].map(Duration::from_millis);
        EtcdSettings { ttl, renewal, authority, election_timeout, ..settings() }.problems()
    }

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(settings().problems(), []);
        assert_eq!(settings().call_timeout(), Duration::from_millis(1_500));
    }

    #[test]
    fn timing_values_are_checked_against_each_other_and_both_keys_are_named() {
        assert_eq!(timed(2_000, 150, 500, 200), [], "a fast etcd allows a fast election");
        let rows = [
            (timed(10_000, 2_000, 7_000, 1_000), "`etcd.authority`", "`etcd.ttl`"),
            (timed(10_000, 2_000, 6_000, 2_000), "`etcd.authority`", "`etcd.election_timeout`"),
            (timed(10_000, 2_001, 6_000, 1_000), "`etcd.renewal`", "`etcd.authority`"),
        ];
        for (problems, one, other) in rows {
            assert_eq!(problems.len(), 1, "{problems:?}");
            let text = problems[0].to_string();
            assert!(text.contains(one) && text.contains(other), "{text}");
        }
        let text = timed(10_000, 2_000, 7_000, 1_000)[0].to_string();
        assert!(text.contains("it must be at most 6s920ms"), "{text}");
        let short = timed(1_000, 50, 150, 1_000);
        assert!(matches!(short[0], EtcdSettingsError::TtlBelowElection { .. }), "{short:?}");
        assert!(matches!(timed(2_500, 100, 300, 200)[0], EtcdSettingsError::Ttl(_)));
    }

    #[test]
    fn addresses_and_certificates_go_together() {
        let with = |endpoint: &str| EtcdSettings { endpoints: vec![endpoint.to_owned()], ..settings() };
        for endpoint in ["10.0.0.1:2379", "http://10.0.0.1", "ftp://10.0.0.1:2379", ""] {
            assert_eq!(with(endpoint).problems(), [EtcdSettingsError::Endpoint(endpoint.to_owned())]);
        }
        assert!(matches!(with("https://etcd:2379").problems()[..], [EtcdSettingsError::NoAuthority(_)]));
        let tls = EtcdTls {
            ca_file: "/ca.pem".into(),
            cert_file: Some("/c.pem".into()),
            key_file: None,
            server_name: None,
        };
        let half = EtcdSettings { tls: Some(tls), ..with("http://etcd:2379") };
        assert!(matches!(
            half.problems()[..],
            [EtcdSettingsError::NotEncrypted(_), EtcdSettingsError::Identity]
        ));
        assert_eq!(EtcdSettings::default().problems(), [EtcdSettingsError::NoEndpoint]);
    }

    #[test]
    fn a_prefix_is_a_path() {
        for prefix in ["", "/", "millrace", "/millrace/", "/mill race", "/mühle"] {
            let found = EtcdSettings { prefix: prefix.to_owned(), ..settings() }.problems();
            assert_eq!(found, [EtcdSettingsError::Prefix(prefix.to_owned())]);
        }
    }
}
