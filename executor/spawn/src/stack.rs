//! The stacks that children run on until their programs are loaded.

use std::{
    io, ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use crate::child::Plan;

/// Bytes of a stack: what a child calls needs a fraction of it.
const STACK: usize = 16 * 1024;
/// Bytes below it that nothing may touch, so that a stack that is too small is noticed.
const GUARD: usize = 4 * 1024;

/// A stack, and what the child on it was given to do.
pub(crate) struct Stack {
    bottom: *mut u8,
    /// Not zero while a child runs on it. The kernel clears it when that child has left this memory.
    busy: Box<AtomicI32>,
    plan: Option<Box<Plan>>,
}

impl Stack {
    fn new() -> io::Result<Self> {
        let (readable, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK);
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let bottom = unsafe { libc::mmap(ptr::null_mut(), GUARD + STACK, libc::PROT_NONE, flags, -1, 0) };
        if bottom == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { bottom: bottom.cast(), busy: Box::default(), plan: None };
        // SAFETY: the upper part of the mapping made above.
        if unsafe { libc::mprotect(stack.bottom.add(GUARD).cast(), STACK, readable) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) != 0
    }

    /// Gives it to a child; returns what that is given to do. It is kept until the child has left.
    pub(crate) fn occupy(&mut self, plan: Plan) -> *const Plan {
        self.busy.store(1, Ordering::Release);
        &raw const **self.plan.insert(Box::new(plan))
    }

    /// Takes it back from a child that was not made.
    pub(crate) fn vacate(&self) {
        self.busy.store(0, Ordering::Release);
    }

    /// Where it is, without the guard, and how many bytes it has.
    pub(crate) fn extent(&self) -> (*mut u8, usize) {
        // SAFETY: inside of the mapping.
        (unsafe { self.bottom.add(GUARD) }, STACK)
    }

    /// What the kernel clears when the child has left.
    pub(crate) fn busy(&self) -> *mut i32 {
        self.busy.as_ptr()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no child runs on it: see the drop of `Spawner`.
        unsafe { libc::munmap(self.bottom.cast(), GUARD + STACK) };
    }
}

/// As many stacks as were needed at once.
#[derive(Default)]
pub(crate) struct Stacks {
    all: Vec<Stack>,
}

impl Stacks {
    /// Returns a stack that no child runs on.
    ///
    /// # Errors
    /// Where the system gives no memory.
    pub(crate) fn free(&mut self) -> io::Result<&mut Stack> {
        let index = match self.all.iter().position(|stack| !stack.is_busy()) {
            Some(index) => index,
            None => {
                self.all.push(Stack::new()?);
                self.all.len() - 1
            }
        };
        self.all.get_mut(index).ok_or_else(|| io::Error::other("a stack is gone"))
    }

    /// Tells whether children are still in this memory.
    pub(crate) fn are_busy(&self) -> bool {
        self.all.iter().any(Stack::is_busy)
    }

    /// Gives up the memory of children that are still in it, for as long as this program lives.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.all));
    }
}
