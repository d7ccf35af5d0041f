//! Where requests go: the parts of a base URL, and the head that every request there begins with.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::error::{Error, Kind, Result};

/// A server to speak to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As in the `Host` header: `localhost:30000`.
    pub host: String,
    /// Put before every path, without a slash at its end.
    pub prefix: String,
    pub addresses: Vec<SocketAddr>,
    /// `Name: value` lines to send along.
    pub headers: Vec<String>,
}

impl Target {
    /// `http://host[:port][/prefix]`; the name is looked up at once.
    ///
    /// # Errors
    /// `Usage` for another scheme or a malformed URL, `Io` for a name that is not found.
    pub fn new(url: &str, headers: Vec<String>) -> Result<Self> {
        let bad = |why: &str| Error::usage(format!("--base-url {url}: {why}"));
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => {
                return Err(bad(&format!("only http:// is spoken, not {scheme}://")));
            }
            None => url,
        };
        let (host, prefix) = match rest.find('/') {
            Some(at) => (&rest[..at], rest[at..].trim_end_matches('/')),
            None => (rest, ""),
        };
        let bare = host.ends_with(']') || !host.contains(':');
        let place = if bare { format!("{host}:80") } else { host.to_string() };
        if host.is_empty() || place.contains([' ', '@']) {
            return Err(bad("expected http://host:port"));
        }
        let found = place.to_socket_addrs();
        let addresses: Vec<SocketAddr> = found
            .map_err(|e| Error::new(Kind::Io, format!("--base-url {url}: {place}: {e}")))?
            .map(reachable)
            .collect();
        if addresses.is_empty() {
            return Err(Error::new(Kind::Io, format!("--base-url {url}: no address for {place}")));
        }
        let odd = headers.iter().find(|h| h.contains(['\r', '\n']) || !h.contains(": "));
        if let Some(header) = odd {
            return Err(Error::usage(format!("--header {header}: expected NAME=VALUE")));
        }
        Ok(Target { host: host.to_string(), prefix: prefix.to_string(), addresses, headers })
    }

    /// A whole request: head and body.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        self.request_with(method, path, body, None)
    }

    /// The same with one more header line.
    pub fn request_with(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        more: Option<&str>,
    ) -> Vec<u8> {
        let mut out = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: pacer\r\nAccept: */*\r\n",
            self.prefix, self.host
        )
        .into_bytes();
        for header in self.headers.iter().map(String::as_str).chain(more) {
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if !body.is_empty() {
            out.extend_from_slice(b"Content-Type: application/json\r\n");
        }
        if method != "GET" {
            out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
        out
    }

    /// The server stands on this machine.
    pub fn is_local(&self) -> bool {
        self.addresses.iter().all(|a| a.ip().is_loopback())
    }
}

/// A server that listens everywhere (0.0.0.0) is reached here.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        match &mut address {
            SocketAddr::V4(a) => a.set_ip(std::net::Ipv4Addr::LOCALHOST),
            SocketAddr::V6(a) => a.set_ip(std::net::Ipv6Addr::LOCALHOST),
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let t = Target::new("http://127.0.0.1:30000/", Vec::new()).unwrap();
        assert_eq!((t.host.as_str(), t.prefix.as_str()), ("127.0.0.1:30000", ""));
        let t = Target::new("0.0.0.0:8000/some/where/", Vec::new()).unwrap();
        assert_eq!(
            (t.prefix.as_str(), t.addresses[0].to_string().as_str()),
            ("/some/where", "127.0.0.1:8000")
        );
        assert!(t.is_local());
        assert_eq!(Target::new("http://127.0.0.1", Vec::new()).unwrap().addresses[0].port(), 80);
        for bad in ["https://x", "http://", "http://a b", "http://u@h:1", "grpc://127.0.0.1"] {
            assert_eq!(Target::new(bad, Vec::new()).unwrap_err().exit_code(), 2, "{bad}");
        }
        let smuggled = vec!["A: b\r\nX: y".to_string()];
        assert!(Target::new("127.0.0.1:1", smuggled).is_err());
    }

    #[test]
    fn requests() {
        let mut t = Target::new("127.0.0.1:9/v", vec!["Authorization: Bearer k".into()]).unwrap();
        let text = String::from_utf8(t.request("POST", "/generate", b"{}")).unwrap();
        assert!(text.starts_with("POST /v/generate HTTP/1.1\r\nHost: 127.0.0.1:9\r\n"), "{text}");
        assert!(text.contains("\r\nAuthorization: Bearer k\r\n"));
        assert!(text.ends_with("Content-Length: 2\r\n\r\n{}"));
        t.headers.clear();
        let text = String::from_utf8(t.request("GET", "/health", b"")).unwrap();
        assert!(text.ends_with("Accept: */*\r\n\r\n"), "{text}");
    }
}
