//! The machine's name and memory, from Linux's /proc.

use std::fs::read_to_string;

/// The processor's marketing name, or its architecture where it is not told.
pub fn processor() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = field(&info, "model name").map(str::to_string);
    name.unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

/// Bytes of memory that can be used now, and in all; 0 where that is not told.
pub fn memory() -> (u64, u64) {
    let info = read_to_string("/proc/meminfo").unwrap_or_default();
    (bytes(&info, "MemAvailable"), bytes(&info, "MemTotal"))
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn bytes(text: &str, name: &str) -> u64 {
    let kilobytes = field(text, name).and_then(|v| v.strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_lines() {
        let text = "MemTotal:       16 kB\nmodel name\t: A CPU: fast\nMemAvailable: x kB\n";
        assert_eq!(bytes(text, "MemTotal"), 16 * 1024);
        assert_eq!(bytes(text, "MemAvailable"), 0);
        assert_eq!(field(text, "model name"), Some("A CPU: fast"));
    }
}
