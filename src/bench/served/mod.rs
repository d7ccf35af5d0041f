//! One batch through a running server: what `pacer bench-one-batch-server` measures.
//!
//! Pure: [`stream`] reads the batch's stream, [`figures`] computes, [`row`] writes, [`parts`] and
//! [`gap`] explain served against static. With a server: [`run`].

pub mod figures;
pub mod gap;
pub mod parts;
pub mod row;
pub mod run;
pub mod stream;
