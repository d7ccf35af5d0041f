//! The `Driver` interface over the PTX machine: order, captures, faults, refusals.

use pacer::device::gpu::driver::emulated::Emulated;
use pacer::device::gpu::driver::{
    Class, Driver, Function, Launch, MapElement, MapPromotion, MapSwizzle, NodeKind, Stream,
    TensorMapSpec, pinned_bytes,
};
use pacer_emulator::host::{Config, Faults};

/// `y[i] = x[i] + a` for 32 numbers; `wild` writes outside of every allocation.
const PTX: &str = include_str!("libcuda/add.ptx");

struct Bench {
    driver: Emulated,
    add: Function,
    wild: Function,
    x: u64,
    y: u64,
}

fn bench(faults: &str) -> Bench {
    let faults = Faults::parse(faults).unwrap();
    let driver = Emulated::new(Config { memory: 1 << 20, faults, ..Config::default() });
    let module = driver.load_module(PTX).unwrap().module;
    let (add, wild) = (driver.function(module, "add").unwrap(), driver.function(module, "wild"));
    let (x, y) = (driver.alloc(128).unwrap(), driver.alloc(128).unwrap());
    driver.upload(x, &words(0..32)).unwrap();
    Bench { driver, add, wild: wild.unwrap(), x, y }
}

fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

impl Bench {
    fn params(&self, y: u64, x: u64, a: u32) -> Vec<u8> {
        let mut bytes = y.to_le_bytes().to_vec();
        bytes.extend(x.to_le_bytes());
        bytes.extend(a.to_le_bytes());
        bytes
    }

    fn add(&self, y: u64, x: u64, a: u32, stream: Stream) {
        let params = self.params(y, x, a);
        self.driver.launch(&launch(self.add, &params), stream).unwrap();
    }

    fn read(&self, at: u64) -> Vec<u8> {
        let mut out = vec![0; 128];
        self.driver.download(&mut out, at).unwrap();
        out
    }
}

fn launch(function: Function, params: &[u8]) -> Launch<'_> {
    Launch {
        function,
        grid: [1; 3],
        block: [32, 1, 1],
        cluster: [1; 3],
        shared_bytes: 0,
        programmatic: false,
        params,
    }
}

#[test]
fn queued_work_runs_when_it_is_waited_for() {
    let b = bench("");
    let s = b.driver.create_stream().unwrap();
    b.add(b.y, b.x, 100, s);
    // Nobody waited: the synchronous copy does not wait for other streams.
    b.driver.upload(b.y, &words([7; 32])).unwrap();
    assert_eq!(b.read(b.y), words([7; 32]));
    b.driver.synchronize(s).unwrap();
    assert_eq!(b.read(b.y), words(100..132));
}

#[test]
fn events_order_streams_and_tell_projected_time() {
    let b = bench("");
    let (s, t) = (b.driver.create_stream().unwrap(), b.driver.create_stream().unwrap());
    let event = |timed| b.driver.create_event(timed).unwrap();
    let (begin, done, end) = (event(true), event(false), event(true));
    b.driver.record(begin, s).unwrap();
    b.add(b.y, b.x, 1, s);
    b.driver.record(done, s).unwrap();
    b.driver.wait(t, done).unwrap();
    b.add(b.x, b.y, 1, t);
    b.driver.record(end, t).unwrap();
    assert!(!b.driver.is_done(end).unwrap());
    assert_eq!(b.driver.elapsed(begin, end).unwrap_err().class, Class::Recoverable);
    b.driver.synchronize_event(end).unwrap();
    assert!(b.driver.is_done(done).unwrap());
    assert_eq!(b.read(b.x), words(2..34));
    assert!(b.driver.elapsed(begin, end).unwrap() > 0.0);
}

#[test]
fn pinned_memory_is_read_when_the_copy_runs() {
    let b = bench("");
    let s = b.driver.create_stream().unwrap();
    let host = b.driver.alloc_pinned(256).unwrap();
    // SAFETY: live, and no copy is queued.
    let bytes = unsafe { pinned_bytes(host) };
    bytes[..128].copy_from_slice(&words([1; 32]));
    b.driver.upload_async(b.x, host, 0, 128, s).unwrap();
    // Changed before the copy ran: what a card may see, the machine does see.
    // SAFETY: the machine copies inside of calls only.
    let bytes = unsafe { pinned_bytes(host) };
    bytes[..128].copy_from_slice(&words([2; 32]));
    b.driver.fill_async(b.y, 0xff, 128, s).unwrap();
    b.driver.copy_async(b.y, b.x, 64, s).unwrap();
    b.driver.download_async(host, 128, b.y, 128, s).unwrap();
    b.driver.synchronize(s).unwrap();
    // SAFETY: the stream's work is done.
    let back = &unsafe { pinned_bytes(host) }[128..];
    assert_eq!(back[..64], words([2; 16]));
    assert_eq!(back[64..], [0xff; 64]);
    let over = b.driver.upload_async(b.x, host, 200, 57, s).unwrap_err();
    assert_eq!(over.class, Class::Recoverable);
    b.driver.free_pinned(host).unwrap();
}

