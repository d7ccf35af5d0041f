//! Kernel arguments as people write them: buffers with a fill, scalars, tensor maps.

use half::{bf16, f16};
use pacer_emulator::isa::Kernel;
use pacer_emulator::tensor::swizzle::Swizzle;
use pacer_emulator::tensor::tensormap::{MapType, TensorMap};
use pacer_emulator::{Memory, Module};

use crate::error::{Error, Result};

/// Memory, parameters and symbols of one launch.
pub struct Arguments {
    pub memory: Memory,
    /// The parameter block.
    pub params: Vec<u8>,
    /// Addresses of the module's variables.
    pub symbols: Vec<u64>,
    /// Address and size of each argument that is a buffer.
    pub buffers: Vec<Option<(u64, usize)>>,
}

/// Most bytes of one buffer.
const MOST: usize = 16 << 30;

/// Allocates and fills what the arguments describe.
///
/// # Errors
/// `Usage` naming the argument and what was expected.
pub fn prepare(module: &Module, kernel: &Kernel, args: &[String], seed: u64) -> Result<Arguments> {
    if args.len() != kernel.params.len() {
        let wanted: Vec<String> =
            kernel.params.iter().map(|p| format!("{} ({} bytes)", p.name, p.size)).collect();
        return Err(Error::usage(format!(
            "--args: {} given, {} takes {}: {}",
            args.len(),
            kernel.name,
            wanted.len(),
            wanted.join(", ")
        )));
    }
    let mut memory = Memory::new();
    let symbols = place_variables(module, &mut memory)?;
    let mut params = vec![0; kernel.param_bytes as usize];
    let mut buffers = Vec::new();
    for (n, (param, arg)) in kernel.params.iter().zip(args).enumerate() {
        let wrong = |what: String| Error::usage(format!("--args {arg} (argument {n}): {what}"));
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(n as u64);
        let (bytes, buffer) = value(arg, &mut memory, seed).map_err(wrong)?;
        if bytes.len() != param.size as usize {
            let (got, want) = (bytes.len(), param.size);
            return Err(wrong(format!("{got} bytes; parameter {} has {want}", param.name)));
        }
        params[param.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        buffers.push(buffer);
    }
    Ok(Arguments { memory, params, symbols, buffers })
}

/// Places the module's global and constant variables with their initial values.
fn place_variables(module: &Module, memory: &mut Memory) -> Result<Vec<u64>> {
    let fail = |e: pacer_emulator::MemoryError| Error::device(e.to_string());
    let mut symbols = Vec::new();
    for v in &module.variables {
        symbols.push(if v.size == 0 { 0 } else { memory.alloc(v.size).map_err(fail)? });
    }
    for (v, &at) in module.variables.iter().zip(&symbols).filter(|(v, _)| v.size > 0) {
        // Device variables without an initial value are zero, as the driver leaves them.
        let mut bytes = vec![0; v.size as usize];
        bytes[..v.init.len()].copy_from_slice(&v.init);
        for &(offset, index, plus) in &v.links {
            let to = symbols.get(index as usize).copied().unwrap_or(0).wrapping_add_signed(plus);
            if let Some(slot) = bytes.get_mut(offset as usize..offset as usize + 8) {
                slot.copy_from_slice(&to.to_le_bytes());
            }
        }
        memory.write(at, &bytes).map_err(fail)?;
        if v.constant {
            memory.protect(at);
        }
    }
    Ok(symbols)
}

type Value = (Vec<u8>, Option<(u64, usize)>);

fn value(arg: &str, memory: &mut Memory, seed: u64) -> std::result::Result<Value, String> {
    let Some((kind, rest)) = arg.split_once(':') else {
        return Err("expected KIND:VALUE, such as buf:4K:zero or i32:7".into());
    };
    let number = |_| format!("{rest:?} is not a number of type {kind}");
    let bytes = match kind {
        "i32" => rest.parse::<i32>().map_err(|e| number(e.to_string()))?.to_le_bytes().to_vec(),
        "u32" => rest.parse::<u32>().map_err(|e| number(e.to_string()))?.to_le_bytes().to_vec(),
        "i64" => rest.parse::<i64>().map_err(|e| number(e.to_string()))?.to_le_bytes().to_vec(),
        "u64" => rest.parse::<u64>().map_err(|e| number(e.to_string()))?.to_le_bytes().to_vec(),
        "f32" => rest.parse::<f32>().map_err(|e| number(e.to_string()))?.to_le_bytes().to_vec(),
        "f64" => rest.parse::<f64>().map_err(|e| number(e.to_string()))?.to_le_bytes().to_vec(),
        "hex" => hex(rest)?,
        "buf" => {
            let (size, fill) = rest.split_once(':').unwrap_or((rest, "none"));
            let buffer = buffer(memory, size_of(size)?, fill, seed)?;
            return Ok((buffer.0.to_le_bytes().to_vec(), Some(buffer)));
        }
        "map" => return map(rest, memory, seed),
        _ => {
            return Err(format!(
                "unknown kind {kind}: buf, map, i32, u32, i64, u64, f32, f64, hex"
            ));
        }
    };
    Ok((bytes, None))
}

fn hex(text: &str) -> std::result::Result<Vec<u8>, String> {
    let wrong = || format!("{text:?} is not an even number of hexadecimal digits");
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let pairs = (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16));
    pairs.collect::<std::result::Result<_, _>>().map_err(|_| wrong())
}

