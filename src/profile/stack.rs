//! From where ops are launched: the native stack of the launching thread, taken when a capture asks
//! for it (`with_stack`). Taking one keeps return addresses only; names are looked up once the
//! capture is over.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Frames kept of a stack, innermost first.
const DEEPEST: usize = 48;
/// Different stacks that a process keeps; there are about as many as there are call sites.
const MOST: usize = 1 << 14;

/// Stacks by number; equal ones are kept once.
#[derive(Default)]
struct Table {
    stacks: Vec<Box<[usize]>>,
    numbers: HashMap<Box<[usize]>, u32>,
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

thread_local! {
    static ASKED: Cell<bool> = const { Cell::new(false) };
    /// The stack of the op that is running.
    static CURRENT: Cell<Option<u32>> = const { Cell::new(None) };
    /// Stacks of the step's launches, by owner.
    static LAUNCHES: RefCell<Vec<(u32, u32)>> = const { RefCell::new(Vec::new()) };
}

fn table() -> MutexGuard<'static, Option<Table>> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, launches of this thread keep their stacks.
#[derive(Debug)]
pub struct Asking(());

/// Begins to keep stacks on this thread if `wanted`.
pub fn asking(wanted: bool) -> Option<Asking> {
    wanted.then(|| {
        ASKED.set(true);
        CURRENT.set(None);
        Asking(())
    })
}

impl Drop for Asking {
    fn drop(&mut self) {
        ASKED.set(false);
        LAUNCHES.with_borrow_mut(Vec::clear);
    }
}

/// An op hands work to other threads here: the first such place of an op is its stack.
#[inline]
pub fn here() {
    if ASKED.get() && CURRENT.get().is_none() {
        CURRENT.set(take());
    }
}

/// The stack of the op that has just run, or this one if it handed nothing on; `None` if nobody
/// asked.
#[inline]
pub fn taken() -> Option<u32> {
    if !ASKED.get() {
        return None;
    }
    CURRENT.take().or_else(take)
}

/// Work that belongs to `owner` is queued on a device here.
#[inline]
pub fn launch(owner: u32) {
    if ASKED.get() {
        LAUNCHES.with_borrow_mut(|launches| {
            if launches.iter().all(|l| l.0 != owner) {
                launches.extend(take().map(|stack| (owner, stack)));
            }
        });
    }
}

/// Owners and stacks of what was queued since the last call.
pub fn launches() -> Vec<(u32, u32)> {
    LAUNCHES.with_borrow_mut(std::mem::take)
}

/// Keeps the stack of the caller; `None` if there are too many.
#[inline(never)]
fn take() -> Option<u32> {
    let mut frames = Vec::with_capacity(DEEPEST);
    backtrace::trace(|frame| {
        frames.push(frame.ip() as usize);
        frames.len() < DEEPEST
    });
    let mut table = table();
    let table = table.get_or_insert_default();
    if let Some(number) = table.numbers.get(frames.as_slice()) {
        return Some(*number);
    }
    if table.stacks.len() >= MOST {
        return None;
    }
    let (number, frames) = (table.stacks.len() as u32, frames.into_boxed_slice());
    table.stacks.push(frames.clone());
    table.numbers.insert(frames, number);
    Some(number)
}

/// The functions of a stack, innermost first, without those that took it and those of the thread's
/// start: `pacer::device::cpu::run::Run::linear (src/device/cpu/run.rs:120)`.
pub fn names(number: u32) -> Vec<String> {
    let addresses = match table().as_ref().and_then(|t| t.stacks.get(number as usize)) {
        Some(stack) => stack.clone(),
        None => return Vec::new(),
    };
    let mut names = Vec::new();
    for address in addresses {
        // A return address may be the beginning of the next function: the call is before it.
        let call = address.saturating_sub(1) as *mut std::ffi::c_void;
        let known = names.len();
        backtrace::resolve(call, |symbol| names.extend(name(symbol)));
        if names.len() == known {
            names.push(format!("{address:#x}"));
        }
    }
    let first = names.iter().rposition(|name| own(name)).map_or(0, |last| last + 1);
    let begin = |name: &String| name.contains("__rust_begin_short_backtrace");
    let end = names.iter().position(begin).unwrap_or(names.len());
    names.drain(first.min(end)..end).collect()
}

/// Whether a frame is of taking the stack. Full names come from the table of symbols; a build with
/// debug information names the function and its file.
fn own(name: &str) -> bool {
    const TAKING: [&str; 5] = ["take", "here", "taken", "launch", "stack"];
    let (function, place) = name.split_once(" (").unwrap_or((name, ""));
    let function = function.split('<').next().unwrap_or(function);
    let last = function.rsplit("::").next().unwrap_or(function);
    let here = ["profile::stack::", "profile::recorder::"].iter().any(|m| function.contains(m))
        || ["profile/stack.rs", "profile/recorder.rs"].iter().any(|f| place.contains(f));
    function.starts_with("backtrace::")
        || place.starts_with("backtrace-")
        || here && TAKING.contains(&last)
}

/// Names with the types of generics can be very long.
const LONGEST: usize = 160;

fn name(symbol: &backtrace::Symbol) -> Option<String> {
    let name: String = format!("{:#}", symbol.name()?).chars().take(LONGEST).collect();
    let place = symbol.filename().and_then(|f| f.to_str()).zip(symbol.lineno());
    let short = |file: &str| {
        let parts: Vec<&str> = file.rsplitn(5, '/').take(4).collect();
        parts.into_iter().rev().collect::<Vec<_>>().join("/")
    };
    Some(match place {
        Some((file, line)) => format!("{name} ({}:{line})", short(file)),
        None => name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn an_op_of_this_test() {
        here();
    }

    #[test]
    fn a_stack_names_the_function_that_launched() {
        here();
        assert_eq!(taken(), None, "nobody asked");
        let asking = asking(true);
        an_op_of_this_test();
        let first = taken().unwrap();
        let names = names(first);
        assert!(names[0].contains("an_op_of_this_test"), "{names:#?}");
        assert!(names[1].contains("a_stack_names_the_function"), "{names:#?}");
        assert!(!names.iter().any(|n| n.contains("backtrace-")), "{names:#?}");
        assert!(own("backtrace::trace") && own("pacer::profile::stack::take"));
        assert!(own("here (pacer/src/profile/stack.rs:59)"));
        assert!(!own("launch (src/device/gpu/graphs.rs:1)") && !own("pacer::other::take"));
        // The same place gives the same stack, which is kept once; another gives another.
        let mut numbers = Vec::new();
        // An unknown number of times, so that there is one call and not three.
        for _ in 0..std::hint::black_box(3) {
            an_op_of_this_test();
            numbers.extend(taken());
        }
        assert!(numbers.iter().all(|n| *n == numbers[0]), "{numbers:?}");
        assert_ne!(numbers[0], first);
        launch(7);
        launch(7);
        launch(8);
        let owners: Vec<u32> = launches().iter().map(|l| l.0).collect();
        assert_eq!(owners, [7, 8]);
        drop(asking);
        an_op_of_this_test();
        assert_eq!(taken(), None);
        assert!(super::names(u32::MAX).is_empty());
    }
}
