// rmsnorm.cu: x += add (optional); out = x * rsqrt(mean(x^2) + eps) * (w + offset), per group
// shapes    x, add, out [rows, groups * width] T with strides; w [width] T
// launch    warp: grid ceil(rows * groups / 4), block 128. block: grid (rows * groups), block
//           round_up(width / 8 / passes, 32). any: grid (rows * groups), block 256. No dynamic smem
// tiles     warp, block: 8 numbers (16 bytes) a thread and pass, width % 8 == 0, rows and strides
//           16-byte aligned; a row stays in registers. any: one number at a time, rows read twice
// traffic   unique: reads rows * groups * width * 2 (twice with add) + width * 2 (w); writes the
//           same for out, and again for x with add. issued: w once per group; any: x twice
// bound     memory: 1 FLOP a byte
// numerics  f32 sums, lane then warp then block in an order fixed by width; a sum x + add is rounded
//           to T before it is used, as a separate addition would. |error| <= 1 ulp of T
// needs     sm_80
// why       one pass over memory: the row waits in registers while its squares are summed. The order
//           of summation is chosen by width, never by the number of rows, so a row's bits do not
//           depend on what it is batched with.
#include "reduce.cuh"

// Where group `g` of all groups begins in a matrix of that stride.
__device__ inline u64 group_start(const RmsNormParams& p, u32 g, u32 stride) {
  const u32 row = g / p.groups;
  return static_cast<u64>(row) * stride + static_cast<u64>(g - row * p.groups) * p.width;
}

// A row in registers, spread over `lanes` threads.
template <class T, int PASSES>
struct RowRegisters {
  Pack<T, 8> x[PASSES];

  // Loads the row, adds and writes back where asked; returns this thread's sum of squares.
  __device__ f32 load_row(const RmsNormParams& p, u32 g, u32 lane, u32 lanes) {
    T* row = pointer<T>(p.x) + group_start(p, g, p.x_stride);
    const T* add = pointer<T>(p.add) + group_start(p, g, p.add_stride);
    f32 sum = 0.0f;
#pragma unroll
    for (int pass = 0; pass < PASSES; pass++) {
      const u32 at = (pass * lanes + lane) * 8;
      if (at >= p.width) continue;
      x[pass] = load<T, 8>(row + at);
      f32 v[8];
      unpack(x[pass], v);
      if (p.add) {
        const Pack<T, 8> y = load<T, 8>(add + at);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] += y.get(i);
        x[pass] = packed<T>(v);
        unpack(x[pass], v);
        store(row + at, x[pass]);
      }
#pragma unroll
      for (int i = 0; i < 8; i++) sum = fmaf(v[i], v[i], sum);
    }
    return sum;
  }

  __device__ void store_row(const RmsNormParams& p, u32 g, u32 lane, u32 lanes,
                            f32 scale) const {
    T* out = pointer<T>(p.out) + group_start(p, g, p.out_stride);
#pragma unroll
    for (int pass = 0; pass < PASSES; pass++) {
      const u32 at = (pass * lanes + lane) * 8;
      if (at >= p.width) continue;
      const Pack<T, 8> w = load<T, 8>(pointer<const T>(p.weight) + at);
      f32 v[8];
      unpack(x[pass], v);
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = v[i] * scale * (w.get(i) + p.offset);
      store(out + at, packed<T>(v));
    }
  }
};

__device__ inline f32 inverse_rms(const RmsNormParams& p, f32 sum) {
  return rsqrtf(sum / static_cast<f32>(p.width) + p.eps);
}

// A group to a warp, up to 256 * PASSES numbers.
template <class T, int PASSES>
__device__ void rms_norm_warp(const RmsNormParams& p) {
  grid_dependency_wait();
  const u32 g = blockIdx.x * 4 + warp_id();
  if (g >= p.rows * p.groups) return;
  RowRegisters<T, PASSES> row;
  const f32 sum = warp_sum(row.load_row(p, g, lane_id(), 32));
  row.store_row(p, g, lane_id(), 32, inverse_rms(p, sum));
}

// A group to a block, up to 8 * PASSES * blockDim.x numbers.
template <class T, int PASSES>
__device__ void rms_norm_block(const RmsNormParams& p) {
  __shared__ f32 parts[32];
  grid_dependency_wait();
  RowRegisters<T, PASSES> row;
  const f32 sum = block_sum(row.load_row(p, blockIdx.x, threadIdx.x, blockDim.x), parts);
  row.store_row(p, blockIdx.x, threadIdx.x, blockDim.x, inverse_rms(p, sum));
}

// Any width and alignment.
template <class T>
__device__ void rms_norm_any(const RmsNormParams& p) {
  __shared__ f32 parts[32];
  grid_dependency_wait();
  T* x = pointer<T>(p.x) + group_start(p, blockIdx.x, p.x_stride);
  const T* add = pointer<T>(p.add) + group_start(p, blockIdx.x, p.add_stride);
  f32 sum = 0.0f;
  for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) {
    f32 v = to_f32(x[i]);
    if (p.add) {
      const T both = from_f32<T>(v + to_f32(add[i]));
      x[i] = both;
      v = to_f32(both);
    }
    sum = fmaf(v, v, sum);
  }
  const f32 scale = inverse_rms(p, block_sum(sum, parts));
  T* out = pointer<T>(p.out) + group_start(p, blockIdx.x, p.out_stride);
  const T* w = pointer<T>(p.weight);
  for (u32 i = threadIdx.x; i < p.width; i += blockDim.x)
    out[i] = from_f32<T>(to_f32(x[i]) * scale * (to_f32(w[i]) + p.offset));
}
