//! The `Driver` calls that map one to one onto libcuda's.

use std::ffi::{c_int, c_void};

use cudarc::driver::sys::{self, CUfunction_attribute as FunctionAttribute};

use super::{Class, Cuda, DriverError, Result, library, told};
use crate::device::gpu::driver::{
    CardInfo, DevicePtr, Driver, Event, Function, FunctionAttributes, Graph, GraphExec, GraphNode,
    Launch, LoadedModule, ModuleId, NodeKind, Pinned, Stream, TensorMap, TensorMapSpec,
};

/// `CU_STREAM_NON_BLOCKING`, `CU_EVENT_DISABLE_TIMING`, `CU_MEMHOSTALLOC_PORTABLE` of cuda.h.
const NON_BLOCKING: u32 = 1;
const NO_TIMING: u32 = 2;
const PORTABLE: u32 = 1;

/// Makes the context current and calls one function of libcuda.
macro_rules! call {
    ($self:ident, $name:ident ( $($argument:expr),* $(,)? )) => {{
        $self.enter()?;
        // SAFETY: pointers among the arguments live through the call and point to as much as the
        // lengths say; handles came from this driver.
        told(stringify!($name), unsafe { sys::$name($($argument),*) })
    }};
}

/// The part of `pinned` that a copy names.
fn within(pinned: Pinned, offset: usize, bytes: usize) -> Result<*mut c_void> {
    match offset.checked_add(bytes) {
        Some(end) if end <= pinned.bytes => Ok((pinned.address + offset) as *mut c_void),
        _ => Err(DriverError::new(
            Class::Recoverable,
            "cuMemcpyAsync",
            format!("{bytes} bytes at {offset} of page-locked memory of {} bytes", pinned.bytes),
        )),
    }
}

fn stream_of(stream: Stream) -> sys::CUstream {
    stream.0 as sys::CUstream
}

impl Cuda {
    fn attribute(&self, function: Function, what: FunctionAttribute) -> Result<u32> {
        let mut value: c_int = 0;
        call!(self, cuFuncGetAttribute(&mut value, what, function.0 as sys::CUfunction))?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    fn node(&self, node: sys::CUgraphNode) -> Result<GraphNode> {
        use sys::CUgraphNodeType as Type;
        let mut kind = Type::CU_GRAPH_NODE_TYPE_EMPTY;
        call!(self, cuGraphNodeGetType(node, &mut kind))?;
        let kind = match kind {
            Type::CU_GRAPH_NODE_TYPE_KERNEL => NodeKind::Kernel(self.node_kernel(node)?),
            Type::CU_GRAPH_NODE_TYPE_MEMCPY => NodeKind::Copy,
            Type::CU_GRAPH_NODE_TYPE_MEMSET => NodeKind::Fill,
            Type::CU_GRAPH_NODE_TYPE_EVENT_RECORD | Type::CU_GRAPH_NODE_TYPE_WAIT_EVENT => {
                NodeKind::Event
            }
            _ => NodeKind::Other,
        };
        Ok(GraphNode { handle: node as u64, kind })
    }

    fn node_kernel(&self, node: sys::CUgraphNode) -> Result<String> {
        // SAFETY: a struct of integers and pointers, for which zeros are valid.
        let mut params: sys::CUDA_KERNEL_NODE_PARAMS = unsafe { std::mem::zeroed() };
        call!(self, cuGraphKernelNodeGetParams_v2(node, &mut params))?;
        Ok(self.kernel_name(params.func as u64))
    }
}

impl Driver for Cuda {
    fn kind(&self) -> &'static str {
        "cuda"
    }

    fn card(&self) -> &CardInfo {
        &self.card
    }

    fn memory(&self) -> Result<(u64, u64)> {
        let (mut free, mut total) = (0, 0);
        call!(self, cuMemGetInfo_v2(&mut free, &mut total))?;
        Ok((free as u64, total as u64))
    }

    fn alloc(&self, bytes: u64) -> Result<DevicePtr> {
        let mut address = 0;
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        call!(self, cuMemAlloc_v2(&mut address, size)).map_err(|e| match e.class {
            Class::OutOfMemory => {
                let (free, total) = self.memory().unwrap_or((0, self.card.memory_total));
                DriverError::out_of_memory("cuMemAlloc_v2", bytes, free, total)
            }
            _ => e,
        })?;
        Ok(address)
    }

    fn free(&self, address: DevicePtr) -> Result<()> {
        call!(self, cuMemFree_v2(address))
    }

