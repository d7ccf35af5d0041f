// attention_prefill.cu: attention of many rows over paged keys and values, FlashAttention-2 style
//
// formula   as attention_decode.cu
// shapes    as attention_decode.cu; spans of any length after any past
// launch    grid (tiles, kv_heads), block 32 * WARPS, dynamic shared memory kShared (in the registry).
//           Tile i serves rows tiles[i].row .. + 16 * WARPS of span tiles[i].span; list the tiles
//           of a span from its last to its first, so that the long ones start first
// tiles     16 rows (token, head of the group) a warp, 64 tokens a chunk, K and V through a ring of
//           slots; q stays in shared memory, output and its total in registers (D = 256: total in
//           shared memory)
// traffic   unique: q and out once, K and V once; issued: K and V once for every tile that sees them
// bound     tensor cores; shared memory on sm_90, where mma.sync reads K and V once per 16 rows
// numerics  attention.cuh: the same bits as attention_decode.cu
// needs     sm_80; D = 256: 160 KiB of shared memory a block
// why       the heads of a group fill a tile's rows, so short prompts and chunks keep tiles full and
//           K and V are read once per group.
#include "attention.cuh"

namespace attention {

template <class T, int D, int WARPS, int SLOTS>
struct Prefill {
  static constexpr int kPairs = kPieces<D> / 2, kThreads = 32 * WARPS;
  static constexpr u32 kRows = 16 * WARPS;
  static constexpr bool kTotalShared = D > 128;
  static constexpr u32 kQ = kPanels<D> * kRows * tile::kRow;
  static constexpr u32 kTotal = kTotalShared ? kRows * D * 4 : 0;
  static constexpr u32 kShared = SLOTS * kSlot<D> + kQ + kTotal + kTables * kGroups * 4;

  const AttentionParams& p;
  AttentionSpan span;
  u32 head, first, rows;
  u32 ring, q;
  f32* total_shared;  // [kPairs * 8][threads]: each thread's own numbers, a thread a bank
  u32* table;
  Rows state, total_state;
  f32 o[kPairs][2][4];
  f32 total[kTotalShared ? 1 : kPairs][2][4];

  __device__ Prefill(const AttentionParams& p, unsigned char* shared) : p(p) {
    const AttentionTile tile = pointer<const AttentionTile>(p.tiles)[blockIdx.x];
    span = pointer<const AttentionSpan>(p.spans)[tile.span];
    head = blockIdx.y, first = tile.row;
    const u32 all = span.len * p.group;
    rows = first < all ? min(all - first, kRows) : 0;
    ring = smem_addr(shared), q = ring + SLOTS * kSlot<D>;
    total_shared = reinterpret_cast<f32*>(shared + SLOTS * kSlot<D> + kQ) + threadIdx.x;
    table = reinterpret_cast<u32*>(shared + SLOTS * kSlot<D> + kQ + kTotal);
  }

  __device__ void score(f32 (&s)[8][4], u32 slot) const {
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) s[j][v] = 0.0f;
#pragma unroll
    for (u32 c = 0; c < kPieces<D>; c += 2) {
      u32 a[4];
      tile::load_a(a, q + c / 8 * kRows * tile::kRow, warp_id() * 16, c % 8);
#pragma unroll
      for (u32 j = 0; j < 8; j += 2) {
        u32 b[4];
        tile::load_b(b, slot + c / 8 * kPanel, j * 8, c % 8);
        mma_16816<T>(s[j], a, b[0], b[1]);
        mma_16816<T>(s[j + 1], a, b[2], b[3]);
      }
    }
  }

  __device__ f32& total_at(int pair, int j, int v) {
    if constexpr (kTotalShared) return total_shared[((pair * 2 + j) * 4 + v) * kThreads];
    else return total[pair][j][v];
  }

  // Ends a split: its output joins the total.
  __device__ void merge() {
    const Merge a(total_state.m[0], total_state.l[0], state.m[0], state.l[0]);
    const Merge b(total_state.m[1], total_state.l[1], state.m[1], state.l[1]);
#pragma unroll
    for (int pair = 0; pair < kPairs; pair++)
#pragma unroll
      for (int j = 0; j < 2; j++)
#pragma unroll
        for (int v = 0; v < 4; v++) {
          f32& t = total_at(pair, j, v);
          t = v < 2 ? a(t, o[pair][j][v]) : b(t, o[pair][j][v]);
          o[pair][j][v] = 0.0f;
        }
    state.reset();
  }

