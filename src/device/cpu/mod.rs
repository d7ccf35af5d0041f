//! The CPU device: a real engine with SIMD chosen at run time and a persistent thread pool.

pub mod matmul;
pub mod pool;
