//! Kernels compiled for each quantised type.

use crate::types::Dtype;

/// The quantised types, by the number that kernels are compiled for.
pub const QUANTISED: [Dtype; 8] = [
    Dtype::Q8_0,
    Dtype::Q4_0,
    Dtype::Q4_1,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::Q4K,
    Dtype::Q5K,
    Dtype::Q6K,
];

/// Calls `kernel::<arguments.., T>` compiled for a quantised type; plain types never come here.
macro_rules! at_type {
    ($dtype:expr, $kernel:ident[$($generic:ident),*]($($argument:expr),*)) => {
        match $dtype {
            Dtype::Q4_0 => $kernel::<$($generic,)* 1>($($argument),*),
            Dtype::Q4_1 => $kernel::<$($generic,)* 2>($($argument),*),
            Dtype::Q5_0 => $kernel::<$($generic,)* 3>($($argument),*),
            Dtype::Q5_1 => $kernel::<$($generic,)* 4>($($argument),*),
            Dtype::Q4K => $kernel::<$($generic,)* 5>($($argument),*),
            Dtype::Q5K => $kernel::<$($generic,)* 6>($($argument),*),
            Dtype::Q6K => $kernel::<$($generic,)* 7>($($argument),*),
            _ => $kernel::<$($generic,)* 0>($($argument),*),
        }
    };
}
pub(super) use at_type;
