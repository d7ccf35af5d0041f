//! The small interface to a GPU that everything above it is written against.
//!
//! Two drivers: [`cuda`] (libcuda, opened at run time) and [`emulated`] (the PTX machine). Above
//! this trait nothing knows which one it has. Streams are in order; work queued in one runs later,
//! possibly much later, and its failure is told by a later call, on both.

pub mod cuda;
pub mod emulated;
mod error;
mod types;

pub use error::{Class, DriverError, Result, class_of};
pub use types::{
    CardInfo, DevicePtr, Event, Function, FunctionAttributes, Graph, GraphExec, GraphNode, Launch,
    LoadedModule, MapElement, MapPromotion, MapSwizzle, ModuleId, NodeKind, Pinned, Ran, RanWork,
    Stream, TensorMap, TensorMapSpec,
};

/// One GPU. Every call may fail with [`Class::Sticky`] for something that an earlier launch did.
pub trait Driver: Send + Sync {
    /// Keeps a list of what runs from now on, where a driver can, or forgets it.
    fn keep_ran(&self, _on: bool) {}

    /// Marks in that list the work that is queued from now on.
    fn tag(&self, _tag: u64) {}

    /// The list since last asked.
    fn ran(&self) -> Vec<Ran> {
        Vec::new()
    }

    /// `cuda` or `emulated`.
    fn kind(&self) -> &'static str;

    fn card(&self) -> &CardInfo;

    /// Bytes of device memory: free now, and in all.
    fn memory(&self) -> Result<(u64, u64)>;

    /// Allocates device memory, aligned to at least 256 bytes. Its contents are undefined.
    ///
    /// # Errors
    /// [`Class::OutOfMemory`] says how much was wanted and how much was free.
    fn alloc(&self, bytes: u64) -> Result<DevicePtr>;

    /// Frees what [`Driver::alloc`] gave, after all queued work is done.
    fn free(&self, address: DevicePtr) -> Result<()>;

    /// Allocates zeroed page-locked host memory.
    fn alloc_pinned(&self, bytes: usize) -> Result<Pinned>;

    /// Frees page-locked memory that no queued copy uses any more.
    fn free_pinned(&self, memory: Pinned) -> Result<()>;

    /// Copies to the device, and returns when done.
    fn upload(&self, to: DevicePtr, from: &[u8]) -> Result<()>;

    /// Copies from the device after the work of every stream, and returns when done.
    fn download(&self, to: &mut [u8], from: DevicePtr) -> Result<()>;

    /// Queues a copy of `bytes` from page-locked memory at `offset`. The bytes are read when the
    /// copy runs: they must not change before.
    fn upload_async(
        &self,
        to: DevicePtr,
        from: Pinned,
        offset: usize,
        bytes: usize,
        stream: Stream,
    ) -> Result<()>;

    /// Queues a copy of `bytes` to page-locked memory at `offset`.
    fn download_async(
        &self,
        to: Pinned,
        offset: usize,
        from: DevicePtr,
        bytes: usize,
        stream: Stream,
    ) -> Result<()>;

    /// Queues a copy within device memory; the ranges must not overlap.
    fn copy_async(&self, to: DevicePtr, from: DevicePtr, bytes: u64, stream: Stream) -> Result<()>;

    /// Queues filling `bytes` with `value`.
    fn fill_async(&self, to: DevicePtr, value: u8, bytes: u64, stream: Stream) -> Result<()>;

    /// Compiles and loads PTX text.
    ///
    /// # Errors
    /// With the compiler's error log.
    fn load_module(&self, ptx: &str) -> Result<LoadedModule>;

    fn unload_module(&self, module: ModuleId) -> Result<()>;

    /// The kernel `name` of a module.
    ///
    /// # Errors
    /// [`Class::Recoverable`], naming it, if the module has no such kernel.
    fn function(&self, module: ModuleId, name: &str) -> Result<Function>;

    fn attributes(&self, function: Function) -> Result<FunctionAttributes>;

    /// Lets launches of `function` ask for up to `bytes` of dynamic shared memory.
    fn allow_dynamic_shared(&self, function: Function, bytes: u32) -> Result<()>;

    /// Blocks of `threads` threads and `shared_bytes` of dynamic shared memory that one SM holds.
    fn occupancy(&self, function: Function, threads: u32, shared_bytes: u32) -> Result<u32>;

    /// Queues a kernel.
    ///
    /// # Errors
    /// A launch that cannot be is refused at once; what the kernel does wrong is told later.
    fn launch(&self, launch: &Launch<'_>, stream: Stream) -> Result<()>;

    /// A new stream that does not wait for the default one.
    fn create_stream(&self) -> Result<Stream>;

    fn destroy_stream(&self, stream: Stream) -> Result<()>;

    /// Waits for the stream's work.
    fn synchronize(&self, stream: Stream) -> Result<()>;

    /// A new event; `timed` ones can be asked for [`Driver::elapsed`].
    fn create_event(&self, timed: bool) -> Result<Event>;

    fn destroy_event(&self, event: Event) -> Result<()>;

    /// Marks the present end of the stream.
    fn record(&self, event: Event, stream: Stream) -> Result<()>;

    /// Lets the stream's further work wait for the event's last record.
    fn wait(&self, stream: Stream, event: Event) -> Result<()>;

    /// Whether the work before the event's last record is done.
    fn is_done(&self, event: Event) -> Result<bool>;

    /// Waits for the event's last record.
    fn synchronize_event(&self, event: Event) -> Result<()>;

    /// Milliseconds between two recorded events. Projected, not measured, on the emulator.
    fn elapsed(&self, from: Event, to: Event) -> Result<f32>;

    /// Starts to collect the stream's work into a graph instead of running it.
    fn begin_capture(&self, stream: Stream) -> Result<()>;

    /// Handle of the node that the last call on a capturing stream added.
    fn captured_node(&self, stream: Stream) -> Result<Option<u64>>;

    fn end_capture(&self, stream: Stream) -> Result<Graph>;

    /// The graph's nodes in the order of execution.
    fn nodes(&self, graph: Graph) -> Result<Vec<GraphNode>>;

    fn destroy_graph(&self, graph: Graph) -> Result<()>;

    fn instantiate(&self, graph: Graph) -> Result<GraphExec>;

    /// Queues all the graph's nodes.
    fn launch_graph(&self, exec: GraphExec, stream: Stream) -> Result<()>;

    fn destroy_exec(&self, exec: GraphExec) -> Result<()>;

    /// Encodes a tiled tensor map.
    ///
    /// # Errors
    /// [`Class::Recoverable`] for a shape that TMA cannot describe.
    fn tensor_map(&self, spec: &TensorMapSpec<'_>) -> Result<TensorMap>;

    /// Waits for all work of all streams.
    fn synchronize_all(&self) -> Result<()>;

    /// Starts and stops an attached profiler's collection (`cuProfilerStart`).
    fn profiler(&self, on: bool) -> Result<()>;
}

/// Pinned memory as bytes.
///
/// # Safety
/// `memory` must be live, no queued copy may use it, and no other slice of it may exist.
pub unsafe fn pinned_bytes<'a>(memory: Pinned) -> &'a mut [u8] {
    // SAFETY: the caller's promise; the driver allocated `bytes` bytes at `address`.
    unsafe { std::slice::from_raw_parts_mut(memory.address as *mut u8, memory.bytes) }
}
