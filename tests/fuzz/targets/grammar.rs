//! Any text as a JSON schema, a regular expression or a grammar, and a walk over allowed tokens.
#![no_main]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use pacer::text::Tokenizer;
use pacer::text::grammar::{Grammars, fuzz};

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/llama");
    let tokenizer = Tokenizer::from_folder(&folder).expect("the golden model's tokenizer");
    let (vocab, ends) = (tokenizer.vocab_size(), tokenizer.eos_ids().to_vec());
    Grammars::new(Arc::new(tokenizer), vocab, &ends)
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::walk(&GRAMMARS, bytes));
