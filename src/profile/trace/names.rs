//! File names, as SGLang has them: `[{prefix}-]{id}-TP-{tp}[-DP-{dp}][-PP-{pp}][-EP-{ep}]
//! [-{STAGE}].trace.json.gz`.

/// Which part of a parallel run this process is: (rank, size) of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ranks {
    pub tp: usize,
    pub dp: Option<usize>,
    pub pp: Option<usize>,
    pub ep: Option<usize>,
}

impl Ranks {
    /// `TP-0`, with the other kinds where they have more than one member.
    pub fn suffix(&self) -> String {
        let mut text = format!("TP-{}", self.tp);
        for (name, rank) in [("DP", self.dp), ("PP", self.pp), ("EP", self.ep)] {
            if let Some(rank) = rank {
                text.push_str(&format!("-{name}-{rank}"));
            }
        }
        text
    }

    /// The label of its rows in a merged trace: `[TP00-DP01]`.
    pub fn label(&self) -> String {
        let mut text = format!("[TP{:02}", self.tp);
        for (name, rank) in [("DP", self.dp), ("PP", self.pp), ("EP", self.ep)] {
            if let Some(rank) = rank {
                text.push_str(&format!("-{name}{rank:02}"));
            }
        }
        text + "]"
    }

    /// From a file name, wherever the parts stand in it.
    pub fn of_file(name: &str) -> Option<Ranks> {
        let part = |tag: &str| -> Option<usize> {
            let at = name.rfind(&format!("{tag}-"))? + tag.len() + 1;
            let digits: String =
                name[at..].chars().take_while(char::is_ascii_digit).take(6).collect();
            digits.parse().ok()
        };
        Some(Ranks { tp: part("-TP")?, dp: part("-DP"), pp: part("-PP"), ep: part("-EP") })
    }

    /// What SGLang sorts and numbers by: 10⁸·dp + 10⁶·ep + 10⁴·pp + 10²·tp.
    pub fn sort_index(&self) -> u64 {
        let part = |rank: Option<usize>, weight| rank.unwrap_or(0) as u64 * weight;
        part(self.dp, 100_000_000)
            + part(self.ep, 1_000_000)
            + part(self.pp, 10_000)
            + self.tp as u64 * 100
    }
}

/// The end of every trace's name.
pub const TRACE: &str = ".trace.json.gz";

/// The name of a trace, without its end.
pub fn stem(prefix: Option<&str>, id: &str, ranks: &Ranks, stage: Option<&str>) -> String {
    let prefix = prefix.map_or(String::new(), |p| format!("{p}-"));
    let stage = stage.map_or(String::new(), |s| format!("-{s}"));
    format!("{prefix}{id}-{}{stage}", ranks.suffix())
}

/// The name of the merged trace of a capture.
pub fn merged(id: &str) -> String {
    format!("merged-{id}{TRACE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_parts_for_sizes_above_one() {
        let all = Ranks { tp: 3, dp: Some(1), pp: Some(0), ep: Some(12) };
        let name = stem(Some("run"), "1700000000.5", &all, Some("DECODE"));
        assert_eq!(name, "run-1700000000.5-TP-3-DP-1-PP-0-EP-12-DECODE");
        assert_eq!(stem(None, "x", &Ranks::default(), None), "x-TP-0");
        assert_eq!(merged("x"), "merged-x.trace.json.gz");
    }

    #[test]
    fn ranks_are_found_in_names_with_prefixes() {
        let all = Ranks { tp: 3, dp: Some(1), pp: Some(0), ep: Some(12) };
        for prefix in [None, Some("a"), Some("b-TP-9-x")] {
            let name = stem(prefix, "17", &all, Some("EXTEND")) + TRACE;
            assert_eq!(Ranks::of_file(&name), Some(all), "{name}");
        }
        assert_eq!(Ranks::of_file("x.trace.json.gz"), None);
        assert_eq!(all.label(), "[TP03-DP01-PP00-EP12]");
        assert_eq!(all.sort_index(), 100_000_000 + 12_000_000 + 300);
    }
}