/// `4096`, `4K`, `2M`, `1G`.
fn size_of(text: &str) -> std::result::Result<usize, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let n = digits.parse::<usize>().ok().and_then(|n| n.checked_mul(1 << shift));
    n.filter(|n| (1..=MOST).contains(n))
        .ok_or_else(|| format!("size {text:?}: expected 1 to 16G bytes"))
}

fn buffer(
    memory: &mut Memory,
    bytes: usize,
    fill: &str,
    seed: u64,
) -> std::result::Result<(u64, usize), String> {
    let address = memory.alloc(bytes as u64).map_err(|e| e.to_string())?;
    if let Some(data) = contents(fill, bytes, seed)? {
        memory.write(address, &data).map_err(|e| e.to_string())?;
    }
    Ok((address, bytes))
}

/// The bytes of a fill, or `None` for memory that nothing has written.
fn contents(fill: &str, bytes: usize, seed: u64) -> std::result::Result<Option<Vec<u8>>, String> {
    let (name, what) = fill.split_once('=').unwrap_or((fill, ""));
    let mut random = Random(seed);
    let mut cut = |element: &mut dyn FnMut(&mut Random) -> Vec<u8>| {
        let mut data = Vec::with_capacity(bytes + 8);
        while data.len() < bytes {
            data.extend(element(&mut random));
        }
        data.truncate(bytes);
        data
    };
    let data = match (name, what) {
        ("none", "") => return Ok(None),
        ("zero", "") => vec![0; bytes],
        ("iota", "") => {
            let mut n = 0u32;
            cut(&mut |_| {
                n = n.wrapping_add(1);
                n.wrapping_sub(1).to_le_bytes().to_vec()
            })
        }
        ("byte", n) => vec![n.parse().map_err(|_| format!("byte={n}: expected 0 to 255"))?; bytes],
        ("random", "f32") => cut(&mut |r| r.unit().to_le_bytes().to_vec()),
        ("random", "bf16") => cut(&mut |r| bf16::from_f32(r.unit()).to_le_bytes().to_vec()),
        ("random", "f16") => cut(&mut |r| f16::from_f32(r.unit()).to_le_bytes().to_vec()),
        ("random", "u8" | "") => cut(&mut |r| r.next().to_le_bytes().to_vec()),
        ("file", path) => {
            let mut data = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
            if data.len() > bytes {
                return Err(format!("{path} has {} bytes, the buffer {bytes}", data.len()));
            }
            data.resize(bytes, 0);
            data
        }
        _ => {
            return Err(format!(
                "unknown fill {fill}: none, zero, iota, byte=N, random=f32|f16|bf16|u8, file=PATH"
            ));
        }
    };
    Ok(Some(data))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [-1, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

/// `TYPE:DIMS:BOX[:SWIZZLE[:FILL]]`: a dense tensor in a buffer of its own, and its map.
fn map(text: &str, memory: &mut Memory, seed: u64) -> std::result::Result<Value, String> {
    let parts: Vec<&str> = text.splitn(5, ':').collect();
    let &[ty, dims, tile, ref rest @ ..] = parts.as_slice() else {
        return Err("expected map:TYPE:DIMS:BOX[:SWIZZLE[:FILL]]".into());
    };
    let (element, dims) = (map_type(ty)?, numbers(dims)?);
    let tile: Vec<u32> =
        numbers(tile)?.into_iter().map(|n| n.min(u32::MAX.into()) as u32).collect();
    let swizzle = match rest.first().copied().unwrap_or("0") {
        "0" | "none" => Swizzle::None,
        "32" => Swizzle::B32,
        "64" => Swizzle::B64,
        "128" => Swizzle::B128,
        other => return Err(format!("swizzle {other:?}: expected 0, 32, 64 or 128")),
    };
    let mut strides = Vec::new();
    let mut bytes = u64::from(element.bytes());
    for (n, dim) in dims.iter().enumerate() {
        if n > 0 {
            strides.push(bytes);
        }
        bytes =
            bytes.checked_mul(*dim).filter(|b| *b <= MOST as u64).ok_or("a tensor above 16G")?;
    }
    let fill = rest.get(1).copied().unwrap_or("none");
    let buffer = buffer(memory, bytes as usize, fill, seed)?;
    let map = TensorMap::tiled(element, buffer.0, &dims, &strides, &tile, swizzle);
    Ok((map.map_err(|e| e.to_string())?.encode().to_vec(), Some(buffer)))
}

fn map_type(name: &str) -> std::result::Result<MapType, String> {
    Ok(match name {
        "u8" => MapType::U8,
        "u16" => MapType::U16,
        "u32" => MapType::U32,
        "s32" | "i32" => MapType::S32,
        "f16" => MapType::F16,
        "bf16" => MapType::Bf16,
        "f32" => MapType::F32,
        "f64" => MapType::F64,
        _ => return Err(format!("tensor type {name}: u8, u16, u32, s32, f16, bf16, f32, f64")),
    })
}

/// `328x200`.
fn numbers(text: &str) -> std::result::Result<Vec<u64>, String> {
    let list = text.split('x').map(|n| n.parse().ok().filter(|n| *n > 0));
    list.collect::<Option<Vec<u64>>>()
        .filter(|l| l.len() <= 5)
        .ok_or_else(|| format!("sizes {text:?}: expected one to five such as 328x200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_fills() {
        assert_eq!((size_of("4K"), size_of("12")), (Ok(4096), Ok(12)));
        assert!(size_of("0").is_err() && size_of("17G").is_err() && size_of("K").is_err());
        assert_eq!(contents("iota", 6, 0), Ok(Some(vec![0, 0, 0, 0, 1, 0])));
        assert_eq!(contents("byte=7", 2, 0), Ok(Some(vec![7, 7])));
        assert_eq!(contents("none", 2, 0), Ok(None));
        let random = contents("random=bf16", 4, 1).unwrap().unwrap();
        assert!(bf16::from_le_bytes([random[0], random[1]]).to_f32().abs() <= 1.0);
        assert!(contents("byte=300", 2, 0).is_err() && contents("x", 2, 0).is_err());
    }

    #[test]
    fn scalars_and_maps() {
        let mut memory = Memory::new();
        let mut of = |arg: &str| value(arg, &mut memory, 1).map(|v| v.0);
        assert_eq!(of("i32:-1"), Ok(vec![255; 4]));
        assert_eq!(of("f32:1.0"), Ok(vec![0, 0, 0x80, 0x3f]));
        assert_eq!(of("hex:0aff"), Ok(vec![10, 255]));
        assert_eq!(of("map:bf16:64x8:64x8:128:zero").map(|b| b.len()), Ok(128));
        for bad in ["7", "i32:x", "hex:0", "q:1", "map:bf16:64", "map:bf16:0x8:1x1", "buf:4:q"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
