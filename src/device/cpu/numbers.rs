//! f32 numbers that begin at a line of the cache.
//!
//! The allocator places large vectors 16 bytes behind the beginning of a page, so that every other
//! vector of eight numbers would cross two lines, and every 16 columns of an output touch two.

use std::alloc::{Layout, alloc_zeroed};
use std::ops::{Deref, DerefMut};

/// Numbers of a line.
const LINE: usize = 64 / size_of::<f32>();

/// A vector of fixed length whose first number begins a line.
#[derive(Debug, Default)]
pub struct Numbers {
    data: Vec<f32>,
    first: usize,
    len: usize,
}

impl Numbers {
    /// `len` zeros, or `None` if there is no memory for them. Large ones come as the system's own
    /// zero pages: no memory is taken before it is written to.
    pub fn zeroed(len: usize) -> Option<Numbers> {
        let data = zeros(len.checked_add(LINE - 1)?)?;
        let first = data.as_ptr().align_offset(64).min(LINE - 1);
        Some(Numbers { data, first, len })
    }
}

impl Deref for Numbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[self.first..self.first + self.len]
    }
}

impl DerefMut for Numbers {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.first..self.first + self.len]
    }
}

fn zeros(len: usize) -> Option<Vec<f32>> {
    let layout = Layout::array::<f32>(len).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the layout's size is not zero.
    let data = unsafe { alloc_zeroed(layout) }.cast::<f32>();
    // SAFETY: allocated just now by the global allocator for `len` numbers, all initialised.
    (!data.is_null()).then(|| unsafe { Vec::from_raw_parts(data, len, len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_a_line_wherever_they_are_moved() {
        for len in [0, 1, 15, 16, 100, 1 << 20] {
            let mut numbers = Numbers::zeroed(len).unwrap();
            assert!(numbers.iter().all(|x| *x == 0.0) && numbers.len() == len);
            numbers.fill(1.0);
            let moved = [std::mem::take(&mut numbers)];
            assert_eq!(moved[0].as_ptr().align_offset(64), 0, "{len}");
            assert!(moved[0].iter().all(|x| *x == 1.0) && numbers.is_empty());
        }
        assert!(Numbers::zeroed(usize::MAX).is_none());
        assert!(Numbers::zeroed(usize::MAX / 8).is_none());
    }
}
