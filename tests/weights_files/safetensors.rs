//! Damaged safetensors files, and odd ones that are sound.

use pacer::weights::check::account;
use pacer::weights::open::{Format, open};

use super::account::{Scratch, bounded, refused};
use super::build::safetensors;

fn bad(case: &str, header: &str, data: usize, wanted: &str) {
    refused(case, "bad.safetensors", &safetensors(header, data), wanted);
}

fn raw(case: &str, bytes: &[u8], wanted: &str) {
    refused(case, "bad.safetensors", bytes, wanted);
}

/// A header of one tensor `t` with these fields.
fn t(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

const SOUND: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}}"#;

#[test]
fn header_length() {
    raw("empty", b"", "empty");
    raw("seven bytes", &[1; 7], "header length: 8 bytes wanted, the file has 7");
    for len in [100_000_001, 1 << 63, u64::MAX] {
        raw("too long", &[&u64::to_le_bytes(len)[..], b"{}"].concat(), "header length|limit");
    }
    raw("longer than the file", &[&3u64.to_le_bytes()[..], b"{}"].concat(), "ends after 2");
    raw("no header", &0u64.to_le_bytes(), "header: empty");
    bad("leading blank", " {}", 0, "header: starts with byte 0x20");
    bad("a list", "[]", 0, "header: starts with byte 0x5b");
}

#[test]
fn other_files_under_the_name() {
    raw("LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer");
    raw("web page", b"<!DOCTYPE html><html></html>", "a web page");
    raw("zip", b"PK\x03\x04aaaaaaaaaaaaaaaa", "a zip archive");
}

