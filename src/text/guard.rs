//! Runs code that may panic on hostile input, and turns the panic into a message.
//!
//! The tokenizers crate panics on crafted files, at load and at encode (reliability §1.5), so
//! it is never called outside these two functions.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Room for the recursion of a parser or a regex compiler; touched only as far as it is used.
const BIG_STACK: usize = 64 << 20;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it becomes its message. Nothing is printed.
///
/// What `work` changed must not be used after an `Err`.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    quiet_guarded_panics();
    let before = GUARDED.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    outcome.map_err(|panic| message_of(panic.as_ref()))
}

/// The same on a thread with a big stack, for deeply nested input.
pub(super) fn guarded_on_big_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("text-guard".into())
            .stack_size(BIG_STACK)
            .spawn_scoped(scope, || guarded(work))
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        thread.join().unwrap_or_else(|panic| Err(message_of(panic.as_ref())))
    })
}

/// The default hook prints every panic, also a caught one; ours leaves out guarded threads.
fn quiet_guarded_panics() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                usual(info);
            }
        }));
    });
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("panicked: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        let message = guarded(|| panic!("bad {}", 7)).unwrap_err();
        assert!(message.ends_with("panicked: bad 7"), "{message}");
        assert_eq!(guarded(|| 3), Ok(3));
    }

    #[test]
    fn the_big_stack_holds_deep_recursion() {
        fn depth(n: usize) -> usize {
            let padding = std::hint::black_box([n; 64]);
            if n == 0 { padding[0] } else { 1 + depth(n - 1) + padding[1] - n }
        }
        assert_eq!(guarded_on_big_stack(|| depth(30_000)), Ok(30_000));
        assert!(guarded_on_big_stack(|| panic!("there")).is_err());
    }
}
