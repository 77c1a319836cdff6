//! One run of an external DataX: its output copied to the attempt's log and read on the way, its process ended in any case.
//!
//! The runner ends the whole group of an attempt that is cancelled. What is cared for here is the other direction: this
//! process fails, and the DataX below it must not go on writing into a database.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use millrace_transfer::log::{Failure, Scan, Summary};
use nix::{sys::signal, unistd::Pid};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::timeout,
};

use super::DataxError;

/// Bytes read from a pipe at a time; the size of a pipe.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of a line that are read for their meaning; a printed record may be longer and means nothing.
const LINE_BYTES_MAX: usize = 16 << 10;
/// How long DataX may take to end after SIGTERM; its own starter needs one second.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// How long the pipes may stay open after DataX has ended: somebody below it may have inherited them.
const PIPE_GRACE: Duration = Duration::from_secs(2);

/// Exit code of DataX after SIGTERM, and of its starter.
const EXIT_KILLED: i32 = 143;

/// How an external DataX ended.
#[derive(Debug)]
pub(super) struct Ended {
    status: ExitStatus,
    /// What its output said.
    pub(super) summary: Summary,
    last_error_line: String,
}

/// What is started.
#[derive(Debug)]
pub(super) struct Start<'a> {
    /// Program and arguments.
    pub(super) argv: &'a [OsString],
    /// Environment beside that of this process.
    pub(super) env: &'a BTreeMap<String, String>,
    /// Folder to run in.
    pub(super) cwd: &'a Path,
}

/// Where the output is copied to.
pub(super) struct Logs<'a> {
    /// Standard output.
    pub(super) out: &'a mut dyn Write,
    /// Standard error.
    pub(super) err: &'a mut dyn Write,
}

impl Ended {
    pub(super) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// The word for the failure: DataX's own code, else how the process ended.
    pub(super) fn error_code(&self) -> String {
        match (&self.summary.failure, self.status.code()) {
            (Some(Failure { code, .. }), _) => code.clone(),
            (None, Some(code)) => format!("exit-{code}"),
            (None, None) => format!("signal-{}", self.status.signal().unwrap_or_default()),
        }
    }

    /// What a person needs to know of the failure, on one line.
    pub(super) fn reason(&self) -> String {
        let ended = match (self.status.code(), self.status.signal()) {
            (Some(EXIT_KILLED), _) => "was killed".to_owned(),
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
        };
        match &self.summary.failure {
            Some(Failure { code, description, detail }) => {
                format!("DataX {ended}: {code}: {description}: {detail}")
            }
            None if self.last_error_line.is_empty() => format!("DataX {ended} and gave no reason"),
            None => format!("DataX {ended}: {}", self.last_error_line),
        }
    }
}

/// Starts DataX and follows it to its end.
///
/// # Errors
/// Where it cannot be started, or its output cannot be copied; it has ended then as well.
pub(super) async fn run(start: &Start<'_>, logs: Logs<'_>) -> Result<Ended, DataxError> {
    let (program, arguments) = start.argv.split_first().ok_or(DataxError::NoProgram)?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(start.env)
        .current_dir(start.cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| DataxError::Start { program: program.into(), source })?;
    match follow(&mut child, logs).await {
        Ok(ended) => Ok(ended),
        Err(error) => {
            end(&mut child).await;
            Err(DataxError::Output(error))
        }
    }
}

async fn follow(child: &mut Child, logs: Logs<'_>) -> io::Result<Ended> {
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("the process has no pipes"));
    };
    let mut scan = Scan::new();
    let mut last_error_line = String::new();
    let status = {
        let read_out = copy(out, logs.out, |line| {
            scan.line(line);
        });
        let read_err = copy(err, logs.err, |line| {
            if !line.trim().is_empty() {
                line.trim().clone_into(&mut last_error_line);
            }
        });
        let mut copied = std::pin::pin!(async { tokio::try_join!(read_out, read_err) });
        tokio::select! {
            // The output first: its end is nearly always that of the process, and all of it has then been read.
            biased;
            result = &mut copied => {
                result?;
                child.wait().await?
            }
            status = child.wait() => {
                if let Ok(result) = timeout(PIPE_GRACE, &mut copied).await {
                    result?;
                }
                status?
            }
        }
    };
    Ok(Ended { status, summary: scan.summary(), last_error_line })
}

/// Copies a stream as it is, and hands on its lines.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: &mut dyn Write,
    mut on_line: impl FnMut(&str),
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut line = Vec::new();
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            break;
        }
        to.write_all(&chunk[..count])?;
        to.flush()?;
        for piece in chunk[..count].split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES_MAX.saturating_sub(line.len()).min(piece.len());
            line.extend_from_slice(&piece[..room]);
            if piece.ends_with(b"\n") {
                on_line(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        on_line(&String::from_utf8_lossy(&line));
    }
    Ok(())
}

