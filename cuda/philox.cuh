// philox.cuh: Philox4x32-10 (Salmon et al., SC 2011), the same draws as src/device/philox.rs.
#pragma once
#include "abi.h"

// 53 random bits for token `position` of `choice` under a seed.
__device__ inline u64 philox_bits(u32 seed_low, u32 seed_high, u32 choice, u32 position) {
  uint4 c = make_uint4(position, 0, choice, 0);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u64 a = static_cast<u64>(0xD2511F53u) * c.x;
    const u64 b = static_cast<u64>(0xCD9E8D57u) * c.z;
    c = make_uint4(static_cast<u32>(b >> 32) ^ c.y ^ seed_low, static_cast<u32>(b),
                   static_cast<u32>(a >> 32) ^ c.w ^ seed_high, static_cast<u32>(a));
    seed_low += 0x9E3779B9u;
    seed_high += 0xBB67AE85u;
  }
  return (static_cast<u64>(c.x) << 32 | c.y) >> 11;
}
