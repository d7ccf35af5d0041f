//! A weight matrix repacked for the kernels.

use super::interleave;
use super::kernels::STREAMS;
use super::layout::{self, BLOCK, OCTET, PANEL};
use super::memory::Bytes;
use super::streams::Split;
use crate::device::cpu::pool::Pool;
use crate::error::{Error, Result};
use crate::types::Dtype;
use crate::weights::Tensor;

/// Consecutive rows of a matrix: the first `rows` logical rows of `tensor` `[≥ rows, cols]`.
#[derive(Debug, Clone, Copy)]
pub struct PackPart<'a> {
    pub tensor: &'a Tensor<'a>,
    pub rows: usize,
}

/// A weight matrix `[rows, cols]` in interleaved panels of 16 rows.
#[derive(Debug)]
pub struct PackedMatrix {
    rows: usize,
    cols: usize,
    pub(super) sections: Vec<Section>,
}

/// What is read first of each of several streams; where there are fewer, nothing.
pub type Begins<'a> = [&'a [u8]; STREAMS];

/// Consecutive rows that are stored in one type.
#[derive(Debug)]
pub(super) struct Section {
    pub first_row: usize,
    pub rows: usize,
    pub dtype: Dtype,
    pub panel_bytes: usize,
    data: Bytes,
}

impl Section {
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    pub fn panel(&self, index: usize) -> &[u8] {
        &self.data.as_slice()[index * self.panel_bytes..][..self.panel_bytes]
    }
}

impl PackedMatrix {
    /// Stacks `parts` by rows. Neighbouring parts of one type share panels; a part of another
    /// type begins a new section. Plain numbers are stored as `target` if that is a plain type;
    /// quantised parts keep their type.
    ///
    /// # Errors
    /// A part with too few rows or bytes, or a row that is no whole number of blocks.
    pub fn pack(
        parts: &[PackPart<'_>],
        cols: usize,
        pool: &Pool,
        target: Option<Dtype>,
    ) -> Result<PackedMatrix> {
        let stored = |dtype: Dtype| match target {
            Some(t) if !t.is_quantised() && !dtype.is_quantised() => t,
            _ => dtype,
        };
        let mut sections: Vec<Section> = Vec::new();
        let mut rows = 0;
        for run in parts.chunk_by(|a, b| stored(a.tensor.dtype) == stored(b.tensor.dtype)) {
            let Some(first) = run.first() else { continue };
            let section = pack_section(run, rows, cols, stored(first.tensor.dtype), pool)?;
            rows += section.rows;
            sections.push(section);
        }
        Ok(PackedMatrix { rows, cols, sections })
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes held, the padding of the last panel included.
    pub fn bytes(&self) -> usize {
        self.sections.iter().map(|s| s.panel_bytes * s.panels()).sum()
    }

    /// The type that most rows are stored in.
    pub fn dtype(&self) -> Dtype {
        self.sections.iter().max_by_key(|s| s.rows).map_or(Dtype::F32, |s| s.dtype)
    }

    /// The rows of each stored type, in row order.
    pub fn row_types(&self) -> impl Iterator<Item = (Dtype, usize)> + '_ {
        self.sections.iter().map(|s| (s.dtype, s.rows))
    }

    /// Panels of all sections.
    pub(super) fn panels(&self) -> usize {
        self.sections.iter().map(Section::panels).sum()
    }

    /// The section of panel `panel` of all, and its number there.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn find(&self, panel: usize) -> (&Section, usize) {
        self.begin(panel, 1)
    }

    /// The section of task `task`, where each section's panels are cut into tasks of `group`, and
    /// the task's first panel there.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn begin(&self, mut task: usize, group: usize) -> (&Section, usize) {
        for section in &self.sections {
            let tasks = section.panels().div_ceil(group);
            if task < tasks {
                return (section, task * group);
            }
            task -= tasks;
        }
        unreachable!("panels are counted from the sections");
    }

    /// At most `most` bytes from where thread `thread` of `threads` begins to read, in all of the
    /// places where it reads at once.
    pub fn begins(&self, thread: usize, threads: usize, streams: usize, most: usize) -> Begins<'_> {
        let split = Split { panels: self.panels(), threads, streams };
        let mut begins = Begins::default();
        for (begin, panel) in begins.iter_mut().zip(split.task(thread, 0)) {
            let (section, panel) = self.find(panel);
            let bytes = &section.data.as_slice()[panel * section.panel_bytes..];
            *begin = &bytes[..(most / streams).min(bytes.len())];
        }
        begins
    }

    /// Writes logical row `row`, dequantised, to `out[..cols]`.
    ///
    /// # Panics
    /// If `row` is outside the matrix or `out` is shorter than a row.
    pub fn row_f32(&self, row: usize, out: &mut [f32]) {
        let section = self
            .sections
            .iter()
            .find(|s| (s.first_row..s.first_row + s.rows).contains(&row))
            .expect("the row is in the matrix");
        let row = row - section.first_row;
        let panel = section.panel(row / PANEL);
        let out = &mut out[..self.cols];
        if section.dtype.is_quantised() {
            quantised_row(section.dtype, panel, row % PANEL, out);
        } else {
            for (k, value) in out.iter_mut().enumerate() {
                *value = interleave::plain_at(section.dtype, panel, k * PANEL + row % PANEL);
            }
        }
    }
}

