//! Why a master ends, as the exit code of its process. The codes are part of the interface.

use millrace_core::lease::AuthorityEnd;
use millrace_store::CommitError;
use thiserror::Error;

/// It could not start, or could not go on serving.
const FAILED: u8 = 1;
/// A broken invariant: a fault of the program (`EX_SOFTWARE`).
const BROKEN: u8 = 70;
/// It no longer leads: to be started again, as a standby (`EX_TEMPFAIL`).
///
/// A leader that loses its term ends its process, because then nothing of a leader can be left in it: no timer, no
/// message on its way, no belief. The service manager starts it again after this code, as after a crash.
const TERM_LOST: u8 = 75;

/// A leadership that ended and the process goes on no more. What was decided and not committed never happened.
#[derive(Debug, Error)]
pub enum TermLost {
    /// A commit failed or its outcome is not known.
    #[error("the term ended because a commit failed")]
    Commit(#[source] CommitError),
    /// Another master may lead from now on.
    #[error("the term ended because the authority to lead is over")]
    Authority(#[source] AuthorityEnd),
    /// It was asked to make way for another master.
    #[error("the term was handed over")]
    HandedOver,
    /// The scheduler found itself in a state that must not be.
    #[error("the term ended because an invariant is broken, which is a fault of this program: {0}")]
    Broken(String),
}

/// Returns the exit code of a process whose master ended with `error`.
///
/// 70 after a broken invariant, 75 where it led and leads no more, 1 after anything else.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(TermLost::Commit(_) | TermLost::Authority(_) | TermLost::HandedOver) => TERM_LOST,
        Some(TermLost::Broken(_)) => BROKEN,
        None => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use millrace_common::term::Term;

    use super::*;

    #[test]
    fn each_end_has_its_code() {
        let fenced = CommitError::Fenced { mine: Term(1), found: Term(2), found_seq: 0 };
        assert_eq!(exit_code(&TermLost::Commit(fenced).into()), 75);
        assert_eq!(exit_code(&TermLost::Authority(AuthorityEnd::Expired).into()), 75);
        assert_eq!(exit_code(&TermLost::HandedOver.into()), 75);
        assert_eq!(exit_code(&TermLost::Broken("a test".to_owned()).into()), 70);
        assert_eq!(exit_code(&anyhow::anyhow!("the port is taken")), 1);
    }
}
