//! Opening libcuda: there, new enough, with every symbol, and with a card. cudarc's loader panics
//! where one of these fails, so each is asked for here before anything else is called.

use std::ffi::c_int;

use cudarc::driver::sys;

use super::{Class, DriverError, Result};

/// Oldest driver whose calls are used: CUDA 12.8 brought the youngest, `cuEventElapsedTime_v2`.
const OLDEST: c_int = 12_080;

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
    "cuStreamGetCaptureInfo_v3",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    "cuEventElapsedTime_v2",
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
            "the NVIDIA driver supports CUDA {major}.{minor}; 12.8 or later is needed (driver 570)"
        );
        return Err(DriverError::new(Class::OldDriver, "cuDriverGetVersion", message));
    }
    if let Some(missing) = SYMBOLS.iter().find(|name| !has(name)) {
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
