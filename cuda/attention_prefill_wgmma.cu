// attention_prefill_wgmma.cu: attention_prefill.cu the Hopper way: TMA, mbarriers, wgmma
//
// formula   as attention_decode.cu
// shapes    as attention_prefill.cu, D = 64 or 128. k_map, v_map: the layer's K and V as [rows][D] with
//           rows = pages * kv_heads * page_size, dense, box 64 x 8, 128-byte swizzle
// launch    grid (tiles, kv_heads), block 384, dynamic shared memory kShared (in the registry); tiles
//           of 128 rows as for attention_prefill.cu
// tiles     two warpgroups of 64 rows (token, head of the group), 64 tokens a chunk. One warp brings K
//           and V through a ring of slots, each eight tokens of a page by a TMA of their own. The end of
//           a sequence, less than eight tokens, it copies itself: nothing behind it is read. q stays in
//           registers, and so do weights and output; D = 128: the total of the splits in shared memory
// traffic   unique: q and out once, K and V once; issued: K and V once for every tile that sees them
// bound     tensor cores
// numerics  attention.cuh, on the same fragments: on the PTX machine the same bits as
//           attention_prefill.cu; that a card's wgmma rounds as its mma.sync is to be measured on one
// needs     sm_90a
// why       a warpgroup computes the weights of a chunk while its last products with V run, and the
//           two warpgroups' products fill each other's gaps. Chunks of 64 tokens, half of what would
//           hide more, keep the order of sums that decode has; q in registers makes up for it: with
//           both operands in shared memory, products 64 wide would ask for all of its bandwidth.
#include "attention.cuh"
#include "ptx_sm90.cuh"

namespace attention {

template <class T, int D, int SLOTS>
struct PrefillWgmma {
  static constexpr u32 kRows = 128, kThreads = 256;
  static constexpr bool kTotalShared = D > 64;
  static constexpr u32 kQ = kPanels<D> * kRows * tile::kRow;
  static constexpr u32 kTotal = kTotalShared ? kRows * D * 4 : 0;
  static constexpr u32 kBarriers = 2 * SLOTS * 8;
  static constexpr u32 kShared = 1024 + SLOTS * kSlot<D> + kQ + kTotal + kBarriers;
  static constexpr u32 kReaders = kThreads / 32;
  static_assert(kShared <= 227 * 1024, "fits a block");
  static_assert(D == 64 || D == 128, "whole panels, and registers for them");

  const WgmmaAttentionParams& all;
  const AttentionParams& p;
  AttentionSpan span;
  u32 head, first, rows;
  u32 ring, q, full, empty;
  f32* total_shared;  // [D / 8 * 4][threads]: each thread's own numbers, a thread a bank
  u32 from, count;    // chunks
  u32 slot = 0, parity = 0;

  __device__ PrefillWgmma(const WgmmaAttentionParams& all, unsigned char* shared)
      : all(all), p(all.attention) {
    const AttentionTile tile = pointer<const AttentionTile>(p.tiles)[blockIdx.x];
    span = pointer<const AttentionSpan>(p.spans)[tile.span];
    head = blockIdx.y, first = tile.row;
    const u32 every = span.len * p.group;
    rows = first < every ? min(every - first, kRows) : 0;
    const u32 skip = (1024 - smem_addr(shared) % 1024) % 1024;
    ring = smem_addr(shared) + skip, q = ring + SLOTS * kSlot<D>;
    total_shared = reinterpret_cast<f32*>(shared + skip + SLOTS * kSlot<D> + kQ);
    full = q + kQ + kTotal, empty = full + SLOTS * 8;
    const u32 lowest = span.past + first / p.group;
    const u32 low = p.window && lowest + 1 > p.window ? lowest + 1 - p.window : 0;
    from = low / kChunk;
    count = rows ? (span.past + (first + rows - 1) / p.group) / kChunk + 1 - from : 0;
  }

  __device__ void advance() {
    if (++slot == SLOTS) slot = 0, parity ^= 1;
  }

  __device__ u32 place(u32 which) const { return ring + which * kSlot<D>; }

  // ---- the warp that brings K and V -----------------------------------------------------------------

  // Row of the cache that holds a token of the sequence.
  __device__ u32 cached(u32 token) const {
    const u32 page = token / p.page_size;
    const u32 number = pointer<const u32>(p.pages)[span.pages_start + page];
    return (number * p.kv_heads + head) * p.page_size + token - page * p.page_size;
  }

