//! What a driver's callers and its implementations speak of.

/// An address in device memory.
pub type DevicePtr = u64;

macro_rules! handle {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);
    )*};
}

handle! {
    /// A loaded module.
    ModuleId;
    /// A kernel of a loaded module.
    Function;
    /// A stream; [`Stream::DEFAULT`] always exists.
    Stream;
    /// A point in a stream.
    Event;
    /// A captured graph.
    Graph;
    /// A graph that can be launched.
    GraphExec;
}

impl Stream {
    /// The stream that synchronises with all others of the context.
    pub const DEFAULT: Stream = Stream(0);
}

/// Page-locked host memory: copies from and to it run in stream order. Its bytes belong to the
/// driver's queued copies until the stream was synchronised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// Address in this process.
    pub address: usize,
    pub bytes: usize,
}

/// A loaded module and what the driver's compiler said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedModule {
    pub module: ModuleId,
    /// The just-in-time compiler's information log; empty if it said nothing.
    pub log: String,
}

/// What the driver says of a kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FunctionAttributes {
    /// Registers of a thread.
    pub registers: u32,
    /// Static shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// Local memory of a thread, bytes: 0 unless registers spill.
    pub local_bytes: u32,
    /// Most threads of a block.
    pub max_threads: u32,
    /// Most dynamic shared memory that a launch may ask for now, bytes.
    pub max_dynamic_shared: u32,
}

/// One launch.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    pub function: Function,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster; `[1, 1, 1]` for none.
    pub cluster: [u32; 3],
    /// Dynamic shared memory, bytes. Above 48 KiB the function must allow it first
    /// ([`Driver::allow_dynamic_shared`](super::Driver::allow_dynamic_shared)).
    pub shared_bytes: u32,
    /// May start while the kernel before it in the stream still runs (programmatic dependent
    /// launch); the kernel itself then waits with `griddepcontrol.wait`.
    pub programmatic: bool,
    /// The kernel's parameters as one block of bytes, laid out as its declaration says.
    pub params: &'a [u8],
}

/// What a graph node does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A kernel, by name.
    Kernel(String),
    Copy,
    Fill,
    Event,
    Other,
}

/// A node of a captured graph, in the order of execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphNode {
    /// The driver's handle: what a profiler's records are joined by.
    pub handle: u64,
    pub kind: NodeKind,
}

/// Element type of a tensor map; the numbers are `CUtensorMapDataType`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MapElement {
    U8 = 0,
    U16 = 1,
    U32 = 2,
    I32 = 3,
    F16 = 6,
    F32 = 7,
    Bf16 = 9,
}

/// Swizzle of a tile in shared memory; the numbers are `CUtensorMapSwizzle`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MapSwizzle {
    None = 0,
    B32 = 1,
    B64 = 2,
    B128 = 3,
}

/// L2 promotion of a tensor map's loads; the numbers are `CUtensorMapL2promotion`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MapPromotion {
    None = 0,
    B64 = 1,
    B128 = 2,
    B256 = 3,
}

/// A tiled tensor in device memory, for TMA copies. Dimension 0 is the contiguous one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMapSpec<'a> {
    pub element: MapElement,
    /// A multiple of 16.
    pub address: DevicePtr,
    /// Elements of each dimension, 1 to 5 dimensions.
    pub dims: &'a [u64],
    /// Bytes between neighbours of dimensions 1 and up: one fewer than `dims`.
    pub strides: &'a [u64],
    /// Elements of the box that one copy moves.
    pub box_dims: &'a [u32],
    pub swizzle: MapSwizzle,
    pub promotion: MapPromotion,
}

/// An encoded `CUtensorMap`: kernels take it by value, `const __grid_constant__`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u8; 128]);

/// What a piece of work did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RanWork {
    Kernel { name: String, grid: [u32; 3], block: [u32; 3], shared: u32 },
    Copy { bytes: u64, to_host: bool },
    Fill { bytes: u64 },
}

/// A piece of work that has run on a driver that keeps a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    pub work: RanWork,
    /// What [`Driver::tag`](super::Driver::tag) said when it was queued.
    pub tag: u64,
    /// Its graph node, 0 outside graphs.
    pub node: u64,
    /// Projected seconds on its stream's clock.
    pub from: f64,
    pub to: f64,
}

/// What does not change about a card.
#[derive(Debug, Clone, PartialEq)]
pub struct CardInfo {
    /// Marketing name.
    pub name: String,
    /// Compute capability.
    pub capability: (u32, u32),
    pub sms: u32,
    /// Shared memory of an SM, and the most that one block may opt in to, bytes.
    pub shared_per_sm: u32,
    pub shared_per_block: u32,
    pub threads_per_sm: u32,
    pub registers_per_sm: u32,
    pub l2_bytes: u64,
    pub memory_total: u64,
    /// `cuDriverGetVersion`: 1000 · major + 10 · minor of the newest CUDA it supports.
    pub driver_version: u32,
    /// Peak memory bandwidth in bytes/s, and SM clock in Hz; 0 where the driver does not tell.
    pub memory_bandwidth: f64,
    pub clock_hz: f64,
}
