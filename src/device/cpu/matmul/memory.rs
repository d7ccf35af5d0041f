//! Aligned memory for panels and scratch, and disjoint mutable pieces of it for threads.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::error::{Error, Result};

/// Alignment of every buffer: a cache line.
const ALIGN: usize = 64;
/// From this size on, buffers are aligned to huge pages and the kernel is asked for them: a
/// matrix product walks gigabytes, and 4 KiB pages cost it translations.
const HUGE: usize = 2 << 20;

/// Zeroed bytes on a cache line or huge page boundary.
#[derive(Debug)]
pub struct Bytes {
    data: NonNull<u8>,
    layout: Layout,
}

// SAFETY: `Bytes` owns its memory and has no interior mutability.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// # Errors
    /// If memory runs out.
    pub fn zeroed(len: usize) -> Result<Bytes> {
        let no_memory = || Error::limit(format!("no memory for {len} bytes of weights or scratch"));
        let align = if len >= HUGE { HUGE } else { ALIGN };
        let layout = Layout::from_size_align(len.max(1), align).map_err(|_| no_memory())?;
        // SAFETY: the layout's size is not zero.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(no_memory)?;
        #[cfg(target_os = "linux")]
        if len >= HUGE {
            // SAFETY: advice on memory that this buffer owns; a refusal changes nothing.
            unsafe { libc::madvise(data.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        Ok(Bytes { data, layout })
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `layout.size()` initialised bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.layout.size()) }
    }

    /// The buffer as pieces of `chunk` bytes for threads.
    pub fn chunks(&mut self, chunk: usize) -> Chunks<'_, u8> {
        Chunks { data: self.data.as_ptr(), len: self.layout.size(), chunk, of: PhantomData }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.data.as_ptr(), self.layout) };
    }
}

/// Equal pieces of a slice that different threads may write at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Chunks<'a, T> {
    data: *mut T,
    len: usize,
    chunk: usize,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: `take` hands out disjoint pieces, each to one thread (its contract).
unsafe impl<T: Send> Sync for Chunks<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    pub fn new(slice: &'a mut [T], chunk: usize) -> Self {
        Chunks { data: slice.as_mut_ptr(), len: slice.len(), chunk, of: PhantomData }
    }

    /// Piece `index`.
    ///
    /// # Safety
    /// While the returned slice lives, no one else may take the same piece.
    ///
    /// # Panics
    /// If the piece is outside the slice.
    #[expect(clippy::mut_from_ref, reason = "pieces are disjoint by the caller's promise")]
    pub unsafe fn take(&self, index: usize) -> &mut [T] {
        let start = index * self.chunk;
        assert!(start + self.chunk <= self.len, "piece {index} is outside the buffer");
        // SAFETY: inside the slice (just checked); exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), self.chunk) }
    }

    /// The first element; what is done with it is the caller's promise, as for [`Self::take`].
    pub fn as_ptr(&self) -> *mut T {
        self.data
    }
}
