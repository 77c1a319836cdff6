//! JDBC addresses: which server or file, and which of the options matter here.
//!
//! An address comes from a definition, so options that let a server read files or run code in the
//! client are refused, even though this client has no such feature: the same definition may run in
//! an external `DataX` on another executor. Everything else that is not understood is noted.

use crate::secret::Secret;

/// A parsed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Mysql(MysqlAddress),
    Sqlite(SqliteAddress),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MysqlAddress {
    /// In the order in which they are tried.
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) database: Option<String>,
    pub(crate) tls: Tls,
    /// From the address; the definition's `username` and `password` come first.
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    /// `sessionVariables`, as the text after `SET`.
    pub(crate) variables: Option<String>,
    /// `jdbcCompliantTruncation`: values that do not fit are errors, not warnings.
    pub(crate) strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Off,
    /// If the server has it; the driver's default.
    Preferred,
    Required,
    VerifyCa,
    VerifyHost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqliteAddress {
    pub(crate) path: String,
    pub(crate) foreign_keys: bool,
}

/// An address that is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("must start with {expected}")]
    Scheme { expected: &'static str },
    #[error("names no host")]
    NoHost,
    #[error("has {host:?}, which is no host with an optional port")]
    Host { host: String },
    #[error("names no file of its own; an in-memory database has nothing to transfer")]
    NoFile,
    #[error("sets {option}, which is dangerous; remove it")]
    Dangerous { option: String },
    #[error("sets {option} to {value:?}, which is not understood")]
    Value { option: &'static str, value: String },
    #[error("lists hosts as {form}, which is not supported; write host1:port,host2:port")]
    HostForm { form: &'static str },
}

const MYSQL_PORT: u16 = 3306;

/// Options that load code or files into the client wherever they are set at all.
const DANGEROUS: [&str; 11] = [
    "queryinterceptors",
    "statementinterceptors",
    "exceptioninterceptors",
    "connectionlifecycleinterceptors",
    "detectcustomcollations",
    "propertiestransform",
    "socketfactory",
    "clientinfoprovider",
    "authenticationplugins",
    "enable_load_extension",
    "loadbalanceexceptionchecker",
];

/// Options that are dangerous unless they are off.
const DANGEROUS_UNLESS_OFF: [&str; 4] =
    ["allowloadlocalinfile", "allowlocalinfile", "allowurlinlocalinfile", "autodeserialize"];

/// Options whose meaning is how this client works anyway, or that cannot change what is transferred.
const SETTLED: [&str; 21] = [
    "yearisdatetype",
    "zerodatetimebehavior",
    "tinyint1isbit",
    "rewritebatchedstatements",
    "useunicode",
    "characterencoding",
    "allowmultiqueries",
    "autoreconnect",
    "failoverreadonly",
    "maxreconnects",
    "usecursorfetch",
    "defaultfetchsize",
    "useserverprepstmts",
    "cacheprepstmts",
    "prepstmtcachesize",
    "prepstmtcachesqllimit",
    "allowpublickeyretrieval",
    "connecttimeout",
    "usecompression",
    "usestreamlengthsinprepstmts",
    "nullcatalogmeanscurrent",
];

/// An address with the options that were left aside.
type Parsed = Result<(Address, Vec<String>), AddressError>;

/// Parses `jdbc:mysql://…` or `jdbc:mariadb://…`; the second part of the result are ignored options.
pub(crate) fn parse_mysql(text: &str) -> Parsed {
    let text = text.trim();
    let rest = text.strip_prefix("jdbc:mysql:").or_else(|| text.strip_prefix("jdbc:mariadb:"));
    let rest = rest.ok_or(AddressError::Scheme { expected: "jdbc:mysql:// or jdbc:mariadb://" })?;
    // MariaDB's words for "try them in this order".
    let rest = ["sequential:", "failover:"].iter().find_map(|word| rest.strip_prefix(word)).unwrap_or(rest);
    let rest = rest.strip_prefix("//").ok_or_else(|| match rest.split_once(':') {
        Some(("loadbalance", _)) => AddressError::HostForm { form: "loadbalance" },
        Some(("replication", _)) => AddressError::HostForm { form: "replication" },
        _ => AddressError::Scheme { expected: "jdbc:mysql:// or jdbc:mariadb://" },
    })?;
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, database) = location.split_once('/').unwrap_or((location, ""));
    let mut address = MysqlAddress {
        hosts: hosts_of(hosts)?,
        database: Some(decoded(database)).filter(|name| !name.is_empty()),
        tls: Tls::Preferred,
        user: None,
        password: None,
        variables: None,
        strict: true,
    };
    let mut ignored = Vec::new();
    for (key, value) in options(query) {
        refuse_dangerous(&key, &value)?;
        if !mysql_option(&mut address, &key, value)? && !is_settled(&key) {
            ignored.push(key);
        }
    }
    Ok((Address::Mysql(address), ignored))
}

/// Parses `jdbc:sqlite:/path/of/file.db`.
pub(crate) fn parse_sqlite(text: &str) -> Parsed {
    let rest = text.trim().strip_prefix("jdbc:sqlite:");
    let rest = rest.ok_or(AddressError::Scheme { expected: "jdbc:sqlite:" })?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.strip_prefix("file:").unwrap_or(path);
    if path.is_empty() || path.starts_with(':') {
        return Err(AddressError::NoFile);
    }
    let mut address = SqliteAddress { path: path.to_owned(), foreign_keys: false };
    let mut ignored = Vec::new();
    for (key, value) in options(query) {
        refuse_dangerous(&key, &value)?;
        if key.eq_ignore_ascii_case("foreign_keys") {
            address.foreign_keys = matches!(value.to_ascii_lowercase().as_str(), "true" | "on" | "1");
        } else {
            ignored.push(key);
        }
    }
    Ok((Address::Sqlite(address), ignored))
}

fn hosts_of(list: &str) -> Result<Vec<(String, u16)>, AddressError> {
    if list.contains('(') {
        return Err(AddressError::HostForm { form: "address=(host=…)" });
    }
    if list.contains('@') {
        return Err(AddressError::HostForm { form: "user:password@host" });
    }
    if list.trim().is_empty() {
        return Err(AddressError::NoHost);
    }
    list.split(',').map(str::trim).map(host_of).collect()
}

fn host_of(text: &str) -> Result<(String, u16), AddressError> {
    let wrong = || AddressError::Host { host: text.to_owned() };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(wrong)?;
            (host, after.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Some(MYSQL_PORT), |port| port.parse().ok()).ok_or_else(wrong)?;
    if host.is_empty() || port == 0 { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

fn options(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    })
}

fn refuse_dangerous(key: &str, value: &str) -> Result<(), AddressError> {
    let name = key.to_ascii_lowercase();
    let off = value.eq_ignore_ascii_case("false");
    let path_of_infile = name == "allowloadlocalinfileinpath" && !value.is_empty();
    let switched_on = DANGEROUS_UNLESS_OFF.contains(&name.as_str());
    if !off && (DANGEROUS.contains(&name.as_str()) || switched_on || path_of_infile) {
        return Err(AddressError::Dangerous { option: key.to_owned() });
    }
    Ok(())
}

/// Applies an option; says whether it is one that is understood.
fn mysql_option(address: &mut MysqlAddress, key: &str, value: String) -> Result<bool, AddressError> {
    let on = value.eq_ignore_ascii_case("true");
    match key.to_ascii_lowercase().as_str() {
        "user" => address.user = Some(value),
        "password" => address.password = Some(Secret::new(value)),
        "sessionvariables" => address.variables = Some(value.replace(';', ",")),
        "jdbccomplianttruncation" => address.strict = on,
        "sslmode" => address.tls = ssl_mode(&value)?,
        "usessl" if !on => address.tls = Tls::Off,
        "usessl" => address.tls = address.tls.at_least(Tls::Preferred),
        "requiressl" if on => address.tls = address.tls.at_least(Tls::Required),
        "verifyservercertificate" if on => address.tls = address.tls.at_least(Tls::VerifyCa),
        "requiressl" | "verifyservercertificate" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

fn ssl_mode(value: &str) -> Result<Tls, AddressError> {
    Ok(match value.to_ascii_lowercase().replace('_', "-").as_str() {
        "disabled" | "disable" => Tls::Off,
        "preferred" => Tls::Preferred,
        "required" | "trust" => Tls::Required,
        "verify-ca" => Tls::VerifyCa,
        "verify-identity" | "verify-full" => Tls::VerifyHost,
        _ => return Err(AddressError::Value { option: "sslMode", value: value.to_owned() }),
    })
}

impl Address {
    /// The address for notes and errors: without options and secrets.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Mysql(address) => {
                let hosts: Vec<_> =
                    address.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
                format!(
                    "jdbc:mysql://{}/{}",
                    hosts.join(","),
                    address.database.as_deref().unwrap_or_default()
                )
            }
            Self::Sqlite(address) => format!("jdbc:sqlite:{}", address.path),
        }
    }
}

