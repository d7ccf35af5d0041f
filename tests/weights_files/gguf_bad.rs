//! Damaged GGUF files, each family of them that has hurt another reader.

use super::account::{Scratch, bounded, refused};
use super::build::*;

fn bad(case: &str, file: Gguf, wanted: &str) {
    refused(case, "bad.gguf", &file.bytes(), wanted);
}

fn raw(case: &str, bytes: &[u8], wanted: &str) {
    refused(case, "bad.gguf", bytes, wanted);
}

fn llama() -> Gguf {
    Gguf::of("llama")
}

/// A sound file with a vocabulary and a few tensors.
fn sound() -> Gguf {
    llama()
        .pair("general.alignment", U32, &32u32.to_le_bytes())
        .pair("tokenizer.ggml.model", STR, &string("gpt2"))
        .pair("tokenizer.ggml.tokens", ARRAY, &strings(&["a", "b", "ab"]))
        .pair("tokenizer.ggml.token_type", ARRAY, &array(I32, 3, &[1, 0, 0, 0].repeat(3)))
        .pair("tokenizer.ggml.merges", ARRAY, &strings(&["a b"]))
        .pair("tokenizer.ggml.bos_token_id", U32, &1u32.to_le_bytes())
        .pair("tokenizer.ggml.add_bos_token", BOOL, &[1])
        .f32("token_embd.weight", &[4, 3], &[0.5; 12])
        .f32("blk.0.attn_q.weight", &[4, 4], &[0.5; 16])
        .tensor("blk.0.ffn_up.weight", &[32, 2], 8, &[0; 68])
}

#[test]
fn header() {
    raw("empty", b"", "empty");
    refused("magic only (CVE-2024-39720)", "bad.gguf", b"GGUF", "version|4 bytes wanted");
    raw("three bytes of magic", b"GGU", "bad.gguf");
    let mut file = sound();
    file.magic = *b"GGML";
    bad("another magic", file, "bad.gguf");
    for (version, wanted) in
        [(0, "version: 0"), (1, "version: 1"), (4, "version: 4"), (3 << 24, "big-endian")]
    {
        bad("version", Gguf { version, ..sound() }, wanted);
    }
    for count in [u64::MAX, 1 << 63, 1 << 40, 1000] {
        let file = Gguf { tensor_count: Some(count), ..sound() };
        bad("tensor count (CVE-2024-21836)", file, "tensor");
        bad("pair count", Gguf { pair_count: Some(count), ..sound() }, "metadata");
    }
}

#[test]
fn metadata_keys_and_strings() {
    let key_of = |len: u64| Gguf::empty().raw_pair(&[&len.to_le_bytes()[..], &[7; 40]].concat());
    bad("key length -1", key_of(u64::MAX), "length of metadata key 0|18446744073709551615");
    bad("key length 2^63", key_of(1 << 63), "metadata key 0");
    let long = "k".repeat(1 << 16);
    bad("key too long", Gguf::empty().pair(long, U8, &[1]), "metadata key 0|65535");
    bad("empty key", Gguf::empty().pair("", U8, &[1]), "metadata key 0: empty");
    bad("key not UTF-8", Gguf::empty().pair([0xff, 0xfe], U8, &[1]), "metadata key 0: not UTF-8");
    let twice = llama().pair("a.b", U8, &[1]).pair("a.b", STR, &string("x"));
    bad("duplicate key", twice, "duplicate key \"a.b\"");
    let mut value = (u64::MAX - 7).to_le_bytes().to_vec();
    value.extend([65; 30]);
    bad("string length wraps (CVE-2024-23605)", llama().pair("s", STR, &value), "length of \"s\"");
    bad("string not UTF-8", llama().pair("s", STR, &string([65, 0xc3])), "\"s\": not UTF-8");
    bad("bool of 2", llama().pair("b", BOOL, &[2]), "\"b\": a bool is 0 or 1, found 2");
}

