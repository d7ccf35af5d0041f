//! Modules, functions and tensor maps.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use pacer_emulator::host::{Code, HostError};
use pacer_emulator::tensor::swizzle::Swizzle;
use pacer_emulator::tensor::tensormap::{MAX_RANK, MapType, TensorMap};

use crate::state::{CuResult, INVALID_VALUE, SUCCESS, done, failed, give, machine};
use crate::streams::Handle;

/// `CU_JIT_ERROR_LOG_BUFFER` and its size, of cuda.h.
const ERROR_LOG: c_int = 5;
const ERROR_LOG_SIZE: c_int = 6;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(out: *mut Handle, image: *const c_void) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { cuModuleLoadDataEx(out, image, 0, std::ptr::null(), std::ptr::null()) }
}

/// Loads PTX; other images are refused as PTX that does not parse.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    out: *mut Handle,
    image: *const c_void,
    count: c_uint,
    options: *const c_int,
    values: *const *mut c_void,
) -> CuResult {
    if image.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: PTX is a C string by contract.
    let text = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy();
    let loaded = machine().load(&text);
    if let Err(error) = &loaded {
        // SAFETY: `count` options and values by contract.
        unsafe { log(error, count as usize, options, values) };
    }
    // SAFETY: the header's contract.
    unsafe { give(loaded.map(|m| m as Handle), out) }
}

/// Writes the error log, if the caller gave one.
///
/// # Safety
/// As the header says of options and values.
unsafe fn log(error: &HostError, count: usize, options: *const c_int, values: *const *mut c_void) {
    let (mut buffer, mut room) = (std::ptr::null_mut::<u8>(), 0);
    for i in 0..count {
        // SAFETY: inside both lists.
        let (option, value) = unsafe { (*options.add(i), *values.add(i)) };
        match option {
            ERROR_LOG => buffer = value.cast(),
            ERROR_LOG_SIZE => room = value as usize,
            _ => {}
        }
    }
    if buffer.is_null() || room == 0 {
        return;
    }
    let bytes = &error.message.as_bytes()[..error.message.len().min(room - 1)];
    // SAFETY: the buffer has `room` bytes by contract.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer, bytes.len());
        buffer.add(bytes.len()).write(0);
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: Handle) -> CuResult {
    done(machine().unload(module as u64))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    out: *mut Handle,
    module: Handle,
    name: *const c_char,
) -> CuResult {
    // SAFETY: a C string by contract.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    // SAFETY: the header's contract.
    unsafe { give(machine().function(module as u64, &name).map(|f| f as Handle), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetGlobal_v2(
    out: *mut u64,
    bytes: *mut usize,
    module: Handle,
    name: *const c_char,
) -> CuResult {
    // SAFETY: a C string by contract.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    match machine().variable(module as u64, &name) {
        Ok((address, size)) => {
            if !bytes.is_null() {
                // SAFETY: the header's contract.
                unsafe { bytes.write(size as usize) };
            }
            // SAFETY: the header's contract.
            unsafe { give(Ok(address), out) }
        }
        Err(error) => failed(&error),
    }
}

/// `CU_FUNC_ATTRIBUTE_*` by number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(
    out: *mut c_int,
    attribute: c_int,
    function: Handle,
) -> CuResult {
    let value = machine().function_info(function as u64).map(|info| match attribute {
        0 => info.max_threads as c_int,
        1 => info.shared_bytes as c_int,
        3 => info.local_bytes as c_int,
        4 => info.registers as c_int,
        8 => info.dynamic_limit as c_int,
        _ => 0,
    });
    // SAFETY: the header's contract.
    unsafe { give(value, out) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) -> CuResult {
    const MAX_DYNAMIC_SHARED: c_int = 8;
    match (attribute, u32::try_from(value)) {
        (MAX_DYNAMIC_SHARED, Ok(bytes)) => done(machine().allow_dynamic(function as u64, bytes)),
        (MAX_DYNAMIC_SHARED, Err(_)) => INVALID_VALUE,
        // Preferences, and clusters beyond the portable size.
        _ => SUCCESS,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    out: *mut c_int,
    function: Handle,
    threads: c_int,
    dynamic: usize,
) -> CuResult {
    let (Ok(threads), Ok(dynamic)) = (u32::try_from(threads), u32::try_from(dynamic)) else {
        return INVALID_VALUE;
    };
    let blocks = machine().occupancy(function as u64, threads, dynamic);
    // SAFETY: the header's contract.
    unsafe { give(blocks.map(|b| b as c_int), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    out: *mut c_int,
    function: Handle,
    threads: c_int,
    dynamic: usize,
    _flags: c_uint,
) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { cuOccupancyMaxActiveBlocksPerMultiprocessor(out, function, threads, dynamic) }
}

/// # Safety
/// `list` points to `N` numbers of which the first `rank` are read.
unsafe fn read<T: Copy + Default>(list: *const T, rank: usize) -> [T; MAX_RANK] {
    let mut out = [T::default(); MAX_RANK];
    for (i, value) in out.iter_mut().enumerate().take(rank) {
        // SAFETY: the caller's promise.
        *value = unsafe { *list.add(i) };
    }
    out
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuTensorMapEncodeTiled(
    out: *mut [u8; 128],
    element: u32,
    rank: u32,
    address: *mut c_void,
    dims: *const u64,
    strides: *const u64,
    box_dims: *const u32,
    element_strides: *const u32,
    interleave: u32,
    swizzle: u32,
    _promotion: u32,
    fill: u32,
) -> CuResult {
    let refused = |message: &str| {
        failed(&HostError { code: Code::InvalidValue, message: format!("tensor map: {message}") })
    };
    let rank = rank as usize;
    let Some(element) = MapType::from_number(element) else { return refused("element type") };
    let swizzle = match swizzle {
        0 => Swizzle::None,
        1 => Swizzle::B32,
        2 => Swizzle::B64,
        3 => Swizzle::B128,
        _ => return refused("swizzle"),
    };
    if !(1..=MAX_RANK).contains(&rank) || interleave != 0 {
        return refused("rank must be 1 to 5, interleave none");
    }
    // SAFETY: lists of `rank` numbers by contract, strides one fewer.
    let map = unsafe {
        let outer: [u64; MAX_RANK] = read(strides, rank - 1);
        let mut steps = [u64::from(element.bytes()), 0, 0, 0, 0];
        steps[1..].copy_from_slice(&outer[..4]);
        TensorMap {
            element,
            rank,
            address: address as u64,
            dims: read(dims, rank),
            strides: steps,
            box_dims: read(box_dims, rank),
            element_strides: read(element_strides, rank),
            swizzle,
            fill_nan: fill == 1,
        }
    };
    // SAFETY: the header's contract.
    unsafe { give(machine().encode(&pad(map)), out) }
}

/// Ones in the dimensions beyond the rank.
fn pad(mut map: TensorMap) -> TensorMap {
    for i in map.rank..MAX_RANK {
        (map.dims[i], map.box_dims[i], map.element_strides[i]) = (1, 1, 1);
    }
    map
}
