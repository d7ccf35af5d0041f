//! The argument layer over `argh`: what people type becomes what `argh` understands.
//!
//! `argh` wants `--flag value`, once. [`normalise`] also takes `--flag=value`, lists written with
//! blanks (`--batch-size 1 8 32`), with commas (lists of numbers only) or by repeating the flag,
//! other tools' spellings ([`ALIASES`]), and the last value of a flag given twice. It knows the
//! flags from the struct itself (`argh::ArgsInfo`), so nothing is declared a second time; whether
//! a list holds numbers shows in its `arg_name`, see [`NUMERIC`].

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, FromArgs, Optionality};

use super::nearest::nearest;
use crate::error::{Error, Result};

/// `arg_name`s of flags whose lists may be written with commas.
pub const NUMERIC: &[&str] = &["N", "X", "ID"];

/// Other tools' spellings and ours. One applies only in commands that have the flag on the right.
pub const ALIASES: &[(&str, &str)] = &[
    ("--model", "--model-path"),
    ("--model-path", "--model"),
    ("--tokenizer", "--tokenizer-path"),
    ("--batch", "--batch-size"),
    ("--tp", "--tp-size"),
    ("--tensor-parallel-size", "--tp-size"),
    ("--pp", "--pp-size"),
    ("--pipeline-parallel-size", "--pp-size"),
    ("--dp", "--dp-size"),
    ("--data-parallel-size", "--dp-size"),
    ("--ep", "--ep-size"),
    ("--expert-parallel-size", "--ep-size"),
    ("--cuda-graph-max-bs-decode", "--cuda-graph-max-bs"),
    ("--max-model-len", "--context-length"),
    ("--max-tokens", "--max-new-tokens"),
    ("--rust-worker-threads", "--client-threads"),
];

/// What the command line of one command asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// `--help` or `-h` stood among the flags.
    Help,
    Args(T),
}

/// Parses the words after the command's name.
///
/// # Errors
/// `Usage` (exit 2), naming the flag, the value and what would have been accepted.
pub fn parse<T: FromArgs + ArgsInfo>(command: &str, words: &[String]) -> Result<Parsed<T>> {
    let info = T::get_args_info();
    let Some(words) = normalise(command, &info, words)? else {
        return Ok(Parsed::Help);
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let parsed = T::from_args(&[command], &words);
    parsed.map(Parsed::Args).map_err(|e| Error::usage(say(command, &e.output)))
}

/// Rewrites `argh`'s error into ours: `--flag value: what was expected`.
fn say(command: &str, output: &str) -> String {
    let output = output.trim_end();
    let parts = output.strip_prefix("Error parsing option '").and_then(|rest| {
        let (flag, rest) = rest.split_once("' with value '")?;
        let (value, why) = rest.rsplit_once("': ")?;
        Some(format!("{flag} {value}: {why}"))
    });
    parts.unwrap_or_else(|| {
        let joined: Vec<&str> = output.lines().map(str::trim).collect();
        format!("{} (see `pacer {command} --help`)", joined.join(" "))
    })
}

/// The words as `argh` wants them, or `None` if help is asked for.
pub fn normalise(
    command: &str,
    info: &CommandInfoWithArgs,
    words: &[String],
) -> Result<Option<Vec<String>>> {
    let mut given: Vec<(&FlagInfo, Vec<String>)> = Vec::new();
    let mut positional: Vec<String> = Vec::new();
    let mut rest = words.iter().map(String::as_str).peekable();
    while let Some(word) = rest.next() {
        if matches!(word, "--help" | "-h") {
            return Ok(None);
        }
        if word == "--" {
            positional.extend(rest.by_ref().map(String::from));
        } else if is_flag(word) {
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let flag = find(command, info, name)?;
            let values = take_values(flag, name, inline, &mut rest)?;
            record(&mut given, flag, values);
        } else if info.positionals.is_empty() {
            return Err(Error::usage(unexpected(command, word)));
        } else {
            positional.push(word.to_string());
        }
    }
    let mut out = Vec::new();
    for (flag, values) in given {
        if values.is_empty() {
            out.push(flag.long.to_string());
        }
        out.extend(values.into_iter().flat_map(|v| [flag.long.to_string(), v]));
    }
    if !positional.is_empty() {
        out.push("--".into());
        out.extend(positional);
    }
    Ok(Some(out))
}

/// `--word` and `-h`, but neither `-1` nor `-` nor text such as `- item`.
fn is_flag(word: &str) -> bool {
    let letter = |s: &str| s.chars().next().is_some_and(char::is_alphabetic);
    match word.strip_prefix("--") {
        Some(name) => letter(name),
        None => word.strip_prefix('-').is_some_and(|s| letter(s) && !s.contains(' ')),
    }
}

/// Whether `word` ends a list of values: a flag, not a negative number.
fn ends_values(word: &str) -> bool {
    matches!(word, "--" | "-h") || (word.starts_with("--") && is_flag(word))
}

fn find<'a>(
    command: &str,
    info: &'a CommandInfoWithArgs,
    name: &str,
) -> Result<&'a FlagInfo<'static>> {
    let named = |wanted: &str| info.flags.iter().find(|f| f.long == wanted);
    let alias = || ALIASES.iter().find(|(a, _)| *a == name).and_then(|(_, ours)| named(ours));
    named(name).or_else(alias).ok_or_else(|| {
        let meant = nearest(name, info.flags.iter().map(|f| f.long));
        let hint = meant.map_or(String::new(), |m| format!("; did you mean {m}?"));
        Error::usage(format!("unknown flag {name}{hint} (see `pacer {command} --help`)"))
    })
}

