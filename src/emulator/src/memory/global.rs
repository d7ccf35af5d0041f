//! Global memory: a table of allocations with guard gaps between them, and one bit a byte that
//! says whether anything was ever written there.
//!
//! Blocks run on several host threads, and kernels may race, so every access is a relaxed atomic
//! of its own width: a racy kernel reads some value, never tears the host program.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::global_shadow::GlobalShadow;

/// First address handed out.
const FIRST: u64 = 0x7_0000_0000;
/// Bytes that no allocation covers after each one.
const GUARD: u64 = 4096;
/// Alignment of every allocation.
const ALIGN: u64 = 256;
/// Largest allocation.
const MAX_ALLOC: u64 = 1 << 36;

/// A host-side access that the memory refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryError {
    /// Address and length that no single allocation holds.
    NotAllocated { address: u64, bytes: u64 },
    /// `free` of something that is not the start of an allocation.
    NotAStart { address: u64 },
    /// An allocation of zero or too many bytes, or one that the host has no memory for.
    BadSize { bytes: u64 },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllocated { address, bytes } => {
                write!(f, "no allocation holds {bytes} bytes at {address:#x}")
            }
            Self::NotAStart { address } => write!(f, "{address:#x} does not start an allocation"),
            Self::BadSize { bytes } => write!(f, "cannot allocate {bytes} bytes"),
        }
    }
}

impl std::error::Error for MemoryError {}

/// One allocation.
pub struct Allocation {
    pub base: u64,
    pub size: u64,
    pub read_only: bool,
    words: Box<[AtomicU64]>,
    /// One bit a byte, set when the byte was written.
    init: Box<[AtomicU32]>,
    pub shadow: GlobalShadow,
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Allocation({:#x}, {} bytes)", self.base, self.size)
    }
}

impl Allocation {
    /// Pointer to the byte at `at`.
    #[inline]
    fn pointer(&self, at: u64, bytes: u64) -> *mut u8 {
        assert!(at + bytes <= self.size, "the caller checked the bounds");
        // SAFETY: `at` is inside the allocation, whose words cover `size` bytes.
        unsafe { self.words.as_ptr().cast::<u8>().cast_mut().add(at as usize) }
    }

    /// Reads 1, 2, 4 or 8 bytes at a multiple of that.
    #[inline]
    pub fn load(&self, at: u64, bytes: u32) -> u64 {
        let pointer = self.pointer(at, u64::from(bytes));
        // SAFETY: in bounds (checked by `pointer`), aligned (the caller's promise, and words are
        // 8-byte aligned), and every access to these bytes is atomic.
        unsafe {
            match bytes {
                1 => AtomicU8::from_ptr(pointer).load(Relaxed).into(),
                2 => AtomicU16::from_ptr(pointer.cast()).load(Relaxed).into(),
                4 => AtomicU32::from_ptr(pointer.cast()).load(Relaxed).into(),
                _ => AtomicU64::from_ptr(pointer.cast()).load(Relaxed),
            }
        }
    }

    /// Writes 1, 2, 4 or 8 bytes at a multiple of that, and marks them written.
    #[inline]
    pub fn store(&self, at: u64, bytes: u32, value: u64) {
        self.store_unmarked(at, bytes, value);
        self.mark(at, bytes);
    }

    #[inline(always)]
    fn store_unmarked(&self, at: u64, bytes: u32, value: u64) {
        let pointer = self.pointer(at, u64::from(bytes));
        // SAFETY: as in `load`.
        unsafe {
            match bytes {
                1 => AtomicU8::from_ptr(pointer).store(value as u8, Relaxed),
                2 => AtomicU16::from_ptr(pointer.cast()).store(value as u16, Relaxed),
                4 => AtomicU32::from_ptr(pointer.cast()).store(value as u32, Relaxed),
                _ => AtomicU64::from_ptr(pointer.cast()).store(value, Relaxed),
            }
        }
    }

