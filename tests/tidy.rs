//! The house rules as a test: who may import whom (design: rooms), and the few limits that keep
//! code readable. Each check has a good and a bad sample.

use std::path::{Path, PathBuf};

/// Rooms and what each may name beside itself. `commands` may name everything.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("types", &[]),
    ("maths", &[]),
    ("kv", &["error", "types"]),
    ("scheduler", &["error", "types", "kv"]),
    ("http", &["error", "types"]),
    ("text", &["error", "types"]),
    ("measure", &["error", "types"]),
    ("profile", &["error", "types"]),
    ("model", &["error", "types"]),
    ("weights", &["error", "types"]),
    ("device", &["error", "types", "model", "weights", "profile"]),
    (
        "engine",
        &["error", "types", "model", "weights", "device", "profile", "kv", "scheduler", "text"],
    ),
    ("bench", &["error", "types", "model", "device", "profile", "engine", "measure", "http"]),
    ("server", &["error", "types", "engine", "http", "text", "profile", "measure"]),
];

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_COLUMNS: usize = 100;

/// Functions that are longer, each with its reason.
const LONG_FUNCTIONS: &[(&str, &str)] =
    &[("run", "emulator/exec/moves.rs: one arm for each form of mov, ld and st")];

/// Files that are longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[
    ("src/emulator/src/isa.rs", "every instruction form as one enum"),
    ("src/emulator/src/exec/int.rs", "every integer instruction"),
    ("src/emulator/src/exec/schedule.rs", "one scheduler, its states belong together"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(below: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{below}");
    found
}

/// The file without its unit tests, which stand at its end.
fn code(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/")
}

/// The room of `src/room/…` or `src/room.rs`.
fn room(name: &str) -> &str {
    let rest = name.strip_prefix("src/").unwrap_or(name);
    rest.split(['/', '.']).next().unwrap_or(rest)
}

/// Rooms that `text` names through `crate::`, doc comments left out.
fn named_rooms(text: &str) -> Vec<String> {
    let mut named = Vec::new();
    for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
        for part in line.split("crate::").skip(1) {
            let word: String =
                part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if ROOMS.iter().any(|(room, _)| *room == word) || word == "commands" {
                named.push(word);
            }
        }
    }
    named
}

fn wall_faults(name: &str, text: &str) -> Vec<String> {
    let own = room(name);
    let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == own) else {
        return Vec::new();
    };
    let wrong = |named: &String| named != own && !allowed.contains(&named.as_str());
    named_rooms(code(text))
        .into_iter()
        .filter(wrong)
        .map(|named| format!("{name}: {own} names {named}"))
        .collect()
}

