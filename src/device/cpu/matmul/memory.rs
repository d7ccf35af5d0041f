//! Memory of packed weights, and disjoint mutable pieces of a buffer for threads.

use std::marker::PhantomData;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// Alignment of every buffer: a cache line.
const ALIGN: usize = 64;
/// From this size on, memory is aligned to huge pages and the kernel is asked for them: a
/// matrix product walks gigabytes, and 4 KiB pages cost it translations.
const HUGE: usize = 2 << 20;

/// Zeroed bytes on a cache line boundary, cut from an [`Arena`].
#[derive(Debug)]
pub struct Bytes {
    region: Arc<Region>,
    start: usize,
    len: usize,
}

impl Bytes {
    fn as_ptr(&self) -> *mut u8 {
        // SAFETY: `start` is inside the region, or at its end if `len` is 0.
        unsafe { self.region.map.as_ptr().add(self.start).cast_mut() }
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes of the region, initialised by the system, that no other buffer has
        // and that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    /// The buffer as pieces of `chunk` bytes for threads.
    pub fn chunks(&mut self, chunk: usize) -> Chunks<'_, u8> {
        Chunks { data: self.as_ptr(), len: self.len, chunk, of: PhantomData }
    }
}

/// One range of address space that buffers are cut from, one after another, on huge pages:
/// matrices of a few hundred KiB, each allocated alone, would take a page fault and later a
/// translation for every 4 KiB. Memory is taken when it is first written to.
#[derive(Debug, Default)]
pub struct Arena {
    /// Bytes that the next region is to hold.
    wanted: usize,
    region: Option<Arc<Region>>,
    used: usize,
}

/// Mapped memory, never touched as a whole: only through the buffers cut from it.
#[derive(Debug)]
struct Region {
    map: MmapMut,
}

impl Arena {
    /// For buffers of `bytes` in all; more are taken where that was too few.
    pub fn new(bytes: usize) -> Arena {
        Arena { wanted: bytes, region: None, used: 0 }
    }

    /// A new buffer.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn zeroed(&mut self, len: usize) -> Result<Bytes> {
        let room = self.region.as_ref().filter(|r| r.map.len() - self.used >= len);
        let region = match room {
            Some(region) => Arc::clone(region),
            None => {
                let (region, start) = Region::new(len.max(self.wanted))?;
                (self.used, self.wanted) = (start, 0);
                self.region = Some(Arc::clone(&region));
                region
            }
        };
        let start = self.used;
        self.used = (start + len).next_multiple_of(ALIGN).min(region.map.len());
        Ok(Bytes { region, start, len })
    }
}

impl Region {
    /// A region of `len` bytes, and where it begins.
    fn new(len: usize) -> Result<(Arc<Region>, usize)> {
        let no_memory = || Error::limit(format!("no memory for {len} bytes of weights"));
        let huge = len >= HUGE;
        let all = len.checked_add(if huge { HUGE } else { ALIGN }).ok_or_else(no_memory)?;
        let map = MmapMut::map_anon(all).map_err(|_| no_memory())?;
        let start = if huge { map.as_ptr().align_offset(HUGE) } else { 0 };
        #[cfg(target_os = "linux")]
        if huge {
            // Advice: a refusal changes nothing.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok((Arc::new(Region { map }), start))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zero_aligned_and_apart() {
        for wanted in [0, 1000, 5 << 20] {
            let mut arena = Arena::new(wanted);
            let mut all: Vec<Bytes> =
                [1, 64, 0, 700, 3 << 20].map(|len| arena.zeroed(len).unwrap()).into();
            for bytes in &mut all {
                assert_eq!(bytes.as_slice().as_ptr().align_offset(ALIGN), 0);
                assert!(bytes.as_slice().iter().all(|b| *b == 0));
                let len = bytes.as_slice().len();
                let chunks = bytes.chunks(len);
                // SAFETY: the only piece taken.
                unsafe { chunks.take(0) }.fill(7);
            }
            drop(arena);
            assert!(all.iter().all(|bytes| bytes.as_slice().iter().all(|b| *b == 7)));
        }
    }
}