fn unexpected(command: &str, word: &str) -> String {
    format!(
        "unexpected argument `{word}`: every value follows its flag (see `pacer {command} --help`)"
    )
}

fn repeats(flag: &FlagInfo) -> bool {
    matches!(flag.optionality, Optionality::Repeating)
}

/// The values of one occurrence of `flag`; none for a switch.
fn take_values<'a>(
    flag: &FlagInfo,
    name: &str,
    inline: Option<&str>,
    rest: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
) -> Result<Vec<String>> {
    let FlagInfoKind::Option { arg_name } = &flag.kind else {
        return match inline {
            Some(v) => Err(Error::usage(format!("{name} {v}: this flag takes no value"))),
            None => Ok(Vec::new()),
        };
    };
    let mut values: Vec<String> = inline.map(String::from).into_iter().collect();
    if inline.is_none() {
        let most = if repeats(flag) { usize::MAX } else { 1 };
        while values.len() < most {
            match rest.next_if(|w| !ends_values(w)) {
                Some(word) => values.push(word.to_string()),
                None => break,
            }
        }
    }
    if values.is_empty() {
        return Err(Error::usage(format!("{name}: a value is missing ({})", flag.description)));
    }
    if repeats(flag) && NUMERIC.contains(arg_name) {
        return split_commas(name, values);
    }
    Ok(values)
}

/// `1,8,32` and `1, 8, 32` as three values.
fn split_commas(name: &str, values: Vec<String>) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for value in values {
        let list = value.strip_suffix(',').unwrap_or(&value);
        for part in list.split(',').map(str::trim) {
            if part.is_empty() {
                return Err(Error::usage(format!("{name} {value}: a number is missing")));
            }
            out.push(part.to_string());
        }
    }
    Ok(out)
}

/// Adds values: lists grow, of anything else the last one counts, as with other tools.
fn record<'a>(
    given: &mut Vec<(&'a FlagInfo<'a>, Vec<String>)>,
    flag: &'a FlagInfo<'a>,
    values: Vec<String>,
) {
    match given.iter_mut().find(|(f, _)| f.long == flag.long) {
        Some((_, old)) if repeats(flag) => old.extend(values),
        Some((_, old)) => *old = values,
        None => given.push((flag, values)),
    }
}
