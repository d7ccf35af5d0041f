//! NVTX ranges for tools such as Nsight Systems. A tool is found as NVIDIA's own headers find it
//! (NVTX 3, `nvtxInit.h`): `NVTX_INJECTION64_PATH` names a library, whose
//! `InitializeInjectionNvtx2` is given a way to ask for our tables and puts its functions in.
//! Without a tool nothing is called.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// `NvtxCallbackIdCore` of the functions that are called here, and the length of that table.
const PUSH: usize = 9;
const POP: usize = 11;
const MARK: usize = 2;
const CORE_SIZE: usize = 16;
/// `NvtxCallbackModule`.
const MODULE_CORE: c_int = 1;
const MODULE_CORE2: c_int = 5;
/// `NvtxExportTableID`.
const CALLBACKS: u32 = 1;
const VERSION_INFO: u32 = 3;

type Slots = [AtomicPtr<c_void>; CORE_SIZE];

/// Functions of the tool, of modules `CORE` and `CORE2`; null where it has none.
static CORE: Slots = [const { AtomicPtr::new(std::ptr::null_mut()) }; CORE_SIZE];
static CORE2: Slots = [const { AtomicPtr::new(std::ptr::null_mut()) }; CORE_SIZE];

/// `NvtxExportTableCallbacks`.
#[repr(C)]
struct Callbacks {
    size: usize,
    table: extern "C" fn(c_int, *mut *mut *mut c_void, *mut c_uint) -> c_int,
}

/// `NvtxExportTableVersionInfo`.
#[repr(C)]
struct VersionInfo {
    size: usize,
    version: u32,
    reserved: u32,
    tell: extern "C" fn(u32),
}

static CALLBACK_TABLE: Callbacks = Callbacks { size: size_of::<Callbacks>(), table };
static VERSION_TABLE: VersionInfo =
    VersionInfo { size: size_of::<VersionInfo>(), version: 3, reserved: 0, tell };

extern "C" fn tell(_: u32) {}

extern "C" fn export(id: u32) -> *const c_void {
    match id {
        CALLBACKS => (&raw const CALLBACK_TABLE).cast(),
        VERSION_INFO => (&raw const VERSION_TABLE).cast(),
        _ => std::ptr::null(),
    }
}

/// The addresses of a table of slots, as tools want them: one pointer to each slot.
struct Pointers([*mut c_void; CORE_SIZE]);

// SAFETY: the pointers lead to atomics that live for ever.
unsafe impl Send for Pointers {}
// SAFETY: as above.
unsafe impl Sync for Pointers {}

fn pointers(slots: &'static Slots) -> Pointers {
    let mut to = [std::ptr::null_mut(); CORE_SIZE];
    // Slot 0 stands for no function.
    for (to, slot) in to.iter_mut().zip(slots).skip(1) {
        *to = slot.as_ptr().cast();
    }
    Pointers(to)
}

extern "C" fn table(module: c_int, out: *mut *mut *mut c_void, size: *mut c_uint) -> c_int {
    static FIRST: OnceLock<Pointers> = OnceLock::new();
    static SECOND: OnceLock<Pointers> = OnceLock::new();
    let found = match module {
        MODULE_CORE => FIRST.get_or_init(|| pointers(&CORE)),
        MODULE_CORE2 => SECOND.get_or_init(|| pointers(&CORE2)),
        _ => return 0,
    };
    // SAFETY: the tool passes places to write to, or null.
    unsafe {
        if !size.is_null() {
            size.write(CORE_SIZE as c_uint);
        }
        if !out.is_null() {
            out.write(found.0.as_ptr().cast_mut());
        }
    }
    1
}

/// An attached tool.
pub struct Nvtx {
    push: Option<extern "C" fn(*const c_char) -> c_int>,
    pop: Option<extern "C" fn() -> c_int>,
    mark: Option<extern "C" fn(*const c_char)>,
}

/// The tool of this process, looked for once; `None` without one.
pub fn tool() -> Option<&'static Nvtx> {
    static TOOL: OnceLock<Option<Nvtx>> = OnceLock::new();
    TOOL.get_or_init(attach).as_ref()
}

fn attach() -> Option<Nvtx> {
    let path = std::env::var_os("NVTX_INJECTION64_PATH").filter(|p| !p.is_empty())?;
    let name = CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).ok()?;
    // SAFETY: the name ends with NUL; the operator asked for this library to be loaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY) };
    if handle.is_null() {
        return None;
    }
    // SAFETY: the handle is open and the name ends with NUL.
    let begin = unsafe { libc::dlsym(handle, c"InitializeInjectionNvtx2".as_ptr()) };
    type Begin = extern "C" fn(extern "C" fn(u32) -> *const c_void) -> c_int;
    // SAFETY: NVTX 3 declares that symbol so.
    let begun = !begin.is_null()
        && unsafe { std::mem::transmute::<*mut c_void, Begin>(begin) }(export) != 0;
    if !begun {
        // SAFETY: the handle is open and nothing of the library is used.
        unsafe { libc::dlclose(handle) };
        return None;
    }
    let of = |id: usize| {
        let address = CORE[id].load(Ordering::Acquire);
        (!address.is_null()).then_some(address)
    };
    // SAFETY: tools put functions of the header's types in: nvtxRangePushA, nvtxRangePop,
    // nvtxMarkA.
    unsafe {
        Some(Nvtx {
            push: of(PUSH).map(|f| {
                std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char) -> c_int>(f)
            }),
            pop: of(POP).map(|f| std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(f)),
            mark: of(MARK)
                .map(|f| std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char)>(f)),
        })
    }
}

impl Nvtx {
    /// Begins a range on this thread; ranges nest.
    pub fn push(&self, text: &str) {
        if let Some(push) = self.push {
            push(c_text(text).as_ptr());
        }
    }

    /// Ends the innermost range.
    pub fn pop(&self) {
        if let Some(pop) = self.pop {
            pop();
        }
    }

    /// A mark at this instant.
    pub fn mark(&self, text: &str) {
        if let Some(mark) = self.mark {
            mark(c_text(text).as_ptr());
        }
    }
}

fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}
