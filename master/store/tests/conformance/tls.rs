//! The way to a server that takes nothing in clear text.

use std::{fs, net::Ipv4Addr, os::unix::fs::MetadataExt as _, path::Path};

use millrace_common::secret::Secret;
use millrace_servers::{Certificates, MariaDb, Place, Port, Postgres, mariadb, postgres};
use millrace_store::{OpenError, ServerConfig, Store, StoreConfig, Tls};

use crate::sample::ready;

/// Where the servers find their certificate, seen from their data.
const CERTIFICATE: &str = "../own.pem";
const KEY: &str = "../own.key";

#[tokio::test]
async fn postgres_is_reached_over_tls_and_known_by_its_certificate() {
    let Some(certificates) = certificates(postgres::missing()) else { return };
    let port = Port::take();
    let number = port.number();
    let (certificate, key) = (format!("ssl_cert_file={CERTIFICATE}"), format!("ssl_key_file={KEY}"));
    let settings = ["-c", "ssl=on", "-c", &certificate, "-c", &key];
    let mut server = Postgres::prepare(&Place::here(), Some(port), &settings);
    install(&certificates, server.folder());
    let access = "local all all trust\nhostssl all all 0.0.0.0/0 trust\n";
    fs::write(server.folder().join("data/pg_hba.conf"), access).unwrap();
    server.resume();
    let config = |tls| {
        StoreConfig::postgres(ServerConfig {
            host: "127.0.0.1".to_owned(),
            port: number,
            socket: None,
            database: "postgres".to_owned(),
            user: postgres::USER.to_owned(),
            password: Secret::new(String::new()),
            tls,
        })
    };
    let store = open_as_it_should_be(&certificates, config).await;
    let writer = ready(&store).await;
    let ways = server.sql(
        "select distinct ssl from pg_stat_ssl join pg_stat_activity using (pid) \
         where application_name like 'millrace%'",
    );
    assert_eq!(ways, "t");
    drop(writer);
}

#[tokio::test]
async fn mariadb_is_reached_over_tls_and_known_by_its_certificate() {
    const PASSWORD: &str = "hunter2";
    let Some(certificates) = certificates(mariadb::missing()) else { return };
    let port = Port::take();
    let number = port.number();
    let (certificate, key) = (format!("--ssl-cert={CERTIFICATE}"), format!("--ssl-key={KEY}"));
    let settings = ["--require-secure-transport=ON", &certificate, &key];
    let mut server = MariaDb::prepare(&Place::here(), Some(port), PASSWORD, &settings);
    install(&certificates, server.folder());
    server.resume();
    let config = |tls| {
        StoreConfig::mysql(ServerConfig {
            host: "127.0.0.1".to_owned(),
            port: number,
            socket: None,
            database: "millrace".to_owned(),
            user: mariadb::USER.to_owned(),
            password: Secret::new(PASSWORD.to_owned()),
            tls,
        })
    };
    let store = open_as_it_should_be(&certificates, config).await;
    drop(ready(&store).await);
}

/// Opens the store in each way that must work, and is refused in each that must not.
async fn open_as_it_should_be(certificates: &Certificates, config: impl Fn(Tls) -> StoreConfig) -> Store {
    let ca_file = |path: String| Tls::Verify { ca_file: Some(path.into()) };
    let other = Certificates::make(Ipv4Addr::LOCALHOST.into()).unwrap();
    for (tls, what) in [
        (Tls::Off, "in clear text"),
        (Tls::Verify { ca_file: None }, "an authority that browsers do not know"),
        (ca_file(other.path("ca.pem")), "another authority"),
    ] {
        let refusal = Store::open(&config(tls)).await.expect_err(what);
        assert!(matches!(refusal, OpenError::Server { .. }), "{what}: {refusal:?}");
    }
    Store::open(&config(Tls::Encrypt)).await.expect("encrypted, to whoever answers");
    let store = Store::open(&config(ca_file(certificates.path("ca.pem")))).await;
    store.expect("a server whose certificate is signed by the authority that is named")
}

fn certificates(missing: Option<String>) -> Option<Certificates> {
    if let Some(reason) = missing {
        millrace_servers::skipped(&reason);
        return None;
    }
    let made = Certificates::make(Ipv4Addr::LOCALHOST.into());
    if made.is_none() {
        millrace_servers::skipped("openssl cannot make certificates here");
    }
    made
}

/// Puts the server's certificate where the server may read it, and nobody else its key.
fn install(certificates: &Certificates, folder: &Path) {
    let owner = fs::metadata(folder).unwrap();
    for name in ["own.pem", "own.key"] {
        let file = folder.join(name);
        fs::copy(certificates.path(name), &file).unwrap();
        std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}
