//! Accounting: every tensor that a plan reads is there in its shape, and nothing is left over.

use std::collections::HashSet;

use super::Weights;
use super::table::shown;
use crate::error::{Error, Kind, Result};

/// How many names an error lists of each fault.
const LISTED: usize = 5;

/// Checks `weights` against the `expected` names and shapes. Tensors that are not expected must be
/// `ignorable` (such as a stored output matrix of a model that ties it).
///
/// # Errors
/// Names up to five tensors of each fault: missing, of an unusable type, wrongly shaped, unknown.
pub fn account(
    weights: &Weights,
    expected: &[(&str, Vec<usize>)],
    ignorable: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let names = weights.names();
    let known: HashSet<&str> = expected.iter().map(|(name, _)| *name).collect();
    let (mut missing, mut unusable, mut misshapen) = (Vec::new(), Vec::new(), Vec::new());
    for (name, shape) in expected {
        match (weights.describe(name), weights.unusable(name)) {
            (Some(t), _) if t.shape == shape.as_slice() => {}
            (Some(t), _) => {
                misshapen.push(format!("{} is {:?}, not {shape:?}", shown(name), t.shape));
            }
            (None, Some(kind)) => unusable.push(format!("{} is {kind}", shown(name))),
            (None, None) => missing.push(shown(name).to_string()),
        }
    }
    let unknown: Vec<String> = names
        .iter()
        .filter(|name| !known.contains(*name) && !ignorable(name))
        .map(|name| shown(name).to_string())
        .collect();
    let faults: Vec<String> = [
        fault(
            "missing",
            &missing,
            "the checkpoint is incomplete or config.json is another model's",
        ),
        fault("of a type that cannot be used", &unusable, "F32, F16 and BF16 can"),
        fault("of the wrong shape", &misshapen, "config.json is another model's"),
        fault("unknown", &unknown, "the model has parts that this architecture lacks"),
    ]
    .into_iter()
    .flatten()
    .collect();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Error::new(Kind::File, format!("weights: {}", faults.join("; ")))),
    }
}

fn fault(what: &str, list: &[String], advice: &str) -> Option<String> {
    let n = list.len();
    let first = &list[..n.min(LISTED)];
    let dots = if n > LISTED { ", …" } else { "" };
    let tensors = if n == 1 { "tensor" } else { "tensors" };
    (n > 0).then(|| format!("{n} {tensors} {what} ({advice}): {}{dots}", first.join(", ")))
}
