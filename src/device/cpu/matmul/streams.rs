//! Products of few rows. Memory is their limit, and a core gets more from it when it reads several
//! panels at once: the hardware asks ahead for each stream of addresses that it sees, and not far.
//! On a Zen 2 a core that reads one stream gets 17 GB/s, of four 25.
//!
//! A thread's share of a matrix is cut into as many runs of neighbouring panels as a tile reads
//! at once ([`Kernels::streams`](super::kernels::Kernels)). A task takes the next panel of each
//! run, so that each stream goes on where the task before left it.

use super::kernels::{
    AHEAD, Ahead, Beside, FLOAT_CHUNK, FloatTile, INT_CHUNK, INT_ROWS, IntTile, STREAMS, Source,
};
use super::layout::{BLOCK, PANEL};
use super::memory::Chunks;
use super::pack::{PackedMatrix, Section};
use super::product::{Kind, Mode, Slab, chunk_len, piece, rows_from, tiles};
use super::scratch::{Scratch, Stored};
use crate::device::cpu::pool::Pool;
use crate::types::Dtype;

/// Most rows for which plain weights are read like this. On a Zen 2 a step of SmolLM2-135M in
/// float16 takes two thirds as long for 8 and 13 rows as when weights are widened first, nine
/// tenths for 24, and up to a fourteenth longer for 32.
const FLOAT_ROWS: usize = 24;

/// How many panels of `matrix` are read at once where it is multiplied with `m` rows.
pub fn streams(scratch: &Scratch, mode: Mode, matrix: &PackedMatrix, m: usize) -> usize {
    let few = |section: &Section| match mode.kind(section.dtype) {
        Kind::Float => !section.dtype.is_quantised() && m <= FLOAT_ROWS,
        Kind::Wide | Kind::Bytes => m <= INT_ROWS,
    };
    if matrix.sections.iter().all(few) { scratch.kernels.streams } else { 1 }
}

/// How `panels` are split over threads and streams.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    pub panels: usize,
    pub threads: usize,
    pub streams: usize,
}

impl Split {
    /// Tasks of a thread.
    pub fn tasks(self) -> usize {
        self.panels.div_ceil(self.threads).div_ceil(self.streams).max(1)
    }

    /// The panels of task `task` of thread `thread`, one of each run.
    pub fn task(self, thread: usize, task: usize) -> impl Iterator<Item = usize> {
        let share = |thread: usize| self.panels * thread / self.threads;
        (share(thread)..share(thread + 1)).skip(task).step_by(self.tasks())
    }
}

