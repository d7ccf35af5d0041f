//! Weights to the device: read and converted into one half of a page-locked buffer while the other
//! half is being copied.

use std::sync::Arc;

use super::driver::{DevicePtr, Driver, Event, Pinned, Stream, pinned_bytes};
use super::memory::{Memory, Purpose};
use super::quant::{self, Packing};
use crate::error::{Error, Kind, Result};
use crate::model::plan::{Matrix, Vector};
use crate::types::Dtype;
use crate::weights::quant::dequantise;
use crate::weights::{Tensor, Weights};

/// Bytes of half the staging buffer.
const HALF: usize = 8 << 20;

/// A matrix in packed blocks on the device.
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    pub address: DevicePtr,
    pub packing: Packing,
}

/// Copies rows to the device.
pub struct Uploader {
    driver: Arc<dyn Driver>,
    stream: Stream,
    halves: [(Pinned, Event); 2],
    current: usize,
    /// Bytes waiting in the current half, and where on the device they go.
    filled: usize,
    target: DevicePtr,
    /// The type that numbers are stored in.
    dtype: Dtype,
    numbers: Vec<f32>,
}

impl Uploader {
    /// # Errors
    /// If streams, events or host memory are refused.
    pub fn new(driver: &Arc<dyn Driver>, memory: &mut Memory, dtype: Dtype) -> Result<Self> {
        let half = |memory: &mut Memory| -> Result<(Pinned, Event)> {
            Ok((memory.pinned(HALF)?, driver.create_event(false)?))
        };
        let halves = [half(memory)?, half(memory)?];
        let stream = driver.create_stream()?;
        let (driver, numbers) = (Arc::clone(driver), Vec::new());
        Ok(Uploader { driver, stream, halves, current: 0, filled: 0, target: 0, dtype, numbers })
    }

    /// Allocates and uploads a matrix, its parts one below the other.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen, or memory runs out.
    pub fn matrix(
        &mut self,
        memory: &mut Memory,
        matrix: &Matrix,
        weights: &Weights,
    ) -> Result<DevicePtr> {
        let bytes = (matrix.rows * matrix.cols * 2) as u64;
        let address = memory.alloc(Purpose::Weights, bytes, &matrix.name)?;
        self.begin(address);
        for part in &matrix.parts {
            let tensor = find(weights, &part.tensor, &[part.rows, matrix.cols])?;
            for row in 0..part.rows {
                self.row(&tensor, row, matrix.cols).map_err(|e| e.context(&part.tensor))?;
            }
        }
        self.flush()?;
        Ok(address)
    }

    /// Allocates and uploads a matrix whose parts are all stored in the packing's blocks.
    ///
    /// # Errors
    /// As [`Uploader::matrix`].
    pub fn packed(
        &mut self,
        memory: &mut Memory,
        matrix: &Matrix,
        weights: &Weights,
        packing: Packing,
    ) -> Result<Packed> {
        let bytes = packing.bytes(matrix.rows, matrix.cols) as u64;
        let address = memory.alloc(Purpose::Weights, bytes, &matrix.name)?;
        self.begin(address);
        let (mut strip, mut rows) = (Vec::new(), 0);
        for part in &matrix.parts {
            let tensor = find(weights, &part.tensor, &[part.rows, matrix.cols])?;
            for row in 0..part.rows {
                strip.extend_from_slice(tensor.row(row));
                rows += 1;
                if rows == quant::ROWS {
                    self.strip(packing, &mut strip, &mut rows, matrix)?;
                }
            }
        }
        if rows > 0 {
            self.strip(packing, &mut strip, &mut rows, matrix)?;
        }
        self.flush()?;
        Ok(Packed { address, packing })
    }