    /// Replaces `old` by `new` if it is still there; returns what was there.
    pub fn exchange(&self, at: u64, bytes: u32, old: u64, new: u64) -> Result<u64, u64> {
        use Ordering::AcqRel;
        use std::sync::atomic::Ordering;
        let pointer = self.pointer(at, u64::from(bytes));
        // SAFETY: as in `load`.
        unsafe {
            match bytes {
                2 => AtomicU16::from_ptr(pointer.cast())
                    .compare_exchange(old as u16, new as u16, AcqRel, Relaxed)
                    .map(u64::from)
                    .map_err(u64::from),
                4 => AtomicU32::from_ptr(pointer.cast())
                    .compare_exchange(old as u32, new as u32, AcqRel, Relaxed)
                    .map(u64::from)
                    .map_err(u64::from),
                _ => {
                    AtomicU64::from_ptr(pointer.cast()).compare_exchange(old, new, AcqRel, Relaxed)
                }
            }
        }
    }

    fn bits(at: u64, bytes: u32) -> (usize, u32) {
        ((at / 32) as usize, (((1u64 << bytes) - 1) as u32) << (at % 32))
    }

    /// Whether all of up to 32 aligned bytes were written.
    #[inline]
    pub fn written(&self, at: u64, bytes: u32) -> bool {
        let (word, mask) = Self::bits(at, bytes);
        self.init[word].load(Relaxed) & mask == mask
    }

    /// Marks up to 32 aligned bytes as written.
    #[inline]
    pub fn mark(&self, at: u64, bytes: u32) {
        let (word, mask) = Self::bits(at, bytes);
        if self.init[word].load(Relaxed) & mask != mask {
            self.init[word].fetch_or(mask, Relaxed);
        }
    }

    /// The words of written flags of a range, and the flags in them.
    #[inline]
    fn flags(at: u64, bytes: u64) -> impl Iterator<Item = (usize, u32)> {
        let end = at + bytes;
        (at / 32..end.div_ceil(32)).map(move |word| {
            let (first, last) = ((32 * word).max(at) % 32, (32 * word + 32).min(end) - 32 * word);
            (word as usize, (((1u64 << last) - 1) & !((1u64 << first) - 1)) as u32)
        })
    }

    /// Whether every byte of a range was written.
    pub fn range_written(&self, at: u64, bytes: u64) -> bool {
        Self::flags(at, bytes).all(|(word, mask)| self.init[word].load(Relaxed) & mask == mask)
    }

    /// Marks a range as written.
    pub fn mark_range(&self, at: u64, bytes: u64) {
        for (word, mask) in Self::flags(at, bytes) {
            if self.init[word].load(Relaxed) & mask != mask {
                self.init[word].fetch_or(mask, Relaxed);
            }
        }
    }

    /// Reads `bytes` (1, 2, 4 or 8) at `at(lane)`, a multiple of that, for each lane of `mask`.
    #[inline(always)]
    pub fn load_lanes(
        &self,
        mask: u32,
        bytes: u32,
        at: impl Fn(usize) -> u64,
        out: &mut [u64; 32],
    ) {
        for (i, out) in out.iter_mut().enumerate() {
            if mask >> i & 1 != 0 {
                *out = match bytes {
                    4 => self.load(at(i), 4),
                    _ => self.load(at(i), bytes),
                };
            }
        }
    }

    /// Reads 32 words that follow each other from `at`, a multiple of four.
    #[inline(always)]
    pub fn load_words(&self, at: u64) -> [u32; 32] {
        let first = self.pointer(at, 128).cast::<u32>();
        let mut out = [0; 32];
        for (i, out) in out.iter_mut().enumerate() {
            // SAFETY: as in `load`; `pointer` checked all 128 bytes.
            *out = unsafe { AtomicU32::from_ptr(first.add(i)).load(Relaxed) };
        }
        out
    }