impl Slab<'_> {
    /// All panels, `streams` at once.
    pub(super) fn run_streams(&self, pool: &Pool, streams: usize, y: &Chunks<'_, f32>) {
        let split = Split { panels: self.matrix.panels(), threads: pool.threads(), streams };
        let tasks = split.tasks();
        pool.spread(split.threads * tasks, &|_, task| {
            let (mut panels, mut count) = ([0; STREAMS], 0);
            for (slot, panel) in panels.iter_mut().zip(split.task(task / tasks, task % tasks)) {
                *slot = panel;
                count += 1;
            }
            let first_row = |panel: usize| self.matrix.find(panel).0.first_row;
            for panels in panels[..count].chunk_by(|a, b| first_row(*a) == first_row(*b)) {
                self.multiply_at_once(panels, y);
            }
        });
    }

    /// Multiplies with panels of one section.
    fn multiply_at_once(&self, panels: &[usize], y: &Chunks<'_, f32>) {
        let Some(first) = panels.first() else { return };
        let (section, _) = self.matrix.find(*first);
        let kind = self.mode.kind(section.dtype);
        let most = if kind == Kind::Float { FLOAT_CHUNK } else { INT_CHUNK };
        let (chunk, cols) = (chunk_len(self.matrix, most), self.matrix.cols());
        let mut group = [Beside { weights: &[], out: self.out(section, 0, y) }; STREAMS];
        for first in (0..cols).step_by(chunk) {
            let columns = chunk.min(cols - first);
            for (beside, panel) in group.iter_mut().zip(panels) {
                let (_, panel) = self.matrix.find(*panel);
                let mut out = self.out(section, panel, y);
                out.fresh = first == 0 && self.bias.is_none();
                if let Some(bias) = self.bias.filter(|_| first == 0) {
                    self.start(&out, &bias[section.first_row + panel * PANEL..]);
                }
                *beside = Beside { weights: piece(section, panel, first, columns), out };
            }
            let (group, index) = (&group[..panels.len()], first / chunk);
            match kind {
                Kind::Float => self.float_panels(section, (first, columns), group),
                Kind::Wide => self.int_panels::<i16>(section, (index, columns), group),
                Kind::Bytes => self.int_panels::<i8>(section, (index, columns), group),
            }
        }
    }

    /// Tiles of all rows: the first reads weights from memory, the others find them in a cache.
    fn float_panels(&self, section: &Section, (first, k): (usize, usize), group: &[Beside<'_>]) {
        let kernels = self.scratch.kernels;
        let (a, lda) = match self.packed {
            true => (
                self.scratch.float_rows(first / chunk_len(self.matrix, FLOAT_CHUNK), self.m),
                FLOAT_CHUNK,
            ),
            false => (&self.x[first..], self.ldx),
        };
        let bytes = k * PANEL * if section.dtype == Dtype::F32 { 4 } else { 2 };
        assert!(a.len() >= (self.m - 1) * lda + k);
        assert!(group.iter().all(|panel| panel.weights.len() >= bytes));
        for (first, rows) in tiles(self.m, kernels.float_rows) {
            let mut group = group.iter().map(|p| Beside { out: rows_from(&p.out, first), ..*p });
            let Some(Beside { weights, out }) = group.next() else { return };
            let mut others = [Beside { weights, out }; STREAMS];
            let count = others.iter_mut().zip(group).map(|(to, from)| *to = from).count();
            let tile = FloatTile {
                rows,
                a: &a[first * lda..],
                lda,
                weights,
                dtype: section.dtype,
                k,
                ahead: Ahead::Weights,
                soon: &[],
                beside: &others[..count],
                once: self.scratch.once && rows == self.m,
                out,
            };
            // SAFETY: this CPU's kernels; lengths as just checked; the output rows and columns are
            // inside y and belong to this task.
            unsafe { (kernels.float_tile)(&tile) };
        }
    }

    fn int_panels<A: Stored>(
        &self,
        section: &Section,
        (index, columns): (usize, usize),
        group: &[Beside<'_>],
    ) {
        let [Beside { weights, out }, ref beside @ ..] = *group else { return };
        let tile = IntTile::<A> {
            rows: self.m,
            a: self.scratch.rows(index, self.m, 0),
            weights: Source::Packed(weights),
            dtype: section.dtype,
            blocks: columns / BLOCK,
            ahead: weights.as_ptr().wrapping_add(AHEAD),
            next_rows: false,
            beside,
            once: self.scratch.once,
            out,
        };
        // SAFETY: as for the float tile; `a` holds the rows' chunk.
        unsafe { (A::kernels(self.scratch.kernels).tile)(&tile) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_is_in_one_task() {
        for (panels, threads, streams) in [(36, 2, 4), (1, 3, 4), (0, 2, 4), (97, 5, 3), (8, 1, 2)]
        {
            let split = Split { panels, threads, streams };
            let mut seen = vec![0; panels];
            for thread in 0..threads {
                for task in 0..split.tasks() {
                    let panels: Vec<usize> = split.task(thread, task).collect();
                    assert!(panels.len() <= streams);
                    panels.iter().for_each(|panel| seen[*panel] += 1);
                }
            }
            assert!(seen.iter().all(|count| *count == 1), "{split:?}");
        }
    }

    #[test]
    fn a_run_s_panels_are_neighbours() {
        let split = Split { panels: 36, threads: 2, streams: 4 };
        let first: Vec<usize> = split.task(1, 0).collect();
        let second: Vec<usize> = split.task(1, 1).collect();
        assert_eq!(first, [18, 23, 28, 33]);
        assert_eq!(second, [19, 24, 29, 34]);
    }
}
