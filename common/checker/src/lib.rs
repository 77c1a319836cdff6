//! The invariants I1 to I15, L1 and L2 of `ARCHITECTURE.md` over a recorded history.
//!
//! A history says what was committed, what executors received and obeyed, what processes did, what clients asked and were
//! told; the simulation records one in virtual time, a cluster under faults on real clocks. Nothing here knows the code
//! that is checked: only its vocabulary, and the trigger rules a second time, word by word.
//!
//! ```
//! use millrace_checker::{Checker, Event, Rules};
//! use millrace_common::term::Term;
//!
//! let mut checker = Checker::new(Rules::default());
//! checker.record(1, &Event::Claimed { term: Term(2), holder: "m0".to_owned() });
//! checker.record(2, &Event::Claimed { term: Term(1), holder: "m1".to_owned() });
//! assert_eq!(checker.violations()[0].rule, "I1");
//! ```

mod attempts;
mod checker;
mod history;
mod leaders;
mod rules;
mod runs;
mod witness;

pub use checker::{Checker, Rules, Violation, Waiver, check};
pub use history::{Answer, End, Event, Exit, Fact, Proof, Skipped};
pub use rules::{RULES, Says, says};
pub use runs::Run;
pub use witness::{LineError, events_of};
