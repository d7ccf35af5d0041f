//! What opening a file costs: an allocator that counts each thread's bytes, and the check that
//! every damaged file goes through.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pacer::error::Error;
use pacer::weights::open::{Format, Opened, open};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: passes every call on to the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Most bytes that `body` held at once, and what it gave.
pub fn peak<T>(body: impl FnOnce() -> T) -> (usize, T) {
    let before = LIVE.get();
    PEAK.set(before);
    let out = body();
    ((PEAK.get() - before) as usize, out)
}

/// A file of its own in a temporary folder that goes when this does.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = format!("pacer-weights-{}-{n}-{name}", std::process::id());
        let path = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Opens `path` of `len` bytes within the bounds on time and memory.
pub fn bounded(case: &str, path: &Path, len: usize) -> Result<Opened, Error> {
    let start = Instant::now();
    let (held, opened) = peak(|| open(path, Format::Auto));
    assert!(start.elapsed() < Duration::from_secs(1), "{case}: took {:?}", start.elapsed());
    assert!(held <= 12 * len + 16_384, "{case}: {held} bytes held for a file of {len}");
    opened
}

/// Asserts that a file of `bytes` is refused with a message that names it and has every part of
/// `wanted` (separated by `|`).
pub fn refused(case: &str, name: &str, bytes: &[u8], wanted: &str) {
    let scratch = Scratch::new("bad");
    let path = scratch.write(name, bytes);
    let Err(error) = bounded(case, &path, bytes.len()) else { panic!("{case}: opened") };
    for part in std::iter::once(name).chain(wanted.split('|')) {
        assert!(error.message.contains(part), "{case}: {part:?} is not in: {}", error.message);
    }
    assert!(error.message.len() < 1000, "{case}: {} bytes of message", error.message.len());
}
