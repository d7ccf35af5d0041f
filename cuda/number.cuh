// number.cuh: storage types and their conversions; eight numbers are one 16-byte access.
#pragma once
#include "ptx.cuh"

using bf16 = __nv_bfloat16;
using f16 = __half;

__device__ inline f32 to_f32(f32 x) { return x; }
__device__ inline f32 to_f32(bf16 x) { return __bfloat162float(x); }
__device__ inline f32 to_f32(f16 x) { return __half2float(x); }

// To the nearest, ties to even.
template <class T>
__device__ inline T from_f32(f32 x);
template <>
__device__ inline f32 from_f32<f32>(f32 x) {
  return x;
}
template <>
__device__ inline bf16 from_f32<bf16>(f32 x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline f16 from_f32<f16>(f32 x) {
  return __float2half_rn(x);
}

// The number nearest to x that T holds.
template <class T>
__device__ inline f32 rounded(f32 x) {
  return to_f32(from_f32<T>(x));
}

// N consecutive numbers of storage type T, moved in one access: N * sizeof(T) is 2, 4, 8 or 16.
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
  T v[N];

  __device__ f32 get(int i) const { return to_f32(v[i]); }
  __device__ void set(int i, f32 x) { v[i] = from_f32<T>(x); }
};

__device__ inline void round_pair(f32* to, f32 a, f32 b) {
  to[0] = a;
  to[1] = b;
}
// Rounds two numbers in one instruction.
__device__ inline void round_pair(bf16* to, f32 a, f32 b) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(a, b);
}
__device__ inline void round_pair(f16* to, f32 a, f32 b) {
  *reinterpret_cast<__half2*>(to) = __floats2half2_rn(a, b);
}

template <class T, int N>
__device__ inline void unpack(const Pack<T, N>& from, f32 (&to)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) to[i] = from.get(i);
}

// N even or 1.
template <class T, int N>
__device__ inline Pack<T, N> packed(const f32 (&from)[N]) {
  Pack<T, N> to;
  if constexpr (N == 1) {
    to.set(0, from[0]);
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 2) round_pair(&to.v[i], from[i], from[i + 1]);
  }
  return to;
}

// The register type of one access of that many bytes. Loads and stores go through it: left to
// itself the compiler splits an access of eight numbers into pieces.
template <int BYTES>
struct Word;
template <>
struct Word<2> {
  using Type = unsigned short;
};
template <>
struct Word<4> {
  using Type = u32;
};
template <>
struct Word<8> {
  using Type = uint2;
};
template <>
struct Word<16> {
  using Type = uint4;
};

template <class T, int N>
__device__ inline Pack<T, N> load(const T* p) {
  using W = typename Word<N * sizeof(T)>::Type;
  Pack<T, N> pack;
  *reinterpret_cast<W*>(&pack) = *reinterpret_cast<const W*>(p);
  return pack;
}

template <class T, int N>
__device__ inline void store(T* p, const Pack<T, N>& pack) {
  using W = typename Word<N * sizeof(T)>::Type;
  const W word = *reinterpret_cast<const W*>(&pack);
  if constexpr (sizeof(W) == 16) {
    st_global(p, word);
  } else {
    *reinterpret_cast<W*>(p) = word;
  }
}

// The typed pointer of an address in a parameter struct.
template <class T>
__device__ inline T* pointer(u64 address) {
  return reinterpret_cast<T*>(address);
}
