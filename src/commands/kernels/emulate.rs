//! `pacer kernels emulate`: one kernel of a PTX file on the PTX machine, with its report.

use std::path::PathBuf;
use std::process::Command;

use argh::{ArgsInfo, FromArgs};
use pacer_emulator::card::{CARDS, Card};
use pacer_emulator::isa::Kernel;
use pacer_emulator::report::Summary;
use pacer_emulator::timemodel::BlockNeeds;
use pacer_emulator::{Checks, LaunchSpec, Module, Report, launch};
use serde_json::json;

use super::super::{Run, out, values};
use super::arguments::{self, Arguments};
use crate::error::{Error, Kind, Result};

/// Runs one kernel of a PTX file on the PTX machine, a strict software model of a GPU, and reports
/// broken rules, counts beside the least possible, and projected times. Exit 1 if a rule is broken.
#[derive(FromArgs, ArgsInfo, Debug, Clone, PartialEq)]
#[argh(
    help_triggers("--help"),
    note = "Arguments, in the kernel's order: buf:BYTES[:FILL] and \
            map:TYPE:DIMS:BOX[:SWIZZLE[:FILL]] make a buffer (the latter with a tensor map over \
            it; sizes innermost first, as map:bf16:328x200:64x128:128), i32:N u32:N i64:N u64:N \
            f32:X f64:X are scalars, hex:0102… is raw bytes. BYTES may end in K, M or G. FILL is \
            none (unwritten; the default), zero, \
            iota (0, 1, 2 … in 32 bits), byte=N, random=TYPE (f32, f16, bf16: uniform in \
            [-1, 1); u8: any byte), or file=PATH. Times are projected by a roofline, never \
            measured."
)]
pub struct Emulate {
    /// the PTX file
    #[argh(positional, arg_name = "FILE")]
    pub file: PathBuf,

    /// name of the kernel (default: the only one in the file)
    #[argh(option, arg_name = "NAME")]
    pub kernel: Option<String>,

    /// blocks of the grid, one to three numbers (default 1)
    #[argh(option, arg_name = "N", from_str_fn(values::whole::<1, { u32::MAX as u64 }>))]
    pub grid: Vec<usize>,

    /// threads of a block, one to three numbers (default 32)
    #[argh(option, arg_name = "N", from_str_fn(values::whole::<1, 1024>))]
    pub block: Vec<usize>,

    /// blocks of a cluster, one to three numbers (default: what the kernel declares)
    #[argh(option, arg_name = "N", from_str_fn(values::whole::<1, 16>))]
    pub cluster: Vec<usize>,

    /// the kernel's arguments in order; see below
    #[argh(option, arg_name = "ARG")]
    pub args: Vec<String>,

    /// dynamic shared memory of a block, bytes (default 0)
    #[argh(option, arg_name = "N", default = "0", from_str_fn(values::whole::<0, 232448>))]
    pub shared: usize,

    /// registers of a thread, for the projection (default: as ptxas says where it is found in
    /// PACER_CUDA_TOOLKIT or on PATH, else an estimate)
    #[argh(option, arg_name = "N", default = "0", from_str_fn(values::whole::<0, 255>))]
    pub registers: usize,

    /// seed of random fills and of the first schedule; 0 is the plainest schedule (default 0)
    #[argh(option, arg_name = "N", default = "0", from_str_fn(values::seed))]
    pub seed: u64,

    /// schedules to run, each on fresh memory; the counts are those of the first (default 1)
    #[argh(option, arg_name = "N", default = "1", from_str_fn(values::whole::<1, 100_000>))]
    pub schedules: usize,

    /// most warp instructions of one cluster of blocks (default 1000000000)
    #[argh(option, arg_name = "N", default = "1_000_000_000",
        from_str_fn(values::whole::<1, { u64::MAX }>))]
    pub budget: usize,

    /// host threads (default: one per core)
    #[argh(option, arg_name = "N", default = "0", from_str_fn(values::whole::<0, 1024>))]
    pub threads: usize,

    /// cards to project for: h100-sxm, h100-pcie, h200, a100, l4, rtx4090 (default: all)
    #[argh(option, arg_name = "CARD", from_str_fn(card))]
    pub card: Vec<&'static Card>,

    /// write what an argument's buffer holds afterwards, as INDEX=PATH with the index from 0
    #[argh(option, arg_name = "INDEX=PATH", from_str_fn(dump))]
    pub dump: Vec<(usize, PathBuf)>,

    /// counts by source line, too
    #[argh(switch)]
    pub lines: bool,

    /// one JSON object instead of text
    #[argh(switch)]
    pub json: bool,
}

