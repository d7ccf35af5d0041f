//! What the bench commands measure, apart from how they are called and how results are shown.

pub mod ceilings;
pub mod one_batch;
