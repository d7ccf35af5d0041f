//! Times of kernels and copies from the GPU itself, through CUPTI's activity interface.
//!
//! CUPTI asks for buffers and gives them back full, on threads of its own; [`Collector::take`]
//! reads what has come. Work is joined with ops by external correlation ids, kernels of a graph
//! by their node (the table is made when the graph is captured). Timestamps are on
//! `CLOCK_MONOTONIC`, as everything else.

pub mod api;
pub mod records;

/// Where the fields of CUPTI's records stand.
#[allow(clippy::all)]
pub mod layout {
    include!("../../../gen/bindings/cupti.rs");
}

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::api::Api;
pub use self::records::{Activity, Kernel, Span};
use super::clock;
use crate::error::{Error, Kind, Result};

/// Bytes of a buffer, and how many may be full or in use at once; beyond that CUPTI drops records
/// and counts them.
const BUFFER: usize = 1 << 20;
const BUFFERS: u64 = 64;

/// Launches whose owner is remembered at least; no record comes so many launches late.
const REMEMBERED: u32 = 1 << 18;

/// Full buffers; CUPTI's callbacks have no argument of ours, so they are the process's.
static FULL: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());
static OUT: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);
/// There is one subscriber in a process.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Memory that CUPTI fills; 8-byte aligned, as it wants.
struct Buffer {
    words: Box<[u64]>,
    valid: usize,
}

fn full() -> MutexGuard<'static, Vec<Buffer>> {
    FULL.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn monotonic() -> u64 {
    clock::now_ns()
}

extern "C" fn request(buffer: *mut *mut u8, size: *mut usize, most: *mut usize) {
    let (address, bytes) = if OUT.fetch_add(1, Ordering::AcqRel) < BUFFERS {
        let words = vec![0_u64; BUFFER / 8].into_boxed_slice();
        (Box::into_raw(words).cast::<u8>(), BUFFER)
    } else {
        OUT.fetch_sub(1, Ordering::AcqRel);
        REFUSED.fetch_add(1, Ordering::Relaxed);
        (std::ptr::null_mut(), 0)
    };
    // SAFETY: CUPTI passes pointers to write to. 0 records means as many as fit.
    unsafe {
        *buffer = address;
        *size = bytes;
        *most = 0;
    }
}

extern "C" fn complete(_: *mut c_void, _: u32, buffer: *mut u8, _: usize, valid: usize) {
    if buffer.is_null() {
        return;
    }
    let slice = std::ptr::slice_from_raw_parts_mut(buffer.cast::<u64>(), BUFFER / 8);
    // SAFETY: the buffer is one that `request` made, and CUPTI is done with it.
    let words = unsafe { Box::from_raw(slice) };
    full().push(Buffer { words, valid: valid.min(BUFFER) });
}

/// Kinds of records that are collected. CONCURRENT_KERNEL, not KERNEL, which serialises kernels;
/// DRIVER because external ids come with its calls.
const KINDS: [usize; 6] = [
    layout::KIND_KERNEL,
    layout::KIND_DRIVER,
    layout::KIND_MEMCPY,
    layout::KIND_MEMSET,
    layout::KIND_SYNCHRONIZATION,
    layout::KIND_EXTERNAL,
];

/// CUPTI in use. There is at most one at a time.
pub struct Collector {
    api: Arc<Api>,
    enabled: Vec<usize>,
    /// External id of each correlation id seen.
    external: HashMap<u32, u64>,
    /// What each node of a captured graph runs.
    nodes: HashMap<u64, u64>,
    names: HashMap<usize, u32>,
    pub texts: Vec<String>,
}

/// A record with the number of ours that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    pub activity: Activity,
    /// What was pushed when it was launched, or what its graph node stands for.
    pub own: Option<u64>,
    /// What was pushed when it, or the graph it is part of, was launched; and what its node
    /// stands for.
    pub launch: Option<u64>,
    pub node: Option<u64>,
    /// Index into [`Collector::texts`], for kernels.
    pub name: u32,
}

/// What one reading brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub records: Vec<Joined>,
    /// Records that CUPTI dropped since the last reading.
    pub dropped: u64,
    /// Records of kinds that are not read.
    pub unknown: u64,
}

