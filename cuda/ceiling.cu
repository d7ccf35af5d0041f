// ceiling.cu: what a card reaches when nothing else is asked of it: reads, and products of registers
//
// formula   read: out[thread] = xor of the words that the thread read. mma: out[thread] = sum of the
//           thread's numbers of kChains products, each added to itself `rounds` times
// shapes    read: `pieces` pieces of 16 bytes; mma: x holds 8 words for each lane, out a word a thread
// launch    read: any grid, block 256; mma: any grid, block 256 (8 warps, two a scheduler)
// tiles     read: kDepth pieces under way in each thread; mma: kChains m16n8k16 products a round, whose
//           chains do not wait for each other
// traffic   read: x once; mma: none to speak of
// bound     memory; tensor cores
// numerics  the results are there so that nothing can be left out; checks compare them
// needs     sm_80
// why       a share of the data sheet's peak says nothing about what this card can do at its clocks
//           and limits; a share of what it just did does.
#include "number.cuh"

namespace ceiling {

constexpr u32 kDepth = 8, kChains = 8;

}  // namespace ceiling

__device__ void ceiling_read(const CeilingParams& p) {
  const uint4* x = pointer<const uint4>(p.x);
  const u64 step = static_cast<u64>(gridDim.x) * blockDim.x;
  const u64 thread = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
  u32 sum = 0;
  u64 i = thread;
  for (; i + (ceiling::kDepth - 1) * step < p.pieces; i += ceiling::kDepth * step) {
    uint4 got[ceiling::kDepth];
#pragma unroll
    for (u32 d = 0; d < ceiling::kDepth; d++) got[d] = ld_stream(x + i + d * step);
#pragma unroll
    for (u32 d = 0; d < ceiling::kDepth; d++) sum ^= got[d].x ^ got[d].y ^ got[d].z ^ got[d].w;
  }
  for (; i < p.pieces; i += step) {
    const uint4 got = ld_stream(x + i);
    sum ^= got.x ^ got.y ^ got.z ^ got.w;
  }
  pointer<u32>(p.out)[thread] = sum;
}

template <class T>
__device__ void ceiling_mma(const CeilingParams& p) {
  const u32* x = pointer<const u32>(p.x) + lane_id() * 8;
  const u32 a[4] = {x[0], x[1], x[2], x[3]};
  const u32 b[4] = {x[4], x[5], x[6], x[7]};
  f32 d[ceiling::kChains][4];
#pragma unroll
  for (u32 c = 0; c < ceiling::kChains; c++)
#pragma unroll
    for (u32 v = 0; v < 4; v++) d[c][v] = 0.0f;
  for (u32 round = 0; round < p.rounds; round++)
#pragma unroll
    for (u32 c = 0; c < ceiling::kChains; c++) mma_16816<T>(d[c], a, b[c % 2 * 2], b[c % 2 * 2 + 1]);
  f32 sum = 0.0f;
#pragma unroll
  for (u32 c = 0; c < ceiling::kChains; c++)
#pragma unroll
    for (u32 v = 0; v < 4; v++) sum += d[c][v];
  pointer<f32>(p.out)[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
