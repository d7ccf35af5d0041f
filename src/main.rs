//! The `pacer` program: parses the command line, calls one function, reports how it went.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = Vec::new();
    for word in std::env::args_os().skip(1) {
        match word.into_string() {
            Ok(word) => words.push(word),
            Err(word) => {
                eprintln!("error: argument {word:?} is not valid UTF-8");
                return ExitCode::from(2);
            }
        }
    }
    match pacer::commands::dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            pacer::commands::out::note(format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}
