// attention_decode.cu: attention of a few rows per sequence over paged keys and values, split-KV
//
// formula   out[r] = sum_t p_t v_t / sum_t p_t, p_t = exp(cap(scale * q_r k_t)) over the tokens t that
//           row r sees: t <= its position, and t > position - window; cap(x) = c tanh(x / c)
// shapes    q, out [rows, heads * D] T; K, V of a layer [page][kv_head][slot][D] T. q and its stride
//           16-byte aligned; page_size % 8 = 0; D % 8 = 0
// launch    grid (spans * span_tiles, kv_heads, z), block 128, dynamic shared memory kShared (in the
//           registry). A block serves 16 rows (token, head of the group) of one span and one kv head:
//           span_tiles = ceil(longest len * group / 16). z is any number >= 1: a block takes splits
//           blockIdx.z, + z, ... Best is ceil(longest sequence / 256), less where blocks abound
// scratch   partial [grid.x][kv_heads][max_splits][16 rows][D + 2] f32, max_splits >= splits of the
//           longest sequence; counters as abi.h says
// tiles     256 tokens a split, 64 a chunk, K and V through a ring of slots. A warp computes scores
//           of 16 tokens of the chunk and, scores exchanged, 16 columns of every 64 of the output
// traffic   unique: K and V of the tokens seen once, 2 * 2 * D bytes a token and kv head; q, out; with
//           several splits their partial results, written and read: (D + 2) * 8 bytes a row and split
// bound     memory
// numerics  attention.cuh: splits and their order follow from positions alone; the block that ends
//           last merges all of them in order, so the result does not depend on which it is
// needs     sm_80
// why       a split's size fixed by nothing but the position keeps tokens independent of the batch;
//           256 tokens fill 132 multiprocessors from 4,096 tokens and 8 kv heads on.
#include "attention.cuh"

namespace attention {

constexpr u32 kRows = 16, kThreads = 128;
constexpr u32 kScoreStride = kChunk + 8;  // floats; 8 mod 32 keeps 8-byte accesses free of conflicts

template <class T, int D, int SLOTS>
struct Decode {
  static constexpr int kPairs = (kPieces<D> / 2 + 3) / 4;  // 16-column pieces of the output per warp
  static constexpr u32 kQ = kPanels<D> * kRows * tile::kRow;
  static constexpr u32 kScores = kRows * kScoreStride * 4;
  static constexpr u32 kTable = kTables * kGroups * 4 + 16;
  static constexpr u32 kShared = SLOTS * kSlot<D> + kQ + kScores + kTable;

  const AttentionParams& p;
  AttentionSpan span;
  u32 head, first, rows;      // kv head; the block's rows of the span
  u32 ring, q;                // shared addresses
  f32* scores;                // [16][kScoreStride]
  u32* table;
  u32* last;                  // shared flag: this block ends its tile
  Rows state;
  f32 o[kPairs][2][4];

  __device__ Decode(const AttentionParams& p, unsigned char* shared) : p(p) {
    span = pointer<const AttentionSpan>(p.spans)[blockIdx.x / p.span_tiles];
    head = blockIdx.y;
    first = blockIdx.x % p.span_tiles * kRows;
    const u32 all = span.len * p.group;
    rows = first < all ? min(all - first, kRows) : 0;
    ring = smem_addr(shared), q = ring + SLOTS * kSlot<D>;
    scores = reinterpret_cast<f32*>(shared + SLOTS * kSlot<D> + kQ);
    table = reinterpret_cast<u32*>(shared + SLOTS * kSlot<D> + kQ + kScores);
    last = table + kTables * kGroups;
  }

  // Products of all rows with the warp's 16 tokens, to shared memory.
  __device__ void score(u32 slot) {
    f32 s[2][4] = {};
#pragma unroll
    for (u32 c = 0; c < kPieces<D>; c += 2) {
      u32 a[4], b[4];
      tile::load_a(a, q + c / 8 * kRows * tile::kRow, 0, c % 8);
      tile::load_b(b, slot + c / 8 * kPanel, warp_id() * 16, c % 8);
      mma_16816<T>(s[0], a, b[0], b[1]);
      mma_16816<T>(s[1], a, b[2], b[3]);
    }
    const u32 g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
    for (u32 j = 0; j < 2; j++)
#pragma unroll
      for (u32 h = 0; h < 2; h++)
        *reinterpret_cast<float2*>(scores + (g + 8 * h) * kScoreStride + warp_id() * 16 + j * 8 +
                                   2 * t) = make_float2(s[j][2 * h], s[j][2 * h + 1]);
  }

  // Softmax of the chunk's scores, the same in every warp, then the warp's columns of the output.
  __device__ void weigh_chunk(u32 slot, u32 chunk) {
    const u32 g = lane_id() / 4, t = lane_id() % 4;
    f32 s[8][4], keep[2];
#pragma unroll
    for (u32 j = 0; j < 8; j++)
#pragma unroll
      for (u32 h = 0; h < 2; h++) {
        const float2 x =
            *reinterpret_cast<const float2*>(scores + (g + 8 * h) * kScoreStride + j * 8 + 2 * t);
        s[j][2 * h] = x.x, s[j][2 * h + 1] = x.y;
      }
    Sight sight;
#pragma unroll
    for (u32 h = 0; h < 2; h++)
      see(p, span, first + g + 8 * h, chunk * kChunk, sight.low[h], sight.high[h]);
    logits(p, s, sight, false);
    state.step(s, keep);
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      const u32 pair = warp_id() + 4 * i;
      if (pair >= kPieces<D> / 2) break;
#pragma unroll
      for (int j = 0; j < 2; j++)
#pragma unroll
        for (int v = 0; v < 4; v++) o[i][j][v] *= keep[v / 2];
      weigh<T>(o[i], s, slot + pair / 4 * kPanel, pair % 4 * 2);
    }
  }