fn quantised_row(dtype: Dtype, panel: &[u8], lane: usize, out: &mut [f32]) {
    let units = panel.chunks_exact(layout::unit_bytes(dtype));
    for (unit, out) in units.zip(out.chunks_exact_mut(layout::unit_len(dtype))) {
        for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let at = layout::codes_offset(dtype, block);
            let octet = &unit[at + lane / OCTET * layout::octet_bytes(dtype)..];
            for (k, out) in out.iter_mut().enumerate() {
                let half = k * layout::scales_per_block(dtype) / BLOCK;
                let (d, m) = layout::scale(dtype, unit, block, half, lane);
                let code = layout::code(dtype, octet, 4 * (lane % OCTET) + k % 4, k / 4);
                *out = d * code_value(dtype, code) + m;
            }
        }
    }
}

/// A code as a number: 8-bit codes are signed.
fn code_value(dtype: Dtype, code: u8) -> f32 {
    if layout::code_bits(dtype) == 8 { f32::from(code as i8) } else { f32::from(code) }
}

fn pack_section(
    parts: &[PackPart<'_>],
    first_row: usize,
    cols: usize,
    dtype: Dtype,
    pool: &Pool,
) -> Result<Section> {
    let mut rows = 0;
    for part in parts {
        check_part(part, cols)?;
        rows += part.rows;
    }
    let panel_bytes = cols / layout::unit_len(dtype) * layout::unit_bytes(dtype);
    let panels = rows.div_ceil(PANEL);
    let bytes = panel_bytes
        .checked_mul(panels)
        .ok_or_else(|| Error::limit(format!("a matrix [{rows}, {cols}] overflows memory")))?;
    let mut data = Bytes::zeroed(bytes)?;
    if panel_bytes > 0 {
        let out = data.chunks(panel_bytes);
        // By the thread that will multiply it: its memory is then near that thread's processor.
        pool.spread(panels, &|_, p| {
            let mut lanes = [(dtype, &[][..]); PANEL];
            let count = PANEL.min(rows - p * PANEL);
            for (lane, slot) in lanes[..count].iter_mut().enumerate() {
                *slot = find_row(parts, p * PANEL + lane);
            }
            // SAFETY: `spread` gives every panel index to one thread, once.
            interleave::panel(dtype, &lanes[..count], cols, unsafe { out.take(p) });
        });
    }
    Ok(Section { first_row, rows, dtype, panel_bytes, data })
}

/// Type and bytes of row `row` of the stacked parts.
fn find_row<'a>(parts: &[PackPart<'a>], mut row: usize) -> (Dtype, &'a [u8]) {
    for part in parts {
        if row < part.rows {
            return (part.tensor.dtype, part.tensor.row(row));
        }
        row -= part.rows;
    }
    unreachable!("rows are counted from the parts");
}

/// Proves what the packing loops rely on: shape, whole blocks, and all the bytes.
fn check_part(part: &PackPart<'_>, cols: usize) -> Result<()> {
    let tensor = part.tensor;
    let fail = |what: String| Err(Error::limit(format!("tensor {}: {what}", tensor.name)));
    let [stored_rows, stored_cols] = *tensor.shape else {
        return fail(format!("has shape {:?}, a matrix was expected", tensor.shape));
    };
    if stored_cols != cols || part.rows > stored_rows {
        return fail(format!("has shape {:?}, expected [{}, {cols}]", tensor.shape, part.rows));
    }
    let Some(row_bytes) = tensor.dtype.bytes(cols) else {
        let (name, block) = (tensor.dtype.name(), tensor.dtype.block_len());
        return fail(format!("{cols} columns are no whole number of {name} blocks of {block}"));
    };
    if Some(tensor.data.len()) != row_bytes.checked_mul(stored_rows) {
        return fail(format!("holds {} bytes, not {stored_rows} × {row_bytes}", tensor.data.len()));
    }
    Ok(())
}
