//! What the new process does until its program is loaded.
//!
//! It runs in the memory of its parent, which goes on meanwhile, on a stack of its own. So nothing here allocates, locks,
//! panics or returns, and the kernel is called without the C library, whose `errno` is the parent's as well.

use std::{ffi::c_char, mem, os::fd::RawFd, rc::Rc, sync::atomic::AtomicU64};

use syscalls::{Errno, SyscallArgs, Sysno, syscall};

use crate::{Program, Step, notes};

/// Exit code of a child that could not load its program; nobody but its parent sees it.
const EXIT_FAILED: usize = 127;

/// Signals that programs count on: who started this one may have it ignore some of them, and that is handed on.
const UNIGNORED: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE, libc::SIGCHLD];
/// Bytes of a set of signals, as the kernel counts them.
const SIGNAL_SET: usize = 8;

/// Everything that is needed, made ready before the process is.
pub(crate) struct Plan {
    /// Owns the texts that the addresses are of.
    pub(crate) program: Rc<Program>,
    pub(crate) argv: Vec<*const c_char>,
    pub(crate) env: Vec<*const c_char>,
    pub(crate) input: RawFd,
    pub(crate) output: RawFd,
    pub(crate) parent: i32,
    /// Where a failure is noted.
    pub(crate) note: *const AtomicU64,
}

/// Becomes the program of a plan.
///
/// # Safety
/// The plan and all that it points to must stay as it is until this process has loaded its program or has ended.
pub(crate) unsafe extern "C" fn run(plan: *const Plan) -> ! {
    // SAFETY: as the caller promises.
    let plan = unsafe { &*plan };
    let (step, errno) = match prepare(plan) {
        Ok(()) => load(plan),
        Err(failed) => failed,
    };
    // SAFETY: as the caller promises.
    notes::write(unsafe { &*plan.note }, step, errno.into_raw());
    loop {
        let _ = call(Sysno::exit_group, [EXIT_FAILED, 0, 0, 0]);
    }
}

fn prepare(plan: &Plan) -> Result<(), (Step, Errno)> {
    let made = |errno| (Step::Create, errno);
    call(Sysno::setpgid, [0, 0, 0, 0]).map_err(made)?;
    call(Sysno::prctl, [number(libc::PR_SET_PDEATHSIG), number(libc::SIGKILL), 0, 0]).map_err(made)?;
    // The parent may have died before the death signal was asked for.
    if call(Sysno::getppid, [0; 4]).map_err(made)? != number(plan.parent) {
        return Err(made(Errno::ESRCH));
    }
    let streams = [
        (plan.input, libc::STDIN_FILENO),
        (plan.output, libc::STDOUT_FILENO),
        (plan.output, libc::STDERR_FILENO),
    ];
    for (from, to) in streams {
        // Clears the flag that closes a descriptor when a program is loaded.
        call(Sysno::dup3, [number(from), number(to), 0, 0]).map_err(made)?;
    }
    // What the parent blocks or ignores for itself is not meant for the program.
    for signal in UNIGNORED {
        // SAFETY: in the kernel's own form all zeros mean the default action.
        let default: libc::sigaction = unsafe { mem::zeroed() };
        let action = [number(signal), address(&raw const default), 0, SIGNAL_SET];
        call(Sysno::rt_sigaction, action).map_err(made)?;
    }
    let none = 0_u64;
    let mask = [number(libc::SIG_SETMASK), address(&raw const none), 0, SIGNAL_SET];
    call(Sysno::rt_sigprocmask, mask).map_err(made)?;
    let folder = address(plan.program.cwd.as_ptr());
    call(Sysno::chdir, [folder, 0, 0, 0]).map_err(|errno| (Step::Folder, errno))?;
    Ok(())
}

fn load(plan: &Plan) -> (Step, Errno) {
    let path = address(plan.program.path.as_ptr());
    let loaded = call(Sysno::execve, [path, address(plan.argv.as_ptr()), address(plan.env.as_ptr()), 0]);
    (Step::Load, loaded.err().unwrap_or(Errno::EIO))
}

fn call(call: Sysno, [first, second, third, fourth]: [usize; 4]) -> Result<usize, Errno> {
    let arguments = SyscallArgs::new(first, second, third, fourth, 0, 0);
    // SAFETY: the callers give numbers, and addresses of what lives in the plan or on this stack.
    unsafe { syscall(call, &arguments) }
}

const fn number(number: i32) -> usize {
    number.unsigned_abs() as usize
}

fn address<T>(place: *const T) -> usize {
    place.expose_provenance()
}
