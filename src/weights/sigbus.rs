//! One process-wide SIGBUS handler for mapped files that were cut.
//!
//! For a fault inside a watched range it maps zero pages from the fault to the range's end, marks
//! the range lost and lets the reader go on. Any other SIGBUS gets the action that was there
//! before, so a real bus error still ends the process.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// A watched address range. Never freed or reused, so the handler may walk the list at any time;
/// a few dozen bytes a file opened.
struct Range {
    start: usize,
    end: usize,
    live: AtomicBool,
    lost: AtomicBool,
    next: *const Range,
}

/// The newest range; each points to the one before it.
static RANGES: AtomicPtr<Range> = AtomicPtr::new(ptr::null_mut());
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);
/// The action to pass other faults to. Set before the handler is in place.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Keeps a range watched. Drop it before the range is unmapped.
pub struct Watch {
    range: &'static Range,
}

// SAFETY: `Range` is immutable but for its atomics, and `next` points to another leaked `Range`.
unsafe impl Send for Watch {}
// SAFETY: as above.
unsafe impl Sync for Watch {}

impl Watch {
    /// Whether a read inside the range met a page that was gone.
    pub fn lost(&self) -> bool {
        self.range.lost.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.range.live.store(false, Ordering::Release);
    }
}

/// Watches the `len` bytes at address `start`, a map of this process.
pub fn watch(start: usize, len: usize) -> io::Result<Watch> {
    install()?;
    let node = Box::leak(Box::new(Range {
        start,
        end: start.saturating_add(len),
        live: AtomicBool::new(true),
        lost: AtomicBool::new(false),
        next: RANGES.load(Ordering::Acquire),
    }));
    let node: *mut Range = node;
    loop {
        // SAFETY: `node` came from `Box::leak` and is not yet published.
        let before = unsafe { (*node).next.cast_mut() };
        match RANGES.compare_exchange(before, node, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: leaked above, only read from now on.
            Ok(_) => return Ok(Watch { range: unsafe { &*node } }),
            // SAFETY: not yet published.
            Err(newer) => unsafe { (*node).next = newer },
        }
    }
}

fn install() -> io::Result<()> {
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        // SAFETY: plain queries; `sigaction` gets valid pointers, and the handler it installs is
        // async-signal-safe (see `on_sigbus`).
        unsafe {
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096);
            PAGE_SIZE.store(page, Ordering::Release);
            let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
            if libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) != 0 {
                return Err(errno());
            }
            let _ = PREVIOUS.set(previous.assume_init());
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            match libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) {
                0 => Ok(()),
                _ => Err(errno()),
            }
        }
    });
    done.map_err(io::Error::from_raw_os_error)
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}

/// Only atomics and system calls in here: it may run at any instruction of any thread.
extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel gives a valid `info` to a SA_SIGINFO handler; errno belongs to the
    // interrupted code and is put back.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        if !patch((*info).si_addr() as usize) {
            pass_on(signal, info, context);
        }
        *errno = saved;
    }
}

/// Puts zero pages under the watched range that holds `address`, from there to its end: a file
/// that was cut has nothing behind the cut either, and one call an accident is cheap.
fn patch(address: usize) -> bool {
    let mut next: *const Range = RANGES.load(Ordering::Acquire);
    // SAFETY: the list holds leaked, immutable nodes.
    while let Some(range) = unsafe { next.as_ref() } {
        next = range.next;
        if range.live.load(Ordering::Acquire) && (range.start..range.end).contains(&address) {
            return zero(address, range);
        }
    }
    false
}

fn zero(address: usize, range: &Range) -> bool {
    let page = PAGE_SIZE.load(Ordering::Acquire);
    let start = address - address % page;
    range.lost.store(true, Ordering::Release);
    // SAFETY: the pages from `start` to the range's end belong to a live map that its owner only
    // reads and will unmap whole, whatever is mapped there by then.
    let mapped = unsafe {
        libc::mmap(
            start as *mut libc::c_void,
            range.end - start,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    mapped != libc::MAP_FAILED
}

/// Hands a fault that is not ours to the action that was there before us.
///
/// # Safety
/// Only from the signal handler, with the arguments that the kernel gave it.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get().filter(|p| p.sa_sigaction > libc::SIG_IGN);
    let Some(previous) = previous else {
        // SAFETY: resetting to the default action; the faulting instruction then runs again and
        // ends the process, as it would have without us.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    };
    // SAFETY: the address was installed as a handler of the kind that its flags say.
    unsafe {
        if previous.sa_flags & libc::SA_SIGINFO != 0 {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            std::mem::transmute::<usize, Handler>(previous.sa_sigaction)(signal, info, context);
        } else {
            type Handler = extern "C" fn(libc::c_int);
            std::mem::transmute::<usize, Handler>(previous.sa_sigaction)(signal);
        }
    }
}
