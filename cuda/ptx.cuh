// ptx.cuh: every inline assembly statement, one instruction a function, named as in the ISA.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "abi.h"

// Address of shared memory as the 32-bit number that PTX takes.
__device__ inline u32 smem_addr(const void* p) {
  return static_cast<u32>(__cvta_generic_to_shared(p));
}

// ---- global memory --------------------------------------------------------------------------------

// 16 bytes that no one writes during the launch, kept out of L1.
__device__ inline uint4 ld_stream(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// 16 bytes that no one writes during the launch.
__device__ inline uint4 ld_nc(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// ---- warps ----------------------------------------------------------------------------------------

__device__ inline u32 lane_id() { return threadIdx.x & 31; }
__device__ inline u32 warp_id() { return threadIdx.x >> 5; }

// ---- special functions ----------------------------------------------------------------------------

// 2^x; relative error 2^-22 over the whole range (ISA, ex2.approx.f32).
__device__ inline f32 ex2(f32 x) {
  f32 y;
  asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline f32 rsqrt_approx(f32 x) {
  f32 y;
  asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- programmatic dependent launch (sm_90) --------------------------------------------------------

// Waits until the kernels before this one in the stream have written their results.
__device__ inline void grid_dependency_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel in the stream start its blocks.
__device__ inline void grid_launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
