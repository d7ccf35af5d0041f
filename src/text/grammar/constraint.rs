//! Which tokens may come next, for one running choice.

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use crate::types::TokenId;

/// A grammar and how far the output has come in it.
pub struct Constraint {
    matcher: Matcher,
    ends: Vec<TokenId>,
    mask: Option<SimpleVob>,
}

/// What a token led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More may come.
    Open,
    /// The output is complete and nothing may follow.
    Complete,
}

impl Constraint {
    pub(super) fn new(matcher: Matcher, ends: &[TokenId]) -> Self {
        Constraint { matcher, ends: ends.to_vec(), mask: None }
    }

    /// The same grammar, from the same place on: for parallel samples.
    pub fn fork(&self) -> Self {
        let matcher = self.matcher.deep_clone();
        Constraint { matcher, ends: self.ends.clone(), mask: self.mask.clone() }
    }

    /// One bit for each token, bit `id % 32` of word `id / 32`: it may come next. Computed once
    /// for each place in the output.
    ///
    /// # Errors
    /// The output has come to where the grammar is too complex to go on.
    pub fn mask(&mut self) -> Result<&[u32], String> {
        if self.mask.is_none() {
            let mask = self.matcher.compute_mask_or_eos().map_err(|_| self.fault())?;
            self.mask = Some(mask);
        }
        Ok(self.mask.as_ref().map_or(&[], SimpleVob::as_slice))
    }

    /// Moves on by a token that the mask allowed.
    ///
    /// # Errors
    /// The token was not allowed, or the grammar is too complex here.
    pub fn accept(&mut self, token: TokenId) -> Result<Progress, String> {
        self.mask = None;
        if self.ends.contains(&token) {
            // Every end is as good as the one that the parser knows.
            return Ok(Progress::Complete);
        }
        self.matcher.consume_token(token).map_err(|_| self.fault())?;
        Ok(if self.matcher.is_stopped() { Progress::Complete } else { Progress::Open })
    }

    /// The token that says the end, if the model has one.
    pub fn end(&self) -> Option<TokenId> {
        self.ends.first().copied()
    }

    pub fn is_end(&self, token: TokenId) -> bool {
        self.ends.contains(&token)
    }

    fn fault(&self) -> String {
        format!("the grammar cannot go on here ({})", self.matcher.stop_reason())
    }
}
