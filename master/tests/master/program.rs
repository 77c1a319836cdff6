//! The program: its exit codes.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Output, Stdio},
};

use millrace_proto::v1;
use millrace_store::{Store, StoreConfig};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use crate::support::{ONE, control, refused, token_of, within};

fn program(folder: &Path, settings: &str) -> Command {
    let file = folder.join("master.toml");
    let data = folder.join("data");
    std::fs::write(&file, format!("data_dir = {data:?}\nlisten = \"127.0.0.1:0\"\n{settings}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace-master"));
    command
        .arg("--config")
        .arg(file)
        .env_clear()
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn output_of(command: &mut Command) -> Output {
    within("the program to end", command.output()).await.unwrap()
}

/// Starts the program and waits until it leads; returns where it listens.
async fn leading(folder: &Path) -> (Child, SocketAddr) {
    let mut child = program(folder, "").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = within("the program to lead", async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, address)) = line.split_once("address=") {
                return address.trim().parse().unwrap();
            }
        }
        panic!("it ended");
    })
    .await;
    // Whatever it writes from here on must have somewhere to go.
    child.stderr = Some(lines.into_inner().into_inner());
    (child, address)
}

#[tokio::test]
async fn a_signal_ends_the_program_with_success() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _) = leading(folder.path()).await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let status = within("the program to end", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn wrong_settings_are_said_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    for (settings, text) in [
        ("retenton = \"3d\"\n", "retenton"),
        ("retention = \"1s\"\nname = \"\"\n", "`retention` is 1s; it must be at least 1h"),
    ] {
        let output = output_of(&mut program(folder.path(), settings)).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(text), "{said}");
    }
    assert!(!folder.path().join("data").exists(), "nothing was touched");
}

#[tokio::test]
async fn a_taken_port_is_said_with_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut command = program(folder.path(), "");
    let output = output_of(command.env("MILLRACE_MASTER_LISTEN", address.to_string())).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {address}: set `listen` to a free address")), "{said}");
}

#[tokio::test]
async fn a_lost_term_ends_the_program_with_exit_code_75() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = leading(folder.path()).await;
    let mut other = StoreConfig::sqlite(&folder.path().join("data/millrace.db"));
    other.is_unlocked = true;
    let other = Store::open(&other).await.unwrap();
    let _writer = other.claim(other.stored_term().await.unwrap().next(), "another master").await.unwrap();
    let mut control = control(address, &token_of(&folder.path().join("data/token"))).await;
    let request = v1::ApplyWorkflowRequest { source: ONE.to_owned(), dry_run: false };
    refused(control.apply_workflow(request).await);
    let status = within("the program to end", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(75));
}