#[test]
fn metadata_types_and_arrays() {
    for kind in [13, 255, u32::MAX] {
        bad("value type", llama().pair("k", kind, &[0; 8]), "\"k\": unknown value type");
        let file = llama().pair("k", ARRAY, &array(kind, 1, &[0; 8]));
        bad("element type", file, "\"k\": unknown value type");
    }
    for kind in [U8, U32, STR, U64, BOOL, F32] {
        for count in [1 << 63, u64::MAX, 1 << 61, 1 << 32, 100] {
            let file = llama().pair("a", ARRAY, &array(kind, count, &[]));
            bad("array length", file, "array length of \"a\"");
        }
    }
    let mut tiny = Gguf::empty().pair("a", ARRAY, &array(U8, 1 << 63, &[])).header();
    tiny.truncate(45);
    raw("43 bytes with 2^63 elements", &tiny, "\"a\"");
    let nested = array(ARRAY, 1, &array(ARRAY, 1, &array(U8, 1, &[1])));
    bad("arrays of arrays", llama().pair("a", ARRAY, &nested), "\"a\": an array of arrays");
    let deep = (0..10_000).fold(array(U8, 1, &[1]), |inner, _| {
        if inner.len() > 60_000 { inner } else { array(ARRAY, 1, &inner) }
    });
    bad("deep arrays", llama().pair("a", ARRAY, &deep), "an array of arrays");
    let file = llama().pair("a", ARRAY, &array(STR, 2, &string("only one, but a long one here")));
    bad("strings short", file, "\"a\"[1]");
}

#[test]
fn alignment() {
    for align in [0u32, 3, 24, 33, 1 << 17, 1 << 31, u32::MAX] {
        let file = llama().pair("general.alignment", U32, &align.to_le_bytes());
        bad("alignment", file, &format!("general.alignment: {align} is no power of two"));
    }
    let value = 32u64.to_le_bytes();
    bad("u64", llama().pair("general.alignment", U64, &value), "general.alignment|must be U32");
    let value = string("32");
    bad("string", llama().pair("general.alignment", STR, &value), "general.alignment|Str");
}

#[test]
fn tensor_list() {
    let list = |name: &str, dims: &[u64], kind, offset| {
        llama().lists(name, dims, kind, offset).with_data(64)
    };
    bad("name too long", list(&"n".repeat(65), &[1], 0, 0), "name of tensor 0|64");
    bad("name empty", list("", &[1], 0, 0), "name of tensor 0: empty");
    bad("name not UTF-8", llama().lists([0x80], &[1], 0, 0), "name of tensor 0: not UTF-8");
    let long = [&u64::MAX.to_le_bytes()[..], &[0; 64]].concat();
    bad("name length -1", llama().raw_tensor(&long), "length of name of tensor 0");
    bad("no dimensions", list("t", &[], 0, 0), "dimensions of tensor \"t\": 0 of them");
    bad("five dimensions (CVE-2024-21802)", list("t", &[1; 5], 0, 0), "\"t\": 5 of them");
    let many = [&string("t")[..], &u32::MAX.to_le_bytes(), &[0; 64]].concat();
    bad("2^32 dimensions", llama().raw_tensor(&many), "dimensions of tensor \"t\"");
    bad("dimension 0", list("t", &[4, 0], 0, 0), "\"t\": 0 is out of range");
    bad("dimension 2^63", list("t", &[1 << 63], 0, 0), "\"t\"|out of range");
    bad("dimension -1", list("t", &[u64::MAX, 2], 0, 0), "\"t\"|out of range");
    bad("product wraps", list("t", &[1 << 32, 1 << 32], 0, 0), "\"t\"|overflows");
    bad("bytes wrap (CVE-2026-33298)", list("t", &[(1 << 62) + 1], 0, 0), "\"t\"|overflows");
    bad("stride wraps", list("t", &[(1 << 42) + 1, 1 << 22], 0, 0), "\"t\"|overflows");
    let dims = &[(1 << 62) / 18 * 32 / 32 * 32, 4];
    bad("blocks wrap", list("t", dims, 2, 0), "\"t\"|overflows");
    bad("unknown type", list("t", &[32], 999, 0), "type of tensor \"t\": unknown type 999");
    bad("type 2^32-1", list("t", &[32], u32::MAX, 0), "type of tensor \"t\": unknown type");
    bad("IQ2_XS", list("t", &[256], 17, 0), "\"t\": IQ2_XS is not supported|Q4_K");
    bad("removed type", list("t", &[32], 4, 0), "\"t\": Q4_2 (removed)");
    bad("half a block", list("t", &[48], 8, 0), "\"t\"|whole q8_0 blocks of 32");
    bad("half a K block", list("t", &[32, 8], 12, 0), "\"t\"|whole q4_k blocks of 256");
    bad("listed twice", list("t", &[1], 0, 0).lists("t", &[1], 0, 32), "\"t\" is listed twice");
}