impl Tls {
    fn at_least(self, other: Self) -> Self {
        let rank = |tls: Self| match tls {
            Self::Off => 0,
            Self::Preferred => 1,
            Self::Required => 2,
            Self::VerifyCa => 3,
            Self::VerifyHost => 4,
        };
        if rank(self) >= rank(other) { self } else { other }
    }
}

fn is_settled(key: &str) -> bool {
    SETTLED.contains(&key.to_ascii_lowercase().as_str())
}

/// Undoes percent encoding; what is no encoding stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%'
            && let Some(code) = bytes.get(at + 1..at + 3).and_then(hex_pair)
        {
            out.push(code);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
    use super::*;

    fn mysql(text: &str) -> (MysqlAddress, Vec<String>) {
        match parse_mysql(text).unwrap() {
            (Address::Mysql(address), ignored) => (address, ignored),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hosts_ports_and_database_are_read() {
        let hosts = |text: &str| mysql(text).0.hosts;
        assert_eq!(hosts("jdbc:mysql://db/a"), [("db".into(), 3306)]);
        assert_eq!(hosts("jdbc:mariadb://a:1,b,[::1]:3/x").len(), 3);
        assert_eq!(hosts("jdbc:mysql://[fe80::1]:7/x"), [("fe80::1".into(), 7)]);
        assert_eq!(mysql("jdbc:mysql://db:1/a%20b").0.database.as_deref(), Some("a b"));
        assert_eq!(mysql("jdbc:mysql://db").0.database, None);
        assert_eq!(hosts("jdbc:mariadb:sequential://a,b/x").len(), 2);
    }

    #[test]
    fn options_that_matter_are_applied_and_others_told() {
        let (address, ignored) = mysql(
            "jdbc:mysql://h/d?useSSL=false&characterEncoding=utf8&serverTimezone=Asia%2FShanghai&sessionVariables=sql_mode=''&jdbcCompliantTruncation=false",
        );
        assert_eq!((address.tls, address.strict), (Tls::Off, false));
        assert_eq!(address.variables.as_deref(), Some("sql_mode=''"));
        assert_eq!(ignored, ["serverTimezone"]);
        assert_eq!(mysql("jdbc:mysql://h/d?useSSL=true&verifyServerCertificate=true").0.tls, Tls::VerifyCa);
        assert_eq!(mysql("jdbc:mysql://h/d?sslMode=VERIFY_IDENTITY").0.tls, Tls::VerifyHost);
    }

    #[test]
    fn dangerous_options_are_refused() {
        for option in [
            "allowLoadLocalInfile=true",
            "allowLoadLocalInfile=yes",
            "ALLOWLOADLOCALINFILE=TRUE",
            "autoDeserialize=true",
            "queryInterceptors=com.x.Y",
            "allowUrlInLocalInfile=true",
            "allowLoadLocalInfileInPath=/",
            "%61utoDeserialize=true",
        ] {
            let error = parse_mysql(&format!("jdbc:mysql://h/d?useSSL=false&{option}")).unwrap_err();
            assert!(matches!(error, AddressError::Dangerous { .. }), "{option}: {error:?}");
        }
        assert!(parse_mysql("jdbc:mysql://h/d?allowLoadLocalInfile=false").is_ok());
        assert!(parse_sqlite("jdbc:sqlite:/a.db?enable_load_extension=true").is_err());
    }

    #[test]
    fn addresses_of_other_shapes_are_refused() {
        for text in [
            "mysql://h/d",
            "jdbc:postgresql://h/d",
            "jdbc:mysql:///d",
            "jdbc:mysql://h:0/d",
            "jdbc:mysql://h:x/d",
            "jdbc:mysql:loadbalance://a,b/d",
            "jdbc:mysql://u:p@h/d",
            "jdbc:mysql://address=(host=h)/d",
        ] {
            assert!(parse_mysql(text).is_err(), "{text}");
        }
        for text in ["jdbc:sqlite:", "jdbc:sqlite::memory:", "jdbc:sqlite::resource:x.db", "/a.db"] {
            assert!(parse_sqlite(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sqlite_paths_are_read() {
        let (address, ignored) =
            parse_sqlite("jdbc:sqlite:/data/a b.db?foreign_keys=on&cache=shared").unwrap();
        let expected = SqliteAddress { path: "/data/a b.db".into(), foreign_keys: true };
        assert_eq!((address, ignored), (Address::Sqlite(expected), vec!["cache".to_owned()]));
    }
}
