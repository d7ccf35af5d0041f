//! Stream capture and graphs.

use std::cell::RefCell;
use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use pacer_emulator::host::{Node, NodeWork};

use crate::state::{CuResult, INVALID_VALUE, SUCCESS, done, failed, give, machine};
use crate::streams::{Handle, stream};

const ACTIVE: c_int = 1;

/// `CU_GRAPH_NODE_TYPE_*` of cuda.h.
const KERNEL: c_int = 0;
const MEMCPY: c_int = 1;
const MEMSET: c_int = 2;

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(on: Handle, _mode: c_int) -> CuResult {
    done(machine().begin_capture(stream(on)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(on: Handle, out: *mut Handle) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { give(machine().end_capture(stream(on)).map(|g| g as Handle), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(on: Handle, out: *mut c_int) -> CuResult {
    let status = machine().capturing(stream(on)).map(|g| if g.is_some() { ACTIVE } else { 0 });
    // SAFETY: the header's contract.
    unsafe { give(status, out) }
}

thread_local! {
    /// The list that the last call of `cuStreamGetCaptureInfo_v3` on this thread gave.
    static DEPENDENCIES: RefCell<[Handle; 1]> = const { RefCell::new([std::ptr::null_mut()]) };
}

/// As `cuStreamGetCaptureInfo_v3`, before edges had data.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetCaptureInfo_v2(
    on: Handle,
    status: *mut c_int,
    id: *mut u64,
    graph: *mut Handle,
    nodes: *mut *const Handle,
    count: *mut usize,
) -> CuResult {
    let edges = std::ptr::null_mut();
    // SAFETY: the header's contract.
    unsafe { cuStreamGetCaptureInfo_v3(on, status, id, graph, nodes, edges, count) }
}

/// The graph so far, and the one node that the stream's next node would depend on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetCaptureInfo_v3(
    on: Handle,
    status: *mut c_int,
    id: *mut u64,
    graph: *mut Handle,
    nodes: *mut *const Handle,
    edges: *mut *const c_void,
    count: *mut usize,
) -> CuResult {
    let capturing = match machine().capturing(stream(on)) {
        Ok(capturing) => capturing,
        Err(error) => return failed(&error),
    };
    let last = capturing.and_then(|g| machine().nodes(g).ok()).and_then(|n| n.last().cloned());
    let list = DEPENDENCIES.with_borrow_mut(|list| {
        list[0] = last.as_ref().map_or(std::ptr::null_mut(), |n| n.handle as Handle);
        list.as_ptr()
    });
    // SAFETY: each is null or points to its type, by the header's contract.
    unsafe {
        let put = |at: *mut Handle, value| {
            if !at.is_null() {
                at.write(value);
            }
        };
        put(graph, capturing.unwrap_or(0) as Handle);
        if !id.is_null() {
            id.write(capturing.unwrap_or(0));
        }
        if !nodes.is_null() {
            nodes.write(list);
        }
        if !edges.is_null() {
            edges.write(std::ptr::null());
        }
        if !count.is_null() {
            count.write(usize::from(last.is_some()));
        }
        give(Ok(if capturing.is_some() { ACTIVE } else { 0 }), status)
    }
}

/// Fills `out` if it is given, else tells how many nodes there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphGetNodes(
    graph: Handle,
    out: *mut Handle,
    count: *mut usize,
) -> CuResult {
    let nodes = match machine().nodes(graph as u64) {
        Ok(nodes) => nodes,
        Err(error) => return failed(&error),
    };
    if count.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: room for `*count` nodes by contract.
    unsafe {
        if out.is_null() {
            count.write(nodes.len());
            return SUCCESS;
        }
        let room = *count;
        for (i, node) in nodes.iter().take(room).enumerate() {
            out.add(i).write(node.handle as Handle);
        }
        count.write(nodes.len().min(room));
    }
    SUCCESS
}

fn find(node: Handle) -> Option<(Node, Option<u64>)> {
    machine().node(node as u64).ok()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphNodeGetType(node: Handle, out: *mut c_int) -> CuResult {
    let Some((node, _)) = find(node) else { return INVALID_VALUE };
    let kind = match node.work {
        NodeWork::Kernel(_) => KERNEL,
        NodeWork::Copy => MEMCPY,
        NodeWork::Fill => MEMSET,
    };
    // SAFETY: the header's contract.
    unsafe { give(Ok(kind), out) }
}

/// The beginning of `CUDA_KERNEL_NODE_PARAMS_v2` of cuda.h: callers here read the function only.
#[repr(C)]
pub struct KernelNodeParams {
    function: Handle,
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    pointers: *mut *mut c_void,
    extra: *mut *mut c_void,
    kernel: Handle,
    context: Handle,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphKernelNodeGetParams_v2(
    node: Handle,
    out: *mut KernelNodeParams,
) -> CuResult {
    let Some((_, Some(function))) = find(node) else { return INVALID_VALUE };
    let params = KernelNodeParams {
        function: function as Handle,
        grid: [0; 3],
        block: [0; 3],
        shared_bytes: 0,
        pointers: std::ptr::null_mut(),
        extra: std::ptr::null_mut(),
        kernel: std::ptr::null_mut(),
        context: std::ptr::null_mut(),
    };
    // SAFETY: the header's contract.
    unsafe { give(Ok(params), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    out: *mut Handle,
    graph: Handle,
    _flags: c_ulonglong,
) -> CuResult {
    // SAFETY: the header's contract.
    unsafe { give(machine().instantiate(graph as u64).map(|e| e as Handle), out) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphUpload(_exec: Handle, _on: Handle) -> CuResult {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(exec: Handle, on: Handle) -> CuResult {
    crate::cupti::call();
    done(machine().launch_graph(exec as u64, stream(on)))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: Handle) -> CuResult {
    done(machine().destroy_graph(graph as u64))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(exec: Handle) -> CuResult {
    done(machine().destroy_exec(exec as u64))
}
