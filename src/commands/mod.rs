//! One thin file a subcommand: arguments in, a library call, a printout.
//!
//! A new command is one file with a struct of flags that implements [`Run`], and one line in
//! [`COMMANDS`].

pub mod args;
pub mod bench_offline_throughput;
pub mod bench_one_batch;
pub mod bench_one_batch_server;
pub mod bench_serving;
pub mod calibrate;
pub mod codec;
pub mod compare;
pub mod data_flags;
pub mod generate;
pub mod help;
pub mod info;
pub mod kernels;
pub mod launch;
pub mod load;
pub mod merge_traces;
pub mod model_flags;
pub mod nearest;
pub mod out;
pub mod profile;
pub mod progress;
pub mod replay;
pub mod report;
pub mod serve;
pub mod values;

use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};

use crate::error::{Error, Result};

/// A subcommand's flags, and what it does with them.
pub trait Run: FromArgs + ArgsInfo {
    const NAME: &'static str;
    /// Other names, e.g. `launch-server` for `serve`.
    const ALIASES: &'static [&'static str] = &[];

    fn run(self) -> Result<()>;
}

/// A row of the table of commands.
pub struct Command {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub info: fn() -> CommandInfoWithArgs,
    run: fn(&Command, &[String]) -> Result<()>,
}

impl Command {
    const fn of<T: Run>() -> Command {
        Command { name: T::NAME, aliases: T::ALIASES, info: T::get_args_info, run: run::<T> }
    }

    /// A command with commands of its own.
    const fn group(
        name: &'static str,
        info: fn() -> CommandInfoWithArgs,
        run: fn(&Command, &[String]) -> Result<()>,
    ) -> Command {
        Command { name, aliases: &[], info, run }
    }
}

fn run<T: Run>(command: &Command, words: &[String]) -> Result<()> {
    match args::parse::<T>(command.name, words)? {
        args::Parsed::Args(flags) => flags.run(),
        args::Parsed::Help => {
            out::line(help::command(command.name, command.aliases, &(command.info)()).trim_end())
        }
    }
}

/// Every command, in the order of `pacer help`.
pub const COMMANDS: &[Command] = &[
    Command::of::<serve::Serve>(),
    Command::of::<generate::Generate>(),
    Command::of::<bench_one_batch::BenchOneBatch>(),
    Command::of::<profile::Profile>(),
    Command::of::<merge_traces::MergeTraces>(),
    Command::of::<bench_one_batch_server::BenchOneBatchServer>(),
    Command::of::<bench_offline_throughput::BenchOfflineThroughput>(),
    Command::of::<bench_serving::BenchServing>(),
    Command::of::<calibrate::Calibrate>(),
    Command::of::<compare::Compare>(),
    Command::of::<report::Report>(),
    Command::of::<info::Info>(),
    Command::group("kernels", kernels::info, kernels::run),
];

/// `pacer 0.1.0 (1a2b3c4d5e6f)`: what `--version` prints and result rows carry.
pub fn version() -> String {
    format!("pacer {} ({})", env!("CARGO_PKG_VERSION"), commit())
}

/// The commit this program was built from, `-dirty` if the tree differed from it, or `unknown`.
pub fn commit() -> &'static str {
    option_env!("PACER_COMMIT").unwrap_or("unknown")
}

/// Runs the command line `words`, program name left out.
///
/// # Errors
/// `Usage` for an unknown command or flag; otherwise what the command reports.
pub fn dispatch(words: &[String]) -> Result<()> {
    let Some((first, rest)) = words.split_first() else {
        return out::line(help::overview(COMMANDS).trim_end());
    };
    let help_on = match (first.as_str(), rest.first()) {
        ("help" | "--help" | "-h", Some(name)) => Some(name),
        ("help" | "--help" | "-h", None) => return out::line(help::overview(COMMANDS).trim_end()),
        ("--version" | "-V" | "version", _) => return out::line(version()),
        _ => None,
    };
    match help_on {
        Some(name) => (find(name)?.run)(find(name)?, &["--help".to_string()]),
        None => {
            let command = find(first)?;
            (command.run)(command, rest)
        }
    }
}

/// The command of that name; `--bench-one-batch` is `bench-one-batch`, and `_` may stand for `-`.
fn find(word: &str) -> Result<&'static Command> {
    find_in(COMMANDS, "", word)
}

/// The command named `prefix` and then `word`.
fn find_in(commands: &'static [Command], prefix: &str, word: &str) -> Result<&'static Command> {
    let name = word.trim_start_matches("--").replace('_', "-");
    let short = |c: &Command| c.name.strip_prefix(prefix).unwrap_or(c.name);
    let found = commands.iter().find(|c| short(c) == name || c.aliases.contains(&name.as_str()));
    found.ok_or_else(|| {
        let names = commands.iter().flat_map(|c| {
            c.aliases.iter().copied().chain([c.name.strip_prefix(prefix).unwrap_or(c.name)])
        });
        let meant = nearest::nearest(&name, names);
        let hint = meant.map_or(String::new(), |m| format!("; did you mean {m}?"));
        let help = format!("pacer {prefix}help");
        Error::usage(format!("unknown command {prefix}{word}{hint} (see `{help}`)"))
    })
}
