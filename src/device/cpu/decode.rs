//! Stored numbers to f32, exactly: no stored type has more bits than f32.

use crate::error::{Error, Kind, Result};
use crate::types::Dtype;
use crate::weights::quant::dequantise;
use crate::weights::{Tensor, Weights};

/// Decodes `out.len()` numbers.
///
/// # Errors
/// If `bytes` holds another number of them.
pub fn decode(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if dtype.bytes(out.len()) != Some(bytes.len()) {
        return Err(Error::unsupported(format!(
            "{} bytes are not {} numbers in {}",
            bytes.len(),
            out.len(),
            dtype.name()
        )));
    }
    dequantise(dtype, bytes, out);
    Ok(())
}

/// The tensor `name`, whose shape must be `shape`.
///
/// # Errors
/// If it is missing, does not fit in memory, or has another shape.
pub fn find<'a>(weights: &'a Weights, name: &str, shape: &[usize]) -> Result<Tensor<'a>> {
    let tensor = weights.tensor(name).ok_or_else(|| match weights.describe(name) {
        Some(d) => Error::limit(format!("no memory for tensor {name} of {} bytes", d.bytes)),
        None => Error::new(
            Kind::File,
            format!("the checkpoint has no tensor {name}, which the configuration calls for"),
        ),
    })?;
    if tensor.shape != shape {
        return Err(Error::new(
            Kind::File,
            format!("tensor {name} has shape {:?}, the configuration says {shape:?}", tensor.shape),
        ));
    }
    Ok(tensor)
}

/// A weight vector, concatenated from `parts` (name, length).
///
/// # Errors
/// As [`find`] and [`decode`].
pub fn vector(weights: &Weights, parts: &[(String, usize)]) -> Result<Vec<f32>> {
    let mut all = vec![0.0; parts.iter().map(|p| p.1).sum()];
    let mut rest = all.as_mut_slice();
    for (name, len) in parts {
        let tensor = find(weights, name, &[*len])?;
        let (part, after) = rest.split_at_mut(*len);
        // Number by number, because rotary pairs may be stored in another order.
        for (i, x) in part.iter_mut().enumerate() {
            decode(tensor.dtype, tensor.row(i), std::slice::from_mut(x))
                .map_err(|e| e.context(name))?;
        }
        rest = after;
    }
    Ok(all)
}
