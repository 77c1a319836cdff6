//! The parts of an address, as far as they need no knowledge of databases.

use super::AddressError;

/// What follows `scheme://`, still percent-encoded.
pub(super) struct Parts<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a str,
    pub(super) host: &'a str,
    pub(super) port: Option<&'a str>,
    pub(super) database: &'a str,
    pub(super) parameters: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn of(rest: &'a str) -> Self {
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        // The last one: a password with an `@` that was left as it is still does what was meant.
        let (account, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = account.split_once(':').unwrap_or((account, ""));
        let (host, port) = match place.strip_prefix('[').and_then(|place| place.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        Self { user, password, host, port, database, parameters }
    }
}

/// Undoes the percent-encoding of a part.
pub(super) fn decoded(part: &'static str, text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit =
                    |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (high, low) = digit(high).zip(digit(low)).ok_or(AddressError::Encoding(part))?;
                (high * 16 + low, tail)
            }
            (b'%', _) => return Err(AddressError::Encoding(part)),
            (byte, tail) => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| AddressError::Encoding(part))
}
