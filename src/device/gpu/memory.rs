//! Device memory of one model, by purpose, freed with it.

use std::sync::Arc;

use super::driver::{DevicePtr, Driver, Pinned, Stream};
use crate::device::MemoryUse;
use crate::error::{Error, Result};

/// What an allocation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Weights,
    Kv,
    Scratch,
}

/// Allocations of one model.
pub struct Memory {
    driver: Arc<dyn Driver>,
    device: Vec<DevicePtr>,
    pinned: Vec<Pinned>,
    used: MemoryUse,
}

impl Memory {
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        let used = MemoryUse::default();
        Memory { driver, device: Vec::new(), pinned: Vec::new(), used }
    }

    /// Allocates `bytes`, at least 16.
    ///
    /// # Errors
    /// [`Kind::Limit`](crate::error::Kind::Limit), naming `what`, if it does not fit.
    pub fn alloc(&mut self, purpose: Purpose, bytes: u64, what: &str) -> Result<DevicePtr> {
        let bytes = bytes.max(16);
        let address = self.driver.alloc(bytes).map_err(|e| Error::from(e).context(what))?;
        self.device.push(address);
        *match purpose {
            Purpose::Weights => &mut self.used.weights,
            Purpose::Kv => &mut self.used.kv,
            Purpose::Scratch => &mut self.used.scratch,
        } += bytes;
        Ok(address)
    }

    /// The same, filled with zeros: rows that pad a step hold numbers then, not noise.
    ///
    /// # Errors
    /// As [`Memory::alloc`].
    pub fn zeroed(&mut self, bytes: u64, what: &str) -> Result<DevicePtr> {
        let address = self.alloc(Purpose::Scratch, bytes, what)?;
        self.driver.fill_async(address, 0, bytes.max(16), Stream::DEFAULT)?;
        Ok(address)
    }

    /// A list in device memory.
    ///
    /// # Errors
    /// As [`Memory::alloc`].
    pub fn list<T: Copy>(&mut self, items: &[T], what: &str) -> Result<DevicePtr> {
        // SAFETY: plain numbers, every byte of which is initialised.
        let bytes =
            unsafe { std::slice::from_raw_parts(items.as_ptr().cast::<u8>(), size_of_val(items)) };
        let address = self.alloc(Purpose::Scratch, bytes.len() as u64, what)?;
        self.driver.upload(address, bytes)?;
        Ok(address)
    }

    /// Page-locked host memory.
    ///
    /// # Errors
    /// If the host has none.
    pub fn pinned(&mut self, bytes: usize) -> Result<Pinned> {
        let memory = self.driver.alloc_pinned(bytes)?;
        self.pinned.push(memory);
        Ok(memory)
    }

    pub fn used(&self) -> MemoryUse {
        self.used
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A lost context fails here too; the driver frees all of it with the process.
        for address in self.device.drain(..) {
            let _ = self.driver.free(address);
        }
        for memory in self.pinned.drain(..) {
            let _ = self.driver.free_pinned(memory);
        }
    }
}
