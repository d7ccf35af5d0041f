//! The driver over the PTX machine: no GPU needed. Times are projected.

use pacer_emulator::card::Card;
use pacer_emulator::host::{Config, HostError, Machine, NodeWork};
use pacer_emulator::tensor::swizzle::Swizzle;
use pacer_emulator::tensor::tensormap;

use super::{
    CardInfo, Class, DevicePtr, Driver, DriverError, Event, Function, FunctionAttributes, Graph,
    GraphExec, GraphNode, Launch, LoadedModule, MapSwizzle, ModuleId, NodeKind, Pinned, Result,
    Stream, TensorMap, TensorMapSpec, class_of,
};

/// The CUDA version that the machine claims: the one whose PTX it reads.
const VERSION: u32 = 13_000;

/// An emulated card.
pub struct Emulated {
    machine: Machine,
    card: CardInfo,
}

impl Emulated {
    pub fn new(config: Config) -> Self {
        let card = describe(config.card, config.memory);
        Emulated { machine: Machine::new(config), card }
    }

    /// The machine below, for its counters and records.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    fn told<T>(&self, call: &'static str, result: std::result::Result<T, HostError>) -> Result<T> {
        result.map_err(|e| self.error(call, &e))
    }

    fn error(&self, call: &'static str, e: &HostError) -> DriverError {
        let code = e.code as u32;
        let class = if self.machine.lost().is_some() { Class::Sticky } else { class_of(code) };
        DriverError::new(class, call, e.to_string()).with_code(code)
    }
}

fn describe(card: &Card, memory: u64) -> CardInfo {
    CardInfo {
        name: format!("{} (emulated)", card.name),
        capability: card.capability,
        sms: card.sms,
        shared_per_sm: card.shared_per_sm,
        shared_per_block: card.shared_per_block,
        threads_per_sm: card.threads_per_sm,
        registers_per_sm: card.registers,
        l2_bytes: card.l2_bytes,
        memory_total: memory,
        driver_version: VERSION,
        memory_bandwidth: card.memory_bandwidth,
        clock_hz: card.clock_hz,
    }
}

/// The part of `pinned` that a copy names.
fn within(call: &'static str, pinned: Pinned, offset: usize, bytes: usize) -> Result<usize> {
    match offset.checked_add(bytes) {
        Some(end) if end <= pinned.bytes => Ok(pinned.address + offset),
        _ => {
            let message = format!(
                "{bytes} bytes at {offset} of page-locked memory of {} bytes",
                pinned.bytes
            );
            Err(DriverError::new(Class::Recoverable, call, message))
        }
    }
}

