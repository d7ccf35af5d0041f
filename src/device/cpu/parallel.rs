//! Splitting a buffer over the pool's threads, each part written by one of them.

use std::marker::PhantomData;
use std::ops::Range;

use super::pool::Pool;

/// Numbers that are worth sharing with another thread: below this a loop runs where it is. In a
/// step other threads still spin, and begin within a microsecond.
const WORTH_SPLITTING: usize = 4 * 1024;

/// A slice whose parts are written by several threads at once.
pub struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]`; `part` puts the duty of keeping parts disjoint on its caller.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(data: &'a mut [T]) -> Self {
        Shared { data: data.as_mut_ptr(), len: data.len(), owner: PhantomData }
    }

    /// The numbers in `range`.
    ///
    /// # Safety
    /// No two parts that are alive at once may overlap.
    ///
    /// # Panics
    /// If `range` is not inside the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice (checked above) and disjoint from other parts (caller).
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

/// Columns `start .. start + len` of every row of a `[rows, stride]` buffer.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    pub stride: usize,
    pub start: usize,
    pub len: usize,
}

impl Columns {
    /// Where this view of row `row` lies in the buffer.
    pub fn of(&self, row: usize) -> Range<usize> {
        let first = row * self.stride + self.start;
        first..first + self.len
    }
}

/// Calls `body(row, part)` for the `columns` of each of `rows` rows of `data`.
pub fn each_row(
    pool: &Pool,
    rows: usize,
    data: &mut [f32],
    columns: Columns,
    body: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    let shared = Shared::new(data);
    let run = |rows: Range<usize>| {
        for row in rows {
            // SAFETY: rows are disjoint and each is given to one call.
            body(row, unsafe { shared.part(columns.of(row)) });
        }
    };
    split(pool, rows, columns.len, &run);
}

/// Calls `body(row, a's part, b's part)` for each of `rows` rows of two buffers.
pub fn each_pair(
    pool: &Pool,
    rows: usize,
    (a, a_columns): (&mut [f32], Columns),
    (b, b_columns): (&mut [f32], Columns),
    body: &(dyn Fn(usize, &mut [f32], &mut [f32]) + Sync),
) {
    let (a, b) = (Shared::new(a), Shared::new(b));
    let run = |rows: Range<usize>| {
        for row in rows {
            // SAFETY: rows are disjoint and each is given to one call.
            let first = unsafe { a.part(a_columns.of(row)) };
            // SAFETY: as above.
            body(row, first, unsafe { b.part(b_columns.of(row)) });
        }
    };
    split(pool, rows, a_columns.len + b_columns.len, &run);
}

/// Calls `body(row, first column, part)` for pieces of at most `width` columns (a multiple of the
/// vector length, so that pieces do not change how numbers fall into vectors).
pub fn each_piece(
    pool: &Pool,
    rows: usize,
    data: &mut [f32],
    columns: Columns,
    body: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
) {
    const WIDTH: usize = 2048;
    let pieces = columns.len.div_ceil(WIDTH);
    let shared = Shared::new(data);
    let run = |items: Range<usize>| {
        for item in items {
            let (row, first) = (item / pieces, item % pieces * WIDTH);
            let whole = columns.of(row);
            let end = (whole.start + first + WIDTH).min(whole.end);
            // SAFETY: pieces are disjoint and each is given to one call.
            body(row, first, unsafe { shared.part(whole.start + first..end) });
        }
    };
    split(pool, rows * pieces, columns.len.min(WIDTH), &run);
}

/// Runs `body` over `0..items`, on several threads if `items · size` numbers are worth it.
pub fn split(pool: &Pool, items: usize, size: usize, body: &(dyn Fn(Range<usize>) + Sync)) {
    if items < 2 || items * size < WORTH_SPLITTING {
        return body(0..items);
    }
    pool.run(&|thread, threads| {
        body(items * thread / threads..items * (thread + 1) / threads);
    });
}
