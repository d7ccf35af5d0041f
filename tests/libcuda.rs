//! The stand-in libcuda: a plain cudarc program runs against it unmodified, and so does Pacer's
//! own driver code; what is missing, old or failing is told in an error, never in a panic.
//!
//! Ignored tests are children: the tests above them run each in a process of its own, with the
//! stand-in as libcuda.so.1.

#[path = "libcuda/support.rs"]
mod support;

use std::ffi::{CString, c_void};

use cudarc::driver::{CudaContext, DevicePtr, DevicePtrMut, result, sys};
use pacer::device::gpu::driver::cuda::Cuda;
use pacer::device::gpu::driver::{
    Class, Driver, Function, Launch, MapElement, MapPromotion, MapSwizzle, NodeKind, Stream,
    TensorMapSpec, pinned_bytes,
};

const PTX: &str = include_str!("libcuda/add.ptx");

#[test]
fn a_cudarc_program_runs_unmodified() {
    support::pass("cudarc_program", &[]);
}

/// Context, module, launch, copies, events, streams, occupancy, capture and replay, tensor map:
/// nothing here is Pacer's.
#[test]
#[ignore = "a child of a_cudarc_program_runs_unmodified"]
fn cudarc_program() {
    let context = CudaContext::new(0).unwrap();
    assert!(context.name().unwrap().contains("H100"));
    assert_eq!(context.compute_capability().unwrap(), (9, 0));
    let text = CString::new(PTX).unwrap();
    // SAFETY: PTX as a C string.
    let module = unsafe { result::module::load_data(text.as_ptr().cast()) }.unwrap();
    // SAFETY: the module was just loaded.
    let add = unsafe { result::module::get_function(module, c"add".to_owned()) }.unwrap();
    let stream = context.default_stream();
    let x = stream.clone_htod(&(0..32).collect::<Vec<u32>>()).unwrap();
    let mut y = stream.alloc_zeros::<u32>(32).unwrap();
    let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let begin = stream.record_event(timed).unwrap();
    let (from, to) = (x.device_ptr(&stream).0, y.device_ptr_mut(&stream).0);
    add_one(add, (to, from, 7), stream.cu_stream());
    let end = stream.record_event(timed).unwrap();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), (7..39).collect::<Vec<u32>>());
    assert!(begin.elapsed_ms(&end).unwrap() > 0.0);
    // SAFETY: a loaded function.
    let blocks = unsafe { result::occupancy::max_active_block_per_multiprocessor(add, 32, 0) };
    assert!(blocks.unwrap() > 0);

    // SAFETY: one stream does all that follows.
    unsafe { context.disable_event_tracking() };
    let side = context.new_stream().unwrap();
    side.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
    add_one(add, (to, to, 1), side.cu_stream());
    let graph = side.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().expect("a graph");
    (0..3).for_each(|_| graph.launch().unwrap());
    side.synchronize().unwrap();
    assert_eq!(side.clone_dtoh(&y).unwrap(), (10..42).collect::<Vec<u32>>());

    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: lists of two dimensions and one stride.
    let encoded = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT32,
            2,
            from as *mut _,
            [4, 8].as_ptr(),
            [16].as_ptr(),
            [4, 2].as_ptr(),
            [1, 1].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    assert_eq!(encoded, sys::CUresult::CUDA_SUCCESS);
    assert_ne!(map.opaque, [0; 16]);
}

/// Launches `y[i] = x[i] + a` for 32 numbers.
fn add_one(add: sys::CUfunction, (y, x, a): (u64, u64, u32), stream: sys::CUstream) {
    let mut params: [*mut c_void; 3] = [
        (&raw const y).cast_mut().cast(),
        (&raw const x).cast_mut().cast(),
        (&raw const a).cast_mut().cast(),
    ];
    // SAFETY: a pointer to each of the kernel's parameters.
    unsafe { result::launch_kernel(add, (1, 1, 1), (32, 1, 1), 0, stream, &mut params) }.unwrap();
}

#[test]
fn the_cuda_driver_runs_against_it() {
    support::pass("cuda_driver", &[]);
}

fn launch(function: Function, params: &[u8]) -> Launch<'_> {
    Launch {
        function,
        grid: [2, 1, 1],
        block: [32, 1, 1],
        cluster: [2, 1, 1],
        shared_bytes: 0,
        programmatic: true,
        params,
    }
}

