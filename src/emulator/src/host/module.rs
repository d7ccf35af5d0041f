//! Loading modules: PTX to kernels, variables to memory.

use std::sync::Arc;

use super::error::{Code, HostError, HostResult};
use super::machine::{Machine, State};
use crate::card::Card;
use crate::module::Module;

/// A module in the machine.
pub(super) struct LoadedModule {
    pub module: Arc<Module>,
    /// Addresses of its variables; 0 for those in shared memory.
    pub symbols: Arc<[u64]>,
}

/// Most PTX text that is read, bytes.
const MAX_TEXT: usize = 64 << 20;

impl Machine {
    /// Loads PTX text and places its variables.
    ///
    /// # Errors
    /// [`Code::InvalidPtx`] with line and form, [`Code::NoBinaryForGpu`] if it is for another
    /// card, [`Code::OutOfMemory`].
    pub fn load(&self, text: &str) -> HostResult<u64> {
        let text = text.trim_end_matches('\0');
        if text.len() > MAX_TEXT {
            return Err(HostError::new(Code::InvalidPtx, "more than 64 MiB of PTX"));
        }
        let module =
            Module::parse(text).map_err(|e| HostError::new(Code::InvalidPtx, e.to_string()))?;
        targets(&module.target, self.config().card)
            .map_err(|message| HostError::new(Code::NoBinaryForGpu, message))?;
        let mut state = self.state()?;
        let symbols = state.place(&module)?;
        let handle = state.handle();
        let loaded = LoadedModule { module: Arc::new(module), symbols: symbols.into() };
        state.modules.insert(handle, loaded);
        Ok(handle)
    }

    /// Unloads a module, its functions and its variables once all queued work is done.
    ///
    /// # Errors
    /// If there is none of this handle, or queued work fails.
    pub fn unload(&self, handle: u64) -> HostResult<()> {
        let mut state = self.state()?;
        state.drain_all()?;
        let Some(loaded) = state.modules.remove(&handle) else {
            return Err(HostError::handle("module", handle));
        };
        for address in loaded.symbols.iter().filter(|a| **a != 0) {
            state.memory.free(*address)?;
            state.used -= state.sizes.remove(address).unwrap_or(0);
        }
        state.functions.retain(|_, f| !Arc::ptr_eq(&f.module, &loaded.module));
        Ok(())
    }

    /// Address and size of a module's variable.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub fn variable(&self, handle: u64, name: &str) -> HostResult<(u64, u64)> {
        let state = self.state()?;
        let loaded = state.modules.get(&handle).ok_or(HostError::handle("module", handle))?;
        match loaded.module.variable(name) {
            Some(at) if loaded.symbols[at] != 0 => {
                Ok((loaded.symbols[at], loaded.module.variables[at].size))
            }
            _ => Err(HostError::new(Code::NotFound, format!("the module has no variable {name}"))),
        }
    }
}

impl State {
    fn place(&mut self, module: &Module) -> HostResult<Vec<u64>> {
        let mut symbols = Vec::with_capacity(module.variables.len());
        for variable in &module.variables {
            if variable.size == 0 {
                symbols.push(0);
                continue;
            }
            let address = self.memory.alloc(variable.size)?;
            self.used += variable.size;
            self.sizes.insert(address, variable.size);
            symbols.push(address);
        }
        for (variable, address) in module.variables.iter().zip(&symbols) {
            if *address == 0 {
                continue;
            }
            let mut bytes = vec![0; variable.size as usize];
            let given = variable.init.len().min(bytes.len());
            bytes[..given].copy_from_slice(&variable.init[..given]);
            for (at, index, offset) in &variable.links {
                let target = symbols.get(*index as usize).copied().unwrap_or(0);
                let value = target.wrapping_add_signed(*offset).to_le_bytes();
                if let Some(place) = bytes.get_mut(*at as usize..*at as usize + 8) {
                    place.copy_from_slice(&value);
                }
            }
            self.memory.write(*address, &bytes)?;
            if variable.constant {
                self.memory.protect(*address);
            }
        }
        Ok(symbols)
    }
}

/// Whether PTX for `target` (`sm_80`, `sm_90a`, `sm_100f`) runs on the card: plain targets on
/// every later one, architecture-specific ones (`a`) on their own only, family ones (`f`) within
/// the same major number.
fn targets(target: &str, card: &Card) -> Result<(), String> {
    let (major, minor) = card.capability;
    let have = major * 10 + minor;
    let digits: String = target.chars().filter(char::is_ascii_digit).collect();
    let want: u32 = digits.parse().map_err(|_| format!("target '{target}' is not sm_NN"))?;
    let fits = match target.chars().last() {
        Some('a') => have == want,
        Some('f') => have >= want && have / 10 == want / 10,
        _ => have >= want,
    };
    match fits {
        true => Ok(()),
        false => Err(format!("PTX for {target} cannot run on {} (sm_{have})", card.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::{A100, H100_SXM, L4};

    #[test]
    fn which_targets_run_on_which_card() {
        for good in ["sm_80", "sm_89", "sm_90", "sm_90a"] {
            assert!(targets(good, &H100_SXM).is_ok(), "{good}");
        }
        for bad in ["sm_100", "sm_100a", "sm_120f", "compute"] {
            assert!(targets(bad, &H100_SXM).is_err(), "{bad}");
        }
        assert!(targets("sm_90a", &A100).is_err());
        assert!(targets("sm_80", &L4).is_ok());
    }
}
