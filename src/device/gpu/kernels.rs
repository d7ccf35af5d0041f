//! The kernels that a model needs, loaded once: module by module, for the card at hand.

use std::collections::HashMap;
use std::sync::Arc;

use super::driver::{Driver, Function, ModuleId};
use super::registry::{self, Target};
use crate::error::{Error, Result};
use crate::types::Dtype;

/// Dynamic shared memory that needs no leave, bytes.
const DEFAULT_SHARED: u32 = 48 << 10;

/// A kernel ready to launch.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    pub function: Function,
    pub symbol: &'static str,
    /// Most threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a launch, bytes.
    pub shared: u32,
    /// Blocks of a cluster; 1 for none.
    pub cluster: u32,
    /// It waits for the kernel before it by itself, so it may start early.
    pub programmatic: bool,
    /// `key=value` pairs of the registry.
    pub about: &'static str,
}

impl Kernel {
    /// The number that the registry gives under `key`.
    pub fn number(&self, key: &str) -> Option<u32> {
        let pairs = self.about.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(k, _)| *k == key).and_then(|(_, v)| v.parse().ok())
    }
}

/// Loads kernels by name and remembers them.
pub struct Kernels {
    driver: Arc<dyn Driver>,
    /// `bf16` or `f16`: the storage type in symbols.
    half: &'static str,
    modules: HashMap<&'static str, ModuleId>,
    loaded: HashMap<&'static str, Kernel>,
}

impl Kernels {
    pub fn new(driver: Arc<dyn Driver>, dtype: Dtype) -> Self {
        let half = if dtype == Dtype::F16 { "f16" } else { "bf16" };
        Kernels { driver, half, modules: HashMap::new(), loaded: HashMap::new() }
    }

    /// The kernel `name` for the storage type: `rmsnorm_warp1` is `sm80_bf16_rmsnorm_warp1`.
    ///
    /// # Errors
    /// If there is none, or the driver does not load it.
    pub fn half(&mut self, name: &str) -> Result<Kernel> {
        self.get(&format!("{}_{name}", self.half))
    }

    /// The kernel of that symbol without its target: the card's own form if there is one.
    ///
    /// # Errors
    /// As [`Kernels::half`].
    pub fn get(&mut self, name: &str) -> Result<Kernel> {
        let capability = self.driver.card().capability;
        let of = |target: Target| {
            let symbol = format!("{}_{name}", target.name());
            registry::kernel(&symbol).ok().filter(|(m, _)| m.target.runs_on(capability))
        };
        let found = of(Target::Sm90a).or_else(|| of(Target::Sm80));
        let Some((_, kernel)) = found else {
            return Err(Error::unsupported(format!(
                "no kernel {name} was built into this binary for {}",
                self.driver.card().name
            )));
        };
        self.symbol(kernel.symbol)
    }

    /// The kernel of that whole symbol.
    ///
    /// # Errors
    /// As [`Kernels::half`].
    pub fn symbol(&mut self, symbol: &str) -> Result<Kernel> {
        if let Some(kernel) = self.loaded.get(symbol) {
            return Ok(*kernel);
        }
        let (module, kernel) = registry::kernel(symbol)?;
        let loaded = self.load(module, kernel)?;
        self.loaded.insert(kernel.symbol, loaded);
        Ok(loaded)
    }

    fn load(
        &mut self,
        module: &'static registry::Module,
        kernel: &'static registry::Kernel,
    ) -> Result<Kernel> {
        let id = match self.modules.get(module.name) {
            Some(id) => *id,
            None => {
                let loaded = self.driver.load_module(&module.ptx()?).map_err(|e| {
                    Error::from(e).context(format!("kernel module {}", module.name))
                })?;
                self.modules.insert(module.name, loaded.module);
                loaded.module
            }
        };
        let function = self.driver.function(id, kernel.symbol)?;
        if kernel.shared > DEFAULT_SHARED {
            self.driver
                .allow_dynamic_shared(function, kernel.shared)
                .map_err(|e| Error::from(e).context(format!("kernel {}", kernel.symbol)))?;
        }
        Ok(Kernel {
            function,
            symbol: kernel.symbol,
            block: kernel.block,
            shared: kernel.shared,
            cluster: kernel.cluster,
            programmatic: module.target == Target::Sm90a,
            about: kernel.about,
        })
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        for module in self.modules.values() {
            // A lost context fails here too; there is nothing left to free then.
            let _ = self.driver.unload_module(*module);
        }
    }
}
