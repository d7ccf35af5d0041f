//! Standard output that does not panic when its reader is gone.

use std::io::{ErrorKind, Write};

use crate::error::{Error, Kind, Result};

/// Prints a line on standard output, at once. If the reader has closed the pipe (`pacer … | head`),
/// the process ends quietly with code 0: nobody is left to tell, and result rows are on disk.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Error::new(Kind::Io, format!("standard output: {e}"))),
    }
}

/// Prints a note on standard error; one that cannot be printed is no reason to stop.
pub fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