  __device__ void clear() {
    state.reset(), total_state.reset();
#pragma unroll
    for (int pair = 0; pair < kPairs; pair++)
#pragma unroll
      for (int j = 0; j < 2; j++)
#pragma unroll
        for (int v = 0; v < 4; v++) o[pair][j][v] = 0.0f, total_at(pair, j, v) = 0.0f;
  }

  // Softmax of the chunk's scores and the output they weigh.
  __device__ void weigh_chunk(f32 (&s)[8][4], u32 slot, u32 chunk) {
    const u32 g = lane_id() / 4, warp_first = first + warp_id() * 16, start = chunk * kChunk;
    Sight sight;
#pragma unroll
    for (u32 h = 0; h < 2; h++) see(p, span, warp_first + g + 8 * h, start, sight.low[h], sight.high[h]);
    i32 low, high, unused;
    see(p, span, warp_first, start, unused, high);
    see(p, span, warp_first + 15, start, low, unused);
    logits(p, s, sight, low <= 0 && high >= static_cast<i32>(kChunk));
    f32 keep[2];
    state.step(s, keep);
#pragma unroll
    for (int pair = 0; pair < kPairs; pair++) {
#pragma unroll
      for (int j = 0; j < 2; j++)
#pragma unroll
        for (int v = 0; v < 4; v++) o[pair][j][v] *= keep[v / 2];
      weigh<T>(o[pair], s, slot + pair / 4 * kPanel, pair % 4 * 2);
    }
  }

  // The result through q's place in shared memory, then whole rows to memory.
  __device__ void write() {
    const u32 g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
      const u32 r = warp_id() * 16 + g + 8 * h;
      const f32 scale = 1.0f / total_state.l[h];
#pragma unroll
      for (int pair = 0; pair < kPairs; pair++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          const u32 at = q + pair / 4 * kRows * tile::kRow + tile::piece(r, pair % 4 * 2 + j) + 4 * t;
          st_shared(at, pack2<T>(total_at(pair, j, 2 * h) * scale,
                                 total_at(pair, j, 2 * h + 1) * scale));
        }
    }
    __syncwarp();
    for (u32 n = lane_id(); n < 16 * kPieces<D>; n += 32) {
      const uint2 at = copied<D>(n, 16);
      const u32 r = warp_id() * 16 + at.x, c = at.y;
      if (r >= rows || c >= D / 8) continue;
      const uint4 x = ld_shared16(q + c / 8 * kRows * tile::kRow + tile::piece(r, c % 8));
      st_global(out_row<T, D>(p, span, head, first + r) + c * 8, x);
    }
  }

  __device__ void run() {
    if (rows == 0) return;
    const u32 lowest = span.past + first / p.group;
    const u32 low = p.window && lowest + 1 > p.window ? lowest + 1 - p.window : 0;
    const u32 from = low / kChunk, to = (span.past + (first + rows - 1) / p.group) / kChunk + 1;
    const u32 warp_high = span.past + (first + warp_id() * 16 + 15) / p.group;
    const Stream<T, D, SLOTS, kThreads> stream = {
        pointer<const T>(p.k), pointer<const T>(p.v), pointer<const u32>(p.pages) + span.pages_start,
        ring, from, to - from, span.past + span.len, p.kv_heads, head, p.page_size, table};
    load_q<T, D, kRows, kThreads>(p, span, head, first, rows, q);
    stream.start();
    clear();
    for (u32 chunk = from; chunk < to; chunk++) {
      const bool seen = chunk * kChunk <= warp_high;  // else the chunk changes nothing
      f32 s[8][4];
      const u32 k = stream.next(2 * (chunk - from));
      if (seen) score(s, k);
      const u32 v = stream.next(2 * (chunk - from) + 1);
      if (seen) weigh_chunk(s, v, chunk);
      if (chunk % kSplitChunks == kSplitChunks - 1 || chunk + 1 == to) merge();
    }
    cp_async_wait<0>();
    write();
  }
};

}  // namespace attention

template <class T, int D, int WARPS, int SLOTS>
__device__ void attention_prefill(const AttentionParams& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  grid_dependency_wait();
  attention::Prefill<T, D, WARPS, SLOTS>(p, shared).run();
}
