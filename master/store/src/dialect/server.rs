//! What a server says of itself when it is first talked to.

use thiserror::Error;

use super::System;

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Which system, so that another in its place is noticed.
    pub(crate) system: System,
    /// Whether it only follows another one, and takes no writes.
    pub(crate) is_replica: bool,
    /// Why it cannot be used.
    pub(crate) too_old: Option<TooOld>,
    /// What of its settings lets it lose what it has acknowledged.
    pub(crate) warnings: Vec<SettingWarning>,
}

/// A server of a version that lacks what the store needs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{product} {found} is too old: {needed} or later is needed")]
pub struct TooOld {
    /// What it is.
    pub product: &'static str,
    /// Its version.
    pub found: String,
    /// The first version that will do.
    pub needed: &'static str,
}

/// A setting of the server with which it can lose what it has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{setting} is {found}: {risk}; set {setting} = {wanted} in the configuration of {product}")]
pub struct SettingWarning {
    /// What the server is.
    pub product: &'static str,
    /// The setting.
    pub setting: &'static str,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub wanted: &'static str,
    /// What can happen.
    pub risk: &'static str,
}

/// A setting, the values with which nothing can be lost, of which the first is advised, and what can happen otherwise.
pub(super) type Advice = (&'static str, &'static [&'static str], &'static str);

/// Compares a setting with the advice on it.
pub(super) fn advise(product: &'static str, advice: &Advice, found: &str) -> Option<SettingWarning> {
    let (setting, good, risk) = *advice;
    if good.iter().any(|good| good.eq_ignore_ascii_case(found)) {
        return None;
    }
    let wanted = good.first().copied().unwrap_or_default();
    Some(SettingWarning { product, setting, found: found.to_owned(), wanted, risk })
}
