//! Which programs there are: of the system, and of this workspace.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
};

/// Returns the folder of what was built together with this program.
#[must_use]
pub fn folder() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows where it is");
    let folder = own.parent().expect("a program is in a folder");
    // Tests are in a folder of their own below that of programs.
    if folder.ends_with("deps") { folder.parent().expect("above deps").to_owned() } else { folder.to_owned() }
}

/// Returns a program of this workspace that was built together with this one.
///
/// # Panics
/// Where it was not built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.is_file(), "{} is not built; `cargo build --workspace` does", path.display());
    path
}

/// Returns why none of these can be started here: the first that is not installed.
pub(crate) fn missing(programs: &[PathBuf]) -> Option<String> {
    let absent = programs.iter().find(|program| !program.exists())?;
    Some(format!("{} is not installed", absent.display()))
}

/// Finds a program of the system; servers are in folders that `PATH` of an ordinary account lacks.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "programs are where the environment says")]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|program| program.is_file())
}

/// Records that the test of this thread cannot run here, and why, for whoever reads the result of the suite.
///
/// # Panics
/// Where that cannot be recorded.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the test command says where skips are recorded"
)]
pub fn skipped(reason: &str) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    println!("SKIPPED: {name}: {reason}");
    if let Some(file) = std::env::var_os("MILLRACE_SKIP_FILE") {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(Path::new(&file))
            .expect("the file of skips");
        writeln!(file, "SKIPPED: {name}: {reason}").expect("a line more");
    }
}
