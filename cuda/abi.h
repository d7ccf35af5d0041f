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

// embed.cu: out[t] = scale * table[token[t]].
typedef struct EmbedParams {
  u64 table;       // [vocab, width] T, dense
  u64 tokens;      // [rows] u32, below vocab
  u64 out;         // [rows, width] T
  u32 rows;
  u32 width;
  u32 out_stride;
  f32 scale;
} EmbedParams;

// add.cu: x += y.
typedef struct AddParams {
  u64 x;           // [rows, width] T
  u64 y;           // [rows, width] T
  u32 rows;
  u32 width;
  u32 x_stride;
  u32 y_stride;
} AddParams;

// gated.cu: out = act(gate) * up.
typedef struct GatedParams {
  u64 gate_up;     // [rows, 2 * width] T
  u64 out;         // [rows, width] T
  u32 rows;
  u32 width;
  u32 gate_up_stride;
  u32 out_stride;
  u32 act;         // 0 SiLU, 1 GELU by tanh, 2 GELU by erf
  u32 reserved;
} GatedParams;

// gather.cu: out[r] = x[index[r]].
typedef struct GatherParams {
  u64 x;           // [any, width] T
  u64 index;       // [rows] u32
  u64 out;         // [rows, width] T
  u32 rows;
  u32 width;
  u32 x_stride;
  u32 out_stride;
} GatherParams;

// softcap.cu: x = cap * tanh(x / cap).
typedef struct SoftcapParams {
  u64 x;           // [rows, width] T, here also f32
  u32 rows;
  u32 width;
  u32 stride;
  f32 cap;
} SoftcapParams;

// rope.cu: cosine and sine of every row's angles, once per step for each rotary table.
typedef struct RopeAnglesParams {
  u64 turns;       // [half] u64: the fraction of a turn per position, inv_freq / 2 pi, times 2^64
  u64 positions;   // [rows] u32
  u64 angles;      // [rows] blocks of 16 * even(ceil(half / 8)) f32, see rope.cu
  u32 rows;
  u32 half;        // rotated pairs of a head
  f32 scale;       // multiplies cosine and sine
  u32 reserved;
} RopeAnglesParams;

// rope.cu: q in place; k and v into their pages.
typedef struct RopeParams {
  u64 q;           // [rows, heads * head_dim] T
  u64 k;           // [rows, kv_heads * head_dim] T
  u64 v;           // [rows, kv_heads * head_dim] T
  u64 angles;      // as RopeAnglesParams writes them; unused if half is 0
  u64 k_pages;     // one layer's K
  u64 v_pages;     // one layer's V
  u64 slots;       // [rows] i32
  u64 q_weight;    // [head_dim] T, for the forms that normalise
  u64 k_weight;    // [head_dim] T
  u32 rows;
  u32 heads;
  u32 kv_heads;
  u32 head_dim;
  u32 half;        // rotated pairs of a head; 0 leaves q alone and only stores k and v
  u32 page_size;
  u32 q_stride;
  u32 k_stride;
  u32 v_stride;
  f32 eps;         // of the norm
  f32 offset;      // of the norm's weight: 0, or 1 for (1 + w)
  u32 reserved;
} RopeParams;

// page_copy.cu: the first `tokens` slots of page `from` into page `to`, every layer's K and V.
typedef struct PageCopyParams {
  u64 k_layers;    // [layers] u64 addresses of K's pages
  u64 v_layers;    // [layers] u64 addresses of V's pages
  u32 from;
  u32 to;
  u32 tokens;
  u32 kv_heads;
  u32 page_size;
  u32 head_dim;
} PageCopyParams;

// moe_topk.cu: softmax over the router's logits, the best experts and their shares.
typedef struct MoeTopkParams {
  u64 logits;      // [rows, experts] f32
  u64 chosen;      // [rows, top_k] u32, best first; ties: the lower index
  u64 shares;      // [rows, top_k] f32
  u32 rows;
  u32 experts;     // at most 512
  u32 top_k;       // at most experts and 32
  u32 stride;      // of logits
  u32 renormalise; // 1: the shares of a row sum to 1
  u32 reserved;
} MoeTopkParams;

