//! Numbers for people.

/// `x` with so many decimals; what rounds to zero is `0.00`, never `-0.00`.
pub fn fixed(x: f64, decimals: usize) -> String {
    let text = format!("{x:.decimals$}");
    match text.strip_prefix('-') {
        Some(rest)
            if !rest.contains(|c: char| c.is_ascii_alphabetic() || ('1'..='9').contains(&c)) =>
        {
            rest.to_string()
        }
        _ => text,
    }
}

/// The same with a sign, `+0.0` for what rounds to zero.
pub fn signed(x: f64, decimals: usize) -> String {
    let text = fixed(x, decimals);
    if text.starts_with('-') { text } else { format!("+{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_no_minus() {
        for (x, text) in [(-0.004, "0.00"), (-0.0, "0.00"), (-0.006, "-0.01"), (0.004, "0.00")] {
            assert_eq!(fixed(x, 2), text);
        }
        assert_eq!(fixed(-0.4, 0), "0");
        assert_eq!((signed(-0.04, 1), signed(0.1, 1)), ("+0.0".into(), "+0.1".into()));
        assert_eq!((signed(-0.1, 1), fixed(f64::NEG_INFINITY, 1)), ("-0.1".into(), "-inf".into()));
    }
}
