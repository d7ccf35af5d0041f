//! Layer-wise NVTX ranges (`--enable-layerwise-nvtx-marker`). One grammar: a range's text is the
//! checkpoint's module path, then in brackets the op and its shapes, inputs and parameters before
//! the arrow and outputs behind it:
//!
//! ```text
//! step[DECODE bs=8]
//! model.layers.0 {
//!   model.layers.0.self_attn.qkv_proj [linear [8, 1024] x [1536, 1024] -> [8, 1536]]
//! ```
//!
//! A replayed graph shows one range, which says what it hides.

use crate::profile::describe::{Composition, Describe};
use crate::profile::nvtx::Nvtx;
use crate::profile::recorder::Ranges;

use super::describe::Described;

/// Ranges of one model's steps.
pub struct LayerRanges {
    model: Described,
    tool: &'static Nvtx,
    step: Composition,
    layer: Option<usize>,
}

impl LayerRanges {
    pub fn new(model: Described, tool: &'static Nvtx) -> LayerRanges {
        LayerRanges { model, tool, step: Composition::default(), layer: None }
    }

    /// The batch of the step that comes, for shapes.
    pub fn batch(&mut self, step: Composition) {
        self.step = step;
    }

    fn leave_layer(&mut self) {
        if self.layer.take().is_some() {
            self.tool.pop();
        }
    }
}

/// `model.layers.3` of `model.layers.3.mlp.down_proj`.
fn layer_path(scope: &str, layer: usize) -> String {
    let number = layer.to_string();
    let parts: Vec<&str> = scope.split('.').collect();
    let at = parts.iter().position(|p| *p == number);
    at.map_or_else(|| format!("layer {layer}"), |at| parts[..=at].join("."))
}

impl Ranges for LayerRanges {
    fn push(&mut self, text: &str) {
        self.tool.push(text);
    }

    fn pop(&mut self) {
        self.tool.pop();
    }

    fn op(&mut self, index: usize) {
        let info = self.model.ops().get(index).cloned().unwrap_or_default();
        if info.layer != self.layer {
            self.leave_layer();
            if let Some(layer) = info.layer {
                self.tool.push(&layer_path(&info.scope, layer));
                self.layer = Some(layer);
            }
        }
        let shape = self.model.shape(index, &self.step);
        self.tool.push(&format!("{} [{} {shape}]", info.scope, info.name));
    }

    fn ops_end(&mut self) {
        self.leave_layer();
    }

    fn graph(&mut self, ops: &[usize]) {
        let all = self.model.ops();
        let infos = ops.iter().filter_map(|i| all.get(*i));
        let layers: std::collections::BTreeSet<usize> = infos.filter_map(|i| i.layer).collect();
        let hidden = match (layers.first(), layers.last()) {
            (Some(first), Some(last)) => format!("layers {first} to {last}"),
            _ => "no layer".to_owned(),
        };
        self.tool.push(&format!("graph replay [hides {} kernels of {hidden}]", ops.len()));
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
