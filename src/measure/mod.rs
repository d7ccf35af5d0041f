//! The one measuring core that every bench command uses: a clock that is passed in, statistics
//! that say what they are, a look at the machine, and the validity block of contract.md §5.
//!
//! - [`clock`]: real time, or a clock that tests move by hand.
//! - [`stats`]: percentiles, median intervals, spread, drift, bootstrap differences.
//! - [`files`]: how many may be open, and room for them.
//! - [`rng`]: counter-based pseudo-random numbers, the same on every machine.
//! - [`machine`]: what else ran, stolen time, clock frequency, peak memory.
//! - [`validity`]: checks with their figure and limit.
//! - [`json`], [`date`]: finite numbers, rows appended one by one, ISO-8601 time.
//! - [`interrupt`]: Ctrl-C as a flag.

pub mod clock;
pub mod date;
pub mod files;
pub mod interrupt;
pub mod json;
pub mod machine;
pub mod rng;
pub mod stats;
pub mod validity;
pub mod words;