    /// Packs and appends the rows of one row of groups, and empties the strip.
    fn strip(
        &mut self,
        packing: Packing,
        strip: &mut Vec<u8>,
        rows: &mut usize,
        matrix: &Matrix,
    ) -> Result<()> {
        let packed =
            packing.pack(strip, *rows, matrix.cols).map_err(|e| e.context(&matrix.name))?;
        self.append(&packed)?;
        strip.clear();
        *rows = 0;
        Ok(())
    }

    /// Allocates and uploads a vector.
    ///
    /// # Errors
    /// As [`Uploader::matrix`].
    pub fn vector(
        &mut self,
        memory: &mut Memory,
        vector: &Vector,
        weights: &Weights,
    ) -> Result<DevicePtr> {
        let name = vector.parts.first().map_or("a vector", |(name, _)| name.as_str());
        let address = memory.alloc(Purpose::Weights, (vector.len * 2) as u64, name)?;
        self.begin(address);
        for (name, len) in &vector.parts {
            let tensor = find(weights, name, &[*len])?;
            // Number by number, because rotary pairs may be stored in another order.
            for at in 0..*len {
                self.row(&tensor, at, 1).map_err(|e| e.context(name))?;
            }
        }
        self.flush()?;
        Ok(address)
    }

    /// Waits for everything and frees stream and events.
    ///
    /// # Errors
    /// If a copy failed.
    pub fn finish(self) -> Result<()> {
        self.driver.synchronize(self.stream)?;
        for (_, event) in self.halves {
            self.driver.destroy_event(event)?;
        }
        Ok(self.driver.destroy_stream(self.stream)?)
    }

    fn begin(&mut self, address: DevicePtr) {
        (self.target, self.filled) = (address, 0);
    }

    /// Sends what waits, and waits until the other half is free.
    fn flush(&mut self) -> Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        let (pinned, event) = self.halves[self.current];
        self.driver.upload_async(self.target, pinned, 0, self.filled, self.stream)?;
        self.driver.record(event, self.stream)?;
        self.target += self.filled as u64;
        (self.current, self.filled) = (1 - self.current, 0);
        Ok(self.driver.synchronize_event(self.halves[self.current].1)?)
    }

    /// Appends a row of `cols` numbers, piece by piece if it is longer than a half.
    fn row(&mut self, tensor: &Tensor<'_>, row: usize, cols: usize) -> Result<()> {
        let stored = tensor.row(row);
        if tensor.dtype == self.dtype {
            return self.append(stored);
        }
        if tensor.dtype.bytes(cols) != Some(stored.len()) {
            return Err(Error::unsupported(format!(
                "{} bytes are not {cols} numbers in {}",
                stored.len(),
                tensor.dtype.name()
            )));
        }
        let mut numbers = std::mem::take(&mut self.numbers);
        numbers.resize(cols, 0.0);
        dequantise(tensor.dtype, stored, &mut numbers);
        let half = self.dtype == Dtype::F16;
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| rounded(*x, half)).collect();
        self.numbers = numbers;
        self.append(&bytes)
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.filled == HALF {
                self.flush()?;
            }
            let part = bytes.len().min(HALF - self.filled);
            // SAFETY: this half's last copy is done: `flush` waited for its event.
            let to = unsafe { pinned_bytes(self.halves[self.current].0) };
            to[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            self.filled += part;
            bytes = &bytes[part..];
        }
        Ok(())
    }
}

/// A number in 16 bits, to nearest.
fn rounded(x: f32, half: bool) -> [u8; 2] {
    if half { half::f16::from_f32(x).to_le_bytes() } else { half::bf16::from_f32(x).to_le_bytes() }
}

fn find<'a>(weights: &'a Weights, name: &str, shape: &[usize]) -> Result<Tensor<'a>> {
    let missing = |found: String| Error::new(Kind::File, format!("tensor {name} {found}"));
    let tensor = weights.tensor(name).ok_or_else(|| missing("is not in the checkpoint".into()))?;
    if tensor.shape != shape {
        let found = format!("has shape {:?}, the configuration says {shape:?}", tensor.shape);
        return Err(missing(found));
    }
    Ok(tensor)
}
