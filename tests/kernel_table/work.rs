//! From a launch's counters to the time model's work, and a line of the table.

use pacer::device::gpu::abi;
use pacer::device::gpu::choose::Geometry;
use pacer::device::gpu::registry;
use pacer_emulator::card::H100_SXM;
use pacer_emulator::tensor::swizzle::Swizzle;
use pacer_emulator::tensor::tensormap::{MapType, TensorMap};
use pacer_emulator::timemodel::{BlockNeeds, Work, project};
use pacer_emulator::{Checks, LaunchSpec, Memory, Module, Report, launch};

/// Memory and a launch of the shipped PTX.
#[derive(Default)]
pub struct Bench {
    memory: Memory,
    forms: Vec<String>,
}

/// A report with the forms its counters are for.
pub struct Ran {
    report: Report,
    forms: Vec<String>,
}

impl Bench {
    pub fn alloc(&mut self, bytes: usize) -> u64 {
        self.memory.alloc(bytes as u64).expect("host memory")
    }

    fn upload(&mut self, bytes: &[u8]) -> u64 {
        let address = self.alloc(bytes.len());
        self.memory.write(address, bytes).expect("an allocation of this size");
        address
    }

    pub fn words(&mut self, words: &[u32]) -> u64 {
        self.upload(&words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// Small bf16 numbers: 1/8, 2/8, … 1.
    pub fn halves(&mut self, count: usize) -> u64 {
        let number = |i: usize| (((i % 8 + 1) as f32 / 8.0).to_bits() >> 16) as u16;
        self.upload(&(0..count).flat_map(|i| number(i).to_le_bytes()).collect::<Vec<u8>>())
    }

    pub fn launch<P: Copy>(&mut self, symbol: &str, grid: [u32; 3], params: &P) -> Ran {
        let (_, kernel) = registry::kernel(symbol).expect("a kernel");
        self.launch_block(symbol, grid, kernel.block, params)
    }

    /// With fewer threads than the kernel's most.
    pub fn launch_block<P: Copy>(
        &mut self,
        symbol: &str,
        grid: [u32; 3],
        block: u32,
        params: &P,
    ) -> Ran {
        let (of, kernel) = registry::kernel(symbol).expect("a kernel");
        let module = Module::parse(&of.ptx().expect("PTX")).expect("checked-in PTX");
        let spec = LaunchSpec {
            kernel: symbol,
            grid,
            block: [block, 1, 1],
            cluster: [kernel.cluster, 1, 1],
            shared_bytes: kernel.shared,
            params: registry::param_bytes(params),
            symbols: &[],
            seed: 0,
            budget: 1 << 40,
            checks: Checks::FAST,
            threads: 0,
        };
        let report = launch(&module, &self.memory, &spec).unwrap_or_else(|f| panic!("{f}"));
        self.forms = module.kernel(symbol).expect("a kernel").forms.clone();
        Ran { report, forms: self.forms.clone() }
    }
}

/// The tensor map of a dense matrix, in boxes of 64 columns.
pub fn map(address: u64, rows: usize, columns: usize, box_rows: u32) -> abi::TensorMap {
    let (dims, strides) = ([columns as u64, rows as u64], [columns as u64 * 2]);
    let boxes = [64, box_rows];
    let map = TensorMap::tiled(MapType::Bf16, address, &dims, &strides, &boxes, Swizzle::B128);
    let bytes = map.expect("a valid map").encode();
    let mut words = [0u64; 16];
    for (word, eight) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = eight.iter().rev().fold(0, |w, byte| w << 8 | u64::from(*byte));
    }
    abi::TensorMap { words }
}

/// How a small run stands for the whole launch.
pub struct Load {
    /// The launch's work over the run's.
    pub scale: f64,
    /// Blocks of the launch.
    pub blocks: u64,
    /// Least bytes, and FLOPs that count.
    pub unique: f64,
    pub flops: f64,
    /// Bytes under way for a block.
    pub in_flight: f64,
}

/// Lane operations of the forms that `is` takes.
fn lanes(ran: &Ran, is: impl Fn(&str) -> bool) -> f64 {
    let counts = ran.forms.iter().zip(&ran.report.counters.by_form);
    counts.filter(|(form, _)| is(form)).map(|(_, c)| c.1 as f64).sum()
}

fn special(form: &str) -> bool {
    ["ex2", "rcp", "rsqrt", "lg2", "tanh"].iter().any(|s| form.starts_with(s))
}

fn float(form: &str) -> bool {
    let arithmetic = ["fma", "add", "mul", "sub", "max", "min"];
    arithmetic.iter().any(|s| form.starts_with(s)) && (form.contains("f32") || form.contains("f16"))
}

fn integer(form: &str) -> bool {
    let ops = ["add", "sub", "mul", "mad", "shl", "shr", "and", "or", "xor", "setp", "selp"];
    ops.iter().any(|s| form.starts_with(s)) && !form.contains("f32") && !form.contains("f16")
}

pub const HEAD: &str = concat!(
    "| launch | kernel | MB least | GFLOP | blocks/SM, warps | projected µs | bound ",
    "| of bytes | of FLOPs |\n|---|---|---|---|---|---|---|---|---|\n"
);

/// A line of the table, and the seconds it projects.
pub struct Row {
    pub text: String,
    pub seconds: f64,
}

/// What bounds the launch, and its share of memory's and the tensor cores' peaks.
pub fn row(name: &str, symbol: &str, geometry: Geometry, ran: &Ran, load: &Load) -> Row {
    let (_, kernel) = registry::kernel(symbol).expect("a kernel");
    let uses = kernel.uses.iter().find(|u| u.0.starts_with("sm_90")).expect("usage on sm_90");
    let needs =
        BlockNeeds { threads: geometry.block, registers: uses.1, shared: geometry.shared + uses.2 };
    let c = &ran.report.counters;
    let tensor = c.tensor_flops.iter().map(|f| f.1 as f64).sum::<f64>() * load.scale;
    // mma.sync reaches 62 % of wgmma's rate on this card.
    let rate = if symbol.contains("wgmma") { 1.0 } else { 0.62 };
    let work = Work {
        blocks: load.blocks,
        needs,
        warp_instructions: ran.report.instructions as f64 * load.scale,
        float_lane_ops: lanes(ran, float) * load.scale,
        int_lane_ops: lanes(ran, integer) * load.scale,
        special_lane_ops: lanes(ran, special) * load.scale,
        tensor_flops: [0.0, tensor / rate, 0.0, 0.0],
        shared_passes: c.wavefronts as f64 * load.scale,
        l2_bytes: c.sectors as f64 * 32.0 * load.scale,
        memory_bytes: load.unique,
        bytes_in_flight_per_warp: load.in_flight / f64::from(geometry.block / 32),
        dependent_accesses: 3.0,
    };
    let p = project(&H100_SXM, &work).expect("fits");
    let of_bytes = load.unique / p.seconds / H100_SXM.memory_bandwidth * 100.0;
    let of_flops = load.flops / p.seconds / 989.4e12 * 100.0;
    let text = format!(
        "| {name} | `{symbol}` | {:.2} | {:.3} | {}, {} | {:.1} | {} | {of_bytes:.0} % | \
         {of_flops:.0} % |\n",
        load.unique / 1e6,
        load.flops / 1e9,
        p.occupancy.blocks,
        p.occupancy.warps,
        p.seconds * 1e6,
        p.bound.name(),
    );
    Row { text, seconds: p.seconds }
}
