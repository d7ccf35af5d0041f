//! Output that follows a JSON schema, a regular expression or a grammar.
//!
//! - [`spec`]: what a client asks for, with limits on its size and depth. - [`gbnf`]: the
//!   `root ::= …` notation. - [`compiler`]: a specification becomes a constraint, on a thread with
//!   a known stack, within a time, through a bounded cache. - [`constraint`]: which tokens may
//!   come next, for one running choice.
//!
//! The parser is llguidance: an Earley parser over lexemes that are derivatives of regular
//! expressions, walked over a prefix tree of the vocabulary.

pub mod compiler;
pub mod constraint;
pub mod fuzz;
pub mod gbnf;
pub mod spec;

pub use compiler::Grammars;
pub use constraint::Constraint;
pub use spec::GrammarSpec;