#[test]
fn offsets() {
    let list = |dims: &[u64], offset| llama().lists("t", dims, 0, offset).with_data(64);
    bad("misaligned", list(&[1], 4), "\"t\": offset 4 is no multiple of 32");
    bad("behind the end", list(&[1], 96), "\"t\"|end behind the file");
    bad("past the end (CVE-2026-7482)", list(&[17], 0), "\"t\"|end behind the file's 64 bytes");
    bad("offset near 2^64", list(&[16], u64::MAX - 31), "\"t\"|overflow");
    bad("offset 2^63", list(&[1], 1 << 63), "\"t\"|end behind");
    let huge = (1 << 61) - 8;
    let file = llama().lists("t", &[huge], 0, 0).lists("u", &[huge], 0, huge * 4);
    bad("sizes sum past 2^64 (CVE-2025-53630)", file, "\"t\"");
    let file = list(&[16], 0).lists("u", &[1], 0, 32);
    bad("overlap", file, "tensors \"t\" and \"u\" overlap");
    bad("same place", list(&[1], 0).lists("u", &[1], 0, 0), "\"t\" and \"u\" overlap");
    let mut cut = sound().bytes();
    cut.pop();
    raw("last byte missing", &cut, "ffn_up.weight|end behind");
    bad("no data", Gguf { data: Vec::new(), ..sound() }, "end behind the file's 0 bytes");
}

#[test]
fn architecture_and_heads() {
    let tensor = |file: Gguf| file.lists("blk.0.attn_q.weight", &[4, 6], 0, 0).with_data(96);
    bad("no architecture", tensor(Gguf::empty()), "general.architecture: missing");
    let file = Gguf::empty().pair("general.architecture", U32, &[0; 4]);
    bad("architecture of another type", tensor(file), "general.architecture\": a string wanted");
    bad("unknown architecture", tensor(Gguf::of("mamba")), "\"mamba\" is not supported|qwen3");
    let with = |kind, value: &[u8]| {
        Gguf::empty().pair("general.architecture", STR, &string("llama")).pair(
            "llama.attention.head_count",
            kind,
            value,
        )
    };
    let key = "llama.attention.head_count";
    bad("0 heads", tensor(with(U32, &[0; 4])), key);
    bad("4 heads of 6 rows", tensor(with(U32, &[4, 0, 0, 0])), "6 rows do not make pairs in 4");
    bad("odd heads", tensor(with(U32, &[2, 0, 0, 0])), "6 rows do not make pairs in 2 heads");
    bad("-1 heads", tensor(with(I32, &[0xff; 4])), key);
    bad(
        "heads as a string",
        tensor(with(STR, &string("2"))),
        &format!("{key}\": an integer wanted"),
    );
    bad("heads of no layer", tensor(with(ARRAY, &array(U32, 0, &[]))), "no count for layer 0");
    let file = Gguf::empty().pair("general.architecture", STR, &string("llama"));
    bad("no heads", tensor(file), &format!("{key}: missing"));
}

#[test]
fn experts() {
    let list =
        |dims: &[u64]| llama().lists("blk.0.ffn_up_exps.weight", dims, 0, 0).with_data(1 << 16);
    bad("two dimensions", list(&[8, 8]), "ffn_up_exps|three dimensions");
    bad("too many", list(&[1, 1, 1025]), "ffn_up_exps|1025 experts");
    bad("too small", list(&[1, 1, 1024]), "ffn_up_exps|too small");
    let file = llama().lists("blk.0.ffn_norm.weight", &[1], 0, 0).lists(
        "blk.0.post_attention_norm.weight",
        &[1],
        0,
        32,
    );
    bad(
        "two names for one",
        file.with_data(64),
        "post_attention_layernorm.weight\" is there twice",
    );
}

