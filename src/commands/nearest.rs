//! "Did you mean": the nearest known word to one that is unknown.

/// The candidate that `word` most likely meant, or `None` if nothing is near. A candidate that
/// begins with `word` (at least two letters beyond the dashes) counts as near.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let bare = word.trim_start_matches('-');
    let scored = candidates.map(|c| {
        let other = c.trim_start_matches('-');
        let prefix = bare.len() >= 2 && other.starts_with(bare);
        (if prefix { 1 } else { edits(bare, other) }, c)
    });
    let (distance, best) = scored.min_by_key(|&(d, c)| (d, c.len()))?;
    (distance <= 1 + bare.chars().count() / 4).then_some(best)
}

/// Optimal string alignment distance: insertions, deletions, replacements, and swaps of
/// neighbours, each counting one.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("ab", "ba"), 1);
    }

    #[test]
    fn near_and_far() {
        let flags = ["--batch-size", "--input-len", "--output-len", "--seed"];
        let near = |w: &str| nearest(w, flags.iter().copied());
        assert_eq!(near("--bach-size"), Some("--batch-size"));
        assert_eq!(near("--input-length"), Some("--input-len"));
        assert_eq!(near("--out"), Some("--output-len"));
        assert_eq!(near("--temperature"), None);
        assert_eq!(near("--sede"), Some("--seed"));
    }
}
