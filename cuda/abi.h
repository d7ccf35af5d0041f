// abi.h: one parameter struct per kernel, shared by the kernels and the Rust side.
//
// Plain C that includes nothing; bindgen makes gen/bindings/abi.rs from it. A kernel takes its
// struct by value (`const __grid_constant__`). Conventions:
//
//   address   u64, a device address; 0 stands for "none" where a field says so
//   T         the kernel's storage type, bf16 or f16; sums are f32 everywhere
//   stride    distance between rows in elements, not bytes
//   width     elements of a row
//   rows      grid dimension or loop bound; a kernel never reads or writes row `rows` or later
//
// Key-value cache. K and V of a layer are two allocations of T, each [page][kv_head][slot][head_dim]
// with head_dim fastest. A page has `page_size` slots, a multiple of 8, 16 by default. Position p of
// a sequence is in page pages[p / page_size] of its page list, slot p % page_size. Where a kernel
// takes one number per token instead, `slot` = page * page_size + slot in the page, and a negative
// one means that the row is padding and stores nothing.
#ifndef PACER_ABI_H
#define PACER_ABI_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef float f32;

// ---- rows: memory-bound kernels -----------------------------------------------------------------

// rmsnorm.cu: x += add; out = x * rsqrt(mean(x^2) + eps) * (w + offset), per group of each row.
typedef struct RmsNormParams {
  u64 x;           // [rows, groups * width] T; written if `add` is given
  u64 add;         // [rows, groups * width] T, or 0
  u64 weight;      // [width] T
  u64 out;         // [rows, groups * width] T; may be x if `add` is 0
  u32 rows;
  u32 groups;      // segments of a row that are normalised apart; 1 for a whole row
  u32 width;       // elements of a group
  u32 x_stride;
  u32 add_stride;
  u32 out_stride;
  f32 eps;
  f32 offset;      // 0, or 1 for the (1 + w) form
} RmsNormParams;

// ---- products: GEMM, GEMV, attention, quantised weights ------------------------------------------

#endif  // PACER_ABI_H
