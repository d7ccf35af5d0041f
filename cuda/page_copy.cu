// page_copy.cu: the first `tokens` slots of one page into another, K and V, every layer
// shapes    k_layers, v_layers [layers] addresses of page pools as abi.h says, T
// launch    grid (layers, kv_heads, 2), block 128, no shared memory
// tiles     V numbers a thread and pass: 8 (16 bytes; head_dim % 8 == 0), or 1
// traffic   reads and writes layers * kv_heads * tokens * head_dim * 4
// bound     memory
// numerics  a copy, bit for bit
// needs     sm_80. `from` and `to` differ
// why       copy on write of the last, partly filled page of a shared prefix, in one launch.
#include "number.cuh"

template <class T, int V>
__device__ void page_copy(const PageCopyParams& p) {
  grid_dependency_wait();
  const u64* layers = pointer<const u64>(blockIdx.z == 0 ? p.k_layers : p.v_layers);
  T* pool = pointer<T>(layers[blockIdx.x]);
  const u64 head = static_cast<u64>(p.page_size) * p.head_dim;
  const T* from = pool + (static_cast<u64>(p.from) * p.kv_heads + blockIdx.y) * head;
  T* to = pool + (static_cast<u64>(p.to) * p.kv_heads + blockIdx.y) * head;
  for (u32 i = threadIdx.x * V; i < p.tokens * p.head_dim; i += blockDim.x * V)
    store(to + i, load<T, V>(from + i));
}
