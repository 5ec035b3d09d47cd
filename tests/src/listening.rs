//! The line in which a node says where it listens.
//!
//! Any of its log formats is understood: `listening http=127.0.0.1:8080 admin=127.0.0.1:9900`, lists in brackets, URLs,
//! JSON. What is needed is the word `listening` and, before each group of addresses, the name of the listener.

use std::net::SocketAddr;

/// The addresses of a node, by listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listening {
    /// Plaintext.
    pub http: Vec<SocketAddr>,
    /// TLS.
    pub https: Vec<SocketAddr>,
    /// The admin API.
    pub admin: Vec<SocketAddr>,
}

#[derive(Clone, Copy)]
enum Listener {
    Http,
    Https,
    Admin,
}

impl Listening {
    /// The addresses of this line, if it is the one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = without_colours(line);
        if !line.contains("listening") {
            return None;
        }
        let mut found = Self::default();
        let mut listener = None;
        for token in line.split(|c: char| c.is_whitespace() || "\"',={}()\\".contains(c)) {
            let (named, rest) = split_name(token);
            // The admin listener may be written as a URL: its own name says more than the scheme.
            if !(matches!(listener, Some(Listener::Admin)) && token.contains("://")) {
                listener = named.or(listener);
            }
            let Some(addr) = address(rest) else { continue };
            match listener {
                Some(Listener::Http) => found.http.push(addr),
                Some(Listener::Https) => found.https.push(addr),
                Some(Listener::Admin) => found.admin.push(addr),
                None => {}
            }
        }
        let is_it = found != Self::default();
        is_it.then_some(found)
    }
}

/// The listener that a token names, and what is left of it: `https://[::1]:1` is both.
fn split_name(token: &str) -> (Option<Listener>, &str) {
    let (name, rest) = token.split_once("://").unwrap_or((token.trim_end_matches(':'), token));
    let listener = match name {
        "http" => Some(Listener::Http),
        "https" => Some(Listener::Https),
        "admin" => Some(Listener::Admin),
        _ => None,
    };
    (listener, rest)
}

/// A socket address, perhaps inside the brackets of a list or before the path of a URL.
fn address(token: &str) -> Option<SocketAddr> {
    let token = token.trim_end_matches('/');
    let inside = |text: &str| text.parse().ok();
    inside(token)
        .or_else(|| inside(token.strip_prefix('[')?))
        .or_else(|| inside(token.strip_suffix(']')?))
        .or_else(|| inside(token.strip_prefix('[')?.strip_suffix(']')?))
}

/// The line without the escape sequences of a terminal (`ESC [ … m`).
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut parts = line.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    #[test]
    fn every_way_to_write_the_line_is_understood() {
        let all = Listening { http: addresses(&[1, 2]), https: addresses(&[3]), admin: addresses(&[4]) };
        for line in [
            "INFO listening http=\"127.0.0.1:1, 127.0.0.1:2\" https=\"127.0.0.1:3\" admin=127.0.0.1:4 version=\"0.1.0\"",
            "INFO brim: listening http=[127.0.0.1:1, 127.0.0.1:2] https=[127.0.0.1:3] admin=127.0.0.1:4",
            "listening on http 127.0.0.1:1 127.0.0.1:2, https 127.0.0.1:3, admin 127.0.0.1:4",
            "listening http://127.0.0.1:1/ http://127.0.0.1:2/ https://127.0.0.1:3/ admin=http://127.0.0.1:4",
            r#"{"level":"INFO","fields":{"message":"listening","http":["127.0.0.1:1","127.0.0.1:2"],"https":["127.0.0.1:3"],"admin":"127.0.0.1:4"}}"#,
            r#"{"fields":{"message":"listening","http":"[\"127.0.0.1:1\", \"127.0.0.1:2\"]","https":"[127.0.0.1:3]","admin":"127.0.0.1:4"}}"#,
            "\u{1b}[32m INFO\u{1b}[0m listening \u{1b}[3mhttp\u{1b}[0m\u{1b}[2m=\u{1b}[0m[127.0.0.1:1, 127.0.0.1:2] https=[127.0.0.1:3] admin=127.0.0.1:4",
        ] {
            assert_eq!(Listening::parse(line), Some(all.clone()), "{line}");
        }
    }

    #[test]
    fn addresses_of_ip_version_six_are_understood() {
        let expected = Listening { http: vec!["[::1]:80".parse().expect("an address")], ..Listening::default() };
        assert_eq!(Listening::parse("listening http=[::1]:80"), Some(expected.clone()));
        assert_eq!(Listening::parse("listening http=[[::1]:80]"), Some(expected));
    }

    #[test]
    fn other_lines_are_not_it() {
        assert_eq!(Listening::parse("store opened http=127.0.0.1:1"), None);
        assert_eq!(Listening::parse("listening soon"), None);
    }
}
