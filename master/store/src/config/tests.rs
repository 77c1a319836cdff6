use super::*;

fn server(text: &str) -> Result<ServerConfig, AddressError> {
    match text.parse::<StoreConfig>()?.address {
        Address::Postgres(server) | Address::MySql(server) => Ok(server),
        Address::Sqlite(file) => panic!("{}", file.display()),
    }
}

#[test]
fn addresses_of_files_name_a_file() {
    let config: StoreConfig = "sqlite:///var/lib/millrace/state.db".parse().unwrap();
    assert!(
        matches!(&config.address, Address::Sqlite(file) if file == Path::new("/var/lib/millrace/state.db")),
        "{config:?}"
    );
    let refusal = |text: &str| text.parse::<StoreConfig>().unwrap_err();
    assert_eq!(refusal("/var/lib/state.db"), AddressError::NoScheme);
    assert_eq!(refusal("sqlite:state.db"), AddressError::NoScheme);
    assert_eq!(refusal("sqlite://"), AddressError::NoFile);
    assert_eq!(refusal("sqlite:///state.db?mode=ro"), AddressError::NoFile);
    assert_eq!(refusal("oracle://db"), AddressError::UnknownScheme("oracle".to_owned()));
}

#[test]
fn addresses_of_servers_have_all_their_parts() {
    let found = server("postgres://etl:p%40ss%25@db.plant:6432/millrace?tls=verify&ca=/etc/ca.pem").unwrap();
    assert_eq!((found.host.as_str(), found.port, found.database.as_str()), ("db.plant", 6_432, "millrace"));
    assert_eq!((found.user.as_str(), found.password.expose()), ("etl", "p@ss%"));
    assert_eq!(found.tls, Tls::Verify { ca_file: Some("/etc/ca.pem".into()) });

    let found = server("mysql://etl@[::1]/millrace").unwrap();
    assert_eq!((found.host.as_str(), found.port, found.tls), ("::1", 3_306, Tls::Off));
    let found = server("postgresql://etl@/millrace?socket=/run/postgresql").unwrap();
    assert_eq!((found.socket.as_deref(), found.port), (Some(Path::new("/run/postgresql")), 5_432));
    assert_eq!(found.to_string(), "database millrace at /run/postgresql");
}

#[test]
fn the_way_to_another_machine_is_protected_unless_it_is_said_not_to_be() {
    assert_eq!(server("mariadb://etl:x@db/millrace").unwrap().tls, Tls::Verify { ca_file: None });
    assert_eq!(server("mariadb://etl:x@db/millrace?tls=off").unwrap().tls, Tls::Off);
    assert_eq!(server("mariadb://etl:x@db/millrace?tls=encrypt").unwrap().tls, Tls::Encrypt);
    let ca_file = Some("/ca.pem".into());
    assert_eq!(server("mariadb://etl:x@localhost/m?ca=/ca.pem").unwrap().tls, Tls::Verify { ca_file });
}

#[test]
fn addresses_that_say_too_little_are_refused_with_what_is_missing() {
    let refusal = |text: &str| server(text).unwrap_err();
    assert_eq!(refusal("postgres://db/millrace"), AddressError::Missing("user"));
    assert_eq!(refusal("postgres://etl@db"), AddressError::Missing("database"));
    assert_eq!(refusal("postgres://etl@/millrace"), AddressError::Missing("host"));
    assert_eq!(refusal("postgres://etl@db:0/millrace"), AddressError::Port("0".to_owned()));
    assert_eq!(refusal("postgres://etl:1%@db/millrace"), AddressError::Encoding("password"));
    assert_eq!(refusal("postgres://etl:%zz@db/millrace"), AddressError::Encoding("password"));
    let unknown = refusal("postgres://etl@db/millrace?sslmode=require");
    assert_eq!(unknown, AddressError::Parameter("sslmode=require".to_owned()));
    assert!(unknown.to_string().contains("tls=encrypt"), "{unknown}");
}

#[test]
fn the_password_of_an_address_is_not_shown() {
    let config: StoreConfig = "mysql://user:hunter2@db/millrace".parse().unwrap();
    let Address::MySql(server) = &config.address else { panic!("{config:?}") };
    for shown in [format!("{config:?}"), format!("{config:#?}"), server.to_string()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let refusal = "mysql://user:hunter2@/millrace".parse::<StoreConfig>().unwrap_err();
    assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
}
