//! A standalone Millrace under measurement: its process, and a client to it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use millrace_proto::v1;
use millrace_servers::client::{self, Control};

/// How long a start may take before it counts as failed.
const START_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks whether it answers; part of the error of a start's measurement.
const LOOK: Duration = Duration::from_millis(1);

/// A running standalone program; ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) client: Control,
    /// From the start of the process to the first answer.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts on a folder and waits until it answers.
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    pub(crate) async fn start(program: &Path, data: &Path, slots: u32) -> anyhow::Result<Self> {
        let port = free_port()?;
        let config = data.join("millrace.toml");
        std::fs::write(
            &config,
            format!("[master]\nlisten = \"127.0.0.1:{port}\"\n\n[executor]\nslots = {slots}\n"),
        )?;
        let log = std::fs::File::create(data.join("millrace.log"))?;
        let start = Instant::now();
        let child = Command::new(program)
            .args(["run", "--data"])
            .arg(data)
            .arg("--config")
            .arg(&config)
            .env("MILLRACE_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the standalone program")?;
        let mut starting = Starting { child: Some(child), data: data.to_owned() };
        let client = loop {
            if let Some(client) = starting.look(port).await {
                break client;
            }
            if start.elapsed() > START_MAX || starting.has_ended()? {
                bail!("it did not start: {}", std::fs::read_to_string(data.join("millrace.log"))?);
            }
            tokio::time::sleep(LOOK).await;
        };
        let ready_after = start.elapsed();
        let child = starting.child.take().context("it is running")?;
        Ok(Self { child, client, ready_after })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until an executor is connected.
    pub(crate) async fn wait_for_executor(&mut self) -> anyhow::Result<()> {
        for _ in 0..5_000 {
            let listed = self.client.list_executors(v1::ListExecutorsRequest {}).await?.into_inner();
            if listed.executors.iter().any(|executor| executor.state == "connected") {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("no executor connected")
    }

    /// Ends it without a chance to say goodbye.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; either way nothing of it stays.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Starting {
    child: Option<Child>,
    data: PathBuf,
}

impl Starting {
    async fn look(&self, port: u16) -> Option<Control> {
        let token = std::fs::read_to_string(self.data.join("token")).ok()?;
        let channel = client::connect(&format!("http://127.0.0.1:{port}")).await.ok()?;
        let mut client = client::control_over(channel, &token);
        let cluster = client.get_cluster(v1::GetClusterRequest {}).await.ok()?.into_inner();
        cluster.is_from_leader.then_some(())?;
        Some(client)
    }

    fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.as_mut().map(Child::try_wait).transpose()?.flatten().is_some())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already; either way nothing of it stays.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