fn card(name: &str) -> std::result::Result<&'static Card, String> {
    let names: Vec<&str> = CARDS.iter().map(|c| c.name).collect();
    Card::named(name).ok_or_else(|| values::expected_one_of(&names))
}

fn dump(value: &str) -> std::result::Result<(usize, PathBuf), String> {
    let parts = value.split_once('=').and_then(|(n, path)| Some((n.parse().ok()?, path)));
    parts
        .filter(|(_, path)| !path.is_empty())
        .map(|(n, path)| (n, PathBuf::from(path)))
        .ok_or_else(|| "expected INDEX=PATH, such as 2=out.bin".into())
}

impl Run for Emulate {
    const NAME: &'static str = "kernels emulate";

    fn run(self) -> Result<()> {
        let text = std::fs::read_to_string(&self.file).map_err(|e| Error::io(&self.file, &e))?;
        let module = Module::parse(&text).map_err(|e| Error::file(&self.file, e))?;
        let kernel = self.find(&module)?;
        let mut first = None;
        for n in 0..self.schedules as u64 {
            let ran = self.launch(&module, kernel, self.seed.wrapping_add(n));
            let ran = match ran? {
                Ok(ran) => ran,
                Err(fault) => return self.broken(&fault, self.seed.wrapping_add(n)),
            };
            first.get_or_insert(ran);
        }
        let Some(report) = first else { return Ok(()) };
        self.tell(&module, kernel, &report)
    }
}

/// A broken rule: its short name, and all that is known of it.
struct Broken {
    rule: &'static str,
    message: String,
}

fn axes(flag: &str, given: &[usize], default: u32) -> Result<[u32; 3]> {
    if given.len() > 3 {
        return Err(Error::usage(format!("{flag}: {} numbers; at most three", given.len())));
    }
    let at = |i: usize| given.get(i).map_or(1, |n| *n as u32);
    Ok(if given.is_empty() { [default, 1, 1] } else { [at(0), at(1), at(2)] })
}

