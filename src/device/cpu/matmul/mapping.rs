//! Anonymous memory in huge pages, shared by many buffers.
//!
//! A product walks all weights once a step: with pages of 4 KiB every 64 cache lines cost a
//! translation (two walks of it in a virtual machine) and end a hardware prefetch. A layer's
//! matrices may each be smaller than a huge page of 2 MiB, so they stand side by side in mappings
//! of [`CHUNK`] bytes. The kernel is asked for huge pages before anything is touched; memory
//! that nobody touches takes none.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

const HUGE: usize = 2 << 20;
/// Bytes of a shared mapping; buffers of half as much have their own.
const CHUNK: usize = 64 << 20;

/// The mapping that parts are taken from, while someone uses it, and how much is taken.
static OPEN: Mutex<(Weak<Mapping>, usize)> = Mutex::new((Weak::new(), 0));

/// Zeroed bytes of the operating system's, given back when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    /// Mapped bytes, before and after the aligned part too.
    mapped: usize,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is memory, handed out in disjoint parts by `part`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// `len` zeroed bytes at a multiple of `align` (a power of two) that no one else has, and the
/// mapping to keep; `None` if there is no memory or no such call on this system.
pub fn part(len: usize, align: usize) -> Option<(Arc<Mapping>, NonNull<u8>)> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let first = open.1.next_multiple_of(align);
    let end = first.checked_add(len)?;
    if let Some(mapping) = open.0.upgrade().filter(|mapping| end <= mapping.len) {
        open.1 = end;
        // SAFETY: inside the mapping (just checked).
        let data = unsafe { mapping.start.add(first) };
        return Some((mapping, data));
    }
    let own = len > CHUNK / 2;
    let mapping = Arc::new(Mapping::new(if own { len } else { CHUNK })?);
    let data = mapping.start;
    if !own {
        *open = (Arc::downgrade(&mapping), len);
    }
    Some((mapping, data))
}

#[cfg(target_os = "linux")]
impl Mapping {
    fn new(len: usize) -> Option<Mapping> {
        let mapped = len.checked_add(HUGE)?;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let base = NonNull::new(base.cast::<u8>())?;
        // SAFETY: the offset is less than HUGE, and HUGE more bytes than `len` are mapped.
        let start = unsafe { base.add(base.as_ptr().align_offset(HUGE)) };
        // SAFETY: advice on memory just mapped; a refusal changes nothing.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Some(Mapping { base, mapped, start, len })
    }
}

#[cfg(target_os = "linux")]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; every part holds an `Arc` of this, so none is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(not(target_os = "linux"))]
impl Mapping {
    fn new(_len: usize) -> Option<Mapping> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn parts_are_zeroed_aligned_and_apart() {
        let sizes = [100_000, 3 << 20, 65_537, CHUNK / 2 + 1, CHUNK / 2, CHUNK / 2, 70_000];
        let parts: Vec<_> = sizes.iter().map(|len| (part(*len, 64).unwrap(), *len)).collect();
        for (i, ((_, data), len)) in parts.iter().enumerate() {
            assert_eq!(data.as_ptr().align_offset(64), 0);
            // SAFETY: the part is ours; nobody else holds a reference to it.
            let bytes = unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), *len) };
            assert!(bytes.iter().all(|b| *b == 0), "part {i} is new");
            bytes.fill(i as u8 + 1);
        }
        for (i, ((_, data), len)) in parts.iter().enumerate() {
            // SAFETY: as above.
            let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr(), *len) };
            assert!(bytes.iter().all(|b| *b == i as u8 + 1), "part {i} is no one else's");
        }
    }
}
