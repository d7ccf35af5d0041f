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

// gemm.cu, gemm_wgmma.cu: y = x * w^T (+ bias) (+ residual), or gated; see there.
typedef struct GemmParams {
  u64 x;           // [m, k] T
  u64 w;           // [n, k] T; gated: [2n, k], the gate's rows over the up projection's
  u64 y;           // [m, n] T, or f32 with out_f32
  u64 bias;        // [n] T (gated: [2n]), or 0
  u64 residual;    // [m, n] T, added before rounding, or 0; may be y
  u32 m;
  u32 n;           // columns of y
  u32 k;
  u32 x_stride;
  u32 y_stride;
  u32 residual_stride;
  u32 act;         // gated: 0 SiLU, 1 GELU by tanh, 2 GELU by erf
  u32 out_f32;     // 1: y is f32
} GemmParams;

// The driver's CUtensorMap, as cuTensorMapEncodeTiled fills it.
typedef struct TensorMap {
  u64 words[16];
} __attribute__((aligned(64))) TensorMap;

// gemm_wgmma.cu: gemm.cu by TMA and wgmma; see there for the maps.
typedef struct WgmmaGemmParams {
  TensorMap x_map;
  TensorMap w_map;
  GemmParams gemm;
  u32 reserved[14];
} WgmmaGemmParams;

// grouped_gemm.cu: the same for the rows of each expert, which lie one expert after another.
typedef struct GroupedGemmParams {
  GemmParams gemm; // w: [experts] addresses of matrices; m: rows of all experts; no bias, residual
  u64 offsets;     // [experts + 1] u32: expert e has rows offsets[e] .. offsets[e + 1] of y
  u64 gather;      // [m] u32: row of x for each row of y; 0: the same row
  u32 experts;
  u32 reserved;
} GroupedGemmParams;

// Rows of one sequence in a step. `len` 0 marks padding: nothing is read or written.
typedef struct AttentionSpan {
  u32 start;        // first row of q and out
  u32 len;          // new tokens
  u32 past;         // tokens in the cache before them; the first row has this position
  u32 pages_start;  // where its page list begins in `pages`; it covers past + len tokens
} AttentionSpan;

// Rows of a prefill block: `row` counts a span's (token, head of the group) pairs.
typedef struct AttentionTile {
  u32 span;
  u32 row;
} AttentionTile;

// attention_prefill.cu, attention_decode.cu: softmax(cap(scale * q k^T)) v over paged keys, values.
typedef struct AttentionParams {
  u64 q;            // [rows, heads * head_dim] T
  u64 k;            // one layer's K, paged
  u64 v;            // one layer's V, paged
  u64 out;          // [rows, heads * head_dim] T
  u64 spans;        // [spans] AttentionSpan
  u64 pages;        // u32 page numbers of all sequences
  u64 tiles;        // prefill: [grid.x] AttentionTile
  u64 partial;      // decode: f32 scratch, see there
  u64 counters;     // decode: u32 per grid.x * kv_heads, zero before the first launch, zero after
  u32 q_stride;
  u32 out_stride;
  u32 kv_heads;
  u32 group;        // heads / kv_heads
  u32 page_size;
  u32 window;       // tokens a query sees, itself included; 0 for all
  f32 scale;
  f32 softcap;      // 0 for none
  u32 span_tiles;   // decode: blocks along grid.x that share a span
  u32 max_splits;   // decode: splits that `partial` has room for
} AttentionParams;

#endif  // PACER_ABI_H
