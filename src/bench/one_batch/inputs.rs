//! What is run: seeded token ids inside the vocabulary, or prompts from a file.

use std::path::Path;

use crate::error::{Error, Result};
use crate::measure::rng;
use crate::types::TokenId;

/// Token ids of `batch` sequences of `input_len` tokens, uniform over `0 .. vocab`.
///
/// Id p of sequence s is number `s · 2^32 + p` of stream `seed` ([`rng::below`]). So a sequence
/// is the same in every batch size, and a shorter one begins a longer one.
pub fn random(seed: u64, vocab: usize, batch: usize, input_len: usize) -> Vec<Vec<TokenId>> {
    let id = |sequence: usize, position: usize| {
        let counter = ((sequence as u64) << 32) | position as u64;
        rng::below(seed, counter, vocab as u64) as TokenId
    };
    (0..batch).map(|s| (0..input_len).map(|p| id(s, p)).collect()).collect()
}

/// The prompts of a file: one a line, blanks around it removed, empty lines left out.
pub fn read_prompts(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let prompts: Vec<String> = lines.map(String::from).collect();
    if prompts.is_empty() {
        return Err(Error::file(path, "no prompt in it; one a line is expected"));
    }
    Ok(prompts)
}

/// Exactly `batch` of the prompts, as SGLang fits them: too many are cut, of too few the last one
/// is repeated. With a message if they did not fit.
pub fn fit(prompts: &[Vec<TokenId>], batch: usize) -> (Vec<Vec<TokenId>>, Option<String>) {
    let mut ids: Vec<Vec<TokenId>> = prompts.iter().take(batch).cloned().collect();
    let message = match prompts.len() {
        n if n == batch => None,
        n if n > batch => Some(format!("using the first {batch} of {n} prompts")),
        n => Some(format!("only {n} prompts for a batch of {batch}: the last one is repeated")),
    };
    if let Some(last) = prompts.last() {
        ids.resize(batch, last.clone());
    }
    (ids, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_stable_and_inside_the_vocabulary() {
        let four = random(1, 50, 4, 100);
        let two = random(1, 50, 2, 30);
        assert!(four.iter().flatten().all(|&t| t < 50));
        assert_eq!(two[1], four[1][..30]);
        assert_ne!(four[0], four[1]);
        assert_ne!(random(2, 50, 1, 100)[0], four[0]);
        assert_eq!(random(0, 32_000, 1, 4)[0], [28_265, 13_808, 845, 31_068]);
    }

    #[test]
    fn prompts_fit_the_batch() {
        let prompts = vec![vec![1], vec![2, 3]];
        assert_eq!(fit(&prompts, 2), (prompts.clone(), None));
        assert_eq!(fit(&prompts, 1).0, [vec![1]]);
        let (ids, message) = fit(&prompts, 4);
        assert_eq!(ids[1..], [vec![2, 3], vec![2, 3], vec![2, 3]]);
        assert!(message.unwrap().contains("only 2 prompts for a batch of 4"));
    }

    #[test]
    fn prompt_files() {
        let path = std::env::temp_dir().join(format!("pacer-prompts-{}", std::process::id()));
        std::fs::write(&path, "  one \n\n two\n").unwrap();
        assert_eq!(read_prompts(&path).unwrap(), ["one", "two"]);
        std::fs::write(&path, " \n").unwrap();
        assert!(read_prompts(&path).unwrap_err().message.contains("no prompt"));
        std::fs::remove_file(&path).unwrap();
        assert!(read_prompts(&path).unwrap_err().message.contains("pacer-prompts"));
    }
}
