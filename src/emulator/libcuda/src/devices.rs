//! The device, its attributes, and contexts: there is one of each.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::io::Write;

use crate::state::{
    CuResult, INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, SUCCESS, done, give, machine, setup,
};

/// The primary context: any address that is not null.
const CONTEXT: usize = 0x10;

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> CuResult {
    if setup().devices > 0 { SUCCESS } else { NO_DEVICE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(out: *mut c_int) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { give(Ok(setup().version), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(out: *mut c_int) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { give(Ok(setup().devices), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(out: *mut c_int, ordinal: c_int) -> CuResult {
    if !(0..setup().devices).contains(&ordinal) {
        return INVALID_DEVICE;
    }
    // SAFETY: the header's contract.
    unsafe { give(Ok(ordinal), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(out: *mut c_char, len: c_int, _device: c_int) -> CuResult {
    let name = format!("{} (emulated)", setup().config.card.name);
    let room = usize::try_from(len).unwrap_or(0);
    if out.is_null() || room == 0 {
        return INVALID_VALUE;
    }
    let bytes = &name.as_bytes()[..name.len().min(room - 1)];
    // SAFETY: `out` has room for `len` characters by contract.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast(), bytes.len());
        out.add(bytes.len()).write(0);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(out: *mut usize, _device: c_int) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { give(Ok(setup().config.memory as usize), out) }
}

/// `CU_DEVICE_ATTRIBUTE_*` by number; those of things that the machine lacks are 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    out: *mut c_int,
    attribute: c_int,
    _device: c_int,
) -> CuResult {
    let card = setup().config.card;
    let value = match attribute {
        1 => 1024,                          // threads of a block
        10 => 32,                           // warp size
        8 => 48 << 10,                      // shared memory of a block
        12 | 82 => card.registers,          // registers of a block, of an SM
        13 => (card.clock_hz / 1e3) as u32, // clock, kHz
        16 => card.sms,
        36 => (card.memory_bandwidth / 2e3 / 640.0) as u32, // memory clock, kHz
        37 => 5120,                                         // memory bus, bits
        38 => card.l2_bytes as u32,
        39 => card.threads_per_sm,
        75 => setup().capability.0,
        76 => setup().capability.1,
        81 => card.shared_per_sm,
        97 => card.shared_per_block,
        106 => card.blocks_per_sm,
        120 => u32::from(card.capability.0 >= 9), // cluster launch
        _ => 0,
    };
    // SAFETY: the header's contract.
    unsafe { give(Ok(value as c_int), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(
    out: *mut *mut c_void,
    _device: c_int,
) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { give(Ok(CONTEXT as *mut c_void), out) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> CuResult {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> CuResult {
    const INVALID_CONTEXT: CuResult = 201;
    if context.is_null() || context as usize == CONTEXT { SUCCESS } else { INVALID_CONTEXT }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(out: *mut *mut c_void) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { give(Ok(CONTEXT as *mut c_void), out) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> CuResult {
    let waited = done(machine().synchronize());
    crate::cupti::deliver();
    waited
}

#[unsafe(no_mangle)]
pub extern "C" fn cuProfilerStart() -> CuResult {
    note("start")
}

#[unsafe(no_mangle)]
pub extern "C" fn cuProfilerStop() -> CuResult {
    note("stop")
}

/// Lets a test see that a profiler would have been switched.
fn note(line: &str) -> CuResult {
    let Ok(path) = std::env::var("PACER_LIBCUDA_PROFILER") else { return SUCCESS };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    match file.and_then(|mut f| writeln!(f, "{line}")) {
        Ok(()) => SUCCESS,
        Err(_) => crate::state::INVALID_VALUE,
    }
}
