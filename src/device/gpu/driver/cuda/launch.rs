//! Launches and modules: the calls with more than plain arguments.

use std::ffi::{CString, c_void};

use cudarc::driver::sys::{self, CUjit_option as Jit};

use super::{Class, Cuda, DriverError, Result, told};
use crate::device::gpu::driver::{
    Function, Launch, LoadedModule, ModuleId, Stream, TensorMap, TensorMapSpec,
};

/// Room for the compiler's logs, bytes.
const LOG: usize = 16 << 10;

/// `CU_LAUNCH_PARAM_*` of cuda.h: what the `extra` list of a launch names.
const PARAM_END: *mut c_void = std::ptr::null_mut();
const PARAM_POINTER: *mut c_void = std::ptr::without_provenance_mut(1);
const PARAM_SIZE: *mut c_void = std::ptr::without_provenance_mut(2);

fn refused(call: &'static str, message: impl Into<String>) -> DriverError {
    DriverError::new(Class::Recoverable, call, message).with_code(1)
}

fn log_text(log: &[u8]) -> String {
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).trim().to_owned()
}

impl Cuda {
    pub(super) fn load(&self, ptx: &str) -> Result<LoadedModule> {
        const CALL: &str = "cuModuleLoadDataEx";
        self.enter()?;
        let text = CString::new(ptx.trim_end_matches('\0'))
            .map_err(|e| refused(CALL, format!("PTX with a zero byte at {}", e.nul_position())))?;
        let (mut info, mut errors) = (vec![0u8; LOG], vec![0u8; LOG]);
        let mut options = [
            Jit::CU_JIT_INFO_LOG_BUFFER,
            Jit::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
            Jit::CU_JIT_ERROR_LOG_BUFFER,
            Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // Sizes travel in the pointers themselves.
        let size = LOG as *mut c_void;
        let mut values = [info.as_mut_ptr().cast(), size, errors.as_mut_ptr().cast(), size];
        let mut module = std::ptr::null_mut();
        // SAFETY: text and logs live through the call; the logs are as long as said.
        let result = unsafe {
            sys::cuModuleLoadDataEx(
                &mut module,
                text.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        told(CALL, result).map_err(|e| match log_text(&errors) {
            log if log.is_empty() => e,
            log => DriverError { message: format!("{}\n{log}", e.message), ..e },
        })?;
        Ok(LoadedModule { module: ModuleId(module as u64), log: log_text(&info) })
    }

    pub(super) fn find(&self, module: ModuleId, name: &str) -> Result<Function> {
        const CALL: &str = "cuModuleGetFunction";
        self.enter()?;
        let text = CString::new(name).map_err(|_| refused(CALL, "a name with a zero byte"))?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the name is a C string, the module came from `load`.
        told(CALL, unsafe {
            sys::cuModuleGetFunction(&mut function, module.0 as sys::CUmodule, text.as_ptr())
        })
        .map_err(|e| e.context(format!("kernel {name}")))?;
        let mut names = self.names.lock().unwrap_or_else(|e| e.into_inner());
        names.insert(function as u64, name.to_owned());
        Ok(Function(function as u64))
    }

    pub(super) fn start(&self, launch: &Launch<'_>, stream: Stream) -> Result<()> {
        self.enter()?;
        let mut attributes = attributes(launch);
        let [grid, block] = [launch.grid, launch.block];
        let config = sys::CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: block[0],
            blockDimY: block[1],
            blockDimZ: block[2],
            sharedMemBytes: launch.shared_bytes,
            hStream: stream.0 as sys::CUstream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        let mut size = launch.params.len();
        let mut extra = [
            PARAM_POINTER,
            launch.params.as_ptr().cast_mut().cast(),
            PARAM_SIZE,
            std::ptr::from_mut(&mut size).cast(),
            PARAM_END,
        ];
        // SAFETY: the list names `params` and its length, which the driver copies in the call.
        let result = unsafe {
            sys::cuLaunchKernelEx(
                &config,
                launch.function.0 as sys::CUfunction,
                std::ptr::null_mut(),
                extra.as_mut_ptr(),
            )
        };
        told("cuLaunchKernelEx", result).map_err(|e| {
            let kernel = self.kernel_name(launch.function.0);
            let shared = launch.shared_bytes;
            e.context(format!("{kernel} <<<{grid:?}, {block:?}, {shared}>>>"))
        })
    }

    /// The name of a function that was handed out.
    pub(super) fn kernel_name(&self, function: u64) -> String {
        let names = self.names.lock().unwrap_or_else(|e| e.into_inner());
        names.get(&function).cloned().unwrap_or_else(|| "?".into())
    }

    pub(super) fn encode(&self, spec: &TensorMapSpec<'_>) -> Result<TensorMap> {
        const CALL: &str = "cuTensorMapEncodeTiled";
        self.enter()?;
        let rank = spec.dims.len();
        let fits = (1..=5).contains(&rank)
            && spec.strides.len() + 1 == rank
            && spec.box_dims.len() == rank;
        if !fits {
            return Err(refused(
                CALL,
                "a tensor map needs 1 to 5 dimensions, a box of as many and one stride fewer",
            ));
        }
        let steps = [1u32; 5];
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the enums have the header's values (`repr(u32)` with equal numbers on both
        // sides), and every list is as long as the rank says.
        told(CALL, unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                std::mem::transmute::<u32, sys::CUtensorMapDataType>(spec.element as u32),
                rank as u32,
                spec.address as *mut c_void,
                spec.dims.as_ptr(),
                spec.strides.as_ptr(),
                spec.box_dims.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                std::mem::transmute::<u32, sys::CUtensorMapSwizzle>(spec.swizzle as u32),
                std::mem::transmute::<u32, sys::CUtensorMapL2promotion>(spec.promotion as u32),
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        })
        .map_err(|e| e.context(format!("{spec:?}")))?;
        let mut bytes = [0; 128];
        for (out, word) in bytes.chunks_exact_mut(8).zip(map.opaque) {
            out.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(TensorMap(bytes))
    }
}

/// The launch's attributes: a cluster, programmatic dependent launch.
fn attributes(launch: &Launch<'_>) -> Vec<sys::CUlaunchAttribute> {
    use sys::CUlaunchAttributeID as Id;
    let attribute = |id, value| sys::CUlaunchAttribute { id, pad: [0; 4], value };
    let mut list = Vec::new();
    if launch.cluster != [1; 3] {
        let [x, y, z] = launch.cluster;
        let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
        value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
        list.push(attribute(Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, value));
    }
    if launch.programmatic {
        let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
        value.programmaticStreamSerializationAllowed = 1;
        list.push(attribute(Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, value));
    }
    list
}
