//! A text that a tokenizer cuts into exactly so many tokens, for APIs that take no ids.

use super::Codec;
use crate::error::Result;
use crate::types::TokenId;

/// Attempts before the nearest text is taken.
const TRIES: usize = 16;

/// Text from `ids` that encodes to `ids.len()` tokens, and how many it really encodes to: texts
/// of random tokens often join differently, so it is cut or filled up and tried again.
pub fn text(codec: &dyn Codec, ids: &[TokenId]) -> Result<(String, usize)> {
    let wanted = ids.len();
    let mut current = ids.to_vec();
    let mut best: Option<(String, usize)> = None;
    for attempt in 0..TRIES {
        let text = codec.decode(&current);
        let again = codec.encode(&text)?;
        let off = again.len().abs_diff(wanted);
        let better = best.as_ref().is_none_or(|(_, n)| off < n.abs_diff(wanted));
        if better {
            best = Some((text, again.len()));
        }
        if off == 0 {
            break;
        }
        current = again;
        if current.len() > wanted {
            current.truncate(wanted);
        } else {
            // Fill up from another place of the ids each time, so as not to fail the same way.
            let missing = wanted - current.len();
            let fill = ids.iter().cycle().skip(attempt * 7 + 1).take(missing).copied();
            current.extend(fill);
        }
    }
    Ok(best.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two letters make one token; the decoder writes one letter a token.
    struct Pairs;

    impl Codec for Pairs {
        fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
            let mut ids = Vec::new();
            let mut letters = text.bytes().peekable();
            while let Some(a) = letters.next() {
                // `aa` joins into one token (id 0 twice: 26).
                let joined = a == b'a' && letters.next_if_eq(&b'a').is_some();
                ids.push(if joined { 26 } else { TokenId::from(a - b'a') });
            }
            Ok(ids)
        }

        fn decode(&self, ids: &[TokenId]) -> String {
            ids.iter()
                .map(
                    |&id| {
                        if id == 26 { "aa".into() } else { char::from(b'a' + id as u8).to_string() }
                    },
                )
                .collect()
        }
    }

    #[test]
    fn joins_are_made_up_for() {
        let ids = [0, 0, 1, 0, 0, 2, 3, 4];
        let (text, n) = text(&Pairs, &ids).unwrap();
        assert_eq!(n, 8, "{text}");
        assert_eq!(Pairs.encode(&text).unwrap().len(), 8);
    }
}