#[test]
fn imports_run_one_way() {
    assert_eq!(wall_faults("src/scheduler/x.rs", "use crate::engine::Engine;").len(), 1);
    assert!(wall_faults("src/engine/x.rs", "use crate::scheduler::Step;").is_empty());
    assert_eq!(wall_faults("src/model/x.rs", "use crate::device::Batch;").len(), 1);
    let files = sources("src");
    let faults: Vec<String> = files
        .iter()
        .filter(|(name, _)| !name.starts_with("src/emulator/") && !is_test(name))
        .flat_map(|(name, text)| wall_faults(name, text))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_emulator_knows_nothing_of_models() {
    for (name, text) in sources("src/emulator") {
        assert!(!text.contains("pacer::"), "{name} names the main crate");
    }
}

fn banned(name: &str, text: &str) -> Vec<String> {
    let prints = name.starts_with("src/commands/") || name == "src/main.rs";
    let mut faults = Vec::new();
    for (i, line) in code(text).lines().enumerate() {
        let words = line.split("//").next().unwrap_or(line);
        let mut fault = |what: &str| faults.push(format!("{name}:{}: {what}", i + 1));
        if words.contains(".unwrap()") {
            fault("unwrap(): use expect(\"why it cannot fail\") or return an error");
        }
        if !prints && (words.contains("println!") || words.contains("dbg!")) {
            fault("printing belongs to commands");
        }
        if line.contains(concat!("TO", "DO")) || line.contains(concat!("FIX", "ME")) {
            fault("finish it, or say in an issue what is missing");
        }
        // A raw string holds what must not be broken, such as a published expression.
        if line.chars().count() > MAX_COLUMNS && !line.contains("r\"") && !line.contains("r#\"") {
            fault("longer than 100 columns");
        }
    }
    faults
}

#[test]
fn nothing_banned() {
    assert_eq!(banned("src/x.rs", "let a = b.unwrap();\nprintln!();").len(), 2);
    assert!(banned("src/x.rs", "// a.unwrap()\nlet a = b?;").is_empty());
    let files = sources("src");
    let faults: Vec<String> = files
        .iter()
        .filter(|(name, _)| !is_test(name) && !name.starts_with("src/emulator/tests"))
        .flat_map(|(name, text)| banned(name, text))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Lines with `unsafe` code that have no `SAFETY:` (or `# Safety` for a function) close above.
fn unexplained_unsafe(name: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let explained = |at: usize| {
        let from = at.saturating_sub(12);
        lines[from..=at].iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety"))
    };
    (0..lines.len())
        .filter(|&i| {
            let line = lines[i].split("//").next().unwrap_or("");
            let opens = line.contains("unsafe {") || line.contains("unsafe impl");
            opens && !explained(i)
        })
        .map(|i| format!("{name}:{}: unsafe without a SAFETY line", i + 1))
        .collect()
}

#[test]
fn unsafe_says_why() {
    assert_eq!(unexplained_unsafe("x", "let a = unsafe { b() };").len(), 1);
    assert!(unexplained_unsafe("x", "// SAFETY: b is fine.\nunsafe { b() };").is_empty());
    let faults: Vec<String> =
        sources("src").iter().flat_map(|(name, text)| unexplained_unsafe(name, text)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// `(name, lines)` of the functions in rustfmt-formatted `text`.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let head = line.trim_start();
        let Some(at) = head.find("fn ").filter(|at| {
            head[..*at].split(' ').all(|w| {
                w.is_empty() || w.starts_with("pub") || ["const", "unsafe", "extern"].contains(&w)
            })
        }) else {
            continue;
        };
        let name: String =
            head[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let close = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[i..].iter().position(|l| *l == close) {
            found.push((name, length + 1));
        }
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    let sample = "fn a() {\n    b();\n}\npub fn c() {\n}\n";
    assert_eq!(functions(sample), [("a".to_owned(), 3), ("c".to_owned(), 2)]);
    let mut faults = Vec::new();
    for (name, text) in sources("src") {
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES && !LONG_FILES.iter().any(|(n, _)| *n == name) {
            faults.push(format!("{name} has {lines} lines"));
        }
        for (function, length) in functions(&text) {
            let excused = LONG_FUNCTIONS.iter().any(|(n, _)| *n == function);
            if length > MAX_FUNCTION_LINES && !excused {
                faults.push(format!("{name}: {function} has {length} lines"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn merges_leave_no_markers() {
    for name in ["README.md", "CHANGELOG.md", "bench/README.md", "tests/README.md"] {
        let text = std::fs::read_to_string(root().join(name)).unwrap();
        let left = text.lines().find(|l| ["<<<<<<< ", ">>>>>>> "].iter().any(|m| l.starts_with(m)));
        assert_eq!(left, None, "{name}");
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (name, text) in sources("src").iter().chain(&sources("tests")) {
        let first = text.lines().next().unwrap_or("");
        // A file of data that is included elsewhere cannot open with an inner comment.
        assert!(first.starts_with("//"), "{name} does not open with what it is");
        assert!(!first.contains("to come"), "{name} is a placeholder");
    }
    assert!(Path::new(&root().join("README.md")).exists());
}

/// Names in backticks of the table in `tests/README.md` that are neither a file nor a test.
fn named_and_not_there(table: &str, tests: &[(String, String)]) -> Vec<String> {
    let names = table.lines().filter(|l| l.starts_with('|')).flat_map(|line| {
        line.split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| *name != "==" && !name.starts_with(['-', 'P']))
    });
    let there = |name: &str| match name.contains('/') {
        true => root().join(name).exists(),
        false => tests.iter().any(|(_, text)| text.contains(&format!("fn {name}("))),
    };
    names.filter(|name| !there(name)).map(str::to_owned).collect()
}

#[test]
fn what_is_said_to_show_something_is_there() {
    let mut tests = sources("tests");
    tests.retain(|(name, _)| name != "tests/tidy.rs");
    tests.extend(sources("src"));
    assert_eq!(named_and_not_there("| R1 | `no_such_test`, `no/such.rs` |", &tests).len(), 2);
    let table = std::fs::read_to_string(root().join("tests/README.md")).unwrap();
    assert!(table.lines().filter(|l| l.starts_with("| R")).count() == 34, "a line is gone");
    assert_eq!(named_and_not_there(&table, &tests), Vec::<String>::new());
}