    /// Writes 32 words that follow each other from `at`, a multiple of four; marking them written
    /// is left to the caller.
    #[inline(always)]
    pub fn store_words(&self, at: u64, values: &[u64; 32]) {
        let first = self.pointer(at, 128).cast::<u32>();
        for (i, value) in values.iter().enumerate() {
            // SAFETY: as in `load_words`.
            unsafe { AtomicU32::from_ptr(first.add(i)).store(*value as u32, Relaxed) };
        }
    }

    /// Writes lanes as `load_lanes` reads them; marking them written is left to the caller.
    #[inline(always)]
    pub fn store_lanes(
        &self,
        mask: u32,
        bytes: u32,
        at: impl Fn(usize) -> u64,
        values: &[u64; 32],
    ) {
        for (i, value) in values.iter().enumerate() {
            if mask >> i & 1 != 0 {
                match bytes {
                    4 => self.store_unmarked(at(i), 4, *value),
                    _ => self.store_unmarked(at(i), bytes, *value),
                }
            }
        }
    }

    /// Copies bytes out.
    pub fn load_bytes(&self, at: u64, out: &mut [u8]) {
        let mut at = at;
        let mut rest = out;
        while !rest.is_empty() {
            let step = if at.is_multiple_of(8) && rest.len() >= 8 { 8 } else { 1 };
            let (part, tail) = rest.split_at_mut(step);
            part.copy_from_slice(&self.load(at, step as u32).to_le_bytes()[..step]);
            (at, rest) = (at + step as u64, tail);
        }
    }

    /// Copies bytes in, and marks them written.
    pub fn store_bytes(&self, at: u64, data: &[u8]) {
        let (mut at, mut rest) = (at, data);
        while let Some((&byte, tail)) = rest.split_first() {
            if at.is_multiple_of(8)
                && let Some((word, tail)) = rest.split_first_chunk::<8>()
            {
                self.store(at, 8, u64::from_le_bytes(*word));
                (at, rest) = (at + 8, tail);
            } else {
                self.store(at, 1, byte.into());
                (at, rest) = (at + 1, tail);
            }
        }
    }

    fn unmark(&self, at: u64) {
        let (word, mask) = Self::bits(at, 1);
        self.init[word].fetch_and(!mask, Relaxed);
    }
}

/// All of global memory.
#[derive(Debug, Default)]
pub struct Memory {
    /// Ascending by base.
    table: Vec<Allocation>,
    next: u64,
    /// Launches so far.
    launches: AtomicU64,
}

impl Memory {
    /// Empty memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocates `bytes`, all of them unwritten, at a multiple of 256.
    ///
    /// # Errors
    /// [`MemoryError::BadSize`] for 0 bytes or more than 64 GiB.
    pub fn alloc(&mut self, bytes: u64) -> Result<u64, MemoryError> {
        if bytes == 0 || bytes > MAX_ALLOC {
            return Err(MemoryError::BadSize { bytes });
        }
        let base = self.next.max(FIRST);
        let words = zeroed(bytes.div_ceil(8)).ok_or(MemoryError::BadSize { bytes })?;
        let init = zeroed(bytes.div_ceil(32)).ok_or(MemoryError::BadSize { bytes })?;
        let shadow = GlobalShadow::new(bytes);
        self.table.push(Allocation { base, size: bytes, read_only: false, words, init, shadow });
        self.next = (base + bytes + GUARD).next_multiple_of(ALIGN);
        Ok(base)
    }

    /// A number from 1 to 255 for a launch; when the numbers begin again, what was recorded under
    /// them is forgotten.
    pub(crate) fn begin_launch(&self) -> u8 {
        let launch = self.launches.fetch_add(1, Relaxed);
        if launch > 0 && launch % 255 == 0 {
            self.table.iter().for_each(|a| a.shadow.clear());
        }
        (launch % 255) as u8 + 1
    }

    /// Frees the allocation that starts at `address`.
    ///
    /// # Errors
    /// [`MemoryError::NotAStart`].
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        match self.table.binary_search_by_key(&address, |a| a.base) {
            Ok(at) => {
                self.table.remove(at);
                Ok(())
            }
            Err(_) => Err(MemoryError::NotAStart { address }),
        }
    }

