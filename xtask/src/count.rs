//! Counts of tests, read from what the test programs print.

use std::{collections::BTreeSet, ops::AddAssign};

/// How many tests did what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Ran and held.
    pub(crate) passed: usize,
    /// Ran and did not hold, ran too long, or could not be started.
    pub(crate) failed: usize,
    /// Said that they could not run here, as "name: reason".
    pub(crate) skipped: BTreeSet<String>,
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped.iter().cloned());
    }
}

impl Counts {
    /// Returns the plain line that closes a run.
    pub(crate) fn summary(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len())
    }

    /// Takes over the tests that said they skipped; the test program has counted them as passed.
    pub(crate) fn set_skipped(&mut self, skipped: BTreeSet<String>) {
        self.passed = self.passed.saturating_sub(skipped.len());
        self.skipped = skipped;
    }
}

/// Reads the closing line of nextest or of each `cargo test` program, whichever the lines hold.
pub(crate) fn read(lines: &[String]) -> Counts {
    let mut counts = Counts::default();
    for line in lines {
        let Some(parts) = nextest_parts(line).or_else(|| libtest_parts(line)) else { continue };
        for (number, word) in parts {
            match word.as_str() {
                "passed" => counts.passed += number,
                "failed" | "timed out" | "exec failed" => counts.failed += number,
                // Filtered out or not asked for; tests that cannot run here say so in the file of skips.
                _ => {}
            }
        }
    }
    counts
}

/// Reads the closing line of the fault rig: `11 passed, 0 failed, 1 not run`.
pub(crate) fn read_rig(lines: &[String]) -> Counts {
    let closing = lines.iter().rev().find(|line| line.ends_with(" not run"));
    let mut counts = Counts::default();
    for (number, word) in closing.map(|line| parts(line, ',')).unwrap_or_default() {
        match word.as_str() {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            _ => {}
        }
    }
    counts
}

/// Reads the file of skips: one line `SKIPPED: <name>: <reason>` for each test.
pub(crate) fn read_skips(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("SKIPPED: "))
        .map(|rest| rest.trim().to_string())
        .collect()
}

/// `     Summary [   1.203s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 3 skipped`
fn nextest_parts(line: &str) -> Option<Vec<(usize, String)>> {
    let (_, rest) = line.trim_start().strip_prefix("Summary [")?.split_once(']')?;
    let (_, counts) = rest.split_once(" run: ")?;
    Some(parts(counts, ','))
}

/// `test result: FAILED. 10 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn libtest_parts(line: &str) -> Option<Vec<(usize, String)>> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    Some(parts(counts, ';'))
}

fn parts(counts: &str, separator: char) -> Vec<(usize, String)> {
    without_parentheses(counts)
        .split(separator)
        .filter_map(|part| {
            let (number, word) = part.trim().split_once(' ')?;
            Some((number.parse().ok()?, word.trim().to_string()))
        })
        .collect()
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_usize;
    let mut kept = String::new();
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => kept.push(character),
            _ => {}
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{Counts, read, read_rig, read_skips};

    fn counted(line: &str) -> (usize, usize) {
        let counts = read(&[line.to_string()]);
        (counts.passed, counts.failed)
    }

    #[test]
    fn nextest_closing_lines_are_read() {
        assert_eq!(counted("     Summary [   0.010s] 1 test run: 1 passed, 0 skipped"), (1, 0));
        assert_eq!(
            counted(
                "     Summary [  61.2s] 9/12 tests run: 5 passed (1 slow, 2 leaky), 2 failed, 1 timed out, 1 exec failed, 3 skipped"
            ),
            (5, 4)
        );
    }

    #[test]
    fn cargo_test_closing_lines_add_up() {
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s";
        let counts = read(&[line.to_string(), "noise: 4 passed".to_string(), line.to_string()]);
        assert_eq!((counts.passed, counts.failed), (6, 4));
    }

    #[test]
    fn the_closing_line_of_the_rig_is_read() {
        let lines = ["S01 x: passed".to_string(), "11 passed, 2 failed, 1 not run".to_string()];
        assert_eq!((read_rig(&lines).passed, read_rig(&lines).failed), (11, 2));
    }

    #[test]
    fn a_test_that_skipped_is_not_counted_as_passed() {
        let skips =
            read_skips("SKIPPED: postgres_fence: no postgres\nnoise\nSKIPPED: postgres_fence: no postgres\n");
        let mut counts = Counts { passed: 5, ..Counts::default() };
        counts.set_skipped(skips);
        assert_eq!(counts.summary(), "4 passed, 0 failed, 1 skipped");
    }
}
