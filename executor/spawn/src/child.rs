//! What the new process does until its program is loaded. Nothing here allocates, locks or returns.

use std::{
    ffi::{c_char, c_int},
    io, mem, ptr,
};

use crate::{
    Step,
    notes::{Note, Notes},
};

/// Exit code of a child that could not load its program; nobody but its parent sees it.
const EXIT_FAILED: c_int = 127;

/// Signals that programs count on: who started this one may have it ignore some of them, and that is handed on.
const UNIGNORED: [c_int; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE, libc::SIGCHLD];

/// Everything that is needed, made ready before the process is.
pub(crate) struct Plan<'p> {
    pub(crate) path: *const c_char,
    pub(crate) argv: *const *const c_char,
    pub(crate) env: *const *const c_char,
    pub(crate) cwd: *const c_char,
    pub(crate) input: c_int,
    pub(crate) output: c_int,
    pub(crate) parent: libc::pid_t,
    pub(crate) notes: &'p Notes,
    pub(crate) note: Note,
}

/// Becomes the program of the plan.
pub(crate) fn run(plan: &Plan<'_>) -> ! {
    let (step, errno) = match prepare(plan) {
        Ok(()) => load(plan),
        Err(failed) => failed,
    };
    plan.notes.write(plan.note, step, errno);
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(EXIT_FAILED) }
}

fn prepare(plan: &Plan<'_>) -> Result<(), (Step, i32)> {
    // SAFETY: system calls with numbers and with memory that lives in this stack or in the plan.
    unsafe {
        check(Step::Create, libc::setpgid(0, 0))?;
        check(Step::Create, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        // The parent may have died before the death signal was asked for.
        if libc::getppid() != plan.parent {
            return Err((Step::Create, libc::ESRCH));
        }
        // Each of these clears the flag that closes a descriptor when a program is loaded.
        check(Step::Create, libc::dup2(plan.input, libc::STDIN_FILENO))?;
        check(Step::Create, libc::dup2(plan.output, libc::STDOUT_FILENO))?;
        check(Step::Create, libc::dup2(plan.output, libc::STDERR_FILENO))?;
        // What the parent blocks or ignores for itself is not meant for the program.
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(Step::Create, libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))?;
        for signal in UNIGNORED {
            if libc::signal(signal, libc::SIG_DFL) == libc::SIG_ERR {
                return Err((Step::Create, errno()));
            }
        }
        check(Step::Folder, libc::chdir(plan.cwd))
    }
}

fn load(plan: &Plan<'_>) -> (Step, i32) {
    // SAFETY: all three are ended by a null and live in the plan.
    unsafe { libc::execve(plan.path, plan.argv, plan.env) };
    (Step::Load, errno())
}

fn check(step: Step, result: c_int) -> Result<(), (Step, i32)> {
    if result == -1 { Err((step, errno())) } else { Ok(()) }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}
