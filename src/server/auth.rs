//! Who may call what: keys, loopback, and the pages of other origins in a browser.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::http::{Head, Refused};

/// What a route asks of its caller. Every route says one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: nothing secret, nothing costly.
    Open,
    /// The API key, where one is set.
    User,
    /// The admin key, else the API key, where one is set; without keys a loopback peer.
    Admin,
}

/// A secret, kept as its digest: compared in constant time, never printed. It has no `PartialEq`,
/// so that `==` on a key does not compile.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    pub fn new(secret: &str) -> Self {
        Key(Sha256::digest(secret).into())
    }

    /// Digests have one length and do not tell how much of a secret was right.
    fn matches(&self, given: &[u8; 32]) -> Choice {
        self.0.ct_eq(given)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The keys that are set.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    pub api: Option<Key>,
    pub admin: Option<Key>,
}

impl Keys {
    /// # Errors
    /// 401 for a missing or wrong key; 403 for an admin route from elsewhere while no key is set.
    pub fn check(&self, access: Access, head: &Head, peer: IpAddr) -> Result<(), Refused> {
        let wanted: &[&Option<Key>] = match access {
            Access::Open => return Ok(()),
            Access::User if self.api.is_some() => &[&self.api, &self.admin],
            Access::User => return Ok(()),
            Access::Admin if self.admin.is_some() => &[&self.admin],
            Access::Admin => &[&self.api],
        };
        let set: Vec<&Key> = wanted.iter().filter_map(|k| k.as_ref()).collect();
        if set.is_empty() {
            let local = peer.to_canonical().is_loopback();
            let message = "without --admin-api-key this route answers only this machine";
            return if local { Ok(()) } else { Err(Refused::new(403, message)) };
        }
        let given: [u8; 32] = Sha256::digest(bearer(head).unwrap_or_default()).into();
        let right = set.iter().fold(Choice::from(0), |found, key| found | key.matches(&given));
        if bool::from(right) {
            Ok(())
        } else {
            Err(Refused::new(401, "the API key is missing or wrong"))
        }
    }
}

/// The secret of the one `Authorization: Bearer …` field.
fn bearer(head: &Head) -> Option<&str> {
    let (scheme, secret) = head.field("authorization")?.split_once(' ')?;
    let bearer = scheme.eq_ignore_ascii_case("bearer") && head.count("authorization") == 1;
    bearer.then(|| secret.trim_matches(' '))
}

/// Refuses what a page of another origin makes a browser send: a foreign Host (DNS rebinding)
/// where the server is bound to loopback, a foreign Origin anywhere.
///
/// # Errors
/// 403.
pub fn check_origin(access: Access, head: &Head, bound: SocketAddr) -> Result<(), Refused> {
    let host = head.field("host").unwrap_or_default();
    if bound.ip().is_loopback() && !host.is_empty() && !is_local_name(host) {
        return Err(Refused::new(403, "Host is not a name of this machine"));
    }
    if access == Access::Open && matches!(head.method.as_str(), "GET" | "HEAD") {
        return Ok(());
    }
    let origin = head.field("origin");
    let own = |o: &str| o.split_once("://").is_some_and(|(_, at)| at.eq_ignore_ascii_case(host));
    let cross = head.field("sec-fetch-site").is_some_and(|site| site == "cross-site");
    if cross || !origin.is_none_or(own) {
        return Err(Refused::new(403, "pages of other origins may not call this server"));
    }
    Ok(())
}