    /// Makes an allocation read-only for kernels, as constant memory is.
    pub fn protect(&mut self, address: u64) {
        if let Ok(at) = self.table.binary_search_by_key(&address, |a| a.base) {
            self.table[at].read_only = true;
        }
    }

    /// The allocation that holds `address`, and its start, whatever the length.
    pub fn find(&self, address: u64) -> Option<&Allocation> {
        let after = self.table.partition_point(|a| a.base <= address);
        let found = self.table.get(after.checked_sub(1)?)?;
        (address - found.base < found.size).then_some(found)
    }

    /// Allocations in ascending order, as base and size.
    pub fn allocations(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.table.iter().map(|a| (a.base, a.size))
    }

    fn range(&self, address: u64, bytes: u64) -> Result<(&Allocation, u64), MemoryError> {
        match self.find(address) {
            Some(a) if bytes <= a.size - (address - a.base) => Ok((a, address - a.base)),
            _ => Err(MemoryError::NotAllocated { address, bytes }),
        }
    }

    /// Copies from host memory.
    ///
    /// # Errors
    /// [`MemoryError::NotAllocated`] unless one allocation holds the range.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        let (a, at) = self.range(address, data.len() as u64)?;
        a.store_bytes(at, data);
        Ok(())
    }

    /// Copies to host memory; unwritten bytes read as whatever is there.
    ///
    /// # Errors
    /// [`MemoryError::NotAllocated`] unless one allocation holds the range.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let (a, at) = self.range(address, out.len() as u64)?;
        a.load_bytes(at, out);
        Ok(())
    }

    /// Whether every byte of the range was written.
    ///
    /// # Errors
    /// [`MemoryError::NotAllocated`] unless one allocation holds the range.
    pub fn written(&self, address: u64, bytes: u64) -> Result<bool, MemoryError> {
        let (a, at) = self.range(address, bytes)?;
        Ok((at..at + bytes).all(|i| a.written(i, 1)))
    }

    /// Makes a range unwritten again.
    ///
    /// # Errors
    /// [`MemoryError::NotAllocated`] unless one allocation holds the range.
    pub fn poison(&self, address: u64, bytes: u64) -> Result<(), MemoryError> {
        let (a, at) = self.range(address, bytes)?;
        (at..at + bytes).for_each(|i| a.unmark(i));
        Ok(())
    }
}

/// A zeroed slice of atomics, or `None` if the host has no memory for it.
fn zeroed<T: Default>(count: u64) -> Option<Box<[T]>> {
    let count = usize::try_from(count).ok()?;
    let mut list = Vec::new();
    list.try_reserve_exact(count).ok()?;
    list.resize_with(count, T::default);
    Some(list.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_and_nothing_beyond() {
        let mut m = Memory::new();
        let a = m.alloc(100).unwrap();
        let b = m.alloc(8).unwrap();
        assert!(b > a + 100 && b.is_multiple_of(256));
        let data: Vec<u8> = (0..60).collect();
        m.write(a + 3, &data).unwrap();
        let mut back = [0; 60];
        m.read(a + 3, &mut back).unwrap();
        assert_eq!(back[..], data[..]);
        assert!(m.written(a + 3, 60).unwrap());
        assert!(!m.written(a + 2, 2).unwrap());
        m.poison(a + 10, 1).unwrap();
        assert!(!m.written(a + 3, 60).unwrap());
        assert!(m.write(a + 99, &[0, 0]).is_err());
        assert!(m.read(a + 100, &mut [0]).is_err());
    }

    #[test]
    fn freed_memory_is_gone() {
        let mut m = Memory::new();
        let a = m.alloc(16).unwrap();
        assert_eq!(m.free(a + 8), Err(MemoryError::NotAStart { address: a + 8 }));
        m.free(a).unwrap();
        assert!(m.find(a).is_none());
        assert_eq!(m.alloc(0), Err(MemoryError::BadSize { bytes: 0 }));
    }
}