  // Rows of a chunk from `row` on, those behind the sequence's end as zeros.
  __device__ void copy_end(const T* cache, u32 start, u32 row, u32 end) const {
    for (u32 n = row * (D / 8) + lane_id(); n < kChunk * D / 8; n += 32) {
      const u32 r = n / (D / 8), c = n % (D / 8);
      uint4 x = {0, 0, 0, 0};
      if (start + r < end) x = ld_nc(cache + static_cast<u64>(cached(start + r)) * D + c * 8);
      st_shared(place(slot) + c / 8 * kPanel + tile::piece(r, c % 8), x);
    }
    fence_proxy_async();
  }

  __device__ void bring(const TensorMap* map, const T* cache, u32 start, u32 end, u32 row) {
    const u32 whole = min((end - start) / 8, kGroups), bar = full + slot * 8;
    mbarrier_wait(empty + slot * 8, parity ^ 1);
    if (whole < kGroups) copy_end(cache, start, whole * 8, end);
    __syncwarp();
    if (lane_id() == 0) mbarrier_expect_tx(bar, whole * 8 * tile::kRow * kPanels<D>);
    __syncwarp();
    const u32 group = lane_id() % kGroups, panel = lane_id() / kGroups;
    if (group < whole && panel < kPanels<D>) {
      const u32 to = place(slot) + panel * kPanel + group * 8 * tile::kRow;
      tma_load(to, map, panel * tile::kWidth, row, bar);
    }
    advance();
  }

  __device__ void produce() {
    const u32 end = span.past + span.len;
    for (u32 i = 0; i < count; i++) {
      const u32 start = (from + i) * kChunk, token = start + lane_id() % kGroups * 8;
      const u32 row = token < end ? cached(token) : 0;
      bring(&all.k_map, pointer<const T>(p.k), start, end, row);
      bring(&all.v_map, pointer<const T>(p.v), start, end, row);
    }
  }

  // ---- the warpgroups that multiply -----------------------------------------------------------------

  struct Consumer {
    PrefillWgmma& b;
    u32 row;  // the warp's first row in the tile
    u32 qa[D / 16][4];
    f32 o[D / 8][4];
    f32 total[kTotalShared ? 1 : D / 8][4];
    Rows state, total_state;

    __device__ explicit Consumer(PrefillWgmma& b) : b(b), row((warp_id() - 4) * 16) {
      state.reset(), total_state.reset();
      load_q();
#pragma unroll
      for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int v = 0; v < 4; v++) o[j][v] = 0.0f, total_at(j, v) = 0.0f;
    }

    __device__ f32& total_at(int j, int v) {
      if constexpr (kTotalShared) return b.total_shared[(j * 4 + v) * kThreads + threadIdx.x - 128];
      else return total[j][v];
    }

    // The warp's rows of q through shared memory into fragments.
    __device__ void load_q() {
      for (u32 n = lane_id(); n < 16 * D / 8; n += 32) {
        const u32 r = row + n / (D / 8), c = n % (D / 8), at = b.first + r, token = at / b.p.group;
        const bool in = r < b.rows;
        const T* q = pointer<const T>(b.p.q);
        const T* src = q + static_cast<u64>(b.span.start + token) * b.p.q_stride +
                       (b.head * b.p.group + at - token * b.p.group) * D + c * 8;
        cp_async16(b.q + c / 8 * kRows * tile::kRow + tile::piece(r, c % 8), in ? src : q, in);
      }
      cp_async_commit();
      cp_async_wait<0>();
      __syncwarp();
#pragma unroll
      for (u32 c = 0; c < D / 8; c += 2)
        tile::load_a(qa[c / 2], b.q + c / 8 * kRows * tile::kRow, row, c % 8);
    }

    // Waits for the next slot and gives it.
    __device__ u32 next() {
      const u32 which = b.slot;
      mbarrier_wait(b.full + which * 8, b.parity);
      b.advance();
      return which;
    }

    __device__ void release(u32 which) const {
      if (lane_id() == 0) mbarrier_arrive(b.empty + which * 8);
    }

    // Starts s = q * K.
    __device__ void score(f32 (&s)[8][4], u32 which) const {
      wgmma_fence();
#pragma unroll
      for (u32 k = 0; k < D / 16; k++) {
        const u32 at = b.place(which) + k / 4 * kPanel + k % 4 * 32;
        wgmma_a<T, 64, 0>(s, qa[k], wgmma_panel(at), k);
      }
      wgmma_commit();
    }

    // Starts o += weights * V.
    __device__ void weigh(const u32 (&w)[4][4], u32 which) {
      wgmma_fence();
#pragma unroll
      for (u32 k = 0; k < 4; k++)
        wgmma_a<T, D, 1>(o, w[k], wgmma_panel_trans(b.place(which) + k * 2048, kPanel), 1);
      wgmma_commit();
    }