// moe_permute.cu: assignments sorted by expert, in the order of rows within one.
typedef struct MoePermuteParams {
  u64 chosen;      // [count] u32, count = rows * top_k
  u64 offsets;     // [experts + 1] u32: expert e has sorted rows offsets[e] .. offsets[e + 1]
  u64 gather;      // [count] u32: row of x that each sorted row takes
  u64 places;      // [count] u32: the sorted row of each assignment
  u32 count;
  u32 top_k;
  u32 experts;
  u32 reserved;
} MoePermuteParams;

// moe_combine.cu: out[t] = sum over j of shares[t][j] * y[places[t][j]].
typedef struct MoeCombineParams {
  u64 y;           // [count, width] T, sorted by expert
  u64 places;      // [rows, top_k] u32
  u64 shares;      // [rows, top_k] f32
  u64 out;         // [rows, width] T
  u32 rows;
  u32 width;
  u32 top_k;
  u32 y_stride;
  u32 out_stride;
  u32 reserved;
} MoeCombineParams;

// A change that one row's parameters make to the logit of one token.
typedef struct LogitChange {
  u32 token;
  f32 bias;
  u32 count;       // times generated; 0: no penalty
  u32 forbidden;   // 1: minus infinity
} LogitChange;

// How one row is sampled; see src/engine/sampler.rs.
typedef struct SampleRow {
  f32 temperature; // 0: the best token
  f32 top_p;       // 1 or more: no limit
  f32 min_p;       // 0: no limit
  u32 top_k;       // 0: no limit
  u32 seed_low;
  u32 seed_high;
  u32 choice;      // which of a request's choices
  u32 position;    // tokens generated before
  f32 repetition;  // penalties; 1, 0 and 0: none
  f32 frequency;
  f32 presence;
  u32 changes;     // where this row's begin; they end where the next row's begin
  u32 kind;        // 0: choose a token; 1: the token is `given`; 2: the row is left alone
  u32 given;
  u32 scores;      // log-probabilities: 0 none, else of the token and `scores - 1` of the best
  u32 reserved;
} SampleRow;

// sample.cu: logit changes, in place or taken back for log-probabilities, then one token a row.
typedef struct SampleParams {
  u64 logits;      // [rows, vocab] f32
  u64 settings;    // [rows + 1] SampleRow; of the last only `changes` is read
  u64 changes;     // [] LogitChange, each token at most once a row
  u64 tokens;      // [rows] u32
  u32 rows;
  u32 vocab;       // at most 2^21
  u32 stride;
  u32 reserved;
} SampleParams;

// logprobs.cu: log-softmax of the row's best tokens, and of one named token.
typedef struct LogprobsParams {
  u64 logits;      // [rows, vocab] f32
  u64 targets;     // [rows] u32, or 0
  u64 target_out;  // [rows] f32
  u64 top_tokens;  // [rows, top] u32, best first; ties: the lower id
  u64 top_out;     // [rows, top] f32
  u64 settings;    // [rows] SampleRow whose `scores` says what a row wants; 0: all of it
  u32 rows;
  u32 vocab;
  u32 stride;
  u32 top;         // 0: none
} LogprobsParams;

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

// attention_prefill_wgmma.cu: attention_prefill.cu by TMA and wgmma; see there for the maps.
typedef struct WgmmaAttentionParams {
  TensorMap k_map;
  TensorMap v_map;
  AttentionParams attention;
  u32 reserved[4];
} WgmmaAttentionParams;

// ceiling.cu, ceiling_wgmma.cu: what the card reaches when nothing else is asked of it.
typedef struct CeilingParams {
  u64 x;           // what is read, or operands
  u64 out;         // a word a thread
  u64 pieces;      // of 16 bytes to read
  u32 rounds;      // of products
  u32 reserved;
} CeilingParams;

#endif  // PACER_ABI_H
