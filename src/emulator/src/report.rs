//! The report of a launch, as text and as JSON: what was counted beside the least possible, and
//! what the time model makes of it on each card.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::analysis::estimated_registers;
use crate::card::{CARDS, Card};
use crate::exec::{Report, Site};
use crate::isa::{Class, Kernel};
use crate::module::Module;
use crate::timemodel::{BlockNeeds, Projection, Work, project};

/// A launch that ran to its end, ready to be told.
#[derive(Debug)]
pub struct Summary<'a> {
    pub module: &'a Module,
    pub kernel: &'a Kernel,
    pub report: &'a Report,
    /// Threads and shared memory of a block; registers as the assembler reports them, or 0 for an
    /// estimate from the PTX.
    pub needs: BlockNeeds,
    pub cards: Vec<&'static Card>,
}

/// Counts of one line of source text.
struct Line {
    place: String,
    site: Site,
}

impl<'a> Summary<'a> {
    /// A summary for every card known.
    pub fn new(
        module: &'a Module,
        kernel: &'a Kernel,
        report: &'a Report,
        needs: BlockNeeds,
    ) -> Self {
        Self { module, kernel, report, needs, cards: CARDS.to_vec() }
    }

    /// Registers of a thread, and whether they are an estimate.
    pub fn registers(&self) -> (u32, bool) {
        match self.needs.registers {
            0 => (estimated_registers(self.kernel), true),
            n => (n, false),
        }
    }

