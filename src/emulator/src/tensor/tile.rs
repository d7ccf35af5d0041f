//! What a tensor copy moves: each piece of the box with its global and its shared address.
//!
//! The box lies in shared memory as a dense array, dimension 0 fastest, permuted by the swizzle.
//! Coordinates may be negative or beyond the tensor: elements outside it read as the map's fill
//! and are not written.

use super::tensormap::{MAX_RANK, TensorMap};

/// Where a piece's bytes are in global memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Inside the tensor, from this address on.
    Global(u64),
    /// Outside the tensor.
    OutOfBounds,
}

/// Up to 16 consecutive bytes of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Shared-memory address, swizzled.
    pub shared: u32,
    /// Bytes, at most 16; never crosses a 16-byte chunk of shared memory.
    pub bytes: u32,
    /// The global side.
    pub source: Source,
}

/// Every piece of the tile whose first element has coordinates `at` (innermost first, `rank` of
/// them used) and which starts at `shared`. The caller has checked that `shared` is a multiple of
/// 128 and that `tile_bytes` from there on lie in shared memory.
pub fn pieces(map: &TensorMap, at: [i32; MAX_RANK], shared: u32) -> Vec<Piece> {
    let mut out = Vec::with_capacity(map.tile_bytes() as usize / 16);
    let counts: [u32; MAX_RANK] =
        std::array::from_fn(|i| if i < map.rank { map.box_elements(i) } else { 1 });
    let rows: u32 = counts[1..].iter().product();
    let row_bytes = counts[0] * map.element.bytes();
    for row in 0..rows {
        let line = shared + row * row_bytes;
        row_pieces(map, at[0], row_start(map, at, counts, row), line, row_bytes, &mut out);
    }
    out
}

/// Global address of coordinate 0 of the `row`-th row of the box, or `None` outside the tensor.
fn row_start(
    map: &TensorMap,
    at: [i32; MAX_RANK],
    counts: [u32; MAX_RANK],
    mut row: u32,
) -> Option<u64> {
    let mut address = map.address;
    for i in 1..map.rank {
        let step = i64::from(row % counts[i] * map.element_strides[i]);
        row /= counts[i];
        let index = u64::try_from(i64::from(at[i]) + step).ok()?;
        if index >= map.dims[i] {
            return None;
        }
        address = address.wrapping_add(index * map.strides[i]);
    }
    Some(address)
}

/// Splits one row at 16-byte chunks and at the tensor's edges.
fn row_pieces(
    map: &TensorMap,
    first: i32,
    start: Option<u64>,
    line: u32,
    row_bytes: u32,
    out: &mut Vec<Piece>,
) {
    let width = i64::from(map.element.bytes());
    let inside = |offset: u32| {
        let byte = i64::from(first) * width + i64::from(offset);
        let end = i64::try_from(map.dims[0]).unwrap_or(i64::MAX).saturating_mul(width);
        start.filter(|_| (0..end).contains(&byte)).map(|a| a + byte as u64)
    };
    for chunk in (0..row_bytes).step_by(16) {
        let mut from = chunk;
        while from < chunk + 16 {
            let source = inside(from);
            let mut to = from + width as u32;
            while to < chunk + 16 && inside(to).is_some() == source.is_some() {
                to += width as u32;
            }
            out.push(Piece {
                shared: map.swizzle.apply(line + from),
                bytes: to - from,
                source: source.map_or(Source::OutOfBounds, Source::Global),
            });
            from = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::swizzle::Swizzle;
    use crate::tensor::tensormap::MapType;
    use std::collections::HashMap;

    /// Shared byte → global byte (or none), element by element from the definition.
    fn by_definition(map: &TensorMap, at: [i32; 5], shared: u32) -> HashMap<u32, Option<u64>> {
        let size = map.element.bytes();
        let n: [u32; 5] =
            std::array::from_fn(|i| if i < map.rank { map.box_elements(i) } else { 1 });
        let mut out = HashMap::new();
        let mut index = 0;
        for i4 in 0..n[4] {
            for i3 in 0..n[3] {
                for i2 in 0..n[2] {
                    for i1 in 0..n[1] {
                        for i0 in 0..n[0] {
                            let step = |i: usize| if i == 0 { 1 } else { map.element_strides[i] };
                            let offsets = [i0, i1, i2, i3, i4];
                            let mut global = Some(map.address);
                            for i in 0..map.rank {
                                let c = i64::from(at[i]) + i64::from(offsets[i] * step(i));
                                let ok = c >= 0 && (c as u64) < map.dims[i];
                                global =
                                    global.filter(|_| ok).map(|g| g + c as u64 * map.strides[i]);
                            }
                            for b in 0..size {
                                let to = map.swizzle.apply(shared + index * size + b);
                                out.insert(to, global.map(|g| g + u64::from(b)));
                            }
                            index += 1;
                        }
                    }
                }
            }
        }
        out
    }

    fn check(map: &TensorMap, at: [i32; 5]) {
        let want = by_definition(map, at, 1024);
        let mut got = HashMap::new();
        for p in pieces(map, at, 1024) {
            assert_eq!(p.shared / 16, (p.shared + p.bytes - 1) / 16, "piece crosses a chunk");
            for b in 0..p.bytes {
                let global = match p.source {
                    Source::Global(a) => Some(a + u64::from(b)),
                    Source::OutOfBounds => None,
                };
                assert_eq!(got.insert(p.shared + b, global), None, "byte written twice");
            }
        }
        assert_eq!(got.len() as u32, map.tile_bytes());
        assert_eq!(got, want);
    }

    #[test]
    fn two_dimensional_boxes_inside_and_over_every_edge() {
        for swizzle in [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128] {
            let inner = if swizzle == Swizzle::None { 24 } else { swizzle.span() / 2 };
            let map =
                TensorMap::tiled(MapType::Bf16, 0x4000, &[101, 37], &[256], &[inner, 16], swizzle)
                    .expect("a valid map");
            for (x, y) in [(0, 0), (64, 16), (96, 32), (-3, -5), (99, 36), (200, 0), (0, -16)] {
                check(&map, [x, y, 0, 0, 0]);
            }
        }
    }

    #[test]
    fn more_dimensions_and_element_strides() {
        let mut map = TensorMap::tiled(
            MapType::F32,
            0x8000,
            &[9, 7, 5, 3, 2],
            &[48, 400, 2000, 6000],
            &[8, 3, 2, 2, 2],
            Swizzle::B32,
        )
        .expect("a valid map");
        check(&map, [2, -1, 4, 1, 1]);
        map.element_strides = [1, 2, 1, 1, 1];
        assert_eq!(map.tile_bytes(), 8 * 2 * 2 * 2 * 2 * 4);
        check(&map, [0, 4, 0, 0, 0]);
    }

    #[test]
    fn bytes_split_at_an_edge_inside_a_chunk() {
        let map = TensorMap::tiled(MapType::U8, 0, &[21], &[], &[32], Swizzle::None)
            .expect("a valid map");
        let tail: Vec<_> = pieces(&map, [0; 5], 0).iter().map(|p| (p.shared, p.bytes)).collect();
        assert_eq!(tail, [(0, 16), (16, 5), (21, 11)]);
    }
}
