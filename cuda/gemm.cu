// gemm.cu: y = x * W^T on tensor cores for any number of rows, from a GEMV to a prefill
//
// formula   y[m][n] = sum_k x[m][k] * w[n][k] (+ bias[n]) (+ residual[m][n]). Gated: w has 2n rows and
//           y[m][i] = act(g + bias[i]) * (u + bias[n + i]), g and u the products of w's rows i, n + i
// shapes    x [m, k] T; w [n, k] or [2n, k] T, dense; y [m, n] T, or f32 with out_f32; residual
//           [m, n] T, may be y. k and x_stride % 8 = 0; x and w 16-byte aligned; m and n any
// launch    grid ceil(m / BM) * ceil(n / OUT), OUT = BN, or BN / 2 gated; block 32 * warps;
//           dynamic shared memory kShared (in the registry)
// tiles     BM x BN products a block, 64 deep, in a ring of kStages; WM x WN a warp. BM = 16 is the
//           GEMV: its ring keeps (kStages - 1) * BN * 128 bytes of w under way on every block
// traffic   unique: reads 2(mk + nk) + 2n bias + 2mn residual, writes 2mn or 4mn. issued: x again for
//           every tile of columns, w again for every tile of rows
// bound     memory while m < 200 or so (m FLOP a byte of w), then tensor cores
// numerics  each output is one chain of k16 products from k = 0 up in one f32 accumulator, in every
//           variant and for every m: the bits of a row depend on that row and on w alone, never on
//           the rows beside it. Sums are never split over warps or blocks, for that reason
// needs     sm_80; on sm_90 w streams in before the kernel that makes x has ended
// why       one template is GEMV and GEMM, so invariance holds by construction. A chain of k / 16
//           dependent mma (33 cycles each) is shorter than reading the weights while n >= 2048.
#include "gemm.cuh"

template <class T, int BM, int BN, int WM, int WN, int STAGES, bool GATED>
__device__ void gemm_mma(const GemmParams& p) {
  using C = gemm::Config<BM, BN, WM, WN, STAGES, GATED>;
  const gemm::Place place(blockIdx.x, (p.m + BM - 1) / BM, (p.n + C::kOut - 1) / C::kOut);
  gemm::run<T, C, BM == 16>(p, place.m * BM, place.n * C::kOut, nullptr);
}
