//! The CUDA driver functions that Pacer and cudarc call, backed by the PTX machine. Installed
//! under the name libcuda.so.1 in a folder of `LD_LIBRARY_PATH`, it lets unmodified CUDA programs
//! run in tests without a GPU. A testing tool: nothing here is fast or complete.
//!
//! What it is to be is read from the environment, once:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `PACER_LIBCUDA_CARD` | card description, default `H100 SXM` |
//! | `PACER_LIBCUDA_MEMORY_MIB` | device memory, default 2048 |
//! | `PACER_LIBCUDA_CHECKS` | `all` (default) or `fast` |
//! | `PACER_LIBCUDA_SEED` | schedule of launches, default 0 |
//! | `PACER_LIBCUDA_FAULTS` | planted faults, e.g. `alloc=3,launch=7:700` |
//! | `PACER_LIBCUDA_VERSION` | CUDA version claimed, default 13000 |
//! | `PACER_LIBCUDA_DEVICES` | number of devices, 1 (default) or 0 |
//! | `PACER_LIBCUDA_CUPTI` | a stand-in for CUPTI that is told what runs |
//! | `PACER_LIBCUDA_CUPTI_CLONED` | nodes of a launched graph have numbers of their own |
//! | `PACER_LIBCUDA_PROFILER` | file that `cuProfilerStart` and `cuProfilerStop` append a line to |
//!
//! `cuGetErrorString` gives the machine's own words for the last failure.

// Every function's contract is that of cuda.h's function of the same name.
#![allow(clippy::missing_safety_doc, non_snake_case)]

mod cupti;
mod devices;
mod graphs;
mod launches;
mod memory;
mod modules;
mod state;
mod streams;
