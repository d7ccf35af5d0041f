//! What a case works with: matrices in device memory, a launch held to its declared traffic, and
//! a comparison that also sees what should not have been written.

use super::data::Store;
use super::machine::{Counted, Geometry, Machine};
use crate::device::gpu::abi;
use crate::device::gpu::driver::{MapElement, MapPromotion, MapSwizzle, TensorMapSpec};
use crate::device::gpu::registry::{self, Kernel};

/// Rows of numbers in device memory, `stride` apart. What lies between the rows is poisoned.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    pub address: u64,
    pub rows: usize,
    pub width: usize,
    pub stride: usize,
    pub store: Store,
    /// `[rows * width]`, as stored; empty for an output.
    pub values: Vec<f64>,
}

impl Matrix {
    /// Row `r` as stored.
    pub fn row(&self, r: usize) -> &[f64] {
        &self.values[r * self.width..][..self.width]
    }
}

/// What a launch is declared to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes issued, as the kernel's header says.
    pub read: usize,
    pub written: usize,
}

/// One run of one case.
pub struct Bench<'a> {
    machine: &'a mut dyn Machine,
    seed: u64,
    /// What the last launch moved.
    pub counted: Option<Counted>,
    /// Kernels launched so far.
    pub launched: Vec<&'static str>,
}

impl<'a> Bench<'a> {
    pub fn new(machine: &'a mut dyn Machine, seed: u64) -> Self {
        Bench { machine, seed, counted: None, launched: Vec::new() }
    }

    /// Poisoned memory.
    pub fn alloc(&mut self, bytes: usize) -> Result<u64, String> {
        self.machine.alloc(bytes)
    }

    pub fn upload(&mut self, bytes: &[u8]) -> Result<u64, String> {
        let address = self.machine.alloc(bytes.len())?;
        self.machine.write(address, bytes)?;
        Ok(address)
    }

