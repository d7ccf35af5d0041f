//! How a host machine behaves: its card, its checks, and the faults planted in it.

use super::error::Code;
use crate::card::{self, Card};
use crate::exec::Checks;

/// What the machine is to be.
#[derive(Debug, Clone)]
pub struct Config {
    pub card: &'static Card,
    /// Device memory in bytes; the host must be able to back it.
    pub memory: u64,
    pub checks: Checks,
    /// Schedule of every launch; see [`crate::LaunchSpec::seed`].
    pub seed: u64,
    /// Host threads of a launch; 0 for as many as the host has.
    pub threads: usize,
    /// Most warp instructions of one cluster.
    pub budget: u64,
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            card: &card::H100_SXM,
            memory: 2 << 30,
            checks: Checks::ALL,
            seed: 0,
            threads: 0,
            budget: 4_000_000_000,
            faults: Faults::default(),
        }
    }
}

/// Failures to bring about on purpose. Counts begin at 1; 0 is never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// This allocation, and every later one, finds no memory.
    pub alloc: u64,
    /// This kernel fails with that code: refused when launched if the code is not sticky, lost
    /// with the whole context when it runs if it is.
    pub launch: Option<(u64, Code)>,
}

impl Faults {
    /// Reads `alloc=K`, `launch=K:CODE`, separated by commas; CODE is CUDA's number.
    ///
    /// # Errors
    /// Says which part is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for part in text.split(',').filter(|p| !p.trim().is_empty()) {
            let wrong = || format!("'{part}': expected alloc=K or launch=K:CODE");
            let number = |s: &str| s.trim().parse::<u64>().map_err(|_| wrong());
            match part.trim().split_once('=').ok_or_else(wrong)? {
                ("alloc", count) => faults.alloc = number(count)?,
                ("launch", rest) => {
                    let (count, code) = rest.split_once(':').ok_or_else(wrong)?;
                    let code = u32::try_from(number(code)?).map_err(|_| wrong())?;
                    faults.launch = Some((number(count)?, Code::from_number(code)));
                }
                _ => return Err(wrong()),
            }
        }
        Ok(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_text() {
        let f = Faults::parse("alloc=3, launch=7:700").unwrap();
        assert_eq!(f, Faults { alloc: 3, launch: Some((7, Code::IllegalAddress)) });
        assert_eq!(Faults::parse("").unwrap(), Faults::default());
        for bad in ["alloc", "alloc=x", "launch=3", "launch=3:x", "free=1"] {
            assert!(Faults::parse(bad).is_err(), "{bad}");
        }
    }
}
