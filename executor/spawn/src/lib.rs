//! Starting the process of an attempt: the one crate of the workspace with `unsafe` code.
//!
//! The standard library can start a process in a group of its own, but it cannot have it die with its parent or begin in a
//! control group, except by a hook that is unsafe to write as well; and it waits until the program is loaded, which costs a
//! program with one thread half of its rate. Here the kernel is asked directly, and the caller goes on at once: the child
//! shares no memory but a few words, in which it notes what failed, and calls nothing that allocates or locks.
//!
//! The death signal follows the *thread* that starts the process, so a program with one thread is what may use this; and a
//! small one, because its page tables are copied for each process.

#![expect(unsafe_code, reason = "a death signal and a control group cannot be had from the standard library")]

mod child;
mod notes;

use std::{
    ffi::{CStr, CString, c_char, c_long},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::process::ExitStatusExt as _,
    },
    process::ExitStatus,
    ptr,
};

use self::notes::{Note, Notes};

/// Begin in the control group that is given; see clone3(2).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Numbers in the arguments of `clone3` up to the control group, and where three of them stand.
const ARGUMENTS: usize = 11;
const FLAGS: usize = 0;
const EXIT_SIGNAL: usize = 4;
const CGROUP: usize = 10;

/// What to start: everything that the system is given, nothing is inherited.
#[derive(Debug)]
pub struct Program {
    /// The file to load; it is not looked for on any path.
    pub path: CString,
    /// Its arguments, its own name first.
    pub argv: Vec<CString>,
    /// Its environment, as `NAME=value`.
    pub env: Vec<CString>,
    /// The folder that it starts in.
    pub cwd: CString,
}

/// What the process has open: nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'f> {
    /// Its standard input.
    pub input: BorrowedFd<'f>,
    /// Its standard output and standard error.
    pub output: BorrowedFd<'f>,
}

/// What was being done when a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Making the process, or making it ready.
    Create,
    /// Going to its folder.
    Folder,
    /// Loading the program.
    Load,
}

/// Why a process was not started.
#[derive(Debug)]
pub struct Failure {
    /// What was being done.
    pub step: Step,
    /// What the system said.
    pub source: io::Error,
}

/// A process that was made, and is about to load its program.
#[derive(Debug)]
pub struct Child {
    /// Its number, which also names its group.
    pub pid: i32,
    note: Note,
}

/// Starts processes, one after the other.
#[derive(Debug)]
pub struct Spawner {
    notes: Notes,
    own: i32,
}

impl Spawner {
    /// Takes the memory that children note failures in.
    ///
    /// # Errors
    /// Where the system gives no memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self { notes: Notes::new()?, own: i32::try_from(std::process::id()).unwrap_or(0) })
    }

    /// Starts a process as leader of a new process group, which dies by SIGKILL with the calling thread. It begins in the
    /// control group whose folder is given, so that no process of it can ever be outside. Whether its program was loaded is
    /// known when it has ended: see [`failure`](Self::failure).
    ///
    /// # Errors
    /// Where the system makes no process.
    pub fn spawn(
        &mut self,
        program: &Program,
        streams: Streams<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Child, Failure> {
        let (argv, env) = (pointers(&program.argv), pointers(&program.env));
        let plan = child::Plan {
            path: program.path.as_ptr(),
            argv: argv.as_ptr(),
            env: env.as_ptr(),
            cwd: program.cwd.as_ptr(),
            input: streams.input.as_raw_fd(),
            output: streams.output.as_raw_fd(),
            parent: self.own,
            notes: &self.notes,
            note: self.notes.next(),
        };
        // SAFETY: the child gets a copy of this memory, as it is now, and runs `child::run` alone, which calls only what may
        // be called between a fork and an exec, and never returns. All that the plan points to is part of the copy.
        let pid = unsafe { clone(cgroup) };
        match i32::try_from(pid) {
            Ok(0) => child::run(&plan),
            Ok(pid) if pid > 0 => {
                // The child does the same: whoever comes first, a signal to the group finds it from here on.
                // SAFETY: a system call with two numbers; it fails where the child has loaded its program by now.
                unsafe { libc::setpgid(pid, pid) };
                Ok(Child { pid, note: self.notes.take() })
            }
            _ => Err(Failure { step: Step::Create, source: io::Error::last_os_error() }),
        }
    }

    /// Says why a child that has ended never loaded its program; `None` where it did.
    pub fn failure(&mut self, child: Child) -> Option<Failure> {
        self.notes.read(child.note)
    }
}

/// Makes a process; returns its number, zero in the new process, or a negative number.
///
/// # Safety
/// In the new process only what is allowed between a fork and an exec may be called, and nothing may return from here.
unsafe fn clone(cgroup: Option<BorrowedFd<'_>>) -> c_long {
    let signal = u64::from(libc::SIGCHLD.unsigned_abs());
    let Some(cgroup) = cgroup else {
        // The older call, which container runtimes know that refuse the newer one. Every stack argument is zero: the child
        // goes on with a copy of this one.
        // SAFETY: as the caller promises.
        return unsafe { libc::syscall(libc::SYS_clone, signal, 0_u64, 0_u64, 0_u64, 0_u64) };
    };
    let mut arguments = [0_u64; ARGUMENTS];
    arguments[FLAGS] = CLONE_INTO_CGROUP;
    arguments[EXIT_SIGNAL] = signal;
    arguments[CGROUP] = u64::from(cgroup.as_raw_fd().unsigned_abs());
    // SAFETY: as the caller promises; the arguments live on this stack during the call.
    unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) }
}

/// Returns the addresses of texts, ended by a null.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| CStr::as_ptr(text)).chain([ptr::null()]).collect()
}

/// Takes leave of one child that has ended, whichever it is; `None` where none has.
///
/// # Errors
/// Where there is no child at all (`ECHILD`).
pub fn wait_any() -> io::Result<Option<(i32, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: the kernel writes one number to a place of this stack.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        0 => Ok(None),
        1.. => Ok(Some((pid, ExitStatus::from_raw(status)))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps every open descriptor but the three standard streams from the programs that are loaded from now on: whoever started
/// this program may have left some open.
///
/// # Errors
/// Where the kernel is older than 5.11.
pub fn keep_descriptors() -> io::Result<()> {
    let (first, last) = (libc::STDERR_FILENO.unsigned_abs() + 1, u32::MAX);
    // SAFETY: only a flag of descriptors changes, and only from closed late to closed in time.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
