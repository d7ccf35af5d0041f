//! Sharded checkpoints: what an index may and may not say.

use pacer::weights::open::{Format, open};

use super::account::{Scratch, bounded};
use super::build::safetensors;

const INDEX: &str = "model.safetensors.index.json";

fn shard(names: &[&str]) -> Vec<u8> {
    let entries: Vec<String> = (0..)
        .zip(names)
        .map(|(i, n)| {
            format!(r#""{n}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1)
        })
        .collect();
    safetensors(&format!("{{{}}}", entries.join(",")), names.len())
}

/// A folder with shards `a.safetensors` (tensors x, y) and `b.safetensors` (z), and this index.
fn folder(index: &str) -> Scratch {
    let scratch = Scratch::new("index");
    scratch.write("a.safetensors", &shard(&["x", "y"]));
    scratch.write("b.safetensors", &shard(&["z"]));
    scratch.write(INDEX, index.as_bytes());
    scratch
}

fn map(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(t, f)| format!("\"{t}\":\"{f}\"")).collect();
    format!(r#"{{"metadata":{{"total_size":3}},"weight_map":{{{}}}}}"#, pairs.join(","))
}

fn message(scratch: &Scratch) -> String {
    match bounded("index", scratch.path(), 2000) {
        Ok(_) => panic!("opened"),
        Err(error) => error.message,
    }
}

fn refused(index: &str, wanted: &str) {
    let message = message(&folder(index));
    assert!(message.contains(INDEX), "{message}");
    for part in wanted.split('|') {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

const A: &str = "a.safetensors";
const B: &str = "b.safetensors";

#[test]
fn a_sound_index_opens() {
    let scratch = folder(&map(&[("z", B), ("x", A), ("y", A)]));
    let opened = open(scratch.path(), Format::Auto).unwrap();
    let mut names = opened.weights.names();
    names.sort_unstable();
    assert_eq!(names, ["x", "y", "z"]);
    assert_eq!(opened.files.len(), 2);
}

#[test]
fn links_to_a_blob_store_are_followed() {
    let scratch = Scratch::new("links");
    for folder in ["blobs", "snapshot"] {
        std::fs::create_dir(scratch.path().join(folder)).unwrap();
    }
    scratch.write("blobs/1", &shard(&["x"]));
    scratch.write("blobs/2", map(&[("x", A)]).as_bytes());
    let snapshot = scratch.path().join("snapshot");
    std::os::unix::fs::symlink("../blobs/1", snapshot.join(A)).unwrap();
    std::os::unix::fs::symlink("../blobs/2", snapshot.join(INDEX)).unwrap();
    assert_eq!(open(&snapshot, Format::Auto).unwrap().weights.names(), ["x"]);
}

#[test]
fn damaged_json() {
    refused("", "empty");
    refused("[]", "invalid type");
    refused("{}", "missing field `weight_map`");
    refused(r#"{"weight_map":[]}"#, "weight_map");
    refused(r#"{"weight_map":{}}"#, "weight_map: empty");
    refused(r#"{"weight_map":{"x":1}}"#, "invalid type");
    refused(r#"{"weight_map":{"x":"a.safetensors"}} x"#, "trailing characters");
    refused(r#"{"weight_map":{"x":"a"},"weight_map":{}}"#, "duplicate field `weight_map`");
    refused(&map(&[("x", A), ("x", A)]), "duplicate key \"x\"");
    refused(&format!("{{\"m\":{}", "[".repeat(2000)), "EOF");
}

#[test]
fn shards_outside_the_folder() {
    for file in [
        "/etc/passwd.safetensors",
        "../a.safetensors",
        "sub/a.safetensors",
        "..\\\\a.safetensors",
        "a\\u0000.safetensors",
        "..",
        "",
    ] {
        refused(&map(&[("x", file)]), "weight_map: tensor \"x\": file");
    }
    refused(&map(&[("x", &format!("{}.safetensors", "a".repeat(300)))]), "plain file name");
    refused(&map(&[("x", INDEX)]), "must end in .safetensors");
}

#[test]
fn shards_missing_cyclic_or_damaged() {
    let missing = message(&folder(&map(&[("x", "c.safetensors")])));
    assert!(missing.contains("c.safetensors") && missing.contains("No such file"), "{missing}");

    let scratch = folder(&map(&[("x", "c.safetensors")]));
    std::os::unix::fs::symlink("c.safetensors", scratch.path().join("c.safetensors")).unwrap();
    let cyclic = message(&scratch);
    assert!(cyclic.contains("c.safetensors") && cyclic.contains("symbolic links"), "{cyclic}");

    let scratch = folder(&map(&[("x", "c.safetensors")]));
    std::os::unix::fs::symlink(INDEX, scratch.path().join("c.safetensors")).unwrap();
    assert!(message(&scratch).contains("header length"));

    let scratch = folder(&map(&[("x", A), ("y", A)]));
    let mut cut = shard(&["x", "y"]);
    cut.pop();
    scratch.write(A, &cut);
    let damaged = message(&scratch);
    assert!(damaged.contains("a.safetensors: tensor \"y\""), "{damaged}");
}

#[test]
fn tensors_in_the_wrong_place() {
    refused(&map(&[("x", A), ("y", B), ("z", B)]), "\"y\" is in \"a.safe|weight_map says \"b.safe");
    refused(&map(&[("x", A), ("z", B)]), "\"y\" is in \"a.safetensors\"|does not list it");
    refused(&map(&[("x", A), ("y", A), ("w", A)]), "\"w\" is not in \"a.safetensors\"");
    let scratch = folder(&map(&[("x", A), ("y", A), ("z", B)]));
    scratch.write(B, &shard(&["x", "z"]));
    let twice = message(&scratch);
    assert!(twice.contains("\"x\" is in \"b.safetensors\""), "{twice}");
    let scratch = folder(&map(&[("x", A), ("y", A), ("w", "c.safetensors")]));
    std::os::unix::fs::symlink(A, scratch.path().join("c.safetensors")).unwrap();
    assert!(message(&scratch).contains("is in \"c.safetensors\""));
}

#[test]
fn folders_say_what_they_lack() {
    let scratch = Scratch::new("folder");
    let wanted = |format, part: &str| {
        let message = open(scratch.path(), format).unwrap_err().message;
        assert!(message.contains(part), "{message}");
    };
    wanted(Format::Auto, "a .safetensors or .gguf file wanted");
    scratch.write(A, &shard(&["x"]));
    wanted(Format::Gguf, "a .gguf file wanted");
    scratch.write(B, &shard(&["y"]));
    wanted(Format::Auto, "2 candidates (a.safetensors, b.safetensors");
    assert!(open(scratch.path().join("none"), Format::Auto).is_err());
    scratch.write("model.safetensors", &shard(&["x"]));
    assert!(open(scratch.path(), Format::Auto).is_ok());
}
