//! A strict PTX machine.

pub mod tensor;
