//! Cases that cannot run here.

use std::path::Path;

/// Records that a case could not run here, and why, for whoever reads the result of the suite.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test has no configuration, and says what it skips"
)]
pub(crate) fn skipped(name: &str, reason: &str) {
    use std::io::Write as _;
    println!("SKIPPED: {name}: {reason}");
    if let Some(file) = std::env::var_os("MILLRACE_SKIP_FILE") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(Path::new(&file));
        writeln!(file.expect("the skip file opens"), "SKIPPED: {name}: {reason}")
            .expect("the skip file is written");
    }
}
