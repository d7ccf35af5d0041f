//! Refuses a batch outside the limits before anything is written.

use crate::device::{Batch, Limits};
use crate::error::{Error, Result};

/// Checks everything that a step indexes by.
///
/// # Errors
/// Says which sequence, row or token is out of range.
pub fn check_batch(batch: &Batch, limits: &Limits, vocab: usize) -> Result<()> {
    at_most("tokens", batch.tokens.len(), limits.step_tokens)?;
    at_most("sequences", batch.spans.len(), limits.step_sequences)?;
    at_most("logit rows", batch.logit_rows.len(), limits.logit_rows)?;
    if let Some(id) = batch.tokens.iter().find(|id| **id as usize >= vocab) {
        return Err(Error::limit(format!("token id {id} is outside the vocabulary of {vocab}")));
    }
    check_spans(batch, limits)?;
    let rows = batch.tokens.len();
    let ascending = batch.logit_rows.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || batch.logit_rows.last().is_some_and(|last| *last >= rows) {
        return Err(Error::device(format!(
            "logit rows must ascend and lie below {rows}, the step's tokens"
        )));
    }
    Ok(())
}

fn at_most(what: &str, found: usize, most: usize) -> Result<()> {
    if found > most {
        return Err(Error::limit(format!("a step of {found} {what} is over the limit of {most}")));
    }
    Ok(())
}

fn check_spans(batch: &Batch, limits: &Limits) -> Result<()> {
    let mut next = 0;
    for (i, span) in batch.spans.iter().enumerate() {
        if span.start != next || span.len == 0 {
            return Err(Error::device(format!(
                "sequence {i} begins at row {} with {} tokens; row {next} is next and at least \
                 one token is needed",
                span.start, span.len
            )));
        }
        next = next.saturating_add(span.len);
        let length = span.past.saturating_add(span.len);
        if length > limits.context {
            return Err(Error::limit(format!(
                "sequence {i} would be {length} tokens long; the context is {}",
                limits.context
            )));
        }
        if length > limits.pages.saturating_mul(limits.page_size) {
            return Err(Error::limit(format!(
                "sequence {i} would be {length} tokens long; the cache has {} pages of {}",
                limits.pages, limits.page_size
            )));
        }
        let pages = span.pages_start.saturating_add(length.div_ceil(limits.page_size));
        let Some(pages) = batch.pages.get(span.pages_start..pages) else {
            return Err(Error::device(format!(
                "sequence {i} has too few pages for {length} tokens"
            )));
        };
        if let Some(page) = pages.iter().find(|page| **page as usize >= limits.pages) {
            return Err(Error::device(format!(
                "sequence {i} names page {page} of {} pages",
                limits.pages
            )));
        }
    }
    if next != batch.tokens.len() {
        return Err(Error::device(format!(
            "the sequences cover {next} rows of {} tokens",
            batch.tokens.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Span;

    const LIMITS: Limits = Limits {
        step_tokens: 4,
        step_sequences: 2,
        logit_rows: 2,
        pages: 3,
        page_size: 2,
        context: 5,
    };

    fn refused(
        edit: impl Fn(&mut Vec<u32>, &mut [Span; 2], &mut Vec<u32>, &mut Vec<usize>),
    ) -> bool {
        let mut tokens = vec![1, 2, 3];
        let mut spans = [
            Span { start: 0, len: 1, past: 2, pages_start: 0 },
            Span { start: 1, len: 2, past: 0, pages_start: 2 },
        ];
        let mut pages = vec![2, 0, 1];
        let mut rows = vec![0, 2];
        edit(&mut tokens, &mut spans, &mut pages, &mut rows);
        let batch = Batch { tokens: &tokens, spans: &spans, pages: &pages, logit_rows: &rows };
        check_batch(&batch, &LIMITS, 10).is_err()
    }

    #[test]
    fn accepts_a_good_batch_and_refuses_each_fault() {
        assert!(!refused(|_, _, _, _| {}));
        assert!(refused(|tokens, _, _, _| tokens[1] = 10));
        assert!(refused(|tokens, _, _, _| tokens.push(1)));
        assert!(refused(|_, spans, _, _| spans[1].start = 2));
        assert!(refused(|_, spans, _, _| spans[1].len = 1));
        assert!(refused(|_, spans, _, _| spans[1].len = usize::MAX));
        assert!(refused(|_, spans, _, _| spans[1].past = 4));
        assert!(refused(|_, spans, _, _| spans[1].past = 1));
        assert!(refused(|_, spans, _, _| spans[0].past = usize::MAX));
        assert!(refused(|_, spans, _, _| spans[0].pages_start = usize::MAX));
        assert!(refused(|_, _, pages, _| pages[2] = 3));
        assert!(refused(|_, _, _, rows| rows[1] = 3));
        assert!(refused(|_, _, _, rows| rows[0] = 2));
        assert!(refused(|_, _, _, rows| rows.insert(1, 1)));
    }
}