  // Tokens [split * 256, + 256) as far as the rows see them.
  __device__ void run_split(u32 split) {
    const u32 low = lowest(), high = span.past + (first + rows - 1) / p.group;
    const u32 from = max(split * kSplitChunks, low / kChunk);
    const u32 to = min((split + 1) * kSplitChunks, high / kChunk + 1);
    const u32 end = span.past + span.len;
    Stream<T, D, SLOTS, kThreads> stream = {
        pointer<const T>(p.k), pointer<const T>(p.v), pointer<const u32>(p.pages) + span.pages_start,
        ring, from, to - from, end, p.kv_heads, head, p.page_size, table};
    state.reset();
#pragma unroll
    for (int i = 0; i < kPairs; i++)
#pragma unroll
      for (int j = 0; j < 2; j++)
#pragma unroll
        for (int v = 0; v < 4; v++) o[i][j][v] = 0.0f;
    load_q<T, D, kRows, kThreads>(p, span, head, first, rows, q);
    stream.start();
    for (u32 i = 0; i < to - from; i++) {
      score(stream.next(2 * i));
      weigh_chunk(stream.next(2 * i + 1), from + i);
    }
    cp_async_wait<0>();
    __syncthreads();
  }

  // First token that any of the block's rows sees.
  __device__ u32 lowest() const {
    const u32 position = span.past + first / p.group;
    return p.window && position + 1 > p.window ? position + 1 - p.window : 0;
  }

  __device__ f32* partial(u32 split) const {
    const u64 tile = static_cast<u64>(blockIdx.x) * p.kv_heads + head;
    return pointer<f32>(p.partial) + (tile * p.max_splits + split) * (kRows * (D + 2));
  }

  // A row's m, l, then its output, behind one another in a split's partial result.
  __device__ void write_partial(u32 split) const {
    const u32 g = lane_id() / 4, t = lane_id() % 4;
    f32* to = partial(split);
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
      const u32 r = g + 8 * h;
      if (r >= rows) break;
      if (warp_id() == 0 && t == 0)
        *reinterpret_cast<float2*>(to + r * 2) = make_float2(state.m[h], state.l[h]);
#pragma unroll
      for (int i = 0; i < kPairs; i++)
#pragma unroll
        for (int j = 0; j < 2; j++)
          if ((warp_id() + 4 * i) * 2 + j < D / 8)
            *reinterpret_cast<float2*>(to + 2 * kRows + r * D + (warp_id() + 4 * i) * 16 + j * 8 +
                                       2 * t) = make_float2(o[i][j][2 * h], o[i][j][2 * h + 1]);
    }
  }

  __device__ void write_only_split() const {
    const u32 g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
      if (g + 8 * h >= rows) break;
      T* to = out_row<T, D>(p, span, head, first + g + 8 * h);
      const f32 scale = 1.0f / state.l[h];
#pragma unroll
      for (int i = 0; i < kPairs; i++)
#pragma unroll
        for (int j = 0; j < 2; j++)
          if ((warp_id() + 4 * i) * 2 + j < D / 8)
            *reinterpret_cast<u32*>(to + (warp_id() + 4 * i) * 16 + j * 8 + 2 * t) =
                pack2<T>(o[i][j][2 * h] * scale, o[i][j][2 * h + 1] * scale);
    }
  }

  // True in the block that brings the last of `splits` partial results of the tile. The counter is
  // back at zero then, for the next launch.
  __device__ bool is_last(u32 splits) const {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      u32* counter = pointer<u32>(p.counters) + blockIdx.x * p.kv_heads + head;
      *last = atomicInc(counter, splits - 1) == splits - 1;
    }
    __syncthreads();
    const bool yes = *last;
    __threadfence();
    return yes;
  }

  __device__ void merge(u32 from, u32 to) const {
    for (u32 n = threadIdx.x; n < rows * D / 4; n += kThreads) {
      const u32 r = n / (D / 4), c = n % (D / 4) * 4;
      f32 m = -INFINITY, l = 0.0f;
      float4 sum = {0, 0, 0, 0};
#pragma unroll 4
      for (u32 split = from; split <= to; split++) {
        const f32* part = partial(split);
        const float2 ml = __ldcg(reinterpret_cast<const float2*>(part + r * 2));
        const float4 x = __ldcg(reinterpret_cast<const float4*>(part + 2 * kRows + r * D + c));
        const Merge by(m, l, ml.x, ml.y);
        sum.x = by(sum.x, x.x), sum.y = by(sum.y, x.y);
        sum.z = by(sum.z, x.z), sum.w = by(sum.w, x.w);
      }
      const f32 scale = 1.0f / l;
      Pack<T, 4> y;
      y.set(0, sum.x * scale), y.set(1, sum.y * scale), y.set(2, sum.z * scale);
      y.set(3, sum.w * scale);
      store(out_row<T, D>(p, span, head, first + r) + c, y);
    }
  }

  __device__ void run() {
    if (rows == 0) return;
    const u32 from = lowest() / kSplit, to = (span.past + (first + rows - 1) / p.group) / kSplit;
    for (u32 split = from + blockIdx.z; split <= to; split += gridDim.z) {
      run_split(split);
      if (from == to) return write_only_split();
      write_partial(split);
      if (is_last(to - from + 1)) merge(from, to);
    }
  }
};

}  // namespace attention

template <class T, int D, int SLOTS>
__device__ void attention_decode(const AttentionParams& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  grid_dependency_wait();
  attention::Decode<T, D, SLOTS>(p, shared).run();
}