impl Emulate {
    fn find<'m>(&self, module: &'m Module) -> Result<&'m Kernel> {
        let names =
            || module.kernels.iter().map(|k| k.name.as_str()).collect::<Vec<_>>().join(", ");
        match &self.kernel {
            Some(name) => module.kernel(name).ok_or_else(|| {
                let what = format!("no kernel {name}; the file has: {}", names());
                Error::usage(format!("--kernel: {}: {what}", self.file.display()))
            }),
            None if module.kernels.len() == 1 => Ok(&module.kernels[0]),
            None => Err(Error::usage(format!(
                "--kernel is needed: {} has {} kernels ({})",
                self.file.display(),
                module.kernels.len(),
                names()
            ))),
        }
    }

    fn launch(
        &self,
        module: &Module,
        kernel: &Kernel,
        seed: u64,
    ) -> Result<std::result::Result<Report, Broken>> {
        let Arguments { memory, params, symbols, buffers } =
            arguments::prepare(module, kernel, &self.args, self.seed)?;
        let spec = LaunchSpec {
            kernel: &kernel.name,
            grid: axes("--grid", &self.grid, 1)?,
            block: axes("--block", &self.block, 32)?,
            cluster: axes("--cluster", &self.cluster, 1)?,
            shared_bytes: self.shared as u32,
            params: &params,
            symbols: &symbols,
            seed,
            budget: self.budget as u64,
            checks: Checks::ALL,
            threads: self.threads,
        };
        let report = match launch(module, &memory, &spec) {
            Ok(report) => report,
            Err(fault) => {
                let (rule, message) = (fault.rule.name(), fault.to_string());
                return Ok(Err(Broken { rule, message }));
            }
        };
        for (index, path) in &self.dump {
            let Some((address, bytes)) = buffers.get(*index).copied().flatten() else {
                return Err(Error::usage(format!("--dump {index}: argument {index} is no buffer")));
            };
            let mut data = vec![0; bytes];
            memory.read(address, &mut data).map_err(|e| Error::device(e.to_string()))?;
            std::fs::write(path, data).map_err(|e| Error::io(path, &e))?;
        }
        Ok(Ok(report))
    }

    fn broken(&self, broken: &Broken, seed: u64) -> Result<()> {
        let Broken { rule, message } = broken;
        if self.json {
            out::line(json!({
                "ok": false, "seed": seed, "rule": rule, "finding": message, "counters": null,
            }))?;
        }
        Err(Error::new(Kind::Device, format!("schedule {seed}: {message}")))
    }

    fn tell(&self, module: &Module, kernel: &Kernel, report: &Report) -> Result<()> {
        let block = axes("--block", &self.block, 32)?;
        let registers = match self.registers {
            0 => assembler_registers(&self.file, module, &kernel.name).unwrap_or(0),
            n => n as u32,
        };
        let shared = if kernel.uses_dyn_shared { kernel.dyn_base } else { kernel.shared_bytes };
        let needs = BlockNeeds {
            threads: block.iter().product(),
            registers,
            shared: shared + self.shared as u32,
        };
        let mut summary = Summary::new(module, kernel, report, needs);
        if !self.card.is_empty() {
            summary.cards.clone_from(&self.card);
        }
        if self.json {
            return out::line(json!({
                "ok": true, "file": self.file.display().to_string(), "kernel": kernel.name,
                "target": module.target, "grid": axes("--grid", &self.grid, 1)?, "block": block,
                "seed": self.seed, "schedules": self.schedules,
                "counters": summary.json(self.lines),
            }));
        }
        out::line(format_args!(
            "{} ({}), {} schedule{}: no rule broken",
            kernel.name,
            module.target,
            self.schedules,
            if self.schedules == 1 { "" } else { "s" }
        ))?;
        out::line(summary.text(self.lines).trim_end())
    }
}

/// Registers that ptxas gives the kernel, if there is a ptxas to ask.
fn assembler_registers(file: &std::path::Path, module: &Module, kernel: &str) -> Option<u32> {
    let toolkit = std::env::var_os("PACER_CUDA_TOOLKIT");
    let ptxas = toolkit.map_or("ptxas".into(), |t| PathBuf::from(t).join("bin/ptxas"));
    let arch = format!("-arch={}", module.target.split(',').next().unwrap_or("sm_80"));
    let said =
        Command::new(ptxas).args(["-v", &arch, "-o", "/dev/null"]).arg(file).output().ok()?;
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    registers_in(&text, kernel)
}

/// `Used 40 registers` of the function that `Compiling entry function 'NAME'` began.
fn registers_in(text: &str, kernel: &str) -> Option<u32> {
    let name = format!("'{kernel}'");
    let own = text.lines().skip_while(|l| !(l.contains("entry function") && l.contains(&name)));
    let used = own.skip(1).take_while(|l| !l.contains("entry function"));
    used.filter_map(|l| l.split_once("Used "))
        .find_map(|(_, rest)| rest.split(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_of_the_right_kernel() {
        let text = "ptxas info    : Compiling entry function 'a' for 'sm_90a'\n\
                    ptxas info    : Used 12 registers, used 0 barriers\n\
                    ptxas info    : Compiling entry function 'b' for 'sm_90a'\n\
                    ptxas info    : Function properties for b\n\
                    ptxas info    : Used 168 registers, used 1 barriers";
        assert_eq!(registers_in(text, "a"), Some(12));
        assert_eq!(registers_in(text, "b"), Some(168));
        assert_eq!(registers_in(text, "c"), None);
    }

    #[test]
    fn dumps_name_an_argument_and_a_file() {
        assert_eq!(dump("2=x.bin"), Ok((2, "x.bin".into())));
        assert!(dump("x.bin").is_err() && dump("2=").is_err());
    }
}
