//! Programmatic dependent launches: a grid may begin when every block of the one before it has
//! executed `griddepcontrol.launch_dependents` or ended. What that one writes is there for those
//! who execute `griddepcontrol.wait` and whoever is ordered after them. (PTX ISA,
//! `griddepcontrol`: if the prerequisite grid uses `launch_dependents`, the dependent grid must
//! use `wait`.)

use super::cluster::Ctx;
use crate::isa::{Kernel, Op};

/// Launches of a stream that the next one, if it is a dependent launch, may overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prior {
    /// Launch numbers that may still run when the next grid begins.
    pub(crate) at_begin: Vec<u8>,
    /// And when it has waited.
    pub(crate) after_wait: Vec<u8>,
}

impl Prior {
    /// What a grid, launch number `own`, leaves to the one after it.
    pub(crate) fn after(k: &Kernel, own: u8, before: &Self) -> Self {
        let uses = |wait| k.code.iter().any(|i| i.op == Op::GridDependency { wait });
        // A grid that waits ends after those before it.
        let earlier = if uses(true) { &before.after_wait } else { &before.at_begin };
        let at_begin = match uses(false) {
            true => before.at_begin.iter().copied().chain([own]).collect(),
            false => earlier.clone(),
        };
        Self { at_begin, after_wait: earlier.clone() }
    }
}

impl Ctx<'_> {
    /// The executing lanes wait for the grids before this one.
    pub fn grid_wait(&mut self) {
        if self.env.prior.at_begin.is_empty() {
            return;
        }
        let mask = self.warp.mask;
        self.change_clocks(mask, |clock, _| !std::mem::replace(&mut clock.waited, true));
    }
}
