//! The addresses of a warp's access, and the bytes that its lanes bring from and to shared memory.

use super::warp::{LANES, V64, lanes};
use crate::memory::shared::Shared;

/// The addresses of a warp's access.
pub struct Span<'a> {
    pub at: &'a V64,
    pub mask: u32,
    /// Bytes of each lane.
    pub bytes: u32,
    pub first: u64,
    /// One past the last byte.
    pub end: u64,
    /// All 32 lanes, each after the one before.
    pub run: bool,
}

impl<'a> Span<'a> {
    /// `None` unless every lane is aligned and the range is one.
    #[inline(always)]
    pub fn new(at: &'a V64, mask: u32, bytes: u32) -> Option<Self> {
        let width = u64::from(bytes);
        if !bytes.is_power_of_two() || bytes > 32 {
            return None;
        }
        let base = at[0];
        let run = mask == u32::MAX
            && base.checked_add(width * LANES as u64).is_some()
            && (0..LANES).fold(true, |all, i| all & (at[i] == base.wrapping_add(i as u64 * width)));
        if run {
            let end = base + width * LANES as u64;
            return (base & (width - 1) == 0).then_some(Self {
                at,
                mask,
                bytes,
                first: base,
                end,
                run,
            });
        }
        let (mut first, mut last, mut any) = (u64::MAX, 0, 0);
        for lane in lanes(mask) {
            let a = at[lane as usize];
            (first, last, any) = (first.min(a), last.max(a), any | a);
        }
        let end = last.checked_add(width)?;
        (any & (width - 1) == 0).then_some(Self { at, mask, bytes, first, end, run })
    }
}

impl Span<'_> {
    /// Whether all 32 lanes have one address.
    pub fn is_one(&self) -> bool {
        self.mask == u32::MAX && self.end - self.first == u64::from(self.bytes)
    }
}

/// Up to eight little-endian bytes.
pub fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Four little-endian bytes.
#[inline]
pub fn word32(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

pub fn load_shared(shared: &Shared, span: &Span<'_>, width: u32, to: u64, column: &mut V64) {
    for lane in lanes(span.mask) {
        let at = span.at[lane as usize].wrapping_add(to) as usize;
        column[lane as usize] = match width {
            4 => word32(shared.slice(at, 4)).into(),
            8 => shared.slice(at, 8).try_into().map_or(0, u64::from_le_bytes),
            _ => word(shared.slice(at, width as usize)),
        };
    }
}

pub fn put_lanes(shared: &mut Shared, span: &Span<'_>, width: u32, to: u64, values: &[V64]) {
    for lane in lanes(span.mask) {
        for (n, column) in values.iter().enumerate() {
            let to = span.at[lane as usize].wrapping_add(to) as usize + n * width as usize;
            let word = column[lane as usize].to_le_bytes();
            match width {
                4 => shared.put(to, &word[..4]),
                _ => shared.put(to, &word[..width as usize]),
            }
        }
    }
}

/// Writes a word a lane, one after the other.
pub fn put_words(shared: &mut Shared, to: usize, values: &V64) {
    let mut bytes = [0; 4 * LANES];
    for (word, value) in bytes.chunks_exact_mut(4).zip(values) {
        word.copy_from_slice(&(*value as u32).to_le_bytes());
    }
    shared.put(to, &bytes);
}
