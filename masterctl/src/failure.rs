//! Why a command failed, and with which exit code. The codes are part of the interface.

use std::{error::Error as _, io::Write as _, process::ExitCode};

use miette::Report;
use millrace_runtime::chain::Chain;
use tonic::{Code, Status};

use crate::diagnose;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for failed; said already.
    Unsuccessful,
    /// Something about the input, with its place.
    Input(Vec<Report>),
    /// Something on this machine.
    Local(anyhow::Error),
    /// The token is missing or cannot be used.
    Token(String),
    /// No master answers.
    Unreachable(String),
    /// A master answered with an error.
    Refused(Status),
    /// A person did not want to wait any longer; says what goes on without them.
    Interrupted(String),
    /// An invariant is broken; said already.
    Violations,
    /// None is found broken, and not everything could be looked at; said already.
    Unjudged,
    /// Something about one of several things.
    At(String, Box<Failure>),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Local(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // Only a status that was made on this side has a cause: the connection broke, or was never there.
        match status.source() {
            Some(cause) => Self::Unreachable(format!("the connection to the master broke: {}", Chain(cause))),
            None => Self::Refused(status),
        }
    }
}

impl Failure {
    /// Tells whether the same call may succeed once a master is back.
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused(status) => exit_code(status.code()) == UNREACHABLE,
            Self::At(_, failure) => failure.is_away(),
            Self::Unsuccessful
            | Self::Violations
            | Self::Unjudged
            | Self::Input(_)
            | Self::Local(_)
            | Self::Token(_)
            | Self::Interrupted(_) => false,
        }
    }

    /// Prints the failure to standard error and returns its exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (text, code) = self.told();
        if !text.is_empty() {
            // Nobody can be told that nobody can be told.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
        ExitCode::from(code)
    }

    /// Returns what to say and the exit code.
    fn told(self) -> (String, u8) {
        match self {
            Self::Unsuccessful => (String::new(), UNSUCCESSFUL),
            Self::Violations => (String::new(), VIOLATIONS),
            Self::Unjudged => (String::new(), UNJUDGED),
            Self::Input(reports) => (diagnose::shown(&reports), UNSUCCESSFUL),
            Self::At(place, failure) => {
                let (text, code) = failure.told();
                (text.replacen("error: ", &format!("error: {place}: "), 1), code)
            }
            Self::Local(error) => (format!("error: {}", Chain(error.as_ref())), USAGE),
            Self::Token(problem) => (format!("error: {problem}"), TOKEN),
            Self::Unreachable(problem) => (format!("error: {problem}"), UNREACHABLE),
            Self::Interrupted(what) => (what, INTERRUPTED),
            Self::Refused(status) => {
                let message = match status.code() {
                    Code::Cancelled | Code::DeadlineExceeded => {
                        "the master did not answer in time".to_owned()
                    }
                    _ if status.message().is_empty() => format!("the master answered {:?}", status.code()),
                    _ => status.message().to_owned(),
                };
                (format!("error: {message}"), exit_code(status.code()))
            }
        }
    }
}

const UNSUCCESSFUL: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const REFUSED: u8 = 4;
const TOKEN: u8 = 5;
const VIOLATIONS: u8 = 6;
const UNJUDGED: u8 = 7;
/// 128 and the number of SIGINT, as shells show it.
const INTERRUPTED: u8 = 130;

fn exit_code(code: Code) -> u8 {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => TOKEN,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => UNREACHABLE,
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_words_and_its_code() {
        let refused = |code, message: &str| Failure::Refused(Status::new(code, message));
        let rows = [
            (Failure::Unsuccessful, "", 1),
            (Failure::Violations, "", 6),
            (Failure::Unjudged, "", 7),
            (Failure::Local(anyhow::anyhow!("cannot read a").context("b")), "error: b: cannot read a", 2),
            (Failure::Unreachable("gone".to_owned()), "error: gone", 3),
            (refused(Code::Unavailable, "this master is stopping"), "error: this master is stopping", 3),
            (refused(Code::Cancelled, "Timeout expired"), "error: the master did not answer in time", 3),
            (refused(Code::NotFound, "there is no run x"), "error: there is no run x", 4),
            (refused(Code::Internal, ""), "error: the master answered Internal", 4),
            (refused(Code::Unauthenticated, "no"), "error: no", 5),
            (Failure::Token("no token".to_owned()), "error: no token", 5),
            (Failure::Interrupted("it goes on".to_owned()), "it goes on", 130),
            (
                Failure::At("a.yaml".to_owned(), Box::new(refused(Code::Internal, "broken"))),
                "error: a.yaml: broken",
                4,
            ),
        ];
        for (failure, text, code) in rows {
            assert_eq!(failure.told(), (text.to_owned(), code));
        }
    }

    #[test]
    fn the_help_tells_every_code() {
        let told: Vec<u8> = crate::cli::EXIT_CODES
            .lines()
            .filter_map(|line| line.strip_prefix("  ")?.split(' ').next()?.parse().ok())
            .collect();
        let all = [0, UNSUCCESSFUL, USAGE, UNREACHABLE, REFUSED, TOKEN, VIOLATIONS, UNJUDGED, INTERRUPTED];
        assert_eq!(told, all);
    }
}
