//! Who runs when: A B B A, again and again, so that a machine that warms up or slows down
//! steadily does the same to both.

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

/// The order of `rounds` rounds. Every other round is turned round, B A A B: then a drift that
/// bends cancels too.
pub fn abba(rounds: usize) -> Vec<Side> {
    use Side::{A, B};
    (0..rounds).flat_map(|r| if r % 2 == 0 { [A, B, B, A] } else { [B, A, A, B] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drifts_cancel() {
        let order = abba(4);
        for power in [1, 2] {
            let sum = |side| -> i64 {
                let at = order.iter().enumerate().filter(|(_, s)| **s == side);
                at.map(|(i, _)| (i as i64).pow(power)).sum()
            };
            assert_eq!(sum(Side::A), sum(Side::B), "power {power}");
        }
    }
}
