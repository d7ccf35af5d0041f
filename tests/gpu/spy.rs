//! A driver around another: notes which kernels are launched, and spoils what wgmma computes if it
//! is told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pacer::device::gpu::driver::emulated::Emulated;
use pacer::device::gpu::driver::{
    CardInfo, DevicePtr, Driver, Event, Function, FunctionAttributes, Graph, GraphExec, GraphNode,
    Launch, LoadedModule, ModuleId, Pinned, Result, Stream, TensorMap, TensorMapSpec,
};

/// Where `y` stands in the parameters of `cuda/gemm_wgmma.cu`: behind two maps, x and w.
const WGMMA_Y: usize = 2 * 128 + 16;

pub struct Spy {
    inner: Arc<dyn Driver>,
    spoil: bool,
    /// The machine below, whose counters are read after every kernel.
    machine: Option<Arc<Emulated>>,
    /// Bytes that each kernel launched moved, if there is a machine.
    moved: Mutex<Vec<u64>>,
    names: Mutex<HashMap<Function, String>>,
    launched: Mutex<Vec<String>>,
    /// Bytes asked of copies to the host.
    downloaded: Mutex<usize>,
}

impl Spy {
    pub fn new(inner: Arc<dyn Driver>, spoil: bool) -> Arc<Spy> {
        let (names, launched, downloaded, moved) = Default::default();
        Arc::new(Spy { inner, spoil, machine: None, moved, names, launched, downloaded })
    }

    /// One that counts what each kernel moves.
    pub fn counting(machine: Emulated) -> Arc<Spy> {
        let machine = Arc::new(machine);
        let (names, launched, downloaded, moved) = Default::default();
        let inner: Arc<dyn Driver> = Arc::clone(&machine) as Arc<dyn Driver>;
        let machine = Some(machine);
        Arc::new(Spy { inner, spoil: false, machine, moved, names, launched, downloaded })
    }

    /// Bytes that each kernel since the last call moved.
    pub fn take_moved(&self) -> Vec<u64> {
        std::mem::take(&mut *self.moved.lock().unwrap())
    }

    fn bytes(&self) -> u64 {
        let moved = self.machine.as_ref().map(|m| m.machine().moved().unwrap());
        moved.map_or(0, |(read, written)| read + written)
    }

    /// Symbols launched, and bytes copied to the host, since the last call.
    pub fn take(&self) -> (Vec<String>, usize) {
        let launched = std::mem::take(&mut *self.launched.lock().unwrap());
        (launched, std::mem::take(&mut *self.downloaded.lock().unwrap()))
    }
}

macro_rules! pass {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $ty),*) -> $out { self.inner.$name($($arg),*) })*
    };
}

impl Driver for Spy {
    fn launch(&self, launch: &Launch<'_>, stream: Stream) -> Result<()> {
        let before = self.bytes();
        self.inner.launch(launch, stream)?;
        if self.machine.is_some() {
            self.inner.synchronize(stream)?;
            self.moved.lock().unwrap().push(self.bytes() - before);
        }
        let name = self.names.lock().unwrap().get(&launch.function).cloned().unwrap_or_default();
        if self.spoil && name.contains("wgmma") {
            let y = launch.params[WGMMA_Y..][..8].try_into().unwrap();
            self.inner.fill_async(u64::from_le_bytes(y), 1, 1, stream)?;
        }
        self.launched.lock().unwrap().push(name);
        Ok(())
    }

    fn function(&self, module: ModuleId, name: &str) -> Result<Function> {
        let function = self.inner.function(module, name)?;
        self.names.lock().unwrap().insert(function, name.to_owned());
        Ok(function)
    }

    fn download_async(
        &self,
        to: Pinned,
        offset: usize,
        from: DevicePtr,
        bytes: usize,
        stream: Stream,
    ) -> Result<()> {
        *self.downloaded.lock().unwrap() += bytes;
        self.inner.download_async(to, offset, from, bytes, stream)
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn card(&self) -> &CardInfo {
        self.inner.card()
    }

    pass! {
        memory() -> Result<(u64, u64)>;
        alloc(bytes: u64) -> Result<DevicePtr>;
        free(address: DevicePtr) -> Result<()>;
        alloc_pinned(bytes: usize) -> Result<Pinned>;
        free_pinned(memory: Pinned) -> Result<()>;
        upload(to: DevicePtr, from: &[u8]) -> Result<()>;
        download(to: &mut [u8], from: DevicePtr) -> Result<()>;
        upload_async(to: DevicePtr, from: Pinned, offset: usize, bytes: usize, stream: Stream)
            -> Result<()>;
        copy_async(to: DevicePtr, from: DevicePtr, bytes: u64, stream: Stream) -> Result<()>;
        fill_async(to: DevicePtr, value: u8, bytes: u64, stream: Stream) -> Result<()>;
        load_module(ptx: &str) -> Result<LoadedModule>;
        unload_module(module: ModuleId) -> Result<()>;
        attributes(function: Function) -> Result<FunctionAttributes>;
        allow_dynamic_shared(function: Function, bytes: u32) -> Result<()>;
        occupancy(function: Function, threads: u32, shared_bytes: u32) -> Result<u32>;
        create_stream() -> Result<Stream>;
        destroy_stream(stream: Stream) -> Result<()>;
        synchronize(stream: Stream) -> Result<()>;
        create_event(timed: bool) -> Result<Event>;
        destroy_event(event: Event) -> Result<()>;
        record(event: Event, stream: Stream) -> Result<()>;
        wait(stream: Stream, event: Event) -> Result<()>;
        is_done(event: Event) -> Result<bool>;
        synchronize_event(event: Event) -> Result<()>;
        elapsed(from: Event, to: Event) -> Result<f32>;
        begin_capture(stream: Stream) -> Result<()>;
        captured_node(stream: Stream) -> Result<Option<u64>>;
        end_capture(stream: Stream) -> Result<Graph>;
        nodes(graph: Graph) -> Result<Vec<GraphNode>>;
        destroy_graph(graph: Graph) -> Result<()>;
        instantiate(graph: Graph) -> Result<GraphExec>;
        launch_graph(exec: GraphExec, stream: Stream) -> Result<()>;
        destroy_exec(exec: GraphExec) -> Result<()>;
        tensor_map(spec: &TensorMapSpec<'_>) -> Result<TensorMap>;
        synchronize_all() -> Result<()>;
        profiler(on: bool) -> Result<()>;
    }
}
