//! A device that says what a test has written down: the token after position p is the script's
//! p-th, whatever came before.

use pacer::device::{Batch, Device, DeviceInfo, Limits, Loaded, MemoryUse};
use pacer::error::Result;
use pacer::model::cost::Storage;
use pacer::model::plan::Plan;
use pacer::profile::recorder::Recorder;
use pacer::types::{Dtype, TokenId};
use pacer::weights::Weights;

pub struct ScriptDevice {
    pub script: Vec<TokenId>,
}

impl Device for ScriptDevice {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            kind: "script",
            name: "a script".to_owned(),
            detail: format!("{} tokens", self.script.len()),
            memory_free: 1 << 40,
            memory_total: 1 << 40,
        }
    }

    fn element_bytes(&self, _: &Plan, _: &Weights) -> (usize, usize) {
        (0, 0)
    }

    fn prepare(
        &self,
        plan: &Plan,
        _: &Weights,
        limits: &Limits,
        _: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Loaded>> {
        let logits = vec![0.0; limits.logit_rows * plan.vocab_size];
        Ok(Box::new(Actor { script: self.script.clone(), vocab: plan.vocab_size, logits, rows: 0 }))
    }
}

struct Actor {
    script: Vec<TokenId>,
    vocab: usize,
    /// `[logit_rows, vocab]`.
    logits: Vec<f32>,
    rows: usize,
}

impl Loaded for Actor {
    fn step(&mut self, batch: &Batch, _: &mut Recorder) -> Result<()> {
        self.rows = batch.logit_rows.len();
        for (index, &row) in batch.logit_rows.iter().enumerate() {
            let span = batch.spans.iter().find(|s| (s.start..s.start + s.len).contains(&row));
            let position = span.map_or(0, |s| s.past + row - s.start);
            let token = self.script[position % self.script.len()];
            let logits = &mut self.logits[index * self.vocab..(index + 1) * self.vocab];
            logits.fill(0.0);
            logits[token as usize] = 30.0;
        }
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        &self.logits[..self.rows * self.vocab]
    }

    fn copy_page(&mut self, _: u32, _: u32, _: usize) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }

    fn storage(&self) -> Storage<'_> {
        Storage { matrix_bytes: &|_| 0, kv_element: 0, activation_element: 0 }
    }

    fn weight_dtype(&self) -> Dtype {
        Dtype::F32
    }
}
