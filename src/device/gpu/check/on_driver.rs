//! Checks through a [`Driver`]: a real card, or any other driver. It counts nothing, and tells
//! stray writes by a pattern around and in every allocation.

use std::collections::BTreeMap;

use super::machine::{Counted, Geometry, Machine};
use crate::device::gpu::driver::{
    Driver, DriverError, Launch, ModuleId, Stream, TensorMap, TensorMapSpec,
};
use crate::device::gpu::registry::{self, Kernel};

/// Bytes of pattern before and after each allocation.
const GUARD: usize = 256;
/// Two of these are a NaN in f32, bf16 and f16.
const PATTERN: u8 = 0xFF;

/// A machine made of a driver.
pub struct OnDriver<'d> {
    driver: &'d dyn Driver,
    modules: BTreeMap<&'static str, ModuleId>,
    /// Address and bytes of what was asked for.
    given: Vec<(u64, usize)>,
}

fn said(e: DriverError) -> String {
    e.to_string()
}

impl<'d> OnDriver<'d> {
    pub fn new(driver: &'d dyn Driver) -> Self {
        OnDriver { driver, modules: BTreeMap::new(), given: Vec::new() }
    }

    fn module(&mut self, of: &'static registry::Module) -> Result<ModuleId, String> {
        if let Some(id) = self.modules.get(of.name) {
            return Ok(*id);
        }
        let loaded =
            self.driver.load_module(&of.ptx().map_err(|e| e.to_string())?).map_err(said)?;
        self.modules.insert(of.name, loaded.module);
        Ok(loaded.module)
    }

    fn plain(&self, address: u64, bytes: usize) -> Result<bool, String> {
        let mut found = vec![0; bytes];
        self.driver.download(&mut found, address).map_err(said)?;
        Ok(found.iter().all(|b| *b == PATTERN))
    }
}

impl Machine for OnDriver<'_> {
    fn alloc(&mut self, bytes: usize) -> Result<u64, String> {
        let base = self.driver.alloc((bytes + 2 * GUARD) as u64).map_err(said)?;
        let address = base + GUARD as u64;
        self.given.push((address, bytes));
        self.driver.upload(base, &vec![PATTERN; bytes + 2 * GUARD]).map_err(said)?;
        Ok(address)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.driver.upload(address, bytes).map_err(said)
    }

    fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, String> {
        let mut out = vec![0; bytes];
        self.driver.download(&mut out, address).map_err(said)?;
        Ok(out)
    }

    /// A kernel that writes the pattern itself is taken for one that wrote nothing; values that
    /// checks expect are never NaN.
    fn reached(&mut self, address: u64, bytes: usize) -> Result<(bool, bool), String> {
        let any = !self.plain(address, bytes)?;
        Ok((any, any))
    }

    fn tensor_map(&mut self, spec: &TensorMapSpec<'_>) -> Result<TensorMap, String> {
        self.driver.tensor_map(spec).map_err(said)
    }

    fn launch(
        &mut self,
        kernel: &'static Kernel,
        geometry: Geometry,
        params: &[u8],
        _seed: u64,
    ) -> Result<Option<Counted>, String> {
        let (of, _) = registry::kernel(kernel.symbol).map_err(|e| e.to_string())?;
        let module = self.module(of)?;
        let function = self.driver.function(module, kernel.symbol).map_err(said)?;
        if geometry.shared > 48 << 10 {
            self.driver.allow_dynamic_shared(function, geometry.shared).map_err(said)?;
        }
        let launch = Launch {
            function,
            grid: geometry.grid,
            block: [geometry.block, 1, 1],
            cluster: [kernel.cluster, 1, 1],
            shared_bytes: geometry.shared,
            programmatic: false,
            params,
        };
        self.driver.launch(&launch, Stream::DEFAULT).map_err(said)?;
        self.driver.synchronize(Stream::DEFAULT).map_err(said)?;
        Ok(None)
    }

    fn clear(&mut self) -> Result<(), String> {
        let mut stray = None;
        for (address, bytes) in std::mem::take(&mut self.given) {
            let around = [address - GUARD as u64, address + bytes as u64];
            for at in around {
                if !self.plain(at, GUARD)? {
                    stray = Some(format!("written outside of {bytes} bytes at {address:#x}"));
                }
            }
            self.driver.free(address - GUARD as u64).map_err(said)?;
        }
        stray.map_or(Ok(()), Err)
    }
}