    pub fn upload_u32(&mut self, values: &[u32]) -> Result<u64, String> {
        self.upload(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// The bytes of a result, all of which a kernel must have written.
    pub fn download(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, String> {
        if !self.machine.reached(address, bytes)?.0 {
            return Err("part of the result was never written".to_owned());
        }
        self.machine.read(address, bytes)
    }

    pub fn download_u32(&mut self, address: u64, count: usize) -> Result<Vec<u32>, String> {
        let bytes = self.download(address, count * 4)?;
        Ok(bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
    }

    /// Rows of `values` with `pad` poisoned numbers after each.
    pub fn input(
        &mut self,
        store: Store,
        width: usize,
        pad: usize,
        values: &[f64],
    ) -> Result<Matrix, String> {
        let mut matrix = self.output(store, values.len() / width, width, pad)?;
        let bytes = store.encode(values);
        for (r, row) in bytes.chunks_exact(width * store.bytes()).enumerate() {
            let at = (r * matrix.stride * store.bytes()) as u64;
            self.machine.write(matrix.address + at, row)?;
        }
        matrix.values = store.decode(&bytes);
        Ok(matrix)
    }

    /// Poisoned rows with `pad` more numbers after each.
    pub fn output(
        &mut self,
        store: Store,
        rows: usize,
        width: usize,
        pad: usize,
    ) -> Result<Matrix, String> {
        let stride = width + pad;
        let address = self.machine.alloc((rows * stride * store.bytes()).max(1))?;
        Ok(Matrix { address, rows, width, stride, store, values: Vec::new() })
    }

    /// The tensor map of a matrix, for boxes of 64 columns and `rows` rows.
    pub fn tensor_map(&mut self, m: &Matrix, rows: u32) -> Result<abi::TensorMap, String> {
        let element = if m.store == Store::F16 { MapElement::F16 } else { MapElement::Bf16 };
        let spec = TensorMapSpec {
            element,
            address: m.address,
            dims: &[m.width as u64, m.rows as u64],
            strides: &[m.stride as u64 * 2],
            box_dims: &[64, rows],
            swizzle: MapSwizzle::B128,
            promotion: MapPromotion::B128,
        };
        Ok(words(&self.machine.tensor_map(&spec)?.0))
    }

    /// Runs a kernel with a parameter struct of `cuda/abi.h`. With `traffic`, the bytes that the
    /// kernel issued must be these exactly.
    pub fn launch<P: Copy>(
        &mut self,
        symbol: &str,
        geometry: Geometry,
        params: &P,
        traffic: Option<Traffic>,
    ) -> Result<(), String> {
        let (_, kernel) = registry::kernel(symbol).map_err(|e| e.to_string())?;
        fits(kernel, geometry, size_of::<P>(), std::any::type_name::<P>())?;
        let bytes = registry::param_bytes(params);
        let counted = self
            .machine
            .launch(kernel, geometry, bytes, self.seed)
            .map_err(|e| format!("{symbol}: {e}"))?;
        self.launched.push(kernel.symbol);
        self.counted = counted;
        let (Some(traffic), Some(counted)) = (traffic, counted) else { return Ok(()) };
        let declared = (traffic.read as u64, traffic.written as u64);
        if (counted.read, counted.written) != declared {
            let Counted { read, written, .. } = counted;
            return Err(format!(
                "{symbol}: declared to read {} and write {} bytes; counted {read} and {written}",
                declared.0, declared.1
            ));
        }
        Ok(())
    }

    /// Refuses a last launch that touched more than 1.05 × the fewest sectors.
    pub fn coalesced(&self) -> Result<(), String> {
        match self.counted {
            Some(c) if c.sectors as f64 > 1.05 * c.sectors_least as f64 => {
                Err(format!("{} sectors touched; {} could do", c.sectors, c.sectors_least))
            }
            _ => Ok(()),
        }
    }

    /// Compares a result with `want(row, column) -> (value, tolerance)`, and sees that nothing
    /// between its rows was written.
    pub fn compare(
        &mut self,
        got: &Matrix,
        mut want: impl FnMut(usize, usize) -> (f64, f64),
    ) -> Result<(), String> {
        let size = got.store.bytes();
        for r in 0..got.rows {
            let at = got.address + (r * got.stride * size) as u64;
            let values = got.store.decode(&self.download(at, got.width * size)?);
            for (c, value) in values.into_iter().enumerate() {
                let (wanted, tolerance) = want(r, c);
                if (value - wanted).abs() <= tolerance || value == wanted {
                    continue;
                }
                return Err(format!(
                    "[{r}, {c}] is {value:e}; {wanted:e} ± {tolerance:.1e} expected"
                ));
            }
            let pad = (got.stride - got.width) * size;
            if pad > 0 && self.machine.reached(at + (got.width * size) as u64, pad)?.1 {
                return Err(format!("written behind row {r}"));
            }
        }
        Ok(())
    }

    /// Sees that nothing in a range was written.
    pub fn untouched(&mut self, address: u64, bytes: usize) -> Result<bool, String> {
        Ok(!self.machine.reached(address, bytes)?.1)
    }
}

/// A driver's tensor map as a field of a parameter struct.
pub fn words(map: &[u8; 128]) -> abi::TensorMap {
    let mut words = [0u64; 16];
    for (word, eight) in words.iter_mut().zip(map.chunks_exact(8)) {
        *word = eight.iter().rev().fold(0, |w, byte| w << 8 | u64::from(*byte));
    }
    abi::TensorMap { words }
}

/// A launch must fit what the registry says of the kernel.
fn fits(kernel: &Kernel, geometry: Geometry, bytes: usize, name: &str) -> Result<(), String> {
    let symbol = kernel.symbol;
    if !name.ends_with(kernel.params) || bytes != kernel.param_bytes {
        return Err(format!("{symbol} takes {}, not {name}", kernel.params));
    }
    if geometry.block > kernel.block {
        return Err(format!("{symbol}: {} threads; {} at most", geometry.block, kernel.block));
    }
    Ok(())
}