fn params(y: u64, x: u64, a: u32) -> Vec<u8> {
    [&y.to_le_bytes()[..], &x.to_le_bytes(), &a.to_le_bytes()].concat()
}

#[test]
#[ignore = "a child of the_cuda_driver_runs_against_it"]
fn cuda_driver() {
    let driver = Cuda::open(0).unwrap();
    assert_eq!((driver.kind(), driver.card().capability), ("cuda", (9, 0)));
    assert_eq!((driver.card().sms, driver.card().driver_version), (132, 13_000));
    assert!((driver.card().memory_bandwidth / 3.35e12 - 1.0).abs() < 0.01);
    let module = driver.load_module(PTX).unwrap().module;
    let add = driver.function(module, "add").unwrap();
    let (x, y) = (driver.alloc(128).unwrap(), driver.alloc(128).unwrap());
    let stream = driver.create_stream().unwrap();
    let host = driver.alloc_pinned(128).unwrap();
    // SAFETY: live, and nothing is queued.
    let bytes = unsafe { pinned_bytes(host) };
    bytes.chunks_exact_mut(4).zip(0u32..).for_each(|(b, i)| b.copy_from_slice(&i.to_le_bytes()));
    driver.upload_async(x, host, 0, 128, stream).unwrap();
    driver.fill_async(y, 0, 128, stream).unwrap();

    driver.begin_capture(stream).unwrap();
    let step = params(y, x, 3);
    // One block: two would write the same words.
    let one = Launch { grid: [1; 3], cluster: [1; 3], ..launch(add, &step) };
    driver.launch(&one, stream).unwrap();
    let node = driver.captured_node(stream).unwrap().expect("a node");
    driver.copy_async(x, y, 128, stream).unwrap();
    let graph = driver.end_capture(stream).unwrap();
    let nodes = driver.nodes(graph).unwrap();
    assert_eq!(nodes[0].kind, NodeKind::Kernel("add".into()));
    assert_eq!((nodes[0].handle, &nodes[1].kind), (node, &NodeKind::Copy));
    let exec = driver.instantiate(graph).unwrap();
    let (begin, end) = (driver.create_event(true).unwrap(), driver.create_event(true).unwrap());
    driver.record(begin, stream).unwrap();
    driver.launch_graph(exec, stream).unwrap();
    driver.launch_graph(exec, stream).unwrap();
    driver.record(end, stream).unwrap();
    driver.download_async(host, 0, y, 128, stream).unwrap();
    assert!(!driver.is_done(end).unwrap());
    driver.synchronize(stream).unwrap();
    assert!(driver.is_done(end).unwrap() && driver.elapsed(begin, end).unwrap() > 0.0);
    // SAFETY: the stream's work is done.
    let bytes = unsafe { pinned_bytes(host) };
    let back: Vec<u32> =
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(back, (6..38).collect::<Vec<u32>>());

    let attributes = driver.attributes(add).unwrap();
    assert_eq!((attributes.local_bytes, attributes.max_dynamic_shared), (0, 48 << 10));
    driver.allow_dynamic_shared(add, 100 << 10).unwrap();
    assert!(driver.allow_dynamic_shared(add, 300 << 10).is_err());
    assert!(driver.occupancy(add, 32, 100 << 10).unwrap() == 2);
    tensor_maps(&driver, x);
    driver.synchronize_all().unwrap();
    driver.destroy_exec(exec).unwrap();
    driver.destroy_graph(graph).unwrap();
    driver.unload_module(module).unwrap();
    assert_eq!(driver.free(x + 1).unwrap_err().class, Class::Recoverable);
}

fn tensor_maps(driver: &Cuda, address: u64) {
    let mut spec = TensorMapSpec {
        element: MapElement::F16,
        address,
        dims: &[8, 8],
        strides: &[16],
        box_dims: &[8, 8],
        swizzle: MapSwizzle::None,
        promotion: MapPromotion::B256,
    };
    assert_ne!(driver.tensor_map(&spec).unwrap().0, [0; 128]);
    spec.strides = &[24];
    let error = driver.tensor_map(&spec).unwrap_err();
    assert!(error.message.contains("stride"), "{error}");
    spec.strides = &[];
    assert_eq!(driver.tensor_map(&spec).unwrap_err().class, Class::Recoverable);
}

