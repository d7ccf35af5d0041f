//! A device that fails when a test tells it to: around any other device, at the k-th call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::sampling::{Most, Sampled, Sampling};
use super::{Batch, Device, DeviceInfo, Limits, Loaded, MemoryUse};
use crate::error::{Error, Kind, Result};
use crate::model::cost::Storage;
use crate::model::plan::Plan;
use crate::profile::recorder::Recorder;
use crate::types::Dtype;
use crate::weights::Weights;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This call fails, the device stays usable.
    Recoverable,
    /// This call and all later ones fail: an illegal address, a lost card.
    Sticky,
    /// The call takes this much longer.
    Hang(Duration),
    Panic,
}

/// Where a fault strikes. All count from 1, each kind for itself; the last three are seams of the
/// engine, where only a panic makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Step(u64),
    Copy(u64),
    Sampler(u64),
    Grammar(u64),
    Text(u64),
}

/// The faults to come, shared with the test that plans them.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    planned: Arc<Mutex<Vec<(Place, Fault)>>>,
    steps: Arc<AtomicU64>,
    copies: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    seams: Arc<[AtomicU64; 3]>,
}

impl Faults {
    pub fn plan(&self, place: Place, fault: Fault) {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).push((place, fault));
    }

    /// Lets `fault` strike the next step.
    pub fn next_step(&self, fault: Fault) {
        self.plan(Place::Step(self.steps() + 1), fault);
    }

    /// Steps that were begun.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::SeqCst)
    }

    /// Page copies that were begun.
    pub fn copies(&self) -> u64 {
        self.copies.load(Ordering::SeqCst)
    }

    /// Passes one of the engine's seams.
    ///
    /// # Panics
    /// If that was planned.
    pub fn count(&self, seam: fn(u64) -> Place) {
        let at = match seam(0) {
            Place::Step(_) | Place::Copy(_) => return,
            Place::Sampler(_) => 0,
            Place::Grammar(_) => 1,
            Place::Text(_) => 2,
        };
        let number = self.seams[at].fetch_add(1, Ordering::SeqCst) + 1;
        // Other faults are those of a device.
        let _ = self.strike(seam(number));
    }

    fn strike(&self, place: Place) -> Result<()> {
        let lost = || Error::new(Kind::DeviceLost, "injected: the device is lost");
        if self.lost.load(Ordering::SeqCst) > 0 {
            return Err(lost());
        }
        let planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (_, fault) in planned.iter().filter(|(p, _)| *p == place) {
            match fault {
                Fault::Recoverable => return Err(Error::device("injected: the launch failed")),
                Fault::Sticky => {
                    self.lost.store(1, Ordering::SeqCst);
                    return Err(lost());
                }
                Fault::Hang(time) => std::thread::sleep(*time),
                Fault::Panic => panic!("injected: panic at {place:?}"),
            }
        }
        Ok(())
    }
}

/// Another device, with faults.
pub struct FaultyDevice {
    pub inner: Box<dyn Device>,
    pub faults: Faults,
}

impl Device for FaultyDevice {
    fn info(&self) -> DeviceInfo {
        self.inner.info()
    }

    fn element_bytes(&self, plan: &Plan, weights: &Weights) -> (usize, usize) {
        self.inner.element_bytes(plan, weights)
    }

    fn prepare(
        &self,
        plan: &Plan,
        weights: &Weights,
        limits: &Limits,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Loaded>> {
        let inner = self.inner.prepare(plan, weights, limits, progress)?;
        Ok(Box::new(FaultyLoaded { inner, faults: self.faults.clone() }))
    }
}

struct FaultyLoaded {
    inner: Box<dyn Loaded>,
    faults: Faults,
}

impl Loaded for FaultyLoaded {
    fn step(&mut self, batch: &Batch, recorder: &mut Recorder) -> Result<()> {
        let number = self.faults.steps.fetch_add(1, Ordering::SeqCst) + 1;
        self.faults.strike(Place::Step(number))?;
        self.inner.step(batch, recorder)
    }

    fn samples(&self) -> Option<Most> {
        self.inner.samples()
    }

    fn step_sampled(
        &mut self,
        batch: &Batch,
        sampling: &Sampling,
        out: &mut Sampled,
        recorder: &mut Recorder,
    ) -> Result<()> {
        let number = self.faults.steps.fetch_add(1, Ordering::SeqCst) + 1;
        self.faults.strike(Place::Step(number))?;
        self.inner.step_sampled(batch, sampling, out, recorder)
    }

    fn logits(&self) -> &[f32] {
        self.inner.logits()
    }

    fn copy_page(&mut self, from: u32, to: u32, tokens: usize) -> Result<()> {
        let number = self.faults.copies.fetch_add(1, Ordering::SeqCst) + 1;
        self.faults.strike(Place::Copy(number))?;
        self.inner.copy_page(from, to, tokens)
    }

    fn memory(&self) -> MemoryUse {
        self.inner.memory()
    }

    fn storage(&self) -> Storage<'_> {
        self.inner.storage()
    }

    fn weight_dtype(&self) -> Dtype {
        self.inner.weight_dtype()
    }
}
