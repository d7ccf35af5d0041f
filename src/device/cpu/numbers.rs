//! Numbers that begin at a line of the cache.
//!
//! The allocator places large vectors 16 bytes behind the beginning of a page, so that every other
//! vector of eight numbers would cross two lines, and every 16 columns of an output touch two.

use std::alloc::{Layout, alloc_zeroed};
use std::ops::{Deref, DerefMut};

use half::f16;

/// Bytes of a line.
pub const LINE: usize = 64;

/// What is zero where all its bytes are.
pub trait Number: Copy + Send + Sync + 'static + sealed::Number {}

impl Number for f32 {}
impl Number for f16 {}

mod sealed {
    pub trait Number {}
    impl Number for f32 {}
    impl Number for half::f16 {}
}

/// A vector of fixed length whose first number begins a line.
#[derive(Debug)]
pub struct Numbers<T = f32> {
    data: Vec<T>,
    first: usize,
    len: usize,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Numbers { data: Vec::new(), first: 0, len: 0 }
    }
}

impl<T: Number> Numbers<T> {
    /// `len` zeros, or `None` if there is no memory for them. Large ones come as the system's own
    /// zero pages: no memory is taken before it is written to.
    pub fn zeroed(len: usize) -> Option<Self> {
        let spare = LINE / size_of::<T>() - 1;
        let data: Vec<T> = zeros(len.checked_add(spare)?)?;
        let first = data.as_ptr().align_offset(LINE).min(spare);
        Some(Numbers { data, first, len })
    }
}

impl<T> Deref for Numbers<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.data[self.first..self.first + self.len]
    }
}

impl<T> DerefMut for Numbers<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[self.first..self.first + self.len]
    }
}

fn zeros<T: Number>(len: usize) -> Option<Vec<T>> {
    let layout = Layout::array::<T>(len).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the layout's size is not zero.
    let data = unsafe { alloc_zeroed(layout) }.cast::<T>();
    // SAFETY: allocated just now by the global allocator for `len` numbers, all initialised: a
    // `Number` may have any bytes.
    (!data.is_null()).then(|| unsafe { Vec::from_raw_parts(data, len, len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_a_line_wherever_they_are_moved() {
        for len in [0, 1, 15, 16, 100, 1 << 20] {
            let mut numbers = Numbers::<f32>::zeroed(len).unwrap();
            assert!(numbers.iter().all(|x| *x == 0.0) && numbers.len() == len);
            numbers.fill(1.0);
            let moved = [std::mem::take(&mut numbers)];
            assert_eq!(moved[0].as_ptr().align_offset(64), 0, "{len}");
            assert!(moved[0].iter().all(|x| *x == 1.0) && numbers.is_empty());
            let halves = Numbers::<f16>::zeroed(len).unwrap();
            assert!(halves.iter().all(|x| *x == f16::ZERO) && halves.len() == len);
            assert_eq!(halves.as_ptr().align_offset(64), 0, "{len}");
        }
        assert!(Numbers::<f32>::zeroed(usize::MAX).is_none());
        assert!(Numbers::<f16>::zeroed(usize::MAX / 2).is_none());
    }
}
