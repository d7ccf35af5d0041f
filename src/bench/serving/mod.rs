//! Load against a running server: what `pacer bench-serving` measures.
//!
//! Pure: [`body`] requests, [`metrics`] and [`overlap`] figures out of records, [`goodput`],
//! [`ttft`] the way to the first token, [`checks`] validity, [`search`] for the highest rate,
//! [`row`], [`text`] and [`plot`] results.
//! With a server: [`run`], [`turns`] of conversations, [`counters`], [`process`].

pub mod body;
pub mod checks;
pub mod counters;
pub mod goodput;
pub mod metrics;
pub mod overlap;
pub mod plot;
pub mod process;
pub mod row;
pub mod run;
pub mod search;
pub mod text;
pub mod ttft;
pub mod turns;
