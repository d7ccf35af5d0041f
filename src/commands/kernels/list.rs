//! `pacer kernels list`: the GPU kernels in this binary, or those that a model would be served by.

use argh::{ArgsInfo, FromArgs};
use pacer_emulator::card::{CARDS, Card};
use pacer_emulator::timemodel::{BlockNeeds, Occupancy, occupancy};
use serde_json::json;

use super::super::{Run, out};
use crate::device::gpu::choose::record::{self, Chosen};
use crate::device::gpu::choose::{Card as Chooser, Half};
use crate::device::gpu::layout::Layout;
use crate::device::gpu::registry::{self, Kernel, Module};
use crate::engine::model::Model;
use crate::engine::options::{LoadFormat, ModelOptions};
use crate::error::{Error, Result};

/// Lists the GPU kernels in this binary: registers and shared memory as ptxas reports them, and
/// the share of each card's warps that full blocks fill (occupancy).
#[derive(FromArgs, ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
pub struct List {
    /// only kernels whose symbol has this in it (default: all)
    #[argh(option, arg_name = "NAME")]
    pub kernel: Option<String>,

    /// one JSON object a line instead of a table
    #[argh(switch)]
    pub json: bool,

    /// show which of them serve this model's products and attention on each card, by rows of a
    /// step; a folder with config.json is enough (default: list all kernels)
    #[argh(option, arg_name = "PATH")]
    pub model_path: Option<String>,

    /// most rows of a step that --model-path is shown for (default 8192)
    #[argh(option, arg_name = "N", default = "8192",
        from_str_fn(crate::commands::values::whole::<1, { 1 << 20 }>))]
    pub rows: usize,
}

impl Run for List {
    const NAME: &'static str = "kernels list";

    fn run(self) -> Result<()> {
        if let Some(path) = &self.model_path {
            return self.chosen(path);
        }
        let wanted = |k: &Kernel| self.kernel.as_ref().is_none_or(|n| k.symbol.contains(n));
        let kernels: Vec<_> = registry::kernels().filter(|(_, k)| wanted(k)).collect();
        if kernels.is_empty() {
            let name = self.kernel.as_deref().unwrap_or("");
            return Err(Error::usage(format!("--kernel {name}: no symbol has this in it")));
        }
        if !self.json {
            out::line(format!(
                "{:34} {:>7} {:>9} {:>9}  {:48} variant",
                "kernel", "threads", "registers", "smem B", "occupancy"
            ))?;
        }
        for (module, kernel) in kernels {
            self.tell(module, kernel)?;
        }
        Ok(())
    }
}

impl List {
    /// What the chooser picks for the model, card by card.
    fn chosen(&self, path: &str) -> Result<()> {
        let open = |format| {
            Model::open(&ModelOptions {
                path: Some(path.to_owned()),
                format,
                ..ModelOptions::default()
            })
        };
        // Kernels depend on shapes, and on the blocks of a GGUF file: on shapes without weights.
        let model = open(LoadFormat::Auto).or_else(|_| open(LoadFormat::Dummy))?;
        let layout = Layout::new(&model.plan, &model.weights, true);
        let exact = Chooser { wgmma_is_exact: true, ..Chooser::H100 };
        let cards = [
            ("A100 80GB SXM", Chooser::A100),
            ("H100 SXM, wgmma gives the bits of mma.sync", exact),
            ("H100 SXM, it does not", Chooser::H100),
        ];
        for (name, card) in cards {
            let chosen = record::record(&model.plan, &layout, &card, Half::Bf16, self.rows)?;
            if !self.json {
                out::line(format!("{name}, steps of up to {} rows:", self.rows))?;
            }
            let shown = |c: &&Chosen| {
                let of = |n: &String| c.kernels.iter().any(|(_, kernel)| kernel.contains(n));
                self.kernel.as_ref().is_none_or(of)
            };
            for one in chosen.iter().filter(shown) {
                let kernels = one.kernels.iter();
                let kernels = kernels.map(|(rows, k)| json!({ "from_rows": rows, "kernel": k }));
                out::line(match self.json {
                    false => format!("  {one}"),
                    true => json!({
                        "card": name,
                        "scope": one.scope,
                        "size": one.size,
                        "kernels": kernels.collect::<Vec<_>>(),
                    })
                    .to_string(),
                })?;
            }
        }
        Ok(())
    }

    fn tell(&self, module: &Module, kernel: &Kernel) -> Result<()> {
        let fills: Vec<(&Card, Occupancy)> = CARDS
            .iter()
            .filter(|card| module.target.runs_on(card.capability))
            .filter_map(|card| Some((*card, filled(kernel, card)?)))
            .collect();
        let registers = kernel.uses.iter().map(|u| u.1).max().unwrap_or(0);
        let shared = kernel.uses.iter().map(|u| u.2).max().unwrap_or(0) + kernel.shared;
        if self.json {
            let cards = fills.iter().map(|(card, o)| {
                json!({ "card": card.name, "blocks_per_sm": o.blocks, "share": share(card, *o) })
            });
            let uses = kernel.uses.iter().map(|(arch, registers, shared)| {
                json!({ "arch": arch, "registers": registers, "static_shared_bytes": shared })
            });
            return out::line(json!({
                "kernel": kernel.symbol,
                "module": module.name,
                "params": kernel.params,
                "threads": kernel.block,
                "cluster": kernel.cluster,
                "dynamic_shared_bytes": kernel.shared,
                "uses": uses.collect::<Vec<_>>(),
                "occupancy": cards.collect::<Vec<_>>(),
                "variant": kernel.about,
            }));
        }
        // H100 and H200 have the same multiprocessors; one of them speaks for all.
        let shown = fills.iter().filter(|(card, _)| !["H100 PCIe", "H200"].contains(&card.name));
        let text = shown.map(|(card, o)| format!("{} {:.0} %", card.name, 100.0 * share(card, *o)));
        out::line(format!(
            "{:34} {:>7} {registers:>9} {shared:>9}  {:48} {}",
            kernel.symbol,
            kernel.block,
            text.collect::<Vec<_>>().join(", "),
            kernel.about
        ))
    }
}

/// How many full blocks a multiprocessor of the card holds, by what ptxas said of the nearest
/// architecture not newer than it.
fn filled(kernel: &Kernel, card: &Card) -> Option<Occupancy> {
    let (major, minor) = card.capability;
    let code = |arch: &str| {
        let digits = arch.trim_start_matches("sm_").trim_end_matches('a');
        digits.parse::<u32>().ok()
    };
    let fits = |u: &&(&str, u32, u32)| code(u.0).is_some_and(|c| c <= major * 10 + minor);
    let (_, registers, shared) = kernel.uses.iter().filter(fits).max_by_key(|u| code(u.0))?;
    let needs =
        BlockNeeds { threads: kernel.block, registers: *registers, shared: shared + kernel.shared };
    Some(occupancy(card, needs))
}

/// Share of the multiprocessor's warps.
fn share(card: &Card, o: Occupancy) -> f64 {
    f64::from(o.warps * 32) / f64::from(card.threads_per_sm)
}
