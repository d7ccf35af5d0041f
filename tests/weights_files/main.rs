//! Checkpoint files made by hand: damaged ones are errors that name file and field, without a
//! panic and without memory beyond a small multiple of the file; odd but sound ones load.

mod account;
mod build;
mod gguf_bad;
mod gguf_good;
mod index;
mod mapped;
mod safetensors;