    /// Projected durations, one a card; `None` where a block does not fit or the card lacks the
    /// matrix type.
    pub fn projections(&self) -> Vec<(&'static str, Option<Projection>)> {
        let needs = BlockNeeds { registers: self.registers().0, ..self.needs };
        let work = Work::of(self.kernel, self.report, needs);
        let of = |card: &&'static Card| {
            let runs = runs_on(&self.module.target, card);
            (card.name, if runs { project(card, &work) } else { None })
        };
        self.cards.iter().map(of).collect()
    }

    /// Warp and lane instructions of each class that occurs.
    pub fn classes(&self) -> Vec<(Class, u64, u64)> {
        let sites = || self.kernel.code.iter().zip(&self.report.counters.sites);
        let of = |class: Class| {
            let mine = sites().filter(|(i, _)| i.op.class() == class);
            mine.fold((class, 0, 0), |n, (_, s)| (class, n.1 + s.warps, n.2 + s.lanes))
        };
        Class::ALL.into_iter().map(of).filter(|c| c.1 > 0).collect()
    }

    /// Floating-point operations on the CUDA cores.
    pub fn core_flops(&self) -> u64 {
        let sites = self.kernel.code.iter().zip(&self.report.counters.sites);
        sites.map(|(i, s)| i.op.flops() * s.lanes).sum()
    }

    /// Instructions whose shared-memory accesses need more passes than they must: index into the
    /// code, most extra passes first.
    pub fn conflicts(&self) -> Vec<usize> {
        self.worst(|s| s.wavefronts - s.wavefronts_least)
    }

    /// Instructions that touch more sectors than their bytes fill, worst first.
    pub fn scattered(&self) -> Vec<usize> {
        self.worst(|s| s.sectors.saturating_sub(s.sectors_least))
    }

    fn worst(&self, extra: impl Fn(&Site) -> u64) -> Vec<usize> {
        let sites = &self.report.counters.sites;
        let mut list: Vec<usize> = (0..sites.len()).filter(|i| extra(&sites[*i]) > 0).collect();
        list.sort_by_key(|i| std::cmp::Reverse(extra(&sites[*i])));
        list
    }

    fn place(&self, pc: usize) -> String {
        let Some(instr) = self.kernel.code.get(pc) else { return String::new() };
        let at = (instr.loc as usize).checked_sub(1).and_then(|i| self.kernel.locs.get(i));
        match at {
            Some((file, line)) => {
                let name = self.module.files.iter().find(|(n, _)| n == file);
                let name = name.map_or("?", |(_, name)| name.rsplit('/').next().unwrap_or(name));
                format!("{name}:{line}")
            }
            None => format!("PTX line {}", instr.line),
        }
    }

    /// Counts by line of the CUDA source where the PTX has `.loc`, else by line of the PTX.
    fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for (pc, site) in self.report.counters.sites.iter().enumerate() {
            if site.warps == 0 {
                continue;
            }
            let place = self.place(pc);
            match lines.iter_mut().find(|l| l.place == place) {
                Some(line) => line.site.add(site),
                None => lines.push(Line { place, site: *site }),
            }
        }
        lines
    }

    /// The report as JSON; with `lines`, counts by source line too.
    pub fn json(&self, lines: bool) -> Value {
        let c = &self.report.counters;
        let (registers, estimated) = self.registers();
        let classes: serde_json::Map<String, Value> = self
            .classes()
            .into_iter()
            .map(|(class, w, l)| (class.name().into(), json!({"warps": w, "lanes": l})))
            .collect();
        let tensor: serde_json::Map<String, Value> =
            c.tensor_flops.iter().map(|(ty, n)| (ty.name().into(), json!(n))).collect();
        let site = |pc: &usize| {
            let form = self.kernel.forms.get(self.kernel.code[*pc].form as usize);
            merge(json!({"place": self.place(*pc), "form": form}), site_json(&c.sites[*pc]))
        };
        let by_line = || {
            self.lines()
                .into_iter()
                .map(|l| merge(json!({"place": l.place}), site_json(&l.site)))
                .collect::<Vec<_>>()
        };
        json!({
            "blocks": self.report.blocks,
            "threads_per_block": self.needs.threads,
            "registers": registers,
            "registers_estimated": estimated,
            "shared_bytes": self.needs.shared,
            "warp_instructions": self.report.instructions,
            "lane_instructions": self.report.lane_instructions,
            "classes": classes,
            "flops": json!({"cuda_cores": self.core_flops(), "tensor": tensor}),
            "global": json!({
                "read_bytes": c.global_read, "written_bytes": c.global_written,
                "sectors": c.sectors, "sectors_least": c.sectors_least,
                "distinct_read_bytes": c.distinct_read,
                "distinct_written_bytes": c.distinct_written,
            }),
            "shared": json!({
                "read_bytes": c.shared_read, "written_bytes": c.shared_written,
                "passes": c.wavefronts, "passes_least": c.wavefronts_least,
            }),
            "local": json!({"read_bytes": c.local_read, "written_bytes": c.local_written}),
            "barrier_waits": c.barrier_waits,
            "bank_conflicts": self.conflicts().iter().map(site).collect::<Vec<_>>(),
            "scattered_accesses": self.scattered().iter().map(site).collect::<Vec<_>>(),
            "lines": if lines { json!(by_line()) } else { Value::Null },
            "projected": self.projections().into_iter().map(projected).collect::<Vec<_>>(),
        })
    }

    /// The report as text; with `lines`, a table by source line too.
    pub fn text(&self, lines: bool) -> String {
        let c = &self.report.counters;
        let mut out = String::new();
        let (registers, estimated) = self.registers();
        let _ = writeln!(
            out,
            "blocks        {} of {} threads, {} registers{}, {} bytes of shared memory",
            self.report.blocks,
            self.needs.threads,
            registers,
            if estimated { " (estimated)" } else { "" },
            self.needs.shared
        );
        let _ = writeln!(
            out,
            "instructions  {} of warps, {} of lanes",
            self.report.instructions, self.report.lane_instructions
        );
        let parts: Vec<String> =
            self.classes().iter().map(|(class, w, _)| format!("{} {w}", class.name())).collect();
        let _ = writeln!(out, "  by class    {}", parts.join(", "));
        let mut flops = vec![format!("CUDA cores {}", self.core_flops())];
        flops.extend(c.tensor_flops.iter().map(|(ty, n)| format!("tensor {} {n}", ty.name())));
        let _ = writeln!(out, "FLOPs         {}", flops.join(", "));
        let _ = writeln!(
            out,
            "global        {} bytes read, {} written; {} sectors, least {} ({})",
            c.global_read,
            c.global_written,
            c.sectors,
            c.sectors_least,
            ratio(c.sectors, c.sectors_least)
        );
        let _ = writeln!(
            out,
            "  distinct    {} bytes read, {} written",
            c.distinct_read, c.distinct_written
        );
        let _ = writeln!(
            out,
            "shared        {} bytes read, {} written; {} passes, least {} ({})",
            c.shared_read,
            c.shared_written,
            c.wavefronts,
            c.wavefronts_least,
            ratio(c.wavefronts, c.wavefronts_least)
        );
        if c.local_read + c.local_written > 0 {
            let _ = writeln!(
                out,
                "local         {} bytes read, {} written",
                c.local_read, c.local_written
            );
        }
        let _ = writeln!(out, "barrier waits {}", c.barrier_waits);
        self.worst_text(&mut out);
        if lines {
            self.lines_text(&mut out);
        }
        for (card, p) in self.projections() {
            let _ = match p {
                Some(p) => writeln!(out, "{p}"),
                None => writeln!(out, "projected: does not run on {card}"),
            };
        }
        out
    }

    fn worst_text(&self, out: &mut String) {
        let c = &self.report.counters;
        let form = |pc: usize| {
            self.kernel.forms.get(self.kernel.code[pc].form as usize).map_or("?", |f| f.as_str())
        };
        for pc in self.conflicts().into_iter().take(8) {
            let s = &c.sites[pc];
            let (place, n, least) = (self.place(pc), s.wavefronts, s.wavefronts_least);
            let _ =
                writeln!(out, "bank conflict {n} passes, least {least}: {} at {place}", form(pc));
        }
        for pc in self.scattered().into_iter().take(8) {
            let s = &c.sites[pc];
            let (place, n, least) = (self.place(pc), s.sectors, s.sectors_least);
            let _ =
                writeln!(out, "scattered     {n} sectors, least {least}: {} at {place}", form(pc));
        }
    }

    fn lines_text(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "{:>12} {:>14} {:>12} {:>10} {:>10} {:>10} {:>10} {:>8}  line",
            "warps", "lanes", "global bytes", "sectors", "least", "passes", "least", "waits"
        );
        for Line { place, site: s } in self.lines() {
            let _ = writeln!(
                out,
                "{:>12} {:>14} {:>12} {:>10} {:>10} {:>10} {:>10} {:>8}  {place}",
                s.warps,
                s.lanes,
                s.global_bytes,
                s.sectors,
                s.sectors_least,
                s.wavefronts,
                s.wavefronts_least,
                s.waits
            );
        }
    }
}

