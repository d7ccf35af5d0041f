//! Streams and events.

use std::ffi::{c_int, c_uint, c_void};

use crate::state::{CuResult, NOT_READY, SUCCESS, done, failed, give, machine};

/// A driver object: the machine's handle in a pointer.
pub type Handle = *mut c_void;

/// `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD` of cuda.h, both the default stream here.
const LAST_SPECIAL: u64 = 2;
const NON_BLOCKING: c_uint = 1;

/// The machine's stream of a handle.
pub fn stream(handle: Handle) -> u64 {
    let handle = handle as u64;
    if handle <= LAST_SPECIAL { 0 } else { handle }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(out: *mut Handle, flags: c_uint) -> CuResult {
    let made = machine().create_stream(flags & NON_BLOCKING == 0);
    // SAFETY: the header's contract.
    unsafe { give(made.map(|s| s as Handle), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(
    out: *mut Handle,
    flags: c_uint,
    _priority: c_int,
) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { cuStreamCreate(out, flags) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(on: Handle) -> CuResult {
    done(machine().destroy_stream(stream(on)))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(on: Handle) -> CuResult {
    let waited = done(machine().synchronize_stream(stream(on)));
    crate::cupti::deliver();
    waited
}

fn ready(result: pacer_emulator::host::HostResult<bool>) -> CuResult {
    match result {
        Ok(true) => SUCCESS,
        Ok(false) => NOT_READY,
        Err(error) => failed(&error),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(on: Handle) -> CuResult {
    ready(machine().stream_idle(stream(on)))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(on: Handle, event: Handle, _flags: c_uint) -> CuResult {
    done(machine().wait(stream(on), event as u64))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(out: *mut Handle, _flags: c_uint) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { give(machine().create_event().map(|e| e as Handle), out) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: Handle) -> CuResult {
    done(machine().destroy_event(event as u64))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: Handle, on: Handle) -> CuResult {
    done(machine().record(event as u64, stream(on)))
}

/// Not ready once, then ready: who polls makes progress, as on a card.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: Handle) -> CuResult {
    let result = ready(machine().event_done(event as u64));
    if result == NOT_READY
        && let Err(error) = machine().synchronize_event(event as u64)
    {
        return failed(&error);
    }
    result
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: Handle) -> CuResult {
    done(machine().synchronize_event(event as u64))
}

/// Projected milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(out: *mut f32, from: Handle, to: Handle) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { give(machine().elapsed(from as u64, to as u64), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(
    out: *mut f32,
    from: Handle,
    to: Handle,
) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { cuEventElapsedTime(out, from, to) }
}
