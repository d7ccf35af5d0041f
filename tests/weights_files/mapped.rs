//! Files cut, overwritten or deleted below an open checkpoint (reliability R19), and a bus error
//! that has nothing to do with one.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use pacer::weights::mapped::Mapped;
use pacer::weights::open::{Format, open};

use super::account::Scratch;
use super::build::Gguf;

const ROWS: u64 = 1 << 16;

fn checkpoint(scratch: &Scratch) -> std::path::PathBuf {
    let numbers = vec![1.0; 4 * ROWS as usize];
    let file = Gguf::of("qwen2").f32("token_embd.weight", &[4, ROWS], &numbers);
    scratch.write("m.gguf", &file.bytes())
}

#[test]
fn cutting_a_file_while_threads_read_it_is_an_error_only() {
    for round in 0..20 {
        let scratch = Scratch::new("cut-while");
        let path = checkpoint(&scratch);
        let opened = open(&path, Format::Auto).unwrap();
        let tensor = opened.weights.tensor("model.embed_tokens.weight").unwrap();
        let read = || (0..ROWS as usize).map(|r| u64::from(tensor.row(r)[3])).sum::<u64>();
        std::thread::scope(|threads| {
            let readers: Vec<_> = (0..3).map(|_| threads.spawn(read)).collect();
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(round * 40_000).unwrap();
            let whole = 0x3f * ROWS;
            assert!(readers.into_iter().all(|r| r.join().unwrap() <= whole));
        });
        assert!(read() < 0x3f * ROWS);
        let message = opened.weights.check().unwrap_err().message;
        assert!(message.contains("m.gguf") && message.contains("was cut"), "{message}");
    }
}

#[test]
fn deleting_or_replacing_a_file_changes_nothing() {
    let scratch = Scratch::new("replace");
    let path = checkpoint(&scratch);
    let opened = open(&path, Format::Auto).unwrap();
    scratch.write("new", b"something else");
    std::fs::rename(scratch.path().join("new"), &path).unwrap();
    let tensor = opened.weights.tensor("model.embed_tokens.weight").unwrap();
    assert!(tensor.data.chunks(4).all(|b| b == 1f32.to_le_bytes()));
    opened.weights.check().unwrap();
}

/// Run by the test below in a process of its own; does nothing otherwise.
#[test]
fn child_that_reads_a_foreign_map() {
    if std::env::var_os("PACER_TEST_FOREIGN_MAP").is_none() {
        return;
    }
    let scratch = Scratch::new("foreign");
    let ours = Mapped::open(checkpoint(&scratch)).unwrap();
    let path = scratch.write("foreign", &[1; 8192]);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    // SAFETY: the map is only read; that it then faults is what this process is for.
    let foreign = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    file.set_len(0).unwrap();
    drop(scratch);
    let sum: u64 = foreign.iter().map(|&b| u64::from(b)).sum();
    println!("still here: {sum} {}", ours.bytes().len());
}

#[test]
fn a_bus_error_elsewhere_still_ends_the_process() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mapped::child_that_reads_a_foreign_map"])
        .env("PACER_TEST_FOREIGN_MAP", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
}
