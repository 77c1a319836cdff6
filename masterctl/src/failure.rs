//! Why a command failed, and with which exit code. The codes are part of the interface.

use std::process::ExitCode;

use miette::Report;
use millrace_runtime::chain::Chain;
use tonic::{Code, Status};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for failed; said already.
    Unsuccessful,
    /// Something about the input, with its place.
    Input(Vec<Report>),
    /// Something on this machine.
    Local(anyhow::Error),
    /// No master answers.
    Unreachable(String),
    /// A master answered with an error.
    Refused(Status),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Local(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl Failure {
    /// Prints the failure to standard error and returns its exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Unsuccessful => ExitCode::from(1),
            Self::Input(reports) => {
                for report in reports {
                    eprintln!("{report:?}");
                }
                ExitCode::from(1)
            }
            Self::Local(error) => {
                eprintln!("error: {}", Chain(error.as_ref()));
                ExitCode::from(2)
            }
            Self::Unreachable(problem) => {
                eprintln!("error: {problem}");
                ExitCode::from(3)
            }
            Self::Refused(status) => {
                eprintln!("error: {}", status.message());
                ExitCode::from(exit_code(status.code()))
            }
        }
    }
}

fn exit_code(code: Code) -> u8 {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => 5,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => 3,
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
        | Code::DataLoss => 4,
    }
}
