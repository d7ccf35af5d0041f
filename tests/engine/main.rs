//! The engine as a whole, on the CPU with the tiny golden models: what a request gets does not
//! depend on anything but itself, nobody starves, constraints hold.

mod constrained;
mod fairness;
mod hostile_grammars;
mod invariance;
mod matrix;
mod overlap;
mod pressure;
mod sampling;
mod support;
