//! The command of a built-in kind: the executor's own binary with the sub-command `run-kind`.
//!
//! Owns the way of a connection from its name in a definition to its password in the memory behind a process's standard
//! input. Nothing of a [`Payload`] is written to a disk, and nothing of it stands in argv or the environment.

use std::{
    collections::BTreeMap, ffi::OsString, fs, io::Read as _, os::unix::fs::DirBuilderExt as _, path::Path,
};

use millrace_common::{connection::Connection, secret::Secret};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    launch::{ExitCodes, Launch, LaunchError, Site, Work},
    parameters,
    run::{EXIT_DONE, EXIT_SKIPPED, Payload, ResolvedConnection, engine_word},
};

/// The sub-command of the executor's binary that runs a built-in kind.
pub const SUBCOMMAND: &str = "run-kind";

/// Bytes of a password file; the longest password that MySQL, PostgreSQL and FTP servers take is far shorter.
const PASSWORD_BYTES_MAX: u64 = 4 << 10;

/// Returns the command that runs the built-in `kind` with the named connections.
///
/// # Errors
/// Where a connection is not configured, its password file cannot be read, or the state folder cannot be made.
pub(crate) fn launch(
    kind: &str,
    connections: &[&str],
    work: &Work<'_>,
    site: &Site,
    settings: Value,
) -> Result<Launch, LaunchError> {
    let connections = resolve_all(connections, site)?;
    let secrets = secrets(&connections);
    let state_dir = site.state_dir.join(kind);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&state_dir).map_err(LaunchError::Prepare)?;
    let payload = Payload {
        kind: kind.to_owned(),
        with: work.with.clone(),
        connections,
        work_dir: work.work_dir.clone(),
        state_dir,
        settings,
    };
    Ok(Launch {
        argv: vec![site.program.clone().into_os_string(), OsString::from(SUBCOMMAND)],
        stdin: serde_json::to_vec(&payload).map_err(|error| LaunchError::Prepare(error.into()))?,
        exit: ExitCodes { success: vec![EXIT_DONE], skip: vec![EXIT_SKIPPED] },
        secrets,
        ..Launch::default()
    })
}

/// Reads typed parameters of `kind`; a misfit names its path.
///
/// # Errors
/// Where `with` does not have the shape of `T`.
pub(crate) fn parameters<T: DeserializeOwned>(kind: &str, with: &Value) -> Result<T, LaunchError> {
    parameters::read(with).map_err(|misread| LaunchError::misfit(kind, misread.path, misread.problem))
}

fn resolve_all(names: &[&str], site: &Site) -> Result<BTreeMap<String, ResolvedConnection>, LaunchError> {
    names.iter().map(|name| Ok(((*name).to_owned(), resolve(name, site)?))).collect()
}

fn resolve(name: &str, site: &Site) -> Result<ResolvedConnection, LaunchError> {
    let found = site.connections.get(name).ok_or_else(|| LaunchError::UnknownConnection(name.to_owned()))?;
    let password =
        password(found).map_err(|source| LaunchError::Password { name: name.to_owned(), source })?;
    Ok(ResolvedConnection {
        engine: engine_word(found.engine).to_owned(),
        host: found.host.clone(),
        port: found.port,
        user: found.user.clone(),
        password,
        database: found.database.clone(),
        path: found.path.clone(),
    })
}

fn password(connection: &Connection) -> std::io::Result<Secret> {
    match (&connection.password, &connection.password_file) {
        (Some(password), _) => Ok(password.clone()),
        (None, Some(file)) => read_password(file),
        (None, None) => Ok(Secret::default()),
    }
}

