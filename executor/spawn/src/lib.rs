//! Starting the process of an attempt: the one crate of the workspace with `unsafe` code.
//!
//! The standard library can start a process in a group of its own, but it cannot have it die with its parent or begin in a
//! control group, except by a hook that is unsafe to write as well; and it waits until the program is loaded, which costs a
//! program with one thread half of its rate. Here the kernel is asked directly, and the caller goes on at once: the child
//! runs in the caller's memory on a stack of its own until it has loaded its program. No page tables are copied, so the
//! caller may be of any size; a child notes what failed where the caller finds it.
//!
//! The death signal follows the *thread* that starts the process, so a program with one thread is what may use this.

#![expect(unsafe_code, reason = "a death signal and a control group cannot be had from the standard library")]

mod child;
mod clone;
mod notes;
mod stack;

use std::{
    ffi::{CStr, CString, c_char},
    fmt, io, mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::process::ExitStatusExt as _,
    },
    process::ExitStatus,
    ptr,
    rc::Rc,
};

use self::{
    child::Plan,
    notes::{Note, Notes},
    stack::Stacks,
};

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
pub struct Spawner {
    notes: Notes,
    stacks: Stacks,
    own: i32,
}

impl Default for Spawner {
    fn default() -> Self {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        Self { notes: Notes::new(), stacks: Stacks::default(), own }
    }
}

impl Spawner {
    /// Starts a process as leader of a new process group, which dies by SIGKILL with the calling thread. It begins in the
    /// control group whose folder is given, so that no process of it can ever be outside. Whether its program was loaded is
    /// known when it has ended: see [`failure`](Self::failure).
    ///
    /// # Errors
    /// Where the system makes no process.
    pub fn spawn(
        &mut self,
        program: &Rc<Program>,
        streams: Streams<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Child, Failure> {
        let (note, note_at) = self.notes.next();
        let plan = Plan {
            argv: pointers(&program.argv),
            env: pointers(&program.env),
            program: Rc::clone(program),
            input: streams.input.as_raw_fd(),
            output: streams.output.as_raw_fd(),
            parent: self.own,
            note: note_at,
        };
        let failed = |source| Failure { step: Step::Create, source };
        let stack = self.stacks.free().map_err(failed)?;
        let plan = stack.occupy(plan);
        // SAFETY: the stack, and with it the plan, are kept until the kernel says that the child has left them; the notes
        // are kept as long.
        let made = unsafe { clone::make(stack, plan, cgroup) };
        let pid = made.map_err(|source| {
            stack.vacate();
            failed(source)
        })?;
        // The child does the same: whoever comes first, a signal to the group finds it from here on.
        // SAFETY: a system call with two numbers; it fails where the child has loaded its program by now.
        unsafe { libc::setpgid(pid, pid) };
        self.notes.take();
        Ok(Child { pid, note })
    }

    /// Says why a child that has ended never loaded its program; `None` where it did.
    pub fn failure(&mut self, child: Child) -> Option<Failure> {
        self.notes.read(child.note)
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        if self.stacks.are_busy() {
            self.stacks.leak();
            mem::forget(mem::replace(&mut self.notes, Notes::new()));
        }
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
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
