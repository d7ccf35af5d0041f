//! Tells a stand-in for CUPTI what runs, as the driver tells the real one: calls when they are
//! made, kernels and copies when they are done. `PACER_LIBCUDA_CUPTI` names the library, which
//! the program under test must have open already.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use pacer_emulator::host::{Direction, Ran, RanWork};

use crate::state::machine;

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

const RTLD_NOW: c_int = 2;

/// What `standin_memory` is told.
const TO_DEVICE: c_int = 0;
const SET: c_int = 1;
const TO_HOST: c_int = 2;

type Call = extern "C" fn(u32);
type Kernel = extern "C" fn(*const c_char, u64, u64, u32, u32, u32, u64);
type Memory = extern "C" fn(c_int, u64, u64, u64, u32, u32);
type Now = extern "C" fn() -> u64;

/// The stand-in's own functions.
struct Standin {
    call: Call,
    kernel: Kernel,
    memory: Memory,
    now: Now,
    /// Added to the numbers of graph nodes: a card's are not those of the captured nodes.
    cloned: u64,
}

fn standin() -> Option<&'static Standin> {
    static STANDIN: OnceLock<Option<Standin>> = OnceLock::new();
    STANDIN.get_or_init(open).as_ref()
}

fn open() -> Option<Standin> {
    let name = std::env::var("PACER_LIBCUDA_CUPTI").ok().filter(|n| !n.is_empty())?;
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with NUL; the library is the test's own.
    let handle = unsafe { dlopen(name.as_ptr(), RTLD_NOW) };
    if handle.is_null() {
        return None;
    }
    let symbol = |name: &std::ffi::CStr| {
        // SAFETY: the handle is open and the name ends with NUL.
        let found = unsafe { dlsym(handle, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    };
    machine().log(true);
    let (call, kernel) = (symbol(c"standin_call")?, symbol(c"standin_kernel")?);
    let (memory, now) = (symbol(c"standin_memory")?, symbol(c"standin_now")?);
    // SAFETY: the stand-in declares its functions with these signatures.
    unsafe {
        Some(Standin {
            call: std::mem::transmute::<*mut c_void, Call>(call),
            kernel: std::mem::transmute::<*mut c_void, Kernel>(kernel),
            memory: std::mem::transmute::<*mut c_void, Memory>(memory),
            now: std::mem::transmute::<*mut c_void, Now>(now),
            cloned: std::env::var("PACER_LIBCUDA_CUPTI_CLONED").map_or(0, |_| 0x5_0000),
        })
    }
}

/// A call that queues work is made on this thread; its work carries the call's number.
pub fn call() {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    if let Some(s) = standin() {
        let correlation = NEXT.fetch_add(1, Ordering::Relaxed);
        machine().tag(correlation.into());
        (s.call)(correlation);
    }
}

/// Somebody has waited: what ran meanwhile becomes records. Projected durations are laid one
/// behind the other from now on.
pub fn deliver() {
    /// The end of what was told last.
    static AT: Mutex<u64> = Mutex::new(0);
    let Some(s) = standin() else { return };
    let Ok(ran) = machine().ran() else { return };
    let mut at = AT.lock().unwrap_or_else(|e| e.into_inner());
    let total: f64 = ran.iter().map(|r| r.to - r.from).sum();
    *at = (*at).max((s.now)().saturating_sub((total * 1e9) as u64));
    for r in &ran {
        let end = *at + ((r.to - r.from) * 1e9) as u64;
        tell(s, r, *at, end);
        *at = end;
    }
}

fn tell(s: &Standin, ran: &Ran, start: u64, end: u64) {
    let (stream, correlation) = (ran.stream as u32, ran.tag as u32);
    let (graph, node) = match ran.node {
        0 => (0, 0),
        node => (1, node + s.cloned),
    };
    match &ran.work {
        RanWork::Kernel { name, .. } => {
            (s.kernel)(kept(name), start, end, stream, correlation, graph, node);
        }
        RanWork::Copy { bytes, direction } => {
            let kind = if *direction == Direction::ToHost { TO_HOST } else { TO_DEVICE };
            (s.memory)(kind, *bytes, start, end, stream, correlation);
        }
        RanWork::Fill { bytes } => (s.memory)(SET, *bytes, start, end, stream, correlation),
    }
}

/// A name that lives as long as the process, the same address each time.
fn kept(name: &str) -> *const c_char {
    static NAMES: Mutex<Vec<&'static std::ffi::CStr>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(known) = names.iter().find(|n| n.to_bytes() == name.as_bytes()) {
        return known.as_ptr();
    }
    let made = CString::new(name).unwrap_or_default();
    let made: &'static std::ffi::CStr = Box::leak(made.into_boxed_c_str());
    names.push(made);
    made.as_ptr()
}
