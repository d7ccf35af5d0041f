//! Value parsers for flags: each error says what range was expected, and `args` puts the flag and
//! the value in front of it.

use std::fmt::Display;
use std::str::FromStr;

use crate::types::TokenId;

/// A whole number from `LOW` to `HIGH`; `HIGH` = `u64::MAX` means no upper bound.
pub fn whole<const LOW: u64, const HIGH: u64>(value: &str) -> Result<usize, String> {
    let wanted = match HIGH {
        u64::MAX => format!("expected a whole number of at least {LOW}"),
        _ => format!("expected a whole number from {LOW} to {HIGH}"),
    };
    let n: u64 = value.parse().map_err(|_| wanted.clone())?;
    let in_range = (LOW..=HIGH).contains(&n);
    usize::try_from(n).ok().filter(|_| in_range).ok_or(wanted)
}

/// Any number from 0 to 2^64 − 1.
pub fn seed(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| "expected a whole number from 0 to 18446744073709551615".into())
}

/// A number from `low` to `high`, which must be finite.
pub fn real(value: &str, low: f64, high: f64) -> Result<f64, String> {
    let x: Option<f64> = value.parse().ok().filter(|x| (low..=high).contains(x));
    x.ok_or_else(|| format!("expected a number from {low} to {high}"))
}

/// A share above 0 and up to 1.
pub fn share(value: &str) -> Result<f64, String> {
    let x: Option<f64> = value.parse().ok().filter(|&x| x > 0.0 && x <= 1.0);
    x.ok_or_else(|| "expected a number above 0 and up to 1".into())
}

/// A finite number above 0.
pub fn positive(value: &str) -> Result<f64, String> {
    let x: Option<f64> = value.parse().ok().filter(|x: &f64| *x > 0.0 && x.is_finite());
    x.ok_or_else(|| "expected a number above 0".into())
}

/// Token ids with commas or blanks between them: `1,2,3`.
pub fn token_ids(value: &str) -> Result<Vec<TokenId>, String> {
    let words = value.split([',', ' ']).map(str::trim).filter(|w| !w.is_empty());
    let ids: Result<Vec<TokenId>, _> = words.map(TokenId::from_str).collect();
    let ids = ids.map_err(|_| "expected token ids from 0 to 4294967295, such as 1,2,3")?;
    if ids.is_empty() { Err("expected at least one token id".into()) } else { Ok(ids) }
}

/// The error text for a value that is none of `names`.
pub fn expected_one_of(names: &[impl Display]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    format!("expected one of: {}", names.join(", "))
}

/// Declares an enum whose variants are the values of a flag:
/// `choice! { Device { Auto = "auto", Cpu = "cpu" } }`.
/// The first variant is the default.
#[macro_export]
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The value as written on the command line.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(value: &str) -> std::result::Result<Self, String> {
                let found = Self::ALL.iter().copied().find(|c| c.name() == value);
                found.ok_or_else(|| $crate::commands::values::expected_one_of(Self::ALL))
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_a_range() {
        let size = whole::<1, 64>;
        assert_eq!(size("64"), Ok(64));
        for bad in ["0", "65", "-1", "x", "", "1.5", "99999999999999999999999"] {
            assert_eq!(size(bad), Err("expected a whole number from 1 to 64".into()), "{bad}");
        }
        let open = whole::<2, { u64::MAX }>;
        assert_eq!(open("1"), Err("expected a whole number of at least 2".into()));
    }

    #[test]
    fn reals_and_shares_are_finite() {
        assert_eq!(real("-0.5", -2.0, 2.0), Ok(-0.5));
        for bad in ["nan", "inf", "3", "x"] {
            assert_eq!(real(bad, -2.0, 2.0), Err("expected a number from -2 to 2".into()));
        }
        assert_eq!(share("1"), Ok(1.0));
        assert!(share("0").is_err() && share("1.01").is_err() && share("nan").is_err());
    }

    #[test]
    fn token_id_lists() {
        assert_eq!(token_ids("1, 2,3"), Ok(vec![1, 2, 3]));
        assert!(token_ids("").is_err() && token_ids("-1").is_err() && token_ids("1,x").is_err());
    }

    choice! {
        /// A colour.
        Colour { Red = "red", Dark = "dark-red" }
    }

    #[test]
    fn choices_list_themselves() {
        assert_eq!("dark-red".parse(), Ok(Colour::Dark));
        let error: Result<Colour, String> = "blue".parse();
        assert_eq!(error, Err("expected one of: red, dark-red".into()));
        assert_eq!(Colour::default(), Colour::Red);
    }
}