    // Products of chunk number `chunk` to logits.
    __device__ void mask(f32 (&s)[8][4], u32 chunk) const {
      const u32 g = lane_id() / 4, start = chunk * kChunk, top = b.first + row;
      Sight sight;
#pragma unroll
      for (u32 h = 0; h < 2; h++)
        see(b.p, b.span, top + g + 8 * h, start, sight.low[h], sight.high[h]);
      i32 low, high, unused;
      see(b.p, b.span, top, start, unused, high);
      see(b.p, b.span, top + 15, start, low, unused);
      logits(b.p, s, sight, low <= 0 && high >= static_cast<i32>(kChunk));
    }

    __device__ void pack(u32 (&w)[4][4], const f32 (&s)[8][4]) const {
#pragma unroll
      for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          w[k][i] = pack2<T>(s[2 * k + i / 2][i % 2 * 2], s[2 * k + i / 2][i % 2 * 2 + 1]);
    }

    __device__ void scale(const f32 (&keep)[2]) {
#pragma unroll
      for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int v = 0; v < 4; v++) o[j][v] *= keep[v / 2];
    }

    // Ends a split: its output joins the total.
    __device__ void merge() {
      const Merge a(total_state.m[0], total_state.l[0], state.m[0], state.l[0]);
      const Merge c(total_state.m[1], total_state.l[1], state.m[1], state.l[1]);
#pragma unroll
      for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int v = 0; v < 4; v++) {
          f32& t = total_at(j, v);
          t = v < 2 ? a(t, o[j][v]) : c(t, o[j][v]);
          o[j][v] = 0.0f;
        }
      state.reset();
    }

    // The result through q's place in shared memory, then whole rows to memory.
    __device__ void write() {
      const u32 g = lane_id() / 4, t = lane_id() % 4;
      __syncwarp();  // every lane has its fragments of q
#pragma unroll
      for (u32 h = 0; h < 2; h++) {
        const f32 scale = 1.0f / total_state.l[h];
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
          const u32 panel = b.q + j / 8 * kRows * tile::kRow;
          st_shared(panel + tile::piece(row + g + 8 * h, j % 8) + 4 * t,
                    pack2<T>(total_at(j, 2 * h) * scale, total_at(j, 2 * h + 1) * scale));
        }
      }
      __syncwarp();
      for (u32 n = lane_id(); n < 16 * D / 8; n += 32) {
        const u32 r = row + n / (D / 8), c = n % (D / 8);
        if (r >= b.rows) break;
        const uint4 x = ld_shared16(b.q + c / 8 * kRows * tile::kRow + tile::piece(r, c % 8));
        st_global(out_row<T, D>(b.p, b.span, b.head, b.first + r) + c * 8, x);
      }
    }

    // Chunks that the warpgroup's last row sees; later ones change nothing.
    __device__ u32 seen() const {
      const u32 group_row = row / 64 * 64;
      if (group_row >= b.rows) return 0;
      const u32 high = b.span.past + (b.first + group_row + 63) / b.p.group;
      return min(b.count, high / kChunk + 1 - b.from);
    }

    __device__ void run() {
      const u32 n = seen();
      if (n > 0) {
        f32 s[8][4], keep[2];
        u32 w[4][4];
        u32 which = next();
        score(s, which);
        wgmma_wait<0>();
        release(which);
        mask(s, b.from), state.step(s, keep), pack(w, s);
        for (u32 chunk = b.from; chunk + 1 < b.from + n; chunk++) {
          const u32 v = next(), k = next();
          score(s, k);
          weigh(w, v);
          // The older of the two: s is there.
          wgmma_wait<1>();
          release(k);
          mask(s, chunk + 1);
          const bool last = chunk % kSplitChunks == kSplitChunks - 1;
          if (!last) state.step(s, keep);
          wgmma_wait<0>();
          release(v);
          if (last) merge(), state.step(s, keep);
          scale(keep), pack(w, s);
        }
        which = next();
        weigh(w, which);
        wgmma_wait<0>();
        release(which);
        merge();
        write();
      }
      for (u32 chunk = n; chunk < b.count; chunk++)
        for (u32 i = 0; i < 2; i++) release(next());
    }
  };

  __device__ void run() {
    if (threadIdx.x == 0) {
      for (u32 s = 0; s < SLOTS; s++) {
        mbarrier_init(full + s * 8, 1);
        mbarrier_init(empty + s * 8, kReaders);
      }
      fence_mbarrier_init();
    }
    __syncthreads();
    if (warp_id() < 4) {
      setmaxnreg_dec<24>();
      if (warp_id() == 0) produce();
    } else {
      setmaxnreg_inc<240>();
      Consumer(*this).run();
    }
  }
};

}  // namespace attention

template <class T, int D, int SLOTS>
__device__ void attention_prefill_wgmma(const WgmmaAttentionParams& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  grid_dependency_wait();
  attention::PrefillWgmma<T, D, SLOTS>(p, shared).run();
}
