//! The server over real sockets, in this process: a tiny model's tokenizer and template, and a
//! device that computes nothing, so that what is tested is everything around the model.

mod api;
mod auth;
mod bad_requests;
mod faults;
mod harness;
mod output_bytes;
mod process;
mod script;
mod sockets;
