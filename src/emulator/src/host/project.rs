//! Projected time of a launch, from its counters.

use crate::card::Card;
use crate::exec::Report;
use crate::isa::Kernel;
use crate::timemodel::{BlockNeeds, Work, project};

/// Seconds of a launch with nothing to do.
const LAUNCH: f64 = 2.0e-6;

/// Seconds that the launch would take on the card by its busiest resource, as `pacer kernels
/// emulate` projects them.
pub(super) fn projected_seconds(
    card: &Card,
    kernel: &Kernel,
    needs: BlockNeeds,
    report: &Report,
) -> f64 {
    project(card, &Work::of(kernel, report, needs)).map_or(LAUNCH, |p| p.seconds)
}