    fn alloc_pinned(&self, bytes: usize) -> Result<Pinned> {
        let mut address = std::ptr::null_mut();
        call!(self, cuMemHostAlloc(&mut address, bytes.max(1), PORTABLE))?;
        // SAFETY: the driver gave `bytes` bytes at `address`.
        unsafe { std::ptr::write_bytes(address.cast::<u8>(), 0, bytes) };
        Ok(Pinned { address: address as usize, bytes })
    }

    fn free_pinned(&self, memory: Pinned) -> Result<()> {
        call!(self, cuMemFreeHost(memory.address as *mut c_void))
    }

    fn upload(&self, to: DevicePtr, from: &[u8]) -> Result<()> {
        call!(self, cuMemcpyHtoD_v2(to, from.as_ptr().cast(), from.len()))
    }

    fn download(&self, to: &mut [u8], from: DevicePtr) -> Result<()> {
        call!(self, cuMemcpyDtoH_v2(to.as_mut_ptr().cast(), from, to.len()))
    }

    fn upload_async(
        &self,
        to: DevicePtr,
        from: Pinned,
        offset: usize,
        bytes: usize,
        stream: Stream,
    ) -> Result<()> {
        let at = within(from, offset, bytes)?;
        call!(self, cuMemcpyHtoDAsync_v2(to, at, bytes, stream_of(stream)))
    }

    fn download_async(
        &self,
        to: Pinned,
        offset: usize,
        from: DevicePtr,
        bytes: usize,
        stream: Stream,
    ) -> Result<()> {
        let at = within(to, offset, bytes)?;
        call!(self, cuMemcpyDtoHAsync_v2(at, from, bytes, stream_of(stream)))
    }

    fn copy_async(&self, to: DevicePtr, from: DevicePtr, bytes: u64, stream: Stream) -> Result<()> {
        call!(self, cuMemcpyDtoDAsync_v2(to, from, bytes as usize, stream_of(stream)))
    }

    fn fill_async(&self, to: DevicePtr, value: u8, bytes: u64, stream: Stream) -> Result<()> {
        call!(self, cuMemsetD8Async(to, value, bytes as usize, stream_of(stream)))
    }

    fn load_module(&self, ptx: &str) -> Result<LoadedModule> {
        self.load(ptx)
    }

    fn unload_module(&self, module: ModuleId) -> Result<()> {
        call!(self, cuModuleUnload(module.0 as sys::CUmodule))
    }

    fn function(&self, module: ModuleId, name: &str) -> Result<Function> {
        self.find(module, name)
    }

