//! Sizes of the processors' caches, from Linux's /sys.

use std::collections::HashMap;
use std::path::Path;

use super::affinity;

/// Where the kernel tells of processors.
const CPUS: &str = "/sys/devices/system/cpu";
/// Taken where the system does not tell.
const USUAL: u64 = 32 << 20;

/// Bytes of the last-level caches of the processors that this process may use, together.
pub fn last_level() -> u64 {
    let cpus: Vec<usize> = match affinity::allowed() {
        Some(set) => set.iter().collect(),
        None => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    };
    last_level_of(Path::new(CPUS), &cpus).unwrap_or(USUAL)
}

/// A cache is known by the processors that share it. `None` if no size is told.
fn last_level_of(root: &Path, cpus: &[usize]) -> Option<u64> {
    let mut caches: HashMap<String, u64> = HashMap::new();
    for cpu in cpus {
        let last = (0..8).rev().find_map(|index| {
            let file = |name: &str| {
                let path = root.join(format!("cpu{cpu}/cache/index{index}/{name}"));
                std::fs::read_to_string(path).ok()
            };
            Some((file("shared_cpu_list")?, kilobytes(&file("size")?)?))
        });
        caches.extend(last);
    }
    (!caches.is_empty()).then(|| caches.values().sum())
}

/// Bytes of `16384K`.
fn kilobytes(text: &str) -> Option<u64> {
    text.trim().strip_suffix('K')?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_caches_count_once() {
        let root = std::env::temp_dir().join(format!("pacer-caches-{}", std::process::id()));
        for (cpu, index, shared, size) in [
            (0, 2, "0", "512K"),
            (0, 3, "0-1", "16384K"),
            (1, 3, "0-1", "16384K"),
            (2, 2, "2", "1024K"),
            (3, 3, "3", "odd"),
        ] {
            let folder = root.join(format!("cpu{cpu}/cache/index{index}"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("shared_cpu_list"), format!("{shared}\n")).unwrap();
            std::fs::write(folder.join("size"), format!("{size}\n")).unwrap();
        }
        let found = last_level_of(&root, &[0, 1, 2, 3, 4]);
        let none = last_level_of(&root, &[3, 4]);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, Some((16384 + 1024) << 10));
        assert_eq!(none, None);
    }
}
