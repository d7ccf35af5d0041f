//! An entry for fuzzers: any text as a schema, an expression or a grammar, then a walk through it.

use super::{Constraint, GrammarSpec, Grammars};
use crate::text::grammar::constraint::Progress;
use crate::types::TokenId;

/// Tokens of a walk at most.
const WALK: usize = 24;

/// The first byte says what the text is, the second how many of the last bytes steer a walk over
/// tokens that the masks allow. A text is refused with a word, or every token that a mask allows
/// is accepted.
pub fn walk(grammars: &Grammars, data: &[u8]) {
    let [kind, steps, rest @ ..] = data else { return };
    let (text, steer) = rest.split_at(rest.len() - rest.len().min(usize::from(*steps) % WALK));
    let text = String::from_utf8_lossy(text).into_owned();
    let spec = match kind % 3 {
        0 => GrammarSpec::JsonSchema(text),
        1 => GrammarSpec::Regex(text),
        _ => GrammarSpec::Ebnf(text),
    };
    match grammars.compile(&spec) {
        Ok(constraint) => steered(constraint, steer),
        Err(error) => {
            assert!(!error.message.is_empty() && error.message.len() < 4096, "{error}");
        }
    }
}

fn steered(mut constraint: Constraint, steer: &[u8]) {
    for byte in steer {
        let Ok(mask) = constraint.mask() else { return };
        let allows = |id: &TokenId| mask[*id as usize / 32] >> (id % 32) & 1 == 1;
        let allowed: Vec<TokenId> = (0..mask.len() as TokenId * 32).filter(allows).collect();
        let Some(&token) = allowed.get(usize::from(*byte) % allowed.len().max(1)) else { return };
        match constraint.accept(token) {
            Ok(Progress::Open) => {}
            Ok(Progress::Complete) => return,
            // Too complex from here on; what is refused for another reason was allowed just now.
            Err(why) => {
                assert!(!why.is_empty());
                return;
            }
        }
    }
}