#[test]
fn json() {
    let not_utf8 = [&4u64.to_le_bytes()[..], b"{\"\xff\""].concat();
    raw("not UTF-8", &not_utf8, "header, byte 10: not UTF-8");
    bad("cut short", "{\"t\":", 0, "header: EOF");
    bad("junk behind", "{} x", 0, "header: trailing characters");
    bad("a second object", "{}{}", 0, "header: trailing characters");
    bad("byte order mark", "{\u{feff}}", 0, "header:");
    bad("deep", &format!("{{\"t\":{}", "[".repeat(50_000)), 0, "header:");
    bad("deep in a field", &format!("{{\"t\":{{\"x\":{}", "[".repeat(50_000)), 0, "unknown field");
    bad("not an object", r#"{"t":3}"#, 0, "header: invalid type");
    bad("null", r#"{"t":null}"#, 0, "header: invalid type");
}

#[test]
fn keys() {
    let one = r#""dtype":"F32","shape":[1],"data_offsets":[0,4]"#;
    bad("tensor twice", &format!("{{\"t\":{{{one}}},\"t\":{{{one}}}}}"), 4, "duplicate key \"t\"");
    bad("escaped twice", &format!("{{\"t\":{{{one}}},\"\\u0074\":{{{one}}}}}"), 4, "duplicate key");
    bad(
        "field twice",
        &format!("{{\"t\":{{\"dtype\":\"F16\",{one}}}}}"),
        4,
        "duplicate field `dtype`",
    );
    bad("unknown field", &format!("{{\"t\":{{\"x\":1,{one}}}}}"), 4, "unknown field");
    bad("no dtype", r#"{"t":{"shape":[1],"data_offsets":[0,4]}}"#, 4, "missing field `dtype`");
    bad("no shape", r#"{"t":{"dtype":"F32","data_offsets":[0,4]}}"#, 4, "missing field `shape`");
    let header = r#"{"t":{"dtype":"F32","shape":[1]}}"#;
    bad("no offsets", header, 4, "missing field `data_offsets`");
    let header = r#"{"__metadata__":{},"__metadata__":{}}"#;
    bad("metadata twice", header, 0, "duplicate field `__metadata__`");
    let header = r#"{"__metadata__":{"a":"1","a":"2"}}"#;
    bad("metadata key twice", header, 0, "__metadata__: duplicate key \"a\"");
    bad("metadata of numbers", r#"{"__metadata__":{"a":1}}"#, 0, "header: invalid type");
}

#[test]
fn types_and_shapes() {
    bad("unknown type", &t("Q4", "[1]", "[0,4]"), 4, "\"t\": dtype: unknown type \"Q4\"");
    bad("lower case", &t("f32", "[1]", "[0,4]"), 4, "\"t\": dtype");
    bad("negative", &t("F32", "[-1]", "[0,4]"), 4, "header: invalid value");
    bad("fraction", &t("F32", "[1.0]", "[0,4]"), 4, "header: invalid type");
    bad("2^64", &t("F32", "[18446744073709551616]", "[0,4]"), 4, "header:");
    let big = "[4294967296,4294967296]";
    bad("product wraps", &t("F32", big, "[0,0]"), 0, "\"t\": shape|overflows");
    bad("size wraps", &t("F64", "[4611686018427387904]", "[0,0]"), 0, "\"t\": shape|overflows");
    bad("nine dimensions", &t("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "at most 8 dimensions");
    let many = format!("[{}1]", "1,".repeat(20_000));
    bad("many dimensions", &t("F32", &many, "[0,4]"), 4, "at most 8 dimensions");
    bad("half a byte", &t("F4", "[3]", "[0,1]"), 1, "\"t\"|whole bytes");
    bad("wrong size", &t("F32", "[2]", "[0,4]"), 4, "\"t\": data_offsets [0, 4] hold 4 bytes");
}

#[test]
fn offsets() {
    bad("backwards", &t("F32", "[1]", "[4,0]"), 4, "\"t\": data_offsets [4, 0] run backwards");
    bad("three", &t("F32", "[1]", "[0,4,8]"), 4, "header:");
    bad("one", &t("F32", "[1]", "[0]"), 4, "header: invalid length 1");
    bad("not from 0", &t("F32", "[1]", "[4,8]"), 8, "\"t\"|leave a gap: 0 expected");
    bad("past the end", &t("F32", "[1]", "[0,4]"), 3, "\"t\"|end behind the file's 3 bytes");
    bad("near 2^64", &t("U8", "[4]", "[18446744073709551611,18446744073709551615]"), 8, "\"t\"");
    bad("bytes left", &t("F32", "[1]", "[0,4]"), 5, "1 bytes after the last tensor");
    bad("no tensors but data", "{}", 1, "1 bytes after the last tensor");
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
        )
    };
    bad("overlap", &two("[0,4]", "[2,6]"), 6, "\"b\"|overlap the tensor before: 4 expected");
    bad("same place", &two("[0,4]", "[0,4]"), 4, "overlap");
    bad("gap", &two("[0,4]", "[5,9]"), 9, "\"b\"|leave a gap");
}

#[test]
fn cut_at_every_byte_and_every_byte_changed() {
    let whole = safetensors(SOUND, 12);
    let scratch = Scratch::new("cut");
    let path = scratch.write("cut.safetensors", &whole);
    bounded("whole", &path, whole.len()).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let message = bounded("cut", &path, len).err().unwrap_or_else(|| panic!("{len}")).message;
        assert!(message.contains("cut.safetensors"), "{message}");
    }
    for at in 0..whole.len() - 12 {
        for byte in [0, 0xff, 0x80, b'"', b'9', whole[at] ^ 1] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            std::fs::write(&path, &bytes).unwrap();
            let _ = bounded("changed", &path, bytes.len());
        }
    }
}

#[test]
fn a_header_of_many_tensors_stays_in_bounds() {
    let entries: Vec<String> = (0..100_000)
        .map(|i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
        .collect();
    let bytes = safetensors(&format!("{{{}}}", entries.join(",")), 0);
    let scratch = Scratch::new("many");
    let path = scratch.write("many.safetensors", &bytes);
    assert_eq!(bounded("many", &path, bytes.len()).unwrap().weights.names().len(), 100_000);
}

#[test]
fn odd_but_sound() {
    let header = r#"{"i":{"dtype":"I64","shape":[1],"data_offsets":[4,12]},"f":{"data_offsets":[0,4],"shape":[],"dtype":"F32"},"z":{"dtype":"F16","shape":[0,7],"data_offsets":[4,4]}}   "#;
    let scratch = Scratch::new("odd");
    scratch.write("one.safetensors", &safetensors(header, 12));
    let opened = open(scratch.path(), Format::Auto).unwrap();
    assert_eq!(opened.weights.names(), ["f", "z", "i"]);
    assert_eq!(opened.weights.tensor("f").unwrap().data.len(), 4);
    assert_eq!(opened.weights.tensor("z").unwrap().data.len(), 0);
    assert!(opened.weights.tensor("i").is_none());
    let expected = [("i", vec![1])];
    let message = account(&opened.weights, &expected, &|_| true).unwrap_err().message;
    assert!(message.contains("\"i\" is I64"), "{message}");
}
