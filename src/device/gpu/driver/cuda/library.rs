//! Opening libcuda: there, new enough, with every symbol, and with a card. cudarc's loader panics
//! where one of these fails, so each is asked for here before anything else is called.

use std::ffi::c_int;

use cudarc::driver::sys;

use super::{Class, DriverError, Result};

/// Oldest driver whose calls are used: CUDA 12.0 brought the youngest that has no forerunner,
/// `cuTensorMapEncodeTiled`, and reads PTX 8.0, in which the kernels for Hopper are shipped.
const OLDEST: c_int = 12_000;

/// Drivers from these on have the newer form of a call; before, its forerunner is looked up by
/// name.
pub const ELAPSED_V2: u32 = 12_080;
pub const CAPTURE_INFO_V3: u32 = 12_030;

/// Every function of libcuda that Pacer calls.
const SYMBOLS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuLaunchKernelEx",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    "cuGraphGetNodes",
    "cuGraphNodeGetType",
    "cuGraphKernelNodeGetParams_v2",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuTensorMapEncodeTiled",
    "cuProfilerStart",
    "cuProfilerStop",
];

fn unavailable(call: &'static str, message: impl Into<String>) -> DriverError {
    DriverError::new(Class::Unavailable, call, message)
}

/// Opens libcuda and starts it; gives the CUDA version that the driver supports.
///
/// # Errors
/// Says what is missing: the library, a symbol, a new enough driver.
pub fn start() -> Result<u32> {
    // SAFETY: loading libcuda runs its initialisers, as every CUDA program does.
    if !unsafe { sys::is_culib_present() } {
        return Err(unavailable(
            "libcuda",
            "libcuda.so.1 was not found: no NVIDIA driver is installed here, or its folder is not \
             in LD_LIBRARY_PATH",
        ));
    }
    let version = version()?;
    if version < OLDEST {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let message = format!(
            "the NVIDIA driver supports CUDA {major}.{minor}; 12.0 or later is needed (driver 525)"
        );
        return Err(DriverError::new(Class::OldDriver, "cuDriverGetVersion", message));
    }
    let newer = |since: u32| version.unsigned_abs() >= since;
    let elapsed = if newer(ELAPSED_V2) { "cuEventElapsedTime_v2" } else { "cuEventElapsedTime" };
    let info = if newer(CAPTURE_INFO_V3) {
        "cuStreamGetCaptureInfo_v3"
    } else {
        "cuStreamGetCaptureInfo_v2"
    };
    if let Some(missing) = SYMBOLS.iter().chain(&[elapsed, info]).find(|name| !has(name)) {
        let message = format!("libcuda.so.1 has no {missing}; install a complete driver");
        return Err(DriverError::new(Class::OldDriver, "libcuda", message));
    }
    // SAFETY: the symbol is there.
    let result = unsafe { sys::cuInit(0) };
    if result as u32 != 0 {
        let message = format!(
            "it answers {}: is a card installed, and is its kernel module loaded (nvidia-smi)?",
            super::name(result)
        );
        return Err(unavailable("cuInit", message).with_code(result as u32));
    }
    Ok(version.unsigned_abs())
}

fn version() -> Result<c_int> {
    if !has("cuDriverGetVersion") {
        return Err(unavailable("libcuda", "libcuda.so.1 is not NVIDIA's driver library"));
    }
    let mut version = 0;
    // SAFETY: the symbol is there, and may be called before cuInit.
    let result = unsafe { sys::cuDriverGetVersion(&mut version) };
    match result as u32 {
        0 => Ok(version),
        code => Err(unavailable("cuDriverGetVersion", "it failed").with_code(code)),
    }
}

fn has(symbol: &str) -> bool {
    // SAFETY: only the symbol's presence is asked for; it is not called.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(symbol.as_bytes()).is_ok() }
}

fn missing(call: &'static str) -> DriverError {
    DriverError::new(Class::OldDriver, call, "libcuda.so.1 lacks it; install a complete driver")
}

/// `cuEventElapsedTime`, whose newer form came with [`ELAPSED_V2`].
///
/// # Errors
/// The library has no such function.
pub fn elapsed_v1(
    milliseconds: &mut f32,
    from: sys::CUevent,
    to: sys::CUevent,
) -> Result<sys::CUresult> {
    type Call = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
    // SAFETY: the symbol has this type in every driver; the events are live.
    unsafe {
        let call = sys::culib().get::<Call>(b"cuEventElapsedTime");
        let call = call.map_err(|_| missing("cuEventElapsedTime"))?;
        Ok(call(milliseconds, from, to))
    }
}

/// `cuStreamGetCaptureInfo_v2`, whose newer form came with [`CAPTURE_INFO_V3`]: the nodes that the
/// stream's next node depends on.
///
/// # Errors
/// The library has no such function.
pub fn capture_info_v2(
    stream: sys::CUstream,
    status: &mut sys::CUstreamCaptureStatus,
    (nodes, count): (&mut *const sys::CUgraphNode, &mut usize),
) -> Result<sys::CUresult> {
    type Call = unsafe extern "C" fn(
        sys::CUstream,
        *mut sys::CUstreamCaptureStatus,
        *mut u64,
        *mut sys::CUgraph,
        *mut *const sys::CUgraphNode,
        *mut usize,
    ) -> sys::CUresult;
    // SAFETY: the symbol has this type in every driver that has it; the stream is live.
    unsafe {
        let call = sys::culib().get::<Call>(b"cuStreamGetCaptureInfo_v2");
        let call = call.map_err(|_| missing("cuStreamGetCaptureInfo_v2"))?;
        let (id, graph) = (std::ptr::null_mut(), std::ptr::null_mut());
        Ok(call(stream, status, id, graph, nodes, count))
    }
}

/// The device of that ordinal.
///
/// # Errors
/// Names how many there are.
pub fn device(ordinal: i32) -> Result<sys::CUdevice> {
    let mut count = 0;
    // SAFETY: `start` succeeded.
    let result = unsafe { sys::cuDeviceGetCount(&mut count) };
    if result as u32 != 0 || count == 0 {
        let message = "no CUDA device; check nvidia-smi and CUDA_VISIBLE_DEVICES";
        return Err(unavailable("cuDeviceGetCount", message).with_code(result as u32));
    }
    let mut device = 0;
    // SAFETY: as above.
    let result = unsafe { sys::cuDeviceGet(&mut device, ordinal) };
    if result as u32 != 0 {
        let message = format!("there is no CUDA device {ordinal}; {count} can be seen");
        return Err(unavailable("cuDeviceGet", message).with_code(result as u32));
    }
    Ok(device)
}