#[test]
fn a_captured_graph_replays() {
    let b = bench("");
    let s = b.driver.create_stream().unwrap();
    b.driver.begin_capture(s).unwrap();
    assert_eq!(b.driver.alloc(16).unwrap_err().class, Class::Recoverable);
    b.driver.fill_async(b.y, 0, 128, s).unwrap();
    b.add(b.y, b.x, 5, s);
    let node = b.driver.captured_node(s).unwrap().unwrap();
    b.add(b.x, b.y, 0, s);
    let graph = b.driver.end_capture(s).unwrap();
    assert_eq!(b.driver.captured_node(s).unwrap(), None);
    let nodes = b.driver.nodes(graph).unwrap();
    let kinds: Vec<NodeKind> = nodes.iter().map(|n| n.kind.clone()).collect();
    let add = || NodeKind::Kernel("add".into());
    assert_eq!(kinds, [NodeKind::Fill, add(), add()]);
    assert_eq!(nodes[1].handle, node);
    assert_eq!(b.read(b.x), words(0..32), "a capture runs nothing");
    let exec = b.driver.instantiate(graph).unwrap();
    b.driver.destroy_graph(graph).unwrap();
    for _ in 0..3 {
        b.driver.launch_graph(exec, s).unwrap();
    }
    b.driver.synchronize(s).unwrap();
    assert_eq!(b.read(b.x), words(15..47));
}

#[test]
fn a_kernel_fault_loses_the_context_and_a_refusal_does_not() {
    let b = bench("");
    let short = launch(b.add, &[0; 8]);
    assert_eq!(b.driver.launch(&short, Stream::DEFAULT).unwrap_err().class, Class::Recoverable);
    let params = b.params(b.y, b.x, 1);
    let mut fat = launch(b.add, &params);
    fat.shared_bytes = 100 << 10;
    let refused = b.driver.launch(&fat, Stream::DEFAULT).unwrap_err();
    assert!(refused.message.contains("dynamic shared memory"), "{refused}");
    assert_eq!(refused.class, Class::Recoverable);
    b.add(b.y, b.x, 1, Stream::DEFAULT);
    b.driver.synchronize(Stream::DEFAULT).unwrap();

    b.driver.launch(&launch(b.wild, &[]), Stream::DEFAULT).unwrap();
    let lost = b.driver.synchronize(Stream::DEFAULT).unwrap_err();
    assert_eq!((lost.class, lost.code), (Class::Sticky, 700), "{lost}");
    assert!(lost.message.contains("kernel wild"), "{lost}");
    assert_eq!(b.driver.alloc(16).unwrap_err().class, Class::Sticky);
    assert_eq!(b.driver.memory().unwrap_err().class, Class::Sticky);
}

#[test]
fn memory_runs_out_with_figures_and_comes_back() {
    let b = bench("");
    let error = b.driver.alloc(2 << 20).unwrap_err();
    assert_eq!(error.class, Class::OutOfMemory);
    assert!(error.message.contains("2.0 MiB wanted, 1.0 MiB of 1.0 MiB free"), "{error}");
    let half = b.driver.alloc(1 << 19).unwrap();
    let before = b.driver.memory().unwrap().0;
    b.driver.free(half).unwrap();
    assert_eq!(b.driver.memory().unwrap().0, before + (1 << 19));
    assert_eq!(b.driver.free(half).unwrap_err().class, Class::Recoverable);
}

#[test]
fn planted_faults_come_where_they_were_planted() {
    let b = bench("launch=2:701");
    b.add(b.y, b.x, 1, Stream::DEFAULT);
    let params = b.params(b.y, b.x, 1);
    let refused = b.driver.launch(&launch(b.add, &params), Stream::DEFAULT).unwrap_err();
    assert_eq!((refused.class, refused.code), (Class::Recoverable, 701));
    b.add(b.y, b.x, 1, Stream::DEFAULT);
    b.driver.synchronize_all().unwrap();

    let b = bench("launch=1:214,alloc=3");
    assert_eq!(b.driver.alloc(16).unwrap_err().class, Class::OutOfMemory);
    b.add(b.y, b.x, 1, Stream::DEFAULT);
    let lost = b.driver.synchronize_all().unwrap_err();
    assert_eq!((lost.class, lost.code), (Class::Sticky, 214));
}

#[test]
fn bad_modules_and_maps_say_why() {
    let b = bench("");
    let error = b.driver.load_module("nonsense").unwrap_err();
    assert!(error.message.contains("PTX line 1"), "{error}");
    let other = PTX.replace("sm_80", "sm_100a");
    assert_eq!(b.driver.load_module(&other).unwrap_err().code, 209);
    let module = b.driver.load_module(PTX).unwrap().module;
    let error = b.driver.function(module, "absent").unwrap_err();
    assert!(error.message.contains("absent"), "{error}");
    let mut spec = TensorMapSpec {
        element: MapElement::Bf16,
        address: b.x,
        dims: &[64, 8],
        strides: &[128],
        box_dims: &[64, 8],
        swizzle: MapSwizzle::B128,
        promotion: MapPromotion::B128,
    };
    b.driver.tensor_map(&spec).unwrap();
    spec.strides = &[24];
    assert!(b.driver.tensor_map(&spec).unwrap_err().message.contains("stride"));
    assert!(b.driver.occupancy(b.add, 128, 0).unwrap() > 0);
    assert_eq!(b.driver.attributes(b.add).unwrap().max_dynamic_shared, 48 << 10);
}
