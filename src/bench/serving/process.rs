//! Which process listens on a local port, so that a server on this machine is not taken for other
//! load. Linux's `/proc`; elsewhere nothing is found.

use std::fs;

use crate::bench::load::target::Target;

/// The process that listens on TCP `port` of this machine, if it can be seen.
pub fn listener(port: u16) -> Option<u32> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| listening(&text, port))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|p| p.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|f| fs::read_link(f.path()).ok()).any(|to| {
            let to = to.to_string_lossy();
            let inode = to.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']'));
            inode.is_some_and(|i| inodes.iter().any(|known| known == i))
        })
    })
}

/// The process of a server on this machine.
pub fn of(target: &Target) -> Option<u32> {
    let port = target.addresses.first()?.port();
    if target.is_local() { listener(port) } else { None }
}

/// Inodes of sockets in state LISTEN (0A) on `port`, from the text of `/proc/net/tcp`.
fn listening(text: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let lines = text.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|f| f.get(1).is_some_and(|a| a.ends_with(&suffix)) && f.get(3) == Some(&"0A"))
        .filter_map(|f| f.get(9).map(|i| (*i).to_string()))
        .filter(|i| i != "0")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_socket_is_found() {
        let text = "  sl  local_address rem_address st tx rx tr tm retr uid timeout inode\n\
             0: 0100007F:7530 00000000:0000 0A 00000000:00000000 00:00000000 0 0 0 4242 1\n\
             1: 0100007F:7530 0100007F:1234 01 00000000:00000000 00:00000000 0 0 0 4243 1\n";
        assert_eq!(listening(text, 30000), ["4242"]);
        assert!(listening(text, 1).is_empty());
        let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        if cfg!(target_os = "linux") {
            let port = here.local_addr().unwrap().port();
            assert_eq!(listener(port), Some(std::process::id()));
        }
    }
}
