//! A server started for a benchmark, and ended with it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

/// A running child process; ended when dropped.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    /// Where it listens.
    pub url: String,
}

impl Launched {
    /// Starts `command`: `serve …` is this program, anything else a program of that name; words
    /// are split at blanks. Without `--port` a free one is added. Output of the server goes to
    /// standard error, so that results stay clean.
    ///
    /// # Errors
    /// `Usage` for an empty command, `Io` if it does not start.
    pub fn start(command: &str) -> Result<Self> {
        let mut words: Vec<String> = command.split_whitespace().map(str::to_string).collect();
        let first = words.first().cloned().unwrap_or_default();
        let own = first.starts_with("--") || matches!(first.as_str(), "serve" | "launch-server");
        let failed = |e: std::io::Error| Error::new(Kind::Io, format!("--launch {command}: {e}"));
        let program = if own {
            if first.starts_with("--") {
                words.insert(0, "serve".into());
            }
            std::env::current_exe().map_err(failed)?
        } else if first.is_empty() {
            return Err(Error::usage("--launch: expected a command such as \"serve --threads 2\""));
        } else {
            words.remove(0).into()
        };
        let port = match port_of(&words) {
            Some(port) => port,
            None => {
                let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
                let port = free.map_err(failed)?.port();
                words.extend(["--port".to_string(), port.to_string()]);
                port
            }
        };
        let child = Command::new(program)
            .args(&words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        Ok(Launched { child, url: format!("http://127.0.0.1:{port}") })
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                Err(Error::new(Kind::Io, format!("--launch: the server ended: {status}")))
            }
            _ => Ok(()),
        }
    }
}

fn port_of(words: &[String]) -> Option<u16> {
    let inline = words.iter().find_map(|w| w.strip_prefix("--port="));
    let next = words.iter().position(|w| w == "--port").and_then(|i| words.get(i + 1));
    inline.or(next.map(String::as_str))?.parse().ok().filter(|p| *p > 0)
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: sends a signal to our own child, which has not been waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn ports() {
        assert_eq!(port_of(&words("serve --port 81")), Some(81));
        assert_eq!(port_of(&words("serve --port=82")), Some(82));
        assert_eq!(port_of(&words("serve --port 0")), None);
        assert_eq!(port_of(&words("serve")), None);
    }

    #[test]
    fn a_server_that_ends_is_noticed() {
        let mut child = Launched::start("true --port 1").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(child.check().is_err());
        assert!(Launched::start("").is_err());
        assert!(Launched::start("/no/such/program").is_err());
    }
}
