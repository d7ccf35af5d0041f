//! `pacer kernels …`: a group of commands on the GPU kernels. A new one is a file here that
//! implements `Run` under the name `kernels NAME`, and one line in [`COMMANDS`].

mod arguments;
pub mod bench;
pub mod check;
pub mod emulate;
pub mod golden;
pub mod list;

use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};

use super::{Command, find_in, help, out};
use crate::error::Result;

/// The commands of the group, in the order of `pacer kernels --help`.
pub const COMMANDS: &[Command] = &[
    Command::of::<list::List>(),
    Command::of::<check::Check>(),
    Command::of::<emulate::Emulate>(),
    Command::of::<bench::Bench>(),
    Command::of::<golden::Golden>(),
];

const PREFIX: &str = "kernels ";

/// Works with the GPU kernels: `pacer kernels <command> [flags]`.
#[derive(FromArgs, ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
pub struct Kernels {}

/// What `pacer help` says of the group.
pub fn info() -> CommandInfoWithArgs {
    Kernels::get_args_info()
}

/// Runs the command that the words after `kernels` name.
///
/// # Errors
/// `Usage` for an unknown command or flag; otherwise what the command reports.
pub fn run(_: &Command, words: &[String]) -> Result<()> {
    let (first, rest) = match words.split_first() {
        None => return out::line(help::group("kernels", COMMANDS).trim_end()),
        Some((first, _)) if matches!(first.as_str(), "help" | "--help" | "-h") => {
            return out::line(help::group("kernels", COMMANDS).trim_end());
        }
        Some(split) => split,
    };
    let command = find_in(COMMANDS, PREFIX, first)?;
    (command.run)(command, rest)
}
