//! Launches: geometry, attributes and parameters.

use std::ffi::{c_uint, c_void};

use pacer_emulator::host::{FunctionInfo, Launch};

use crate::state::{CuResult, INVALID_VALUE, done, failed, machine};
use crate::streams::{Handle, stream};

/// `CUlaunchConfig` of cuda.h.
#[repr(C)]
pub struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: Handle,
    attributes: *const Attribute,
    count: c_uint,
}

/// `CUlaunchAttribute` of cuda.h.
#[repr(C)]
pub struct Attribute {
    id: c_uint,
    pad: [u8; 4],
    value: [c_uint; 16],
}

const CLUSTER: c_uint = 4;
/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
const PROGRAMMATIC: c_uint = 6;

/// `CU_LAUNCH_PARAM_BUFFER_POINTER` and `CU_LAUNCH_PARAM_BUFFER_SIZE` of cuda.h.
const BUFFER: usize = 1;
const BUFFER_SIZE: usize = 2;

/// The parameters of a launch as one block, from either of the two ways that callers give them.
///
/// # Safety
/// As the header says of `kernelParams` and `extra`.
unsafe fn params(
    info: &FunctionInfo,
    pointers: *const *const c_void,
    extra: *const *const c_void,
) -> Option<Vec<u8>> {
    let mut block = vec![0; info.param_bytes as usize];
    if !pointers.is_null() {
        for (i, (offset, size)) in info.params.iter().enumerate() {
            let (offset, size) = (*offset as usize, *size as usize);
            let to = block.get_mut(offset..offset + size)?;
            // SAFETY: one pointer a parameter, each to as many bytes as it has.
            let from = unsafe { std::slice::from_raw_parts((*pointers.add(i)).cast(), size) };
            to.copy_from_slice(from);
        }
        return Some(block);
    }
    if extra.is_null() {
        return info.params.is_empty().then_some(block);
    }
    let (mut buffer, mut size, mut at) = (std::ptr::null::<u8>(), 0, 0);
    loop {
        // SAFETY: pairs up to a null, by contract.
        let (key, value) = unsafe {
            let key = *extra.add(at) as usize;
            if key == 0 {
                break;
            }
            (key, *extra.add(at + 1))
        };
        match key {
            BUFFER => buffer = value.cast(),
            // SAFETY: the size is given by address.
            BUFFER_SIZE => size = unsafe { *value.cast::<usize>() },
            _ => return None,
        }
        at += 2;
    }
    // SAFETY: the buffer has that many bytes by contract.
    (!buffer.is_null()).then(|| unsafe { std::slice::from_raw_parts(buffer, size) }.to_vec())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    config: *const LaunchConfig,
    function: Handle,
    pointers: *const *const c_void,
    extra: *const *const c_void,
) -> CuResult {
    if config.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the header's contract.
    let config = unsafe { &*config };
    let (mut cluster, mut programmatic) = ([1; 3], false);
    for i in 0..config.count as usize {
        // SAFETY: `count` attributes by contract.
        let attribute = unsafe { &*config.attributes.add(i) };
        let _ = attribute.pad;
        if attribute.id == CLUSTER {
            cluster.copy_from_slice(&attribute.value[..3]);
        }
        programmatic |= attribute.id == PROGRAMMATIC && attribute.value[0] != 0;
    }
    let info = match machine().function_info(function as u64) {
        Ok(info) => info,
        Err(error) => return failed(&error),
    };
    // SAFETY: the header's contract.
    let Some(params) = (unsafe { params(&info, pointers, extra) }) else { return INVALID_VALUE };
    let launch = Launch {
        function: function as u64,
        grid: config.grid,
        block: config.block,
        cluster,
        shared_bytes: config.shared_bytes,
        params,
        programmatic,
    };
    crate::cupti::call();
    done(machine().launch(&launch, stream(config.stream)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    on: Handle,
    pointers: *const *const c_void,
    extra: *const *const c_void,
) -> CuResult {
    let config = LaunchConfig {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        shared_bytes,
        stream: on,
        attributes: std::ptr::null(),
        count: 0,
    };
    // SAFETY: the header's contract.
    unsafe { cuLaunchKernelEx(&config, function, pointers, extra) }
}
