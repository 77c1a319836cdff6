//! Millrace under test: whole programs as a person starts them, on free ports and in temporary folders.
//!
//! Nothing here waits for a fixed time: it waits for something to become true, with a bound and a message.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

/// How long anything may take before a test gives up on it; generous, since machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Returns the path of a program that was built with this test.
///
/// # Errors
/// Where it was not built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.ancestors().nth(2).context("a test stands in target/<profile>/deps")?;
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is not built; `cargo build --workspace` does", path.display());
    Ok(path)
}

/// Returns a port that was free a moment ago.
///
/// # Errors
/// Where the machine has none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until `check` gives something.
///
/// # Errors
/// After [`PATIENCE`], with what was waited for; at once where `check` fails.
#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
pub fn wait_for<T>(what: &str, mut check: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(found) = check()? {
            return Ok(found);
        }
        std::thread::sleep(LOOK);
    }
    bail!("waited {PATIENCE:?} for {what}")
}

/// A standalone Millrace: its folder, and its process while it runs.
#[derive(Debug)]
pub struct Standalone {
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Standalone {
    /// Prepares one in `folder`; `executor` are further lines of its table `executor`.
    ///
    /// # Errors
    /// Where its settings cannot be written.
    pub fn prepare(folder: &Path, master: &str, executor: &str) -> anyhow::Result<Self> {
        let port = free_port()?;
        fs::create_dir_all(folder)?;
        let config = format!("[master]\nlisten = \"127.0.0.1:{port}\"\n{master}\n[executor]\n{executor}\n");
        fs::write(folder.join("millrace.toml"), config)?;
        Ok(Self { folder: folder.to_owned(), port, child: None })
    }

    /// Starts the process and waits until it leads.
    ///
    /// # Errors
    /// Where it ends or does not answer in time; says what it wrote.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        wait_for("the master to lead", || {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("it ended with {status}: {}", self.log());
            }
            let answer = self.masterctl(&["cluster", "status", "-o", "json"])?;
            let status: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
            // It answers before it leads, too.
            Ok((status["is_from_leader"] == true).then_some(()))
        })
    }

    /// Starts the process and does not wait.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("millrace.log"))?;
        let child = Command::new(program("millrace")?)
            .arg("run")
            .arg("--data")
            .arg(&self.folder)
            .arg("--config")
            .arg(self.folder.join("millrace.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Returns the id of the process.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.child.as_ref().context("it does not run")?.id())
    }

    /// Ends the process without a chance to do anything about it.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks the process to stop, as a service manager does, and waits for it.
    ///
    /// # Errors
    /// Where it does not end, or not with success.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        ensure!(status.success(), "cannot signal it");
        let ended = wait_for("the program to stop", || Ok(child.try_wait()?))?;
        ensure!(ended.success(), "it ended with {ended}: {}", self.log());
        Ok(())
    }

    /// Returns what the process wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("millrace.log")).unwrap_or_default()
    }

    /// Returns its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Prepares a program, such as `masterctl` or a shell that calls it, to talk to this one.
    #[must_use]
    pub fn caller(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("MILLRACE_MASTER", format!("http://127.0.0.1:{}", self.port))
            .env("MILLRACE_TOKEN_FILE", self.folder.join("token"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs `masterctl` against it.
    ///
    /// # Errors
    /// Where the program cannot be started; what it says is in the output.
    pub fn masterctl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self.caller(&program("masterctl")?).args(arguments).output()?)
    }

    /// Runs `masterctl`, which must succeed, and returns its output.
    ///
    /// # Errors
    /// Where it fails; says how.
    pub fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.masterctl(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let problem = String::from_utf8_lossy(&output.stderr);
            bail!("masterctl {arguments:?} ended with {}: {problem}{text}", output.status);
        }
        Ok(text)
    }

    /// Runs `masterctl -o json`, which must succeed, and returns its output.
    ///
    /// # Errors
    /// Where it fails or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let text = self.ctl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("masterctl {arguments:?} printed no JSON: {text}"))
    }

    /// Writes a definition and puts it in force.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn apply(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let file = self.folder.join(format!("{name}.yaml"));
        fs::write(&file, text)?;
        self.ctl(&["apply", &file.display().to_string()])
    }

    /// Starts a run and returns its id.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(self.ctl(&[&["run"], arguments].concat())?.trim().to_owned())
    }

    /// Returns the state of a run.
    ///
    /// # Errors
    /// Where the master does not know it.
    pub fn state(&self, run: &str) -> anyhow::Result<String> {
        let shown = self.json(&["show", run])?;
        Ok(shown["run"]["state"].as_str().context("a run has a state")?.to_owned())
    }

    /// Waits until a run has ended and returns it as `masterctl show` does.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub fn ended(&self, run: &str) -> anyhow::Result<serde_json::Value> {
        wait_for(&format!("run {run} to end"), || {
            let shown = self.json(&["show", run])?;
            Ok((!shown["run"]["ended_at"].is_null()).then_some(shown))
        })
    }

    /// Waits until a task of a run is in a state.
    ///
    /// # Errors
    /// Where it does not come to that in time.
    pub fn task_reaches(&self, run: &str, task: &str, state: &str) -> anyhow::Result<()> {
        wait_for(&format!("task {task} to become {state}"), || {
            let shown = self.json(&["show", run])?;
            Ok((find_task(&shown, task)?["state"] == state).then_some(()))
        })
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already; either way nothing of it stays.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Finds a task in what `masterctl show -o json` printed.
///
/// # Errors
/// Where there is none of that name.
pub fn find_task<'a>(shown: &'a serde_json::Value, name: &str) -> anyhow::Result<&'a serde_json::Value> {
    let tasks = shown["tasks"].as_array().context("a run has tasks")?;
    tasks.iter().find(|task| task["task"] == name).with_context(|| format!("there is no task {name}"))
}

/// Counts a test as skipped, with its reason, instead of letting it pass unseen.
#[expect(clippy::disallowed_methods, reason = "the test command names the file by an environment variable")]
pub fn skip(name: &str, reason: &str) {
    use std::io::Write as _;
    if let Some(file) = std::env::var_os("MILLRACE_SKIP_FILE")
        && let Ok(mut file) = fs::OpenOptions::new().create(true).append(true).open(file)
    {
        let _ = writeln!(file, "SKIPPED: {name}: {reason}");
    }
}
