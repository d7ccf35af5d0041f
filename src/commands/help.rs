//! `--help` texts, from what the argument structs already say.

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

use super::Command;
use super::model_flags::SharedFlags;

const WIDTH: usize = 100;
const COLUMN: usize = 34;

/// The help of the whole program.
pub fn overview(commands: &[Command]) -> String {
    let mut text = String::from(
        "Pacer serves large language models, measures them and shows where the time goes.\n\n\
         Usage: pacer <command> [flags]\n\nCommands:\n",
    );
    for command in commands {
        let info = (command.info)();
        let first = info.description.split_inclusive(". ").next().unwrap_or("");
        entry(&mut text, command.name, first.trim_end_matches(['.', ' ']));
    }
    text.push_str(
        "\n`pacer <command> --help` lists a command's flags. `pacer --version` names the build.\n",
    );
    text
}

/// The help of a command that has commands of its own.
pub fn group(name: &str, commands: &[Command]) -> String {
    let mut text = format!("Usage: pacer {name} <command> [flags]\n\nCommands:\n");
    for command in commands {
        let info = (command.info)();
        let first = info.description.split_inclusive(". ").next().unwrap_or("");
        let short = command.name.rsplit(' ').next().unwrap_or(command.name);
        entry(&mut text, short, first.trim_end_matches(['.', ' ']));
    }
    text.push_str(&format!("\n`pacer {name} <command> --help` lists a command's flags.\n"));
    text
}

/// The help of one command: its own flags, then the flags that all model commands share.
pub fn command(name: &str, aliases: &[&str], info: &CommandInfoWithArgs) -> String {
    let shared = SharedFlags::get_args_info();
    let is_shared =
        |f: &&FlagInfo| f.long != "--help" && shared.flags.iter().any(|s| s.long == f.long);
    let places: String = info.positionals.iter().map(|p| format!(" <{}>", p.name)).collect();
    let mut text = format!("Usage: pacer {name}{places} [flags]\n");
    if !aliases.is_empty() {
        text.push_str(&format!("Also: pacer {}\n", aliases.join(", ")));
    }
    text.push('\n');
    paragraph(&mut text, info.description);
    for p in info.positionals {
        entry(&mut text, &format!("<{}>", p.name), p.description);
    }
    text.push_str("\nFlags:\n");
    for flag in info.flags.iter().filter(|f| !is_shared(f)) {
        entry(&mut text, &usage(flag), flag.description);
    }
    let mut shared = info.flags.iter().filter(is_shared).peekable();
    if shared.peek().is_some() {
        text.push_str("\nModel and engine flags:\n");
        for flag in shared {
            entry(&mut text, &usage(flag), flag.description);
        }
    }
    for note in info.notes {
        text.push('\n');
        paragraph(&mut text, note);
    }
    text
}

/// `--batch-size N...`
fn usage(flag: &FlagInfo) -> String {
    match (&flag.kind, &flag.optionality) {
        (FlagInfoKind::Switch, _) => flag.long.to_string(),
        (FlagInfoKind::Option { arg_name }, Optionality::Repeating) => {
            format!("{} {arg_name}...", flag.long)
        }
        (FlagInfoKind::Option { arg_name }, _) => format!("{} {arg_name}", flag.long),
    }
}

/// Two columns: what to type, what it does.
fn entry(text: &mut String, left: &str, right: &str) {
    let mut line = format!("  {left}");
    if line.len() + 2 > COLUMN {
        text.push_str(&line);
        text.push('\n');
        line.clear();
    }
    for part in wrap(right, WIDTH - COLUMN) {
        text.push_str(&format!("{line:COLUMN$}{part}\n"));
        line.clear();
    }
}

fn paragraph(text: &mut String, words: &str) {
    for line in wrap(words, WIDTH) {
        text.push_str(&line);
        text.push('\n');
    }
}

/// Words in lines of at most `width` characters; at least one line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines
            .last_mut()
            .filter(|l| l.is_empty() || l.chars().count() + 1 + word.chars().count() <= width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => line.extend([" ", word]),
            None => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("", 7), [""]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
    }

    #[test]
    fn long_flags_get_their_own_line() {
        let mut text = String::new();
        entry(&mut text, "--json-model-override-args JSON", "merged over the configuration");
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().nth(1).unwrap().starts_with(&" ".repeat(COLUMN)));
    }
}
