//! A strict PTX machine.

pub mod card;
pub mod tensor;
pub mod timemodel;