/// Ends a process: politely first, because DataX's starter then takes its Java with it.
async fn end(child: &mut Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = pid {
        let _ = signal::kill(Pid::from_raw(pid), signal::Signal::SIGTERM);
        if timeout(TERM_GRACE, child.wait()).await.is_ok() {
            return;
        }
    }
    let _ = child.kill().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a script by `sh` as the stand-in for DataX.
    async fn run_script(script: &str, out: &mut dyn Write, err: &mut dyn Write) -> Result<Ended, DataxError> {
        let argv = ["/bin/sh", "-c", script].map(OsString::from);
        let env = BTreeMap::from([("SITE".to_owned(), "plant-1".to_owned())]);
        run(&Start { argv: &argv, env: &env, cwd: Path::new("/usr") }, Logs { out, err }).await
    }

    #[tokio::test]
    async fn both_streams_are_copied_as_they_are() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ended =
            run_script("printf 'a\\377b\\nc'; printf 'first\\n\\nlast \\n' >&2; exit 3", &mut out, &mut err)
                .await
                .expect("it ran");
        assert_eq!(out, b"a\xffb\nc");
        assert_eq!(err, b"first\n\nlast \n");
        assert!(!ended.is_success());
        assert_eq!(
            (ended.error_code().as_str(), ended.reason().as_str()),
            ("exit-3", "DataX ended with exit code 3: last")
        );
    }

    #[tokio::test]
    async fn folder_and_environment_are_those_given() {
        let mut out = Vec::new();
        run_script("echo $SITE; pwd; cat", &mut out, &mut io::sink()).await.expect("it ran");
        assert_eq!(String::from_utf8_lossy(&out), "plant-1\n/usr\n");
    }

    #[tokio::test]
    async fn a_line_without_an_end_does_not_fill_the_memory() {
        let (mut out, mut err) = (io::sink(), Vec::new());
        let script = "head -c 3000000 /dev/zero; echo; echo 'Total 7 records, 70 bytes | Speed 1B/s, 1 records/s | Error 0 records, 0 bytes | x'";
        let ended = run_script(script, &mut out, &mut err).await.expect("it ran");
        assert_eq!(ended.summary.statistics.map(|statistics| statistics.read_records), Some(7));
    }

    #[tokio::test]
    async fn a_signal_is_told_from_an_exit_code() {
        let ended = run_script("kill -9 $$", &mut io::sink(), &mut io::sink()).await.expect("it ran");
        assert_eq!(
            (ended.error_code().as_str(), ended.reason().as_str()),
            ("signal-9", "DataX was ended by signal 9 and gave no reason")
        );
    }

    #[tokio::test]
    async fn a_pipe_that_somebody_holds_does_not_hold_us() {
        let started = tokio::time::Instant::now();
        let mut out = Vec::new();
        let ended = run_script("sleep 60 & echo $!", &mut out, &mut io::sink()).await.expect("it ran");
        assert!(ended.is_success() && started.elapsed() < Duration::from_secs(30));
        let left: i32 = String::from_utf8_lossy(&out).trim().parse().expect("a pid");
        signal::kill(Pid::from_raw(left), signal::Signal::SIGKILL).expect("it still ran");
    }

    /// Takes what it is told to and then fails, as a log on a full disk does.
    struct Full(Vec<u8>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_failure_on_our_side_ends_the_process_politely() {
        let folder = tempfile::tempdir().expect("a folder");
        let mark = folder.path().join("ended");
        let script =
            format!("trap 'touch {}; exit' TERM; echo $$; while :; do sleep 0.05; done", mark.display());
        let mut out = Full(Vec::new());
        let error = run_script(&script, &mut out, &mut io::sink()).await.expect_err("the log is full");
        assert!(matches!(error, DataxError::Output(_)), "{error}");
        assert!(mark.exists(), "it was not asked to end");
        let pid: i32 = String::from_utf8_lossy(&out.0).trim().parse().expect("a pid");
        assert!(signal::kill(Pid::from_raw(pid), None).is_err(), "it is still there");
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named() {
        let argv = [OsString::from("/nowhere/java")];
        let logs = Logs { out: &mut io::sink(), err: &mut io::sink() };
        let start = Start { argv: &argv, env: &BTreeMap::new(), cwd: Path::new("/") };
        let error = run(&start, logs).await.expect_err("missing");
        assert!(error.to_string().contains("/nowhere/java"), "{error}");
    }
}
