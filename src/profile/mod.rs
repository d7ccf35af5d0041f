//! Timelines: the recorder (always on), and what is made of its records.

pub mod recorder;