#[test]
fn what_is_missing_is_named() {
    // This process has no libcuda, unless the machine has a card: then this says nothing.
    // SAFETY: only the library's presence is asked for.
    if !unsafe { sys::is_culib_present() } {
        let error = Cuda::open(0).err().expect("no driver here");
        assert_eq!(error.class, Class::Unavailable);
        assert!(error.message.contains("libcuda.so.1 was not found"), "{error}");
    }
    support::pass("no_device", &[("PACER_LIBCUDA_DEVICES", "0")]);
    support::pass("old_driver", &[("PACER_LIBCUDA_VERSION", "11080")]);
    support::pass("no_such_device", &[]);
}

#[test]
#[ignore = "a child of what_is_missing_is_named"]
fn no_device() {
    let error = Cuda::open(0).err().expect("no device");
    assert_eq!(error.class, Class::Unavailable);
    assert!(error.message.contains("nvidia-smi"), "{error}");
}

#[test]
#[ignore = "a child of what_is_missing_is_named"]
fn old_driver() {
    let error = Cuda::open(0).err().expect("too old");
    assert_eq!(error.class, Class::OldDriver);
    assert!(error.message.contains("CUDA 11.8"), "{error}");
}

#[test]
#[ignore = "a child of what_is_missing_is_named"]
fn no_such_device() {
    let error = Cuda::open(3).err().expect("one device only");
    assert!(error.message.contains("no CUDA device 3; 1 can be seen"), "{error}");
}

#[test]
fn failures_keep_their_class() {
    support::pass("memory_runs_out", &[("PACER_LIBCUDA_MEMORY_MIB", "1")]);
    support::pass("a_fault_is_sticky", &[]);
    support::pass("a_refusal_is_not", &[("PACER_LIBCUDA_FAULTS", "launch=1:701")]);
}

#[test]
#[ignore = "a child of failures_keep_their_class"]
fn memory_runs_out() {
    let driver = Cuda::open(0).unwrap();
    let error = driver.alloc(3 << 20).unwrap_err();
    assert_eq!(error.class, Class::OutOfMemory);
    assert!(error.message.contains("3.0 MiB wanted, 1.0 MiB of 1.0 MiB free"), "{error}");
    driver.alloc(1 << 10).unwrap();
}

#[test]
#[ignore = "a child of failures_keep_their_class"]
fn a_fault_is_sticky() {
    let driver = Cuda::open(0).unwrap();
    let error = driver.load_module("garbage").unwrap_err();
    assert!(error.class == Class::Recoverable && error.message.contains("line 1"), "{error}");
    let module = driver.load_module(PTX).unwrap().module;
    assert!(driver.function(module, "none").unwrap_err().message.contains("none"));
    let wild = driver.function(module, "wild").unwrap();
    driver.launch(&launch(wild, &[]), Stream::DEFAULT).unwrap();
    let lost = driver.synchronize_all().unwrap_err();
    assert_eq!((lost.class, lost.code), (Class::Sticky, 700), "{lost}");
    assert!(lost.message.contains("kernel wild") && lost.to_string().contains("restart"));
    assert_eq!(driver.alloc(16).unwrap_err().class, Class::Sticky);
}

#[test]
#[ignore = "a child of failures_keep_their_class"]
fn a_refusal_is_not() {
    let driver = Cuda::open(0).unwrap();
    let module = driver.load_module(PTX).unwrap().module;
    let add = driver.function(module, "add").unwrap();
    let x = driver.alloc(128).unwrap();
    driver.upload(x, &[0; 128]).unwrap();
    let step = params(x, x, 1);
    let one = Launch { grid: [1; 3], cluster: [1; 3], ..launch(add, &step) };
    let refused = driver.launch(&one, Stream::DEFAULT).unwrap_err();
    assert_eq!((refused.class, refused.code), (Class::Recoverable, 701));
    assert!(refused.message.contains("add <<<[1, 1, 1], [32, 1, 1], 0>>>"), "{refused}");
    driver.launch(&one, Stream::DEFAULT).unwrap();
    driver.synchronize_all().unwrap();
}
