//! What an executor and its supervisor say to each other.
//!
//! The supervisor speaks first: which versions it knows. The executor chooses the highest that both know; each program knows
//! its own version and the one before, so that either may be replaced first. New fields have defaults; a message that the
//! other side may not know is only sent in the version that has it.

use std::{ffi::CString, time::Duration};

use millrace_common::{
    id::AttemptId,
    time::{Timestamp, Uptime},
};
use millrace_kinds::launch::ExitCodes;
use millrace_spawn::Program;
use serde::{Deserialize, Serialize};

use crate::ledger::EndedBy;

/// The version that this program speaks, and the oldest that it understands.
pub(crate) const PROTOCOL: u32 = 1;
pub(crate) const PROTOCOL_MIN: u32 = 1;

/// What the executor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// This version is spoken from here on; the supervisor answers with its account of all.
    Hello { protocol: u32 },
    /// Start the process of an attempt.
    Spawn(Box<Spawn>),
    /// End an attempt: TERM, grace, KILL, and look that nothing is left.
    Kill { attempt: AttemptId, grace_ms: u64, by: EndedBy },
    /// A leader has answered what was sent when the machine had been up for so long.
    Extend { contact_ms: u64 },
    /// These ends are durable.
    Settled { attempts: Vec<AttemptId> },
    /// Answer with the same number.
    Ping { number: u64 },
    /// The executor goes for good: end when nothing is supervised any more.
    Leave,
}

/// What is told of an attempt so that its process can be started. Behind it follow, each ended by a zero byte, the file, the
/// folder, the arguments and the environment, and then standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spawn {
    pub(crate) attempt: AttemptId,
    pub(crate) workspace: u32,
    pub(crate) arguments: usize,
    pub(crate) variables: usize,
    #[serde(default)]
    pub(crate) terms: Terms,
}

/// What the supervisor keeps of an attempt: its deadlines, and what the next life of the executor must know of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Terms {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) orphan_ms: Option<u64>,
    #[serde(default)]
    pub(crate) grace_ms: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) success: Vec<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) skip: Vec<i32>,
    /// Texts to hide in the output. In memory and on the socket only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<String>,
}

impl Terms {
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }

    pub(crate) fn orphan(&self) -> Option<Duration> {
        self.orphan_ms.map(Duration::from_millis)
    }

    pub(crate) fn exit_codes(&self) -> ExitCodes {
        ExitCodes { success: self.success.clone(), skip: self.skip.clone() }
    }
}

/// What the supervisor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// The versions that it knows.
    Banner {
        protocol: u32,
        protocol_min: u32,
        version: String,
        pid: u32,
        containment: String,
    },
    /// Everything that it supervises, and the ends that nobody has settled.
    Inventory {
        contact_ms: u64,
        running: Vec<Running>,
        ended: Vec<Ended>,
    },
    Spawned {
        attempt: AttemptId,
        pid: u32,
        uptime_ms: u64,
        at: Timestamp,
    },
    /// Nothing of an attempt is left.
    Ended(Box<Ended>),
    /// These processes were killed and are still there.
    Stuck {
        attempt: AttemptId,
        pids: Vec<i32>,
    },
    Pong {
        number: u64,
    },
    /// The other side is not understood.
    Refused {
        reason: String,
    },
}

/// Why the process of an attempt could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotStarted {
    pub(crate) step: FailedStep,
    pub(crate) errno: i32,
}

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailedStep {
    /// The log or standard input, or making the process.
    Prepare,
    /// Going to its folder.
    Folder,
    /// Loading the program.
    Load,
}

/// An attempt with a process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) origin: Origin,
    #[serde(default)]
    pub(crate) terms: Terms,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_by: Option<EndedBy>,
    pub(crate) log_bytes: u64,
}

/// Where the process of an attempt comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) attempt: AttemptId,
    pub(crate) workspace: u32,
    pub(crate) pid: u32,
    pub(crate) uptime_ms: u64,
    pub(crate) started_at: Timestamp,
}

/// An attempt of which nothing is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) origin: Origin,
    #[serde(default)]
    pub(crate) terms: Terms,
    /// As the system gave it: `wait(2)`.
    pub(crate) status: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_started: Option<NotStarted>,
    /// Why a signal came before the exit, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_by: Option<EndedBy>,
    pub(crate) log_bytes: u64,
    pub(crate) at: Timestamp,
}

/// Writes what stands behind a [`Spawn`].
pub(crate) fn tail(program: &Program, input: &[u8]) -> Vec<u8> {
    let texts = [&program.path, &program.cwd].into_iter().chain(&program.argv).chain(&program.env);
    let mut tail: Vec<u8> = texts.flat_map(CString::as_bytes_with_nul).copied().collect();
    tail.extend_from_slice(input);
    tail
}

/// Reads what stands behind a [`Spawn`]; `None` where something is missing.
pub(crate) fn read_tail<'t>(spawn: &Spawn, tail: &'t [u8]) -> Option<(Program, &'t [u8])> {
    let mut rest = tail;
    let mut next = || {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (text, after) = rest.split_at(end + 1);
        rest = after;
        CString::from_vec_with_nul(text.to_vec()).ok()
    };
    let (path, cwd) = (next()?, next()?);
    let argv = (0..spawn.arguments).map(|_| next()).collect::<Option<_>>()?;
    let env = (0..spawn.variables).map(|_| next()).collect::<Option<_>>()?;
    Some((Program { path, argv, env, cwd }, rest))
}

pub(crate) fn millis(uptime: Uptime) -> u64 {
    u64::try_from(uptime.since_boot().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_comes_out_as_it_went_in() {
        let text = |text: &str| CString::new(text).unwrap();
        let program = Program {
            path: text("/bin/sh"),
            argv: vec![text("sh"), text(""), text("x y")],
            env: vec![text("A=1")],
            cwd: text("/tmp"),
        };
        let attempt = "018f2f5e-0000-7000-8000-000000000000.0.1".parse().unwrap();
        let spawn = Spawn { attempt, workspace: 1, arguments: 3, variables: 1, terms: Terms::default() };
        let tail = tail(&program, b"in\0put");
        let (back, input) = read_tail(&spawn, &tail).unwrap();
        assert_eq!(
            (back.path, back.argv, back.env, back.cwd),
            (program.path, program.argv, program.env, program.cwd)
        );
        assert_eq!(input, b"in\0put");
        let more = Spawn { arguments: 9, ..spawn };
        assert!(read_tail(&more, &tail).is_none());
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over_and_missing_ones_have_defaults() {
        let attempt: AttemptId = "018f2f5e-0000-7000-8000-000000000000.0.1".parse().unwrap();
        let id = serde_json::to_string(&attempt).unwrap();
        let text =
            format!(r#"{{"spawn":{{"attempt":{id},"workspace":3,"arguments":1,"variables":0,"nice":7}}}}"#);
        let Order::Spawn(spawn) = serde_json::from_str(&text).unwrap() else { panic!("another order") };
        assert_eq!((spawn.workspace, spawn.terms), (3, Terms::default()));
    }
}
