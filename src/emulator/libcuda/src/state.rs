//! The one machine of the process, and how results cross the boundary.

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::sync::{Mutex, OnceLock};

use pacer_emulator::Checks;
use pacer_emulator::card::Card;
use pacer_emulator::host::{Code, Config, Faults, HostError, HostResult, Machine};

/// A CUDA result code.
pub type CuResult = u32;

pub const SUCCESS: CuResult = 0;
pub const INVALID_VALUE: CuResult = 1;
pub const NOT_INITIALIZED: CuResult = 3;
pub const NO_DEVICE: CuResult = 100;
pub const INVALID_DEVICE: CuResult = 101;
pub const NOT_READY: CuResult = 600;

/// What the environment asks for.
pub struct Setup {
    pub config: Config,
    pub version: i32,
    pub devices: i32,
    /// Compute capability to claim instead of the card's.
    pub capability: (u32, u32),
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    variable(name).and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Read once. Values that make no sense are as if they were not given, faults excepted: a test
/// whose fault is misspelt must not pass.
pub fn setup() -> &'static Setup {
    static SETUP: OnceLock<Setup> = OnceLock::new();
    SETUP.get_or_init(|| {
        let mut config = Config::default();
        if let Some(card) = variable("PACER_LIBCUDA_CARD").and_then(|name| Card::named(&name)) {
            config.card = card;
        }
        config.memory = number("PACER_LIBCUDA_MEMORY_MIB", 2048u64) << 20;
        config.seed = number("PACER_LIBCUDA_SEED", 0);
        if variable("PACER_LIBCUDA_CHECKS").as_deref() == Some("fast") {
            config.checks = Checks::FAST;
        }
        let mut devices = number("PACER_LIBCUDA_DEVICES", 1);
        match Faults::parse(&variable("PACER_LIBCUDA_FAULTS").unwrap_or_default()) {
            Ok(faults) => config.faults = faults,
            Err(_) => devices = 0,
        }
        let claimed = variable("PACER_LIBCUDA_CAPABILITY").and_then(|text| {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let capability = claimed.unwrap_or(config.card.capability);
        let version = number("PACER_LIBCUDA_VERSION", 13_000);
        Setup { config, version, devices, capability }
    })
}

/// The machine; made when the primary context is first retained.
pub fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(|| Machine::new(setup().config.clone()))
}

/// The last message of each code, as C strings that live for ever, as cuda.h promises.
static MESSAGES: Mutex<Option<HashMap<(u32, String), &'static std::ffi::CStr>>> = Mutex::new(None);
static LAST: Mutex<Option<HashMap<u32, String>>> = Mutex::new(None);

/// Notes the words of a failure and gives its code.
pub fn failed(error: &HostError) -> CuResult {
    let code = error.code as u32;
    let mut last = LAST.lock().unwrap_or_else(|e| e.into_inner());
    last.get_or_insert_default().insert(code, error.message.clone());
    code
}

/// A result as a code; the value goes where `out` points.
///
/// # Safety
/// `out` is null or points to a `T`.
pub unsafe fn give<T>(result: HostResult<T>, out: *mut T) -> CuResult {
    match result {
        Ok(_) if out.is_null() => INVALID_VALUE,
        Ok(value) => {
            // SAFETY: the caller's promise.
            unsafe { out.write(value) };
            SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// A result without a value as a code.
pub fn done(result: HostResult<()>) -> CuResult {
    match result {
        Ok(()) => SUCCESS,
        Err(error) => failed(&error),
    }
}

fn forever(code: u32, text: String) -> *const c_char {
    let mut all = MESSAGES.lock().unwrap_or_else(|e| e.into_inner());
    let entry = all.get_or_insert_default().entry((code, text));
    let text = entry.key().1.replace('\0', " ");
    let kept = entry
        .or_insert_with(|| Box::leak(CString::new(text).unwrap_or_default().into_boxed_c_str()));
    kept.as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: u32, out: *mut *const c_char) -> CuResult {
    let name = match code {
        SUCCESS => "CUDA_SUCCESS",
        NOT_INITIALIZED => "CUDA_ERROR_NOT_INITIALIZED",
        NO_DEVICE => "CUDA_ERROR_NO_DEVICE",
        _ => Code::from_number(code).name(),
    };
    // SAFETY: the header's contract.
    unsafe { give(Ok(forever(u32::MAX, name.to_owned())), out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: u32, out: *mut *const c_char) -> CuResult {
    let last = LAST.lock().unwrap_or_else(|e| e.into_inner());
    let words = last.as_ref().and_then(|l| l.get(&code)).cloned().unwrap_or_default();
    drop(last);
    // SAFETY: the header's contract.
    unsafe { give(Ok(forever(code, words)), out) }
}
