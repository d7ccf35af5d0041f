//! Memory: device, page-locked, and copies.

use std::ffi::{c_uchar, c_uint, c_void};

use crate::state::{CuResult, INVALID_VALUE, SUCCESS, done, failed, give, machine};
use crate::streams::{Handle, stream};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> CuResult {
    match machine().memory() {
        // SAFETY: the header's contract.
        Ok((f, t)) => unsafe { give(Ok(f as usize), free) | give(Ok(t as usize), total) },
        Err(error) => failed(&error),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(out: *mut u64, bytes: usize) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { give(machine().alloc(bytes as u64), out) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> CuResult {
    if address == 0 { SUCCESS } else { done(machine().free(address)) }
}

/// Stream-ordered allocation: the memory is there at once, which is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(out: *mut u64, bytes: usize, _on: Handle) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { cuMemAlloc_v2(out, bytes) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(address: u64, _on: Handle) -> CuResult {
    cuMemFree_v2(address)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(
    out: *mut *mut c_void,
    bytes: usize,
    _flags: c_uint,
) -> CuResult {
    let memory = machine().alloc_host(bytes).map(|address| address as *mut c_void);
    // SAFETY: the header's contract.
    unsafe { give(memory, out) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(address: *mut c_void) -> CuResult {
    done(machine().free_host(address as usize))
}

/// # Safety
/// `data` is null or points to `bytes` bytes.
unsafe fn slice<'a>(data: *const c_void, bytes: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast(), bytes) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> CuResult {
    // SAFETY: the header's contract.
    match unsafe { slice(from, bytes) } {
        Some(data) => done(machine().upload(to, data)),
        None => INVALID_VALUE,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> CuResult {
    if to.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the header's contract.
    let out = unsafe { std::slice::from_raw_parts_mut(to.cast(), bytes) };
    done(machine().download(out, from))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> CuResult {
    done(machine().copy(to, from, bytes as u64))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    on: Handle,
) -> CuResult {
    crate::cupti::call();
    // SAFETY: the header's contract.
    done(unsafe { machine().upload_async(to, from.cast(), bytes, stream(on)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    on: Handle,
) -> CuResult {
    crate::cupti::call();
    // SAFETY: the header's contract.
    done(unsafe { machine().download_async(to.cast(), from, bytes, stream(on)) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, on: Handle) -> CuResult {
    done(machine().copy_async(to, from, bytes as u64, stream(on)))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(to: u64, value: c_uchar, count: usize) -> CuResult {
    done(machine().fill(to, value.into(), 1, count as u64))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(to: u64, value: c_uchar, count: usize, on: Handle) -> CuResult {
    done(machine().fill_async(to, value.into(), 1, count as u64, stream(on)))
}
