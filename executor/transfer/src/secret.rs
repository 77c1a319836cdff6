//! Secrets of a definition: kept out of `Debug`, out of echoes and out of shown addresses.

use std::fmt;

use serde_json::Value;

/// What stands where a secret was.
pub(crate) const STARS: &str = "******";

/// A text that never shows itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STARS)
    }
}

/// Returns `value` with the values of secret keys, and passwords inside of addresses, starred.
pub(crate) fn masked(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| {
                    let value = if is_secret(key) { Value::from(STARS) } else { masked(value) };
                    (key.clone(), value)
                })
                .collect(),
        ),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::String(text) => Value::from(masked_address(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "pwd", "accesskey", "secret", "secretkey", "token"]
        .iter()
        .any(|end| key.ends_with(end))
}

/// Returns an address with the values of its secret parameters, and a password before `@`, starred.
pub(crate) fn masked_address(text: &str) -> String {
    if !text.trim_start().starts_with("jdbc:") {
        return text.to_owned();
    }
    let (address, query) = text.split_once('?').unwrap_or((text, ""));
    let mut out = masked_user(address);
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((key, _)) if is_secret(key) => {
                out.push_str(key);
                out.push('=');
                out.push_str(STARS);
            }
            _ => out.push_str(pair),
        }
    }
    out
}

fn masked_user(address: &str) -> String {
    let Some((before, after)) = address.rsplit_once('@') else {
        return address.to_owned();
    };
    match before.rsplit_once("//") {
        Some((scheme, user)) => {
            let user = user.split_once(':').map_or(user, |(name, _)| name);
            format!("{scheme}//{user}:{STARS}@{after}")
        }
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secret_keys_are_starred_at_any_depth() {
        let value = json!({"a": [{"password": "x", "rootPassword": 5, "accessKey": "k", "name": "n"}]});
        assert_eq!(
            masked(&value),
            json!({"a": [{"password": STARS, "rootPassword": STARS, "accessKey": STARS, "name": "n"}]})
        );
    }

    #[test]
    fn passwords_in_addresses_are_starred() {
        assert_eq!(
            masked_address("jdbc:mysql://u:p@h:1/d?user=u&password=p&useSSL=false"),
            "jdbc:mysql://u:******@h:1/d?user=u&password=******&useSSL=false"
        );
        assert_eq!(masked_address("jdbc:sqlite:/a/b.db"), "jdbc:sqlite:/a/b.db");
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        assert!(!format!("{:?}", Secret::new("hunter2".into())).contains("hunter2"));
    }
}