impl Driver for Emulated {
    fn kind(&self) -> &'static str {
        "emulated"
    }

    fn card(&self) -> &CardInfo {
        &self.card
    }

    fn memory(&self) -> Result<(u64, u64)> {
        self.told("memory", self.machine.memory())
    }

    fn alloc(&self, bytes: u64) -> Result<DevicePtr> {
        self.machine.alloc(bytes).map_err(|e| match (class_of(e.code as u32), self.memory()) {
            (Class::OutOfMemory, Ok((free, total))) => {
                DriverError::out_of_memory("alloc", bytes, free, total)
            }
            _ => self.error("alloc", &e),
        })
    }

    fn free(&self, address: DevicePtr) -> Result<()> {
        self.told("free", self.machine.free(address))
    }

    fn alloc_pinned(&self, bytes: usize) -> Result<Pinned> {
        let address = self.told("alloc_pinned", self.machine.alloc_host(bytes))?;
        Ok(Pinned { address, bytes })
    }

    fn free_pinned(&self, memory: Pinned) -> Result<()> {
        self.told("free_pinned", self.machine.free_host(memory.address))
    }

    fn upload(&self, to: DevicePtr, from: &[u8]) -> Result<()> {
        self.told("upload", self.machine.upload(to, from))
    }

    fn download(&self, to: &mut [u8], from: DevicePtr) -> Result<()> {
        self.told("download", self.machine.download(to, from))
    }

    fn upload_async(
        &self,
        to: DevicePtr,
        from: Pinned,
        offset: usize,
        bytes: usize,
        stream: Stream,
    ) -> Result<()> {
        let at = within("upload_async", from, offset, bytes)?;
        // SAFETY: page-locked memory that this driver allocated, of at least `offset + bytes`.
        let queued = unsafe { self.machine.upload_async(to, at as *const u8, bytes, stream.0) };
        self.told("upload_async", queued)
    }

    fn download_async(
        &self,
        to: Pinned,
        offset: usize,
        from: DevicePtr,
        bytes: usize,
        stream: Stream,
    ) -> Result<()> {
        let at = within("download_async", to, offset, bytes)?;
        // SAFETY: as in `upload_async`.
        let queued = unsafe { self.machine.download_async(at as *mut u8, from, bytes, stream.0) };
        self.told("download_async", queued)
    }

    fn copy_async(&self, to: DevicePtr, from: DevicePtr, bytes: u64, stream: Stream) -> Result<()> {
        self.told("copy_async", self.machine.copy_async(to, from, bytes, stream.0))
    }

    fn fill_async(&self, to: DevicePtr, value: u8, bytes: u64, stream: Stream) -> Result<()> {
        let queued = self.machine.fill_async(to, value.into(), 1, bytes, stream.0);
        self.told("fill_async", queued)
    }

    fn load_module(&self, ptx: &str) -> Result<LoadedModule> {
        let module = self.told("load_module", self.machine.load(ptx))?;
        Ok(LoadedModule { module: ModuleId(module), log: String::new() })
    }

    fn unload_module(&self, module: ModuleId) -> Result<()> {
        self.told("unload_module", self.machine.unload(module.0))
    }

    fn function(&self, module: ModuleId, name: &str) -> Result<Function> {
        self.told("function", self.machine.function(module.0, name)).map(Function)
    }

    fn attributes(&self, function: Function) -> Result<FunctionAttributes> {
        let info = self.told("attributes", self.machine.function_info(function.0))?;
        Ok(FunctionAttributes {
            registers: info.registers,
            shared_bytes: info.shared_bytes,
            local_bytes: info.local_bytes,
            max_threads: info.max_threads,
            max_dynamic_shared: info.dynamic_limit,
        })
    }

    fn allow_dynamic_shared(&self, function: Function, bytes: u32) -> Result<()> {
        self.told("allow_dynamic_shared", self.machine.allow_dynamic(function.0, bytes))
    }

    fn occupancy(&self, function: Function, threads: u32, shared_bytes: u32) -> Result<u32> {
        self.told("occupancy", self.machine.occupancy(function.0, threads, shared_bytes))
    }

    fn launch(&self, launch: &Launch<'_>, stream: Stream) -> Result<()> {
        let launch = pacer_emulator::host::Launch {
            function: launch.function.0,
            grid: launch.grid,
            block: launch.block,
            cluster: launch.cluster,
            shared_bytes: launch.shared_bytes,
            params: launch.params.to_vec(),
        };
        self.told("launch", self.machine.launch(&launch, stream.0))
    }

    fn create_stream(&self) -> Result<Stream> {
        self.told("create_stream", self.machine.create_stream(false)).map(Stream)
    }

    fn destroy_stream(&self, stream: Stream) -> Result<()> {
        self.told("destroy_stream", self.machine.destroy_stream(stream.0))
    }

    fn synchronize(&self, stream: Stream) -> Result<()> {
        self.told("synchronize", self.machine.synchronize_stream(stream.0))
    }

    fn create_event(&self, _timed: bool) -> Result<Event> {
        self.told("create_event", self.machine.create_event()).map(Event)
    }

    fn destroy_event(&self, event: Event) -> Result<()> {
        self.told("destroy_event", self.machine.destroy_event(event.0))
    }

    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        self.told("record", self.machine.record(event.0, stream.0))
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        self.told("wait", self.machine.wait(stream.0, event.0))
    }

    fn is_done(&self, event: Event) -> Result<bool> {
        self.told("is_done", self.machine.event_done(event.0))
    }

    fn synchronize_event(&self, event: Event) -> Result<()> {
        self.told("synchronize_event", self.machine.synchronize_event(event.0))
    }

    fn elapsed(&self, from: Event, to: Event) -> Result<f32> {
        self.told("elapsed", self.machine.elapsed(from.0, to.0))
    }

    fn begin_capture(&self, stream: Stream) -> Result<()> {
        self.told("begin_capture", self.machine.begin_capture(stream.0))
    }

    fn captured_node(&self, stream: Stream) -> Result<Option<u64>> {
        let Some(graph) = self.told("captured_node", self.machine.capturing(stream.0))? else {
            return Ok(None);
        };
        let nodes = self.told("captured_node", self.machine.nodes(graph))?;
        Ok(nodes.last().map(|n| n.handle))
    }

    fn end_capture(&self, stream: Stream) -> Result<Graph> {
        self.told("end_capture", self.machine.end_capture(stream.0)).map(Graph)
    }

    fn nodes(&self, graph: Graph) -> Result<Vec<GraphNode>> {
        let nodes = self.told("nodes", self.machine.nodes(graph.0))?;
        let node = |n: pacer_emulator::host::Node| GraphNode {
            handle: n.handle,
            kind: match n.work {
                NodeWork::Kernel(name) => NodeKind::Kernel(name),
                NodeWork::Copy => NodeKind::Copy,
                NodeWork::Fill => NodeKind::Fill,
            },
        };
        Ok(nodes.into_iter().map(node).collect())
    }

    fn destroy_graph(&self, graph: Graph) -> Result<()> {
        self.told("destroy_graph", self.machine.destroy_graph(graph.0))
    }

    fn instantiate(&self, graph: Graph) -> Result<GraphExec> {
        self.told("instantiate", self.machine.instantiate(graph.0)).map(GraphExec)
    }

    fn launch_graph(&self, exec: GraphExec, stream: Stream) -> Result<()> {
        self.told("launch_graph", self.machine.launch_graph(exec.0, stream.0))
    }

    fn destroy_exec(&self, exec: GraphExec) -> Result<()> {
        self.told("destroy_exec", self.machine.destroy_exec(exec.0))
    }

    fn tensor_map(&self, spec: &TensorMapSpec<'_>) -> Result<TensorMap> {
        let map = tiled(spec)?;
        self.told("tensor_map", self.machine.encode(&map)).map(TensorMap)
    }

    fn synchronize_all(&self) -> Result<()> {
        self.told("synchronize_all", self.machine.synchronize())
    }

    fn profiler(&self, _on: bool) -> Result<()> {
        Ok(())
    }
}

/// The PTX machine's form of a tensor map.
///
/// # Errors
/// [`Class::Recoverable`] for a shape that TMA cannot describe.
pub fn tiled(spec: &TensorMapSpec<'_>) -> Result<tensormap::TensorMap> {
    let refused =
        |message: String| DriverError::new(Class::Recoverable, "tensor_map", message).with_code(1);
    let element = tensormap::MapType::from_number(spec.element as u32)
        .ok_or_else(|| refused("an unknown element type".into()))?;
    let swizzle = match spec.swizzle {
        MapSwizzle::None => Swizzle::None,
        MapSwizzle::B32 => Swizzle::B32,
        MapSwizzle::B64 => Swizzle::B64,
        MapSwizzle::B128 => Swizzle::B128,
    };
    let (dims, boxes) = (spec.dims, spec.box_dims);
    tensormap::TensorMap::tiled(element, spec.address, dims, spec.strides, boxes, swizzle)
        .map_err(|e| refused(e.to_string()))
}
