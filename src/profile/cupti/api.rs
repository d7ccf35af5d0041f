//! CUPTI's activity interface, opened at run time: a list of places, one table of functions.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use super::layout;
use crate::error::{Error, Kind, Result};

/// CUPTI's status: 0 is success.
pub type Status = c_int;

pub type RequestBuffer = extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
pub type CompleteBuffer = extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);

macro_rules! functions {
    ($($field:ident = $symbol:literal: fn($($arg:ty),*);)*) => {
        /// The functions that Pacer calls.
        pub struct Functions {
            $(pub $field: unsafe extern "C" fn($($arg),*) -> Status,)*
        }

        impl Functions {
            /// # Safety
            /// `handle` is an open library whose symbols of these names are CUPTI's functions.
            unsafe fn load(handle: *mut c_void) -> std::result::Result<Functions, &'static str> {
                $(let $field = {
                    let name = concat!($symbol, "\0");
                    // SAFETY: the handle is open and the name ends with NUL.
                    let address = unsafe { libc::dlsym(handle, name.as_ptr().cast::<c_char>()) };
                    if address.is_null() {
                        return Err($symbol);
                    }
                    // SAFETY: CUPTI's headers declare this symbol with this signature.
                    unsafe {
                        std::mem::transmute::<
                            *mut c_void,
                            unsafe extern "C" fn($($arg),*) -> Status,
                        >(address)
                    }
                };)*
                Ok(Functions { $($field),* })
            }
        }
    };
}

functions! {
    version = "cuptiGetVersion": fn(*mut u32);
    result_string = "cuptiGetResultString": fn(Status, *mut *const c_char);
    register_callbacks = "cuptiActivityRegisterCallbacks": fn(RequestBuffer, CompleteBuffer);
    register_clock = "cuptiActivityRegisterTimestampCallback": fn(extern "C" fn() -> u64);
    enable = "cuptiActivityEnable": fn(u32);
    disable = "cuptiActivityDisable": fn(u32);
    flush_all = "cuptiActivityFlushAll": fn(u32);
    next_record = "cuptiActivityGetNextRecord": fn(*mut u8, usize, *mut *mut u8);
    dropped = "cuptiActivityGetNumDroppedRecords": fn(*mut c_void, u32, *mut usize);
    push_external = "cuptiActivityPushExternalCorrelationId": fn(u32, u64);
    pop_external = "cuptiActivityPopExternalCorrelationId": fn(u32, *mut u64);
}

/// An open CUPTI. It stays open for the life of the process: it may not be unloaded once used.
pub struct Api {
    functions: Functions,
    pub path: PathBuf,
    /// `130001` is 13.0, update 1.
    pub version: u32,
}

/// Where CUPTI is looked for: `PACER_CUPTI`, the loader's own path, CUDA's usual folders, and
/// where Python's packages put it.
pub fn places() -> Vec<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let mut found: Vec<PathBuf> = set("PACER_CUPTI").into_iter().collect();
    found.push("libcupti.so.13".into());
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(set);
    let usual = ["/usr/local/cuda", "/usr/local/cuda-13", "/usr/local/cuda-13.0"];
    for home in homes.chain(usual.iter().map(PathBuf::from)) {
        for below in ["extras/CUPTI/lib64", "lib64", "lib"] {
            found.push(home.join(below).join("libcupti.so.13"));
        }
    }
    let venvs = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(set);
    let roots = ["/usr", "/usr/local", "/opt/torch/.venv"].iter().map(PathBuf::from);
    for root in venvs.chain(roots) {
        for python in ["3.10", "3.11", "3.12", "3.13"] {
            for packages in ["site-packages", "dist-packages"] {
                let at = format!("lib/python{python}/{packages}/nvidia/cu13/lib/libcupti.so.13");
                found.push(root.join(at));
            }
        }
    }
    found
}

impl Api {
    /// Opens the first CUPTI of `places`.
    ///
    /// # Errors
    /// None is there, or it lacks a function; the message says where was looked.
    pub fn open(places: &[PathBuf]) -> Result<Api> {
        let mut last = String::from("no place to look");
        for path in places {
            // A bare name goes to the loader's own path; anything else must be there.
            if path.components().count() > 1 && !path.exists() {
                continue;
            }
            match Self::load(path) {
                Ok(api) => return Ok(api),
                Err(why) => last = format!("{}: {why}", path.display()),
            }
        }
        let what = format!("CUPTI was not found in {} places ({last})", places.len());
        Err(Error::new(Kind::Unsupported, what))
    }

    fn load(path: &Path) -> std::result::Result<Api, String> {
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        let name = CString::new(bytes).map_err(|_| "the path has a NUL".to_owned())?;
        // SAFETY: the name ends with NUL. Opening runs the library's initialisers: it is CUPTI,
        // from a place that the operator controls.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(loader_error());
        }
        // SAFETY: the handle was just opened and stays open.
        let functions = unsafe { Functions::load(handle) };
        let functions = functions.map_err(|symbol| format!("it has no {symbol}"))?;
        let mut version = 0;
        // SAFETY: `version` may be written to.
        let status = unsafe { (functions.version)(&mut version) };
        // Record layouts are those of CUDA 13; earlier ones are others.
        if status != 0 || (version as usize) < layout::API_VERSION / 10_000 * 10_000 {
            return Err(format!("version {version}, but CUPTI 13 is needed"));
        }
        Ok(Api { functions, path: path.to_owned(), version })
    }

    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// What this thread launches until [`Api::pop`] belongs to `own`.
    pub fn push(&self, own: u64) {
        // SAFETY: numbers are passed by value.
        unsafe { (self.functions.push_external)(layout::EXTERNAL_CUSTOM0 as u32, own) };
    }

    pub fn pop(&self) {
        let mut last = 0;
        // SAFETY: `last` may be written to.
        unsafe { (self.functions.pop_external)(layout::EXTERNAL_CUSTOM0 as u32, &mut last) };
    }

    /// Asks for the buffers that are complete; `all` also for others, whose unfinished records
    /// then have no times. They come by callback.
    pub fn flush(&self, all: bool) -> Status {
        let flag = if all { layout::FLUSH_FORCED as u32 } else { 0 };
        // SAFETY: a flag is passed by value.
        unsafe { (self.functions.flush_all)(flag) }
    }

    /// Makes an error of a status that is not 0.
    pub fn check(&self, what: &str, status: Status) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        let why = match status as usize {
            layout::ERROR_MULTIPLE_SUBSCRIBERS => {
                "another profiler (nsys, ncu, a framework) has this process already".to_owned()
            }
            layout::ERROR_INSUFFICIENT_PRIVILEGES => {
                "the driver lets only administrators profile (NVreg_RestrictProfilingToAdminUsers)"
                    .to_owned()
            }
            _ => self.text(status),
        };
        Err(Error::new(Kind::Unsupported, format!("{what}: CUPTI says {status}: {why}")))
    }

    fn text(&self, status: Status) -> String {
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: `text` may be written to; CUPTI's strings live for ever.
        let found = unsafe { (self.functions.result_string)(status, &mut text) };
        if found != 0 || text.is_null() {
            return "an unknown error".into();
        }
        // SAFETY: it is a string of CUPTI's that ends with NUL.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

fn loader_error() -> String {
    // SAFETY: dlerror's string is valid until the next call on this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "it cannot be loaded".into();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
