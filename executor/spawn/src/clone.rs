//! Making a process that runs in our memory on a stack of its own.

use std::{
    ffi::{c_int, c_void},
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
};

use crate::{
    child::{self, Plan},
    stack::Stack,
};

/// The child shares our memory, and the kernel clears a word of it when it no longer does.
const SHARED: c_int = libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;

/// Makes a process that runs [`child::run`]; returns its number.
///
/// # Safety
/// The stack and the plan must be kept as they are until the stack's word is cleared, and what the plan points to as well.
pub(crate) unsafe fn make(
    stack: &Stack,
    plan: *const Plan,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<i32> {
    let Some(cgroup) = cgroup else {
        // The older call, which container runtimes know that refuse the newer one.
        let (bottom, bytes) = stack.extent();
        let none = ptr::null_mut::<c_void>();
        // SAFETY: as the caller promises; the stack is aligned to a page.
        let pid = unsafe {
            let top = bottom.add(bytes).cast();
            libc::clone(start, top, SHARED, plan.cast_mut().cast(), none, none, stack.busy())
        };
        return if pid > 0 { Ok(pid) } else { Err(io::Error::last_os_error()) };
    };
    // SAFETY: as the caller promises.
    unsafe { into_cgroup(stack, plan, cgroup.as_raw_fd()) }
}

extern "C" fn start(plan: *mut c_void) -> c_int {
    // SAFETY: the plan that `make` was given, with the promise that it is kept.
    unsafe { child::run(plan.cast_const().cast()) }
}

/// As [`make`]; the child begins in a control group.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
unsafe fn into_cgroup(stack: &Stack, plan: *const Plan, cgroup: c_int) -> io::Result<i32> {
    /// Begin in the control group that is given; see clone3(2).
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let (bottom, bytes) = stack.extent();
    let arguments = libc::clone_args {
        flags: (libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID) as u64 | CLONE_INTO_CGROUP,
        pidfd: 0,
        child_tid: stack.busy().expose_provenance() as u64,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: bottom.expose_provenance() as u64,
        stack_size: bytes as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup as u64,
    };
    // SAFETY: as the caller promises; the arguments live on this stack during the call.
    let result = unsafe { clone3(&arguments, plan) };
    match i32::try_from(result) {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(errno) => Err(io::Error::from_raw_os_error(-errno)),
        Err(_) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// No control group on this machine: attempts are held together by process groups.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn into_cgroup(_stack: &Stack, _plan: *const Plan, _cgroup: c_int) -> io::Result<i32> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// The C library has no name for this call, and on its own stack the child cannot return from one that is made in Rust.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(arguments: &libc::clone_args, plan: *const Plan) -> isize {
    let result: isize;
    // SAFETY: in this process it changes the registers that are named; the new one goes to `child::run` at once.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") ptr::from_ref(arguments),
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") plan,
            in("r13") child::run as unsafe extern "C" fn(*const Plan) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(arguments: &libc::clone_args, plan: *const Plan) -> isize {
    let result: isize;
    // SAFETY: in this process it changes the registers that are named; the new one goes to `child::run` at once.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") ptr::from_ref(arguments) => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x20") plan,
            in("x21") child::run as unsafe extern "C" fn(*const Plan) -> !,
        );
    }
    result
}