/// `localhost`, or a loopback address, with any port.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address: Option<IpAddr> = name.parse().ok();
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Connection, Event, Limits};

    fn head(method: &str, fields: &str) -> Head {
        let mut connection = Connection::new(Limits::default());
        connection.receive(format!("{method} / HTTP/1.1\r\n{fields}\r\n").as_bytes());
        match connection.poll() {
            Some(Event::Head(head)) => *head,
            other => panic!("{other:?}"),
        }
    }

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn status(keys: &Keys, access: Access, secret: &str, peer: IpAddr) -> u16 {
        let fields = match secret {
            "" => "Host: a\r\n".to_owned(),
            _ => format!("Host: a\r\nAuthorization: Bearer {secret}\r\n"),
        };
        keys.check(access, &head("GET", &fields), peer).map_or_else(|e| e.status, |()| 200)
    }

    #[test]
    fn keys_and_levels() {
        let none = Keys::default();
        assert_eq!(status(&none, Access::User, "", FAR), 200);
        assert_eq!(status(&none, Access::Admin, "", LOCAL), 200);
        assert_eq!(status(&none, Access::Admin, "", FAR), 403);
        let api = Keys { api: Some(Key::new("u")), admin: None };
        assert_eq!(status(&api, Access::Open, "", FAR), 200);
        assert_eq!(status(&api, Access::User, "", LOCAL), 401);
        assert_eq!(status(&api, Access::Admin, "u", FAR), 200);
        let both = Keys { admin: Some(Key::new("a")), ..api };
        for (access, secret, expected) in [
            (Access::User, "u", 200),
            (Access::User, "a", 200),
            (Access::User, "x", 401),
            (Access::Admin, "u", 401),
            (Access::Admin, "a", 200),
            (Access::Admin, "", 401),
        ] {
            assert_eq!(status(&both, access, secret, LOCAL), expected, "{access:?} {secret}");
        }
        assert!(!format!("{both:?}").contains("Some(\"u"), "no secret in Debug");
    }

    /// Welch's t of the time of comparing the right digest against one that differs in its first
    /// byte (Reparaz et al., "dude, is my code constant time?", 2017), without the slowest tenth,
    /// which is the system's. Wants a quiet machine and an optimised build:
    /// `cargo test --release --lib key_compare -- --ignored`.
    #[test]
    #[ignore = "a timing, for a quiet machine"]
    fn key_compare_takes_the_same_time_whatever_is_wrong() {
        const SAMPLES: usize = 1_000_000;
        let key = Key::new("secret");
        let (mut times, mut state) = ([Vec::new(), Vec::new()], 88_172_645_463_325_252u64);
        for _ in 0..SAMPLES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let class = usize::from(state >> 40 & 1 == 1);
            let mut given = key.0;
            given[0] ^= class as u8;
            let begin = std::time::Instant::now();
            for _ in 0..16 {
                std::hint::black_box(key.matches(std::hint::black_box(&given)));
            }
            times[class].push(begin.elapsed().as_nanos() as f64);
        }
        let moments = times.map(|mut t| {
            t.sort_unstable_by(f64::total_cmp);
            t.truncate(t.len() * 9 / 10);
            let n = t.len() as f64;
            let mean = t.iter().sum::<f64>() / n;
            (mean, t.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
        });
        let [(a, va), (b, vb)] = moments;
        let t = (a - b) / (va + vb).sqrt();
        println!("{SAMPLES} samples of 16: {a:.1} ns, {b:.1} ns, t = {t:.2}");
        assert!(t.abs() < 4.5, "t = {t}");
    }

    #[test]
    fn foreign_hosts_and_origins() {
        let bound: SocketAddr = "127.0.0.1:30000".parse().unwrap();
        let ok = |access, method, fields: &str| {
            check_origin(access, &head(method, fields), bound).is_ok()
        };
        assert!(ok(Access::User, "POST", "Host: localhost:30000\r\n"));
        assert!(ok(Access::User, "POST", "Host: [::1]:30000\r\n"));
        assert!(!ok(Access::Open, "GET", "Host: evil.example\r\n"));
        assert!(ok(Access::User, "POST", "Host: localhost:1\r\nOrigin: http://localhost:1\r\n"));
        assert!(!ok(Access::User, "POST", "Host: localhost\r\nOrigin: http://evil.example\r\n"));
        assert!(!ok(Access::User, "POST", "Host: localhost\r\nOrigin: null\r\n"));
        assert!(!ok(Access::Admin, "GET", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n"));
    }
}
