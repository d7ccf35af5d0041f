//! From a specification to a constraint, with limits on time, memory and threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use super::super::guard::guarded;
use super::super::tokenizer::Tokenizer;
use super::constraint::Constraint;
use super::spec::GrammarSpec;
use crate::error::{Error, Result};
use crate::types::TokenId;

/// Compiled grammars that are kept, the least recently used leaving first.
pub const MAX_CACHED: usize = 128;
/// Grammars compiled at once: each has a thread that cannot be stopped, only waited for.
const MAX_THREADS: usize = 4;
/// A grammar that takes longer is refused.
const MAX_TIME: Duration = Duration::from_secs(5);
/// The parser recurses over a grammar's nesting; the depth limits keep it far from this.
const STACK: usize = 32 << 20;

/// Compiles grammars for one vocabulary. Shared by threads.
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    vocab: usize,
    ends: Vec<TokenId>,
    /// Made at the first use: it takes time in proportion to the vocabulary.
    factory: OnceLock<std::result::Result<Arc<ParserFactory>, String>>,
    cache: Mutex<Cache>,
    threads: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").field("cached", &self.cached()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Cache {
    /// Compiled, not begun, with when it was last used.
    entries: BTreeMap<GrammarSpec, (u64, Matcher)>,
    uses: u64,
}

/// A place among the compiling threads, given back when dropped.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Grammars {
    /// For a model of `vocab` tokens that ends its text with any of `ends`.
    pub fn new(tokenizer: Arc<Tokenizer>, vocab: usize, ends: &[TokenId]) -> Self {
        let ends = ends.iter().copied().filter(|&id| (id as usize) < vocab).collect();
        let (factory, cache, threads) = Default::default();
        Grammars { tokenizer, vocab, ends, factory, cache, threads }
    }

    /// A constraint at its beginning. The second time it comes from the cache.
    ///
    /// # Errors
    /// `Usage`: the specification does not parse, is too large, too deep or takes too long;
    /// `Busy`: too many are being compiled.
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Constraint> {
        if let Some(matcher) = self.lock().get(spec) {
            return Ok(Constraint::new(matcher, &self.ends));
        }
        let grammar = spec.grammar()?;
        let matcher = self.compile_aside(spec, grammar)?;
        self.lock().put(spec.clone(), matcher.deep_clone());
        Ok(Constraint::new(matcher, &self.ends))
    }

    /// Compiled grammars in the cache.
    pub fn cached(&self) -> usize {
        self.lock().entries.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On a thread of its own: what comes from outside may neither use up a caller's stack nor
    /// hold it for ever.
    fn compile_aside(&self, spec: &GrammarSpec, grammar: TopLevelGrammar) -> Result<Matcher> {
        let seat = Seat(Arc::clone(&self.threads));
        if self.threads.fetch_add(1, Ordering::SeqCst) >= MAX_THREADS {
            return Err(Error::busy("too many grammars are being compiled; try again later"));
        }
        let factory = self.factory()?;
        let (send, receive) = mpsc::sync_channel(1);
        let work = move || {
            let made = guarded(|| {
                let mut matcher = Matcher::new(factory.create_parser(grammar));
                // The first mask shows whether the grammar works on this vocabulary at all.
                let first = matcher.compute_mask_or_eos().map_err(|e| e.to_string());
                let fresh = first.and_then(|_| matcher.reset().map_err(|e| e.to_string()));
                fresh.map(|()| matcher)
            });
            // Free before anybody hears of it, so that a next one finds the seat.
            drop(seat);
            // Nobody listens any more if it took too long.
            let _ = send.send(made.and_then(|inner| inner));
        };
        let thread = std::thread::Builder::new().name("grammar".into()).stack_size(STACK);
        thread.spawn(work).map_err(|e| Error::io("grammar thread", &e))?;
        let name = spec.name();
        match receive.recv_timeout(MAX_TIME) {
            Ok(Ok(matcher)) => Ok(matcher),
            Ok(Err(what)) => {
                let what = what.replace("panicked:", "the grammar compiler panicked:");
                Err(Error::usage(format!("{name}: {}", one_line(&what))))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let seconds = MAX_TIME.as_secs();
                Err(Error::usage(format!("{name}: not compiled within {seconds} s; simplify it")))
            }
        }
    }

    fn factory(&self) -> Result<Arc<ParserFactory>> {
        let made = self.factory.get_or_init(|| {
            let made = guarded(|| self.make_factory());
            made.and_then(|inner| inner).map(Arc::new)
        });
        made.clone().map_err(|what| {
            Error::unsupported(format!("constrained output with this tokenizer: {what}"))
        })
    }

    fn make_factory(&self) -> std::result::Result<ParserFactory, String> {
        let mut words: Vec<Vec<u8>> = (0..self.vocab as TokenId).map(|id| self.word(id)).collect();
        let mut ends = self.ends.clone();
        if ends.is_empty() {
            // The parser needs an end; this one lies outside the vocabulary, so nobody samples it.
            ends.push(self.vocab as TokenId);
            words.push(b"\xFF<end>".to_vec());
        }
        let info = TokRxInfo::new(words.len() as u32, ends[0]);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_lexer_states: 50_000,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(factory)
    }

    /// The bytes of a token; special ones are marked, so that no text can match them.
    fn word(&self, id: TokenId) -> Vec<u8> {
        if self.tokenizer.is_special(id) || self.ends.contains(&id) {
            let mut word = vec![TokTrie::SPECIAL_TOKEN_MARKER];
            word.extend_from_slice(format!("<{id}>").as_bytes());
            return word;
        }
        self.tokenizer.token_bytes(id).unwrap_or_default().to_vec()
    }
}

impl Cache {
    fn get(&mut self, spec: &GrammarSpec) -> Option<Matcher> {
        self.uses += 1;
        let (used, matcher) = self.entries.get_mut(spec)?;
        *used = self.uses;
        Some(matcher.deep_clone())
    }

    fn put(&mut self, spec: GrammarSpec, matcher: Matcher) {
        while self.entries.len() >= MAX_CACHED {
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(spec, _)| spec.clone()) else { break };
            self.entries.remove(&oldest);
        }
        self.uses += 1;
        self.entries.insert(spec, (self.uses, matcher));
    }
}

fn one_line(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").chars().take(300).collect()
}