impl Collector {
    /// Opens CUPTI from `places` and begins to collect.
    ///
    /// # Errors
    /// `Unsupported`: it is not there, another profiler has the process, or the driver refuses.
    pub fn start(places: &[PathBuf]) -> Result<Collector> {
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Err(Error::new(Kind::Unsupported, "CUPTI is in use by this process already"));
        }
        let started = Self::open(places);
        if started.is_err() {
            TAKEN.store(false, Ordering::Release);
        }
        started
    }

    fn open(places: &[PathBuf]) -> Result<Collector> {
        let api = Arc::new(Api::open(places)?);
        let f = api.functions();
        // SAFETY: the callbacks live for ever. The clock comes before any kind is enabled.
        let clock = unsafe { (f.register_clock)(monotonic) };
        api.check("its clock", clock)?;
        // SAFETY: as above.
        let callbacks = unsafe { (f.register_callbacks)(request, complete) };
        api.check("its buffers", callbacks)?;
        let mut collector = Collector {
            api,
            enabled: Vec::new(),
            external: HashMap::new(),
            nodes: HashMap::new(),
            names: HashMap::new(),
            texts: Vec::new(),
        };
        for kind in KINDS {
            // SAFETY: a kind's number is passed by value.
            let status = unsafe { (collector.api.functions().enable)(kind as u32) };
            collector.api.check(&format!("activity kind {kind}"), status)?;
            collector.enabled.push(kind);
        }
        Ok(collector)
    }

    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    pub fn push(&self, own: u64) {
        self.api.push(own);
    }

    pub fn pop(&self) {
        self.api.pop();
    }

    /// Node `node` of a graph runs `own`, whenever it is replayed.
    pub fn graph_node(&mut self, node: u64, own: u64) {
        self.nodes.insert(node, own);
    }

    /// Reads all records that are complete; with `flush` also those in buffers not full yet.
    ///
    /// # Errors
    /// What CUPTI reports; what came before is lost with it, and said so by its count.
    pub fn take(&mut self, flush: bool) -> Result<Taken> {
        self.api.check("flushing", self.api.flush(flush))?;
        let buffers = std::mem::take(&mut *full());
        let mut taken = Taken::default();
        let mut activities = Vec::new();
        for mut buffer in buffers {
            self.walk(&mut buffer, &mut activities)?;
            OUT.fetch_sub(1, Ordering::AcqRel);
        }
        // External ids first: those of a kernel may stand in a later buffer.
        for activity in &activities {
            if let Activity::External { id, correlation } = activity {
                self.external.insert(*correlation, *id);
            }
        }
        for activity in activities {
            match activity {
                Activity::External { .. } => {}
                Activity::Other(_) => taken.unknown += 1,
                activity => taken.records.push(self.join(activity)),
            }
        }
        self.forget();
        // CUPTI counts what it could not write for want of a buffer; should it not, we do.
        taken.dropped = self.dropped().max(REFUSED.swap(0, Ordering::Relaxed));
        Ok(taken)
    }

    /// Goes from record to record as CUPTI says they follow each other.
    fn walk(&self, buffer: &mut Buffer, to: &mut Vec<Activity>) -> Result<()> {
        let start = buffer.words.as_mut_ptr().cast::<u8>();
        let mut record: *mut u8 = std::ptr::null_mut();
        loop {
            let next = self.api.functions().next_record;
            // SAFETY: the buffer holds `valid` bytes of records, and `record` is null or one.
            let status = unsafe { next(start, buffer.valid, &mut record) };
            if status as usize == layout::ERROR_MAX_LIMIT_REACHED {
                return Ok(());
            }
            self.api.check("a buffer of records", status)?;
            let offset = (record as usize).wrapping_sub(start as usize);
            if offset >= buffer.valid {
                return Err(Error::new(Kind::Device, "CUPTI gave a record outside its buffer"));
            }
            // SAFETY: `offset` lies within the bytes of the buffer.
            let bytes =
                unsafe { std::slice::from_raw_parts(start.add(offset), buffer.valid - offset) };
            to.push(records::read(bytes));
        }
    }

    /// Drops what launches long past were pushed under; correlation ids count upwards.
    fn forget(&mut self) {
        if self.external.len() > 2 * REMEMBERED as usize {
            let newest = self.external.keys().copied().max().unwrap_or(0);
            self.external.retain(|id, _| *id >= newest.saturating_sub(REMEMBERED));
        }
    }

    fn join(&mut self, activity: Activity) -> Joined {
        let (span, node) = match &activity {
            Activity::Kernel(k) => (k.span, k.graph_node),
            Activity::Memory { span, .. } | Activity::Sync { span } | Activity::Call { span } => {
                (*span, 0)
            }
            Activity::External { .. } | Activity::Other(_) => (Span::default(), 0),
        };
        let node = self.nodes.get(&node).filter(|_| node != 0).copied();
        let launch = self.external.get(&span.correlation).copied();
        let own = node.or(launch);
        let name = match &activity {
            Activity::Kernel(kernel) => self.name(kernel.name),
            _ => 0,
        };
        Joined { activity, own, launch, node, name }
    }

    /// The number of a kernel's name, by the address of its text.
    fn name(&mut self, address: usize) -> u32 {
        if let Some(number) = self.names.get(&address) {
            return *number;
        }
        let text = match address {
            0 => "unnamed kernel".to_owned(),
            // SAFETY: CUPTI's names end with NUL and live as long as their module, which is
            // loaded as long as the device.
            _ => unsafe { CStr::from_ptr(address as *const c_char) }.to_string_lossy().into(),
        };
        let number = self.texts.len() as u32;
        self.texts.push(text);
        self.names.insert(address, number);
        number
    }

    /// Records dropped since last asked.
    fn dropped(&self) -> u64 {
        let mut dropped = 0;
        let f = self.api.functions();
        // SAFETY: no context means the process; `dropped` may be written to.
        let status = unsafe { (f.dropped)(std::ptr::null_mut(), 0, &mut dropped) };
        if status == 0 { dropped as u64 } else { 0 }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        for kind in &self.enabled {
            // SAFETY: a kind's number is passed by value.
            unsafe { (self.api.functions().disable)(*kind as u32) };
        }
        // SAFETY: as in `take`.
        unsafe { (self.api.functions().flush_all)(layout::FLUSH_FORCED as u32) };
        let left = std::mem::take(&mut *full());
        OUT.fetch_sub(left.len() as u64, Ordering::AcqRel);
        TAKEN.store(false, Ordering::Release);
    }
}
