// ptx_sm90.cuh: Hopper's instructions (TMA, mbarrier, wgmma), one a function, named as in the ISA.
#pragma once
#include "ptx.cuh"

// ---- mbarrier ---------------------------------------------------------------------------------------

__device__ inline void mbarrier_init(u32 bar, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}

// Makes initialised barriers visible to the cluster and to TMA.
__device__ inline void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void mbarrier_expect_tx(u32 bar, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
               : "memory");
}

// Arrives at the barrier of the same address in block `rank` of the cluster.
__device__ inline void mbarrier_arrive_cluster(u32 bar, u32 rank) {
  asm volatile(
      "{.reg .b32 remote; mapa.shared::cluster.u32 remote, %0, %1;"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];}" ::"r"(bar),
      "r"(rank)
      : "memory");
}

// Waits for the end of the phase of this parity.
__device__ inline void mbarrier_wait(u32 bar, u32 parity) {
  asm volatile(
      "{.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;}" ::"r"(bar),
      "r"(parity)
      : "memory");
}

// Arrives at a barrier of this block.
__device__ inline void mbarrier_arrive(u32 bar) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

// Orders this thread's plain accesses to shared memory before those of TMA and wgmma that follow.
__device__ inline void fence_proxy_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- clusters and registers -------------------------------------------------------------------------

__device__ inline u32 cluster_rank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

template <int N>
__device__ inline void setmaxnreg_inc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N>
__device__ inline void setmaxnreg_dec() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// ---- TMA --------------------------------------------------------------------------------------------

// A box at column x, row y of a matrix to shared memory; counts its bytes at `bar`.
__device__ inline void tma_load(u32 dst, const TensorMap* map, u32 x, u32 y, u32 bar) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(dst),
      "l"(map), "r"(x), "r"(y), "r"(bar)
      : "memory");
}

// The same to the blocks of the cluster in `mask`, each at this offset of its own memory and barrier.
__device__ inline void tma_load_multicast(u32 dst, const TensorMap* map, u32 x, u32 y, u32 bar,
                                          unsigned short mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(dst),
      "l"(map), "r"(x), "r"(y), "r"(bar), "h"(mask)
      : "memory");
}

__device__ inline void tma_prefetch_map(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// ---- wgmma ------------------------------------------------------------------------------------------

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int N>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// Descriptor of a K-major panel of 128-byte rows with the 128-byte swizzle, which starts at a multiple
// of 1024 bytes; `addr` may point 32, 64 or 96 bytes into its first row.
__device__ inline u64 wgmma_panel(u32 addr) {
  return static_cast<u64>((addr & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// The sums of a warpgroup's product, four a lane for every eight columns: as operands, and as the names
// that an instruction has for them.
#define WGMMA_D8(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define WGMMA_D32(i) WGMMA_D8(i), WGMMA_D8(i + 1), WGMMA_D8(i + 2), WGMMA_D8(i + 3)
#define WGMMA_SUMS_64 WGMMA_D32(0), WGMMA_D32(4)
#define WGMMA_SUMS_128 WGMMA_SUMS_64, WGMMA_D32(8), WGMMA_D32(12)
#define WGMMA_SUMS_256 WGMMA_SUMS_128, WGMMA_D32(16), WGMMA_D32(20), WGMMA_D32(24), WGMMA_D32(28)
#define WGMMA_NAMES_64 \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21," \
  "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_NAMES_128 \
  WGMMA_NAMES_64 \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51," \
  "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define WGMMA_NAMES_256 \
  WGMMA_NAMES_128 \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83," \
  "%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102," \
  "%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118," \
  "%119,%120,%121,%122,%123,%124,%125,%126,%127"

// d (64 x N) = a (64 x 16) * b (N x 16, transposed) + keep * d; both in shared memory, K-major.
template <class T, int N>
__device__ inline void wgmma(f32 (&d)[N / 8][4], u64 a, u64 b, u32 keep);

// A, B, KEEP: what the operands behind the sums are called.
#define WGMMA(T, TYPE, N, A, B, KEEP)                                                             \
  template <>                                                                                     \
  __device__ inline void wgmma<T, N>(f32(&d)[N / 8][4], u64 a, u64 b, u32 keep) {                 \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " KEEP ", 0;"                                     \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {"             \
                 WGMMA_NAMES_##N "}, " A ", " B ", p, 1, 1, 0, 0;}"                               \
                 : WGMMA_SUMS_##N                                                                 \
                 : "l"(a), "l"(b), "r"(keep));                                                    \
  }
WGMMA(__nv_bfloat16, "bf16", 128, "%64", "%65", "%66")
WGMMA(__half, "f16", 128, "%64", "%65", "%66")
WGMMA(__nv_bfloat16, "bf16", 256, "%128", "%129", "%130")
WGMMA(__half, "f16", 256, "%128", "%129", "%130")
#undef WGMMA

// Descriptor of a matrix b whose rows along k are 128-byte rows of panels with the 128-byte swizzle;
// `panel` bytes lie between the panels of 64 columns. `addr` is a multiple of 1024.
__device__ inline u64 wgmma_panel_trans(u32 addr, u32 panel) {
  return static_cast<u64>((addr & 0x3ffff) >> 4) | static_cast<u64>(panel >> 4) << 16 | 64ull << 32 |
         1ull << 62;
}

// d (64 x N) = a (64 x 16, each warp's 16 rows as its fragment of mma.m16n8k16) * b + keep * d. TRANS:
// b is described by wgmma_panel_trans, else by wgmma_panel.
template <class T, int N>
struct WgmmaA;

#define WGMMA_A(T, TYPE, N, A, B, KEEP, FLAG)                                                     \
  template <>                                                                                     \
  struct WgmmaA<T, N> {                                                                           \
    template <int TRANS>                                                                          \
    __device__ static void run(f32 (&d)[N / 8][4], const u32 (&a)[4], u64 b, u32 keep) {          \
      asm volatile("{.reg .pred p; setp.ne.b32 p, " KEEP ", 0;"                                   \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {"           \
                   WGMMA_NAMES_##N "}, {" A "}, " B ", p, 1, 1, " FLAG ";}"                       \
                   : WGMMA_SUMS_##N                                                               \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(TRANS));  \
    }                                                                                             \
  };
WGMMA_A(__nv_bfloat16, "bf16", 64, "%32,%33,%34,%35", "%36", "%37", "%38")
WGMMA_A(__half, "f16", 64, "%32,%33,%34,%35", "%36", "%37", "%38")
WGMMA_A(__nv_bfloat16, "bf16", 128, "%64,%65,%66,%67", "%68", "%69", "%70")
WGMMA_A(__half, "f16", 128, "%64,%65,%66,%67", "%68", "%69", "%70")
#undef WGMMA_A

template <class T, int N, int TRANS>
__device__ inline void wgmma_a(f32 (&d)[N / 8][4], const u32 (&a)[4], u64 b, u32 keep) {
  WgmmaA<T, N>::template run<TRANS>(d, a, b, keep);
}
