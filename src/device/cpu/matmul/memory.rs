//! Aligned memory for panels and scratch, and disjoint mutable pieces of it for threads.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use super::mapping::{self, Mapping};
use crate::error::{Error, Result};

/// Alignment of every buffer: a cache line.
const ALIGN: usize = 64;
/// From this size on, buffers share mappings of huge pages.
const LARGE: usize = 64 << 10;

/// Zeroed bytes on a cache line boundary.
#[derive(Debug)]
pub struct Bytes {
    data: NonNull<u8>,
    len: usize,
    owner: Owner,
}

#[derive(Debug)]
enum Owner {
    Heap(Layout),
    /// Kept so that the memory lives; others' buffers lie in it too.
    #[expect(dead_code, reason = "held, not read")]
    Shared(Arc<Mapping>),
}

// SAFETY: `Bytes` owns its memory, in a mapping its part alone, and has no interior mutability.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// # Errors
    /// If memory runs out.
    pub fn zeroed(len: usize) -> Result<Bytes> {
        if len >= LARGE
            && let Some((mapping, data)) = mapping::part(len, ALIGN)
        {
            return Ok(Bytes { data, len, owner: Owner::Shared(mapping) });
        }
        let no_memory = || Error::limit(format!("no memory for {len} bytes of weights or scratch"));
        let layout = Layout::from_size_align(len.max(1), ALIGN).map_err(|_| no_memory())?;
        // SAFETY: the layout's size is not zero.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(no_memory)?;
        Ok(Bytes { data, len, owner: Owner::Heap(layout) })
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }

    /// The buffer as pieces of `chunk` bytes for threads.
    pub fn chunks(&mut self, chunk: usize) -> Chunks<'_, u8> {
        Chunks { data: self.data.as_ptr(), len: self.len, chunk, of: PhantomData }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Owner::Heap(layout) = self.owner {
            // SAFETY: allocated in `zeroed` with this layout.
            unsafe { dealloc(self.data.as_ptr(), layout) };
        }
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