    fn attributes(&self, function: Function) -> Result<FunctionAttributes> {
        use FunctionAttribute as F;
        let of = |what| self.attribute(function, what);
        Ok(FunctionAttributes {
            registers: of(F::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            shared_bytes: of(F::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
            local_bytes: of(F::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            max_threads: of(F::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            max_dynamic_shared: of(F::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)?,
        })
    }

    fn allow_dynamic_shared(&self, function: Function, bytes: u32) -> Result<()> {
        let what = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let value = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        call!(self, cuFuncSetAttribute(function.0 as sys::CUfunction, what, value))
            .map_err(|e| e.context(format!("{} bytes of dynamic shared memory", bytes)))
    }

    fn occupancy(&self, function: Function, threads: u32, shared_bytes: u32) -> Result<u32> {
        let mut blocks: c_int = 0;
        let threads = c_int::try_from(threads).unwrap_or(c_int::MAX);
        call!(
            self,
            cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut blocks,
                function.0 as sys::CUfunction,
                threads,
                shared_bytes as usize,
            )
        )?;
        Ok(u32::try_from(blocks).unwrap_or(0))
    }

    fn launch(&self, launch: &Launch<'_>, stream: Stream) -> Result<()> {
        self.start(launch, stream)
    }

    fn create_stream(&self) -> Result<Stream> {
        let mut stream = std::ptr::null_mut();
        call!(self, cuStreamCreate(&mut stream, NON_BLOCKING))?;
        Ok(Stream(stream as u64))
    }

    fn destroy_stream(&self, stream: Stream) -> Result<()> {
        call!(self, cuStreamDestroy_v2(stream_of(stream)))
    }

    fn synchronize(&self, stream: Stream) -> Result<()> {
        call!(self, cuStreamSynchronize(stream_of(stream)))
    }

    fn create_event(&self, timed: bool) -> Result<Event> {
        let mut event = std::ptr::null_mut();
        call!(self, cuEventCreate(&mut event, if timed { 0 } else { NO_TIMING }))?;
        Ok(Event(event as u64))
    }

    fn destroy_event(&self, event: Event) -> Result<()> {
        call!(self, cuEventDestroy_v2(event.0 as sys::CUevent))
    }

    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        call!(self, cuEventRecord(event.0 as sys::CUevent, stream_of(stream)))
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        call!(self, cuStreamWaitEvent(stream_of(stream), event.0 as sys::CUevent, 0))
    }

    fn is_done(&self, event: Event) -> Result<bool> {
        const NOT_READY: u32 = 600;
        match call!(self, cuEventQuery(event.0 as sys::CUevent)) {
            Ok(()) => Ok(true),
            Err(e) if e.code == NOT_READY => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn synchronize_event(&self, event: Event) -> Result<()> {
        call!(self, cuEventSynchronize(event.0 as sys::CUevent))
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<f32> {
        let mut milliseconds = 0.0;
        let (from, to) = (from.0 as sys::CUevent, to.0 as sys::CUevent);
        if self.card.driver_version < library::ELAPSED_V2 {
            self.enter()?;
            let result = library::elapsed_v1(&mut milliseconds, from, to)?;
            told("cuEventElapsedTime", result)?;
            return Ok(milliseconds);
        }
        call!(self, cuEventElapsedTime_v2(&mut milliseconds, from, to))?;
        Ok(milliseconds)
    }

    fn begin_capture(&self, stream: Stream) -> Result<()> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        call!(self, cuStreamBeginCapture_v2(stream_of(stream), mode))
    }

    fn captured_node(&self, stream: Stream) -> Result<Option<u64>> {
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let (mut nodes, mut count) = (std::ptr::null(), 0);
        if self.card.driver_version < library::CAPTURE_INFO_V3 {
            self.enter()?;
            let place = (&mut nodes, &mut count);
            let result = library::capture_info_v2(stream_of(stream), &mut status, place)?;
            told("cuStreamGetCaptureInfo_v2", result)?;
        } else {
            call!(
                self,
                cuStreamGetCaptureInfo_v3(
                    stream_of(stream),
                    &mut status,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    &mut nodes,
                    std::ptr::null_mut(),
                    &mut count,
                )
            )?;
        }
        if count == 0 || nodes.is_null() {
            return Ok(None);
        }
        // SAFETY: the driver's list of `count` nodes that the stream's next node depends on stays
        // valid until the next call on the stream.
        let last = unsafe { *nodes.add(count - 1) };
        Ok(Some(last as u64))
    }

    fn end_capture(&self, stream: Stream) -> Result<Graph> {
        let mut graph = std::ptr::null_mut();
        call!(self, cuStreamEndCapture(stream_of(stream), &mut graph))?;
        Ok(Graph(graph as u64))
    }

    fn nodes(&self, graph: Graph) -> Result<Vec<GraphNode>> {
        let graph = graph.0 as sys::CUgraph;
        let mut count = 0;
        call!(self, cuGraphGetNodes(graph, std::ptr::null_mut(), &mut count))?;
        let mut nodes = vec![std::ptr::null_mut(); count];
        call!(self, cuGraphGetNodes(graph, nodes.as_mut_ptr(), &mut count))?;
        nodes.truncate(count);
        nodes.into_iter().map(|node| self.node(node)).collect()
    }

    fn destroy_graph(&self, graph: Graph) -> Result<()> {
        call!(self, cuGraphDestroy(graph.0 as sys::CUgraph))
    }

    fn instantiate(&self, graph: Graph) -> Result<GraphExec> {
        let mut exec = std::ptr::null_mut();
        call!(self, cuGraphInstantiateWithFlags(&mut exec, graph.0 as sys::CUgraph, 0))?;
        Ok(GraphExec(exec as u64))
    }

    fn launch_graph(&self, exec: GraphExec, stream: Stream) -> Result<()> {
        call!(self, cuGraphLaunch(exec.0 as sys::CUgraphExec, stream_of(stream)))
    }

    fn destroy_exec(&self, exec: GraphExec) -> Result<()> {
        call!(self, cuGraphExecDestroy(exec.0 as sys::CUgraphExec))
    }

    fn tensor_map(&self, spec: &TensorMapSpec<'_>) -> Result<TensorMap> {
        self.encode(spec)
    }

    fn synchronize_all(&self) -> Result<()> {
        call!(self, cuCtxSynchronize())
    }

    fn profiler(&self, on: bool) -> Result<()> {
        if on { call!(self, cuProfilerStart()) } else { call!(self, cuProfilerStop()) }
    }
}
