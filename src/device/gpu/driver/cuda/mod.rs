//! The driver over libcuda, opened at run time. Nothing here panics: what is missing is named.

mod calls;
mod launch;
mod library;

use std::collections::HashMap;
use std::ffi::{CStr, c_int};
use std::sync::Mutex;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};

use super::{CardInfo, Class, DriverError, Result, class_of};

/// One CUDA device with its primary context.
pub struct Cuda {
    device: sys::CUdevice,
    context: sys::CUcontext,
    card: CardInfo,
    /// Names of the functions handed out: `cuFuncGetName` is younger than the oldest driver.
    names: Mutex<HashMap<u64, String>>,
}

// SAFETY: a CUDA context may be used from any thread that makes it current, which every call does.
unsafe impl Send for Cuda {}
// SAFETY: as above; the driver serialises its own calls.
unsafe impl Sync for Cuda {}

impl Cuda {
    /// Opens the device of that ordinal.
    ///
    /// # Errors
    /// Says which of library, driver, device or capability is missing, and what to do.
    pub fn open(ordinal: i32) -> Result<Self> {
        let version = library::start()?;
        let device = library::device(ordinal)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the device is valid.
        told("cuDevicePrimaryCtxRetain", unsafe {
            sys::cuDevicePrimaryCtxRetain(&mut context, device)
        })?;
        // SAFETY: the context was just retained.
        told("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(context) })?;
        let card = describe(device, version)?;
        let opened = Cuda { device, context, card, names: Mutex::default() };
        let (major, minor) = opened.card.capability;
        if major < 8 {
            let message = format!(
                "{} has compute capability {major}.{minor}; Pacer's kernels need 8.0 (Ampere) or \
                 later",
                opened.card.name
            );
            return Err(DriverError::new(Class::Unavailable, "cuDeviceGetAttribute", message));
        }
        Ok(opened)
    }

    /// Makes the context current on this thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        told("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) })
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`. The process may be ending: a failure changes nothing.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// The header's name of a result.
fn name(result: CUresult) -> String {
    let mut text = std::ptr::null();
    // SAFETY: `text` receives a static string, or stays null.
    unsafe {
        sys::cuGetErrorName(result, &mut text);
        text_of(text).unwrap_or_else(|| format!("result {}", result as u32))
    }
}

/// # Safety
/// `text` is null or a C string.
unsafe fn text_of(text: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// A result as an error, with the driver's own words.
fn told(call: &'static str, result: CUresult) -> Result<()> {
    let code = result as u32;
    if code == 0 {
        return Ok(());
    }
    let mut text = std::ptr::null();
    // SAFETY: as in `name`.
    let words = unsafe {
        sys::cuGetErrorString(result, &mut text);
        text_of(text).unwrap_or_default()
    };
    let message = format!("{} ({code}): {words}", name(result));
    Err(DriverError::new(class_of(code), call, message).with_code(code))
}

fn describe(device: sys::CUdevice, driver_version: u32) -> Result<CardInfo> {
    let attribute = |attribute: Attribute| -> Result<u32> {
        let mut value: c_int = 0;
        // SAFETY: the device is valid.
        told("cuDeviceGetAttribute", unsafe {
            sys::cuDeviceGetAttribute(&mut value, attribute, device)
        })?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    use Attribute as A;
    let mut name = [0; 256];
    // SAFETY: the buffer is as long as said.
    told("cuDeviceGetName", unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), 256, device) })?;
    let bytes: Vec<u8> =
        name.iter().take_while(|c| **c != 0).flat_map(|c| c.to_ne_bytes()).collect();
    let mut memory_total = 0;
    // SAFETY: the device is valid.
    told("cuDeviceTotalMem_v2", unsafe { sys::cuDeviceTotalMem_v2(&mut memory_total, device) })?;
    // Clocks in kHz; newer drivers may not tell them.
    let khz = |a| f64::from(attribute(a).unwrap_or(0)) * 1e3;
    let bus_bytes =
        f64::from(attribute(A::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH).unwrap_or(0)) / 8.0;
    Ok(CardInfo {
        name: String::from_utf8_lossy(&bytes).into_owned(),
        capability: (
            attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        sms: attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_per_sm: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        shared_per_block: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        threads_per_sm: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
        registers_per_sm: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR)?,
        l2_bytes: attribute(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
        memory_total: memory_total as u64,
        driver_version,
        // Both edges of the memory clock carry data.
        memory_bandwidth: 2.0 * khz(A::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE) * bus_bytes,
        clock_hz: khz(A::CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
    })
}
