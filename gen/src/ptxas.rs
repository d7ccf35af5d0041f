//! Assembling PTX to see what it uses, and the gates on that.

use std::ffi::OsStr;
use std::path::Path;

use crate::Result;
use crate::table::Module;
use crate::toolkit::Toolkit;

/// What one entry point uses on one card.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub registers: u32,
    /// Static shared memory in bytes.
    pub shared: u32,
    pub stack: u32,
    pub spills: u32,
}

/// Assembles `ptx` for each card of the module's target.
pub fn assemble(
    tools: &Toolkit,
    ptx: &Path,
    module: &Module,
) -> Result<Vec<(&'static str, Vec<Usage>)>> {
    let mut all = Vec::new();
    for card in module.target.cards() {
        let arch = format!("-arch={card}");
        let cubin = ptx.with_extension(format!("{card}.cubin"));
        let args: [&OsStr; 5] =
            ["-v".as_ref(), arch.as_ref(), "-o".as_ref(), cubin.as_os_str(), ptx.as_os_str()];
        let output = tools.run("ptxas", &args)?;
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said);
        let usage = module.variants.iter().map(|v| usage(&said, &module.symbol(v)));
        all.push((*card, usage.collect::<Result<_>>()?));
        if module.variants.iter().any(|v| !v.sass.is_empty()) {
            instructions(tools, &cubin, module)?;
        }
    }
    Ok(all)
}

/// What `ptxas -v` says of one entry point.
fn usage(said: &str, symbol: &str) -> Result<Usage> {
    let start = format!("Compiling entry function '{symbol}'");
    let at = said.find(&start).ok_or_else(|| format!("ptxas says nothing of {symbol}"))?;
    let part = &said[at + start.len()..];
    let part = part.find("Compiling entry function").map_or(part, |end| &part[..end]);
    // `Used 28 registers, …, 128 bytes smem`, `0 bytes stack frame, 0 bytes spill stores, …`.
    let before = |mark: &str| {
        let head = &part[..part.find(mark)?];
        head.rsplit([' ', ',', '\n']).find(|w| !w.is_empty())?.parse::<u32>().ok()
    };
    Ok(Usage {
        registers: before(" registers").ok_or_else(|| format!("no registers of {symbol}"))?,
        shared: before(" bytes smem").unwrap_or(0),
        stack: before(" bytes stack frame").unwrap_or(0),
        spills: before(" bytes spill stores").unwrap_or(0)
            + before(" bytes spill loads").unwrap_or(0),
    })
}

/// Refuses spills, local memory and more registers than the table allows.
pub fn hold(module: &Module, usage: &[(&'static str, Vec<Usage>)]) -> Result<()> {
    for (card, list) in usage {
        for (v, used) in module.variants.iter().zip(list) {
            let symbol = module.symbol(v);
            if used.spills > 0 || used.stack > 0 {
                let Usage { stack, spills, .. } = used;
                return Err(format!(
                    "{symbol} on {card} uses {stack} bytes of local memory, spills {spills}"
                ));
            }
            if used.registers > v.registers {
                let (got, most) = (used.registers, v.registers);
                return Err(format!("{symbol} on {card} uses {got} registers; {most} allowed"));
            }
        }
    }
    Ok(())
}

/// Checks that the SASS of each variant has what the table requires.
fn instructions(tools: &Toolkit, cubin: &Path, module: &Module) -> Result<()> {
    let output = tools.run("cuobjdump", &["-sass".as_ref(), cubin.as_os_str()])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for v in &module.variants {
        let symbol = module.symbol(v);
        let part = text.split("Function : ").find(|p| p.lines().next() == Some(&symbol));
        for wanted in v.sass {
            if !part.is_some_and(|p| p.contains(wanted)) {
                return Err(format!("{symbol}: its SASS has no {wanted}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Target, Variant};

    const SAID: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'sm80_a' for 'sm_80'
ptxas info    : Function properties for sm80_a
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 28 registers, used 1 barriers, 128 bytes smem, 404 bytes cmem[0]
ptxas info    : Compiling entry function 'sm80_b' for 'sm_80'
ptxas info    : Function properties for sm80_b
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, 404 bytes cmem[0]
";

    #[test]
    fn usage_is_read_and_held() {
        let a = usage(SAID, "sm80_a").unwrap();
        assert_eq!(a, Usage { registers: 28, shared: 128, stack: 0, spills: 0 });
        let b = usage(SAID, "sm80_b").unwrap();
        assert_eq!(b, Usage { registers: 255, shared: 0, stack: 16, spills: 20 });
        assert!(usage(SAID, "sm80_c").is_err());
        let module = |most| {
            let v = Variant::new("a", "a", "A").registers(most);
            Module::new("a", Target::Sm80, vec![v])
        };
        assert!(hold(&module(28), &[("sm_80", vec![a])]).is_ok());
        assert!(hold(&module(27), &[("sm_80", vec![a])]).unwrap_err().contains("28 registers"));
        assert!(hold(&module(255), &[("sm_80", vec![b])]).unwrap_err().contains("local memory"));
    }
}
