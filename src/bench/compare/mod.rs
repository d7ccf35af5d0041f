//! Two sets of results: by how much they differ, how sure that is, and what else differs.
//!
//! Pure: [`samples`] figures out of result rows, [`interval`] the statistics, [`verdict`] words
//! and exit codes. [`order`] is how two commands take turns.

pub mod interval;
pub mod order;
pub mod samples;
pub mod verdict;