#[test]
fn vocabulary() {
    let base = |model: bool| {
        let file = if model {
            llama().pair("tokenizer.ggml.model", STR, &string("gpt2"))
        } else {
            llama()
        };
        file.pair("tokenizer.ggml.tokens", ARRAY, &strings(&["a", "b"]))
    };
    bad("no model", base(false), "tokenizer.ggml.model: missing");
    let file = llama().pair("tokenizer.ggml.tokens", ARRAY, &array(U8, 4, &[1; 4]));
    bad("tokens of bytes", file, "tokenizer.ggml.tokens\": an array of strings wanted");
    let file = llama().pair("tokenizer.ggml.tokens", ARRAY, &array(STR, 0, &[]));
    bad("no tokens", file, "tokenizer.ggml.tokens: 0 tokens");
    for (name, kind, value, wanted) in [
        ("ggml.scores", ARRAY, array(U8, 2, &[1; 2]), "an array of floats wanted"),
        ("ggml.scores", ARRAY, array(F32, 1, &[0; 4]), "1 values for 2 tokens"),
        ("ggml.token_type", ARRAY, array(F32, 2, &[0; 8]), "an array of integers wanted"),
        ("ggml.token_type", ARRAY, array(U8, 3, &[1; 3]), "3 values for 2 tokens"),
        ("ggml.token_type", ARRAY, array(U8, 2, &[1, 7]), "[1]: 7 is no token type"),
        ("ggml.token_type", ARRAY, array(U64, 2, &[0xff; 16]), "no token type"),
        ("ggml.merges", ARRAY, array(U8, 2, &[1; 2]), "an array of strings wanted"),
        ("ggml.bos_token_id", U32, vec![2, 0, 0, 0], "2 is outside the vocabulary of 2"),
        ("ggml.eos_token_id", I32, vec![0xff; 4], "an integer of at least 0 wanted"),
        ("ggml.eos_token_id", U64, vec![0, 0, 0, 0, 1, 0, 0, 0], "outside the vocabulary"),
        ("ggml.add_bos_token", U8, vec![1], "a bool wanted"),
        ("chat_template", U32, vec![1, 0, 0, 0], "a string wanted"),
    ] {
        let key = format!("tokenizer.{name}");
        bad(&key, base(true).pair(&key, kind, &value), &format!("{key}|{wanted}"));
    }
}

#[test]
fn splits() {
    let part = |no: u16, count: u16, name: &str| {
        llama()
            .pair("split.no", U16, &no.to_le_bytes())
            .pair("split.count", U16, &count.to_le_bytes())
            .pair("split.tensors.count", I32, &2i32.to_le_bytes())
            .f32(name, &[1], &[1.0])
    };
    bad("a name without numbers", part(0, 2, "a"), "split.count|-00001-of-00002.gguf");
    let scratch = Scratch::new("split");
    let first = scratch.write("m-00001-of-00002.gguf", &part(0, 2, "a").bytes());
    let message = bounded("missing part", &first, 400).unwrap_err().message;
    assert!(message.contains("m-00002-of-00002.gguf"), "{message}");
    for (no, count, name, wanted) in [
        (0, 2, "b", "split.no Some(0)"),
        (1, 3, "b", "split.count Some(3)"),
        (1, 2, "a", "\"a\" is there twice"),
    ] {
        scratch.write("m-00002-of-00002.gguf", &part(no, count, name).bytes());
        let message = bounded("wrong part", &first, 800).unwrap_err().message;
        assert!(message.contains(wanted) && message.contains("m-00002-of"), "{message}");
    }
    let two = part(1, 2, "b").f32("c", &[1], &[1.0]);
    scratch.write("m-00002-of-00002.gguf", &two.bytes());
    let message = bounded("too many tensors", &first, 800).unwrap_err().message;
    assert!(message.contains("split.tensors.count: 2, but the files hold 3"), "{message}");
}

#[test]
fn cut_at_every_byte_and_every_byte_changed() {
    let whole = sound().bytes();
    let scratch = Scratch::new("cut");
    let path = scratch.write("cut.gguf", &whole);
    bounded("whole", &path, whole.len()).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let message = bounded("cut", &path, len).err().unwrap_or_else(|| panic!("{len}")).message;
        assert!(message.contains("cut.gguf"), "{message}");
    }
    for at in 0..sound().header().len() {
        for byte in [0, 0xff, 0x80, whole[at] ^ 1, whole[at].wrapping_add(1)] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            std::fs::write(&path, &bytes).unwrap();
            let _ = bounded("changed", &path, bytes.len());
        }
    }
}

#[test]
fn a_large_vocabulary_takes_linear_time() {
    let tokens: Vec<String> = (0..400_000).map(|i| format!("t{i}")).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let file = llama().pair("tokenizer.ggml.model", STR, &string("gpt2")).pair(
        "tokenizer.ggml.tokens",
        ARRAY,
        &strings(&tokens),
    );
    let scratch = Scratch::new("large");
    let bytes = file.bytes();
    let path = scratch.write("large.gguf", &bytes);
    let opened = bounded("large vocabulary", &path, bytes.len()).unwrap();
    assert_eq!(opened.gguf.unwrap().vocab.unwrap().tokens.len(), 400_000);
}
