//! A strict PTX machine.