/// Reads a password file. The line end that editors and `echo` leave behind is not part of the password.
fn read_password(file: &Path) -> std::io::Result<Secret> {
    let mut text = String::new();
    fs::File::open(file)?.take(PASSWORD_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > PASSWORD_BYTES_MAX {
        let problem = format!("it is longer than {PASSWORD_BYTES_MAX} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, problem));
    }
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn secrets(connections: &BTreeMap<String, ResolvedConnection>) -> Vec<Secret> {
    let passwords = connections.values().map(|connection| &connection.password);
    passwords.filter(|password| !password.expose().is_empty()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use millrace_common::connection::Engine;
    use serde_json::json;

    use super::*;

    fn site(root: &Path, connection: Connection) -> Site {
        Site {
            program: PathBuf::from("/opt/millrace-executor"),
            connections: Arc::new(BTreeMap::from([("mes".parse().expect("a name"), connection)])),
            state_dir: root.join("state"),
            ..Site::default()
        }
    }

    fn connection() -> Connection {
        Connection {
            engine: Engine::Mysql,
            host: "db".into(),
            port: Some(3306),
            user: "etl".into(),
            password: None,
            password_file: None,
            database: "mes".into(),
            path: None,
        }
    }

    fn work<'a>(root: &Path, with: &'a Value) -> Work<'a> {
        let attempt = "018f2f5e-0000-7000-8000-000000000000.0.1".parse().expect("an attempt id");
        Work { attempt, with, work_dir: root.join("work") }
    }

    #[test]
    fn a_password_travels_on_standard_input_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("password");
        fs::write(&file, "s3cret pass\r\n").expect("written");
        let with = json!({ "connection": "mes" });
        let site = site(folder.path(), Connection { password_file: Some(file), ..connection() });
        let launch = launch("backup", &["mes"], &work(folder.path(), &with), &site, json!({ "a": 1 }))
            .expect("a command");
        assert_eq!(launch.argv, ["/opt/millrace-executor", "run-kind"]);
        assert!(launch.env.is_empty());
        assert_eq!(launch.exit, ExitCodes { success: vec![0], skip: vec![99] });
        assert_eq!(launch.secrets.iter().map(Secret::expose).collect::<Vec<_>>(), ["s3cret pass"]);
        assert!(!format!("{launch:?}").contains("s3cret"));
        let payload: Payload = serde_json::from_slice(&launch.stdin).expect("a payload");
        assert_eq!(payload.connections["mes"].password.expose(), "s3cret pass");
        assert_eq!(
            (payload.kind.as_str(), payload.with, payload.settings),
            ("backup", with, json!({ "a": 1 }))
        );
        assert!(payload.state_dir.ends_with("state/backup") && payload.state_dir.is_dir());
    }

    #[test]
    fn what_the_configuration_lacks_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let with = Value::Null;
        let file = Some(folder.path().join("absent"));
        let site = site(folder.path(), Connection { password_file: file, ..connection() });
        let unknown =
            launch("backup", &["erp"], &work(folder.path(), &with), &site, Value::Null).expect_err("unknown");
        assert!(unknown.to_string().contains("add [connections.erp]"), "{unknown}");
        let unread =
            launch("backup", &["mes"], &work(folder.path(), &with), &site, Value::Null).expect_err("unread");
        assert!(matches!(unread, LaunchError::Password { ref name, .. } if name == "mes"), "{unread}");
    }

    #[test]
    fn an_endless_password_file_is_refused() {
        let site = site(
            Path::new("/nowhere"),
            Connection { password_file: Some("/dev/zero".into()), ..connection() },
        );
        let error = launch("x", &["mes"], &work(Path::new("/nowhere"), &Value::Null), &site, Value::Null)
            .expect_err("too long");
        assert!(matches!(error, LaunchError::Password { .. }), "{error}");
    }

    #[test]
    fn a_misfit_names_its_path() {
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[expect(dead_code, reason = "only its shape matters")]
            inner: BTreeMap<String, u8>,
        }
        let error = parameters::<Outer>("backup", &json!({ "inner": { "a": "x" } })).expect_err("a misfit");
        assert!(error.to_string().starts_with("`with.inner.a` is not what kind backup takes"), "{error}");
    }
}
