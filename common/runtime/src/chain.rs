//! One line for an error and its causes.

use std::{error::Error, fmt};

/// Causes that are shown; a longer chain is a loop or a mistake.
const CAUSES_MAX: usize = 16;

/// Shows an error and its causes as `this: because of that: because of those`.
///
/// A cause that says what was said already (a transparent wrapper) is left out.
#[derive(Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut cause = self.0.source();
        for _ in 0..CAUSES_MAX {
            let Some(error) = cause else { break };
            let text = error.to_string();
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("cannot start")]
    struct Outer(#[source] Middle);

    #[derive(Debug, Error)]
    #[error(transparent)]
    struct Middle(#[from] io::Error);

    #[test]
    fn causes_follow_on_the_same_line_and_once() {
        let error = Outer(Middle(io::Error::other("disk is gone")));
        assert_eq!(Chain(&error).to_string(), "cannot start: disk is gone");
    }
}