/// Whether code for a target runs on a card: `sm_80` on 8.0 and later, `sm_90a` on 9.0 alone.
fn runs_on(target: &str, card: &Card) -> bool {
    let name = target.split(',').next().unwrap_or(target).trim();
    let Some(number) = name.strip_prefix("sm_") else { return true };
    let digits = number.trim_end_matches(|c: char| c.is_alphabetic());
    let wanted: u32 = digits.parse().unwrap_or(0);
    let has = card.capability.0 * 10 + card.capability.1;
    if number.ends_with('a') { has == wanted } else { has >= wanted }
}

fn merge(mut a: Value, b: Value) -> Value {
    if let (Some(a), Value::Object(b)) = (a.as_object_mut(), b) {
        a.extend(b);
    }
    a
}

fn site_json(s: &Site) -> Value {
    json!({
        "warps": s.warps, "lanes": s.lanes,
        "global_bytes": s.global_bytes, "sectors": s.sectors, "sectors_least": s.sectors_least,
        "shared_bytes": s.shared_bytes, "passes": s.wavefronts,
        "passes_least": s.wavefronts_least, "waits": s.waits,
    })
}

fn projected((card, p): (&'static str, Option<Projection>)) -> Value {
    let Some(p) = p else {
        return json!({"card": card, "projected_seconds": null, "bound": null});
    };
    let bounds: serde_json::Map<String, Value> =
        p.bounds.iter().map(|(b, s)| (b.name().into(), json!(s))).collect();
    json!({
        "card": card, "projected_seconds": p.seconds, "bound": p.bound.name(),
        "projected_seconds_by_bound": bounds,
        "blocks_per_sm": p.occupancy.blocks, "warps_per_sm": p.occupancy.warps,
    })
}

/// `1.25 times`, or `-` when there is nothing to compare.
fn ratio(n: u64, least: u64) -> String {
    match least {
        0 => "-".into(),
        _ => format!("{:.2} times", n as f64 / least as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::{A100, H100_SXM, L4};

    #[test]
    fn code_runs_on_its_own_and_later_cards() {
        assert!(runs_on("sm_80", &A100) && runs_on("sm_80", &L4) && runs_on("sm_80", &H100_SXM));
        assert!(runs_on("sm_90a", &H100_SXM) && !runs_on("sm_90a", &A100));
        assert!(!runs_on("sm_89", &A100) && runs_on("sm_89", &L4));
    }
}
