//! The kernels' parameter structs, as bindgen reads them from `cuda/abi.h`: what each field means
//! is said there.

#![allow(non_camel_case_types)]

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/gen/bindings/abi.rs"));
