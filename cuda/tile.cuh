// tile.cuh: where numbers of a tile lie in shared memory, and in a warp's fragments.
//
// A panel holds rows of 64 16-bit numbers, 128 bytes each. The 16-byte piece c of row r lies at place
// c ^ (r & 7) of its row: eight rows' pieces of one column (ldmatrix), and the eight pieces of one
// row (cp.async), touch every bank once. The same as TMA's and wgmma's 128-byte swizzle, for panels
// that start at a multiple of 1024.
//
// Fragments of mma.m16n8k16 in lane 4 g + t: A holds rows g, g + 8 and columns 2t, 2t + 1, + 8; B
// (stored as n rows of k) row g, columns 2t, 2t + 1, + 8; C and D rows g, g + 8, columns 2t, 2t + 1.
#pragma once
#include "number.cuh"

namespace tile {

constexpr int kWidth = 64;            // numbers of a row
constexpr int kRow = kWidth * 2;      // bytes of a row
constexpr int kPieces = kRow / 16;    // 16-byte pieces of a row

__device__ inline u32 piece(u32 row, u32 c) { return row * kRow + ((c ^ (row & 7)) << 4); }

// Rows row .. row + 15 and columns 8c .. 8c + 15 as an A fragment.
__device__ inline void load_a(u32 (&a)[4], u32 panel, u32 row, u32 c) {
  const u32 lane = lane_id();
  ldmatrix_x4(a, panel + piece(row + lane % 16, c + lane / 16));
}

// Rows row .. row + 15 and columns 8c .. 8c + 15 as two B fragments: b[0..1], b[2..3].
__device__ inline void load_b(u32 (&b)[4], u32 panel, u32 row, u32 c) {
  const u32 lane = lane_id();
  ldmatrix_x4(b, panel + piece(row + lane % 8 + lane / 16 * 8, c + lane / 8 % 2));
}

// Rows row .. row + 7 and columns 8c .. 8c + 31 as two B fragments, one after the other along k.
__device__ inline void load_b_deep(u32 (&b)[4], u32 panel, u32 row, u32 c) {
  const u32 lane = lane_id();
  ldmatrix_x4(b, panel + piece(row + lane % 8, c + lane / 8));
}

// Rows row .. row + 15 along k and columns 8c .. 8c + 15 along n, as two B fragments.
__device__ inline void load_b_trans(u32 (&b)[4], u32 panel, u32 row, u32 c) {
  const u32 lane = lane_id();
  ldmatrix_x4_trans(b, panel + piece(row + lane % 16, c + lane / 16));
}

}  // namespace tile
