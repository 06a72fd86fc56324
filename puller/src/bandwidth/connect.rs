//! The head of a CONNECT request, as rsync and our own relay write it. Anyone on this machine can send one, so every byte of
//! it is hostile until the token in it was compared.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A longer head is refused unread.
pub const MOST_BYTES: usize = 2048;
const END: &[u8] = b"\r\n\r\n";

/// What a CONNECT request asks for, and as whom.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The name or address to connect to, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Which transfer says so.
    pub user: String,
    /// What proves it.
    pub token: String,
}

/// The length of the head that `bytes` begin with; `None` while its end is missing.
pub fn length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(END.len()).position(|window| window == END).map(|at| at + END.len())
}

/// Reads a whole head. `None` when it is not one, or carries no login.
pub fn parse(bytes: &[u8]) -> Option<Head> {
    let mut lines = str::from_utf8(bytes).ok()?.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if method != "CONNECT" || !version.starts_with("HTTP/1.") || words.next().is_some() {
        return None;
    }
    // rsync writes an IPv6 address without brackets; the port is what follows the last colon.
    let (host, port) = target.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let login = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let (scheme, login) = value.trim().split_once(' ')?;
        let is_ours = name.eq_ignore_ascii_case("proxy-authorization") && scheme.eq_ignore_ascii_case("basic");
        is_ours.then_some(login)
    })?;
    let login = String::from_utf8(STANDARD.decode(login.trim()).ok()?).ok()?;
    let (user, token) = login.split_once(':')?;
    Some(Head { host: host.to_owned(), port: port.parse().ok()?, user: user.to_owned(), token: token.to_owned() })
}

/// Writes one, as our relay does.
pub fn write(host: &str, port: u16, login: &str) -> String {
    let login = STANDARD.encode(login);
    format!("CONNECT {host}:{port} HTTP/1.0\r\nProxy-Authorization: Basic {login}\r\n\r\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn head(host: &str) -> Head {
        Head { host: host.into(), port: 873, user: "7".into(), token: "x:y".into() }
    }

    #[test]
    fn what_rsync_3_5_sends_is_understood() {
        let text = "CONNECT 127.0.0.1:873 HTTP/1.0\r\nProxy-Authorization: Basic Nzp4Onk=\r\n\r\n";
        assert_eq!(parse(text.as_bytes()), Some(head("127.0.0.1")));
        assert_eq!(write("127.0.0.1", 873, "7:x:y"), text);
        let six = text.replace("127.0.0.1", "fe80::1");
        assert_eq!(parse(six.as_bytes()), Some(head("fe80::1")));
        let bracketed = text.replace("127.0.0.1", "[fe80::1]");
        assert_eq!(parse(bracketed.as_bytes()), Some(head("fe80::1")));
        assert_eq!(length(text.as_bytes()), Some(text.len()));
        assert_eq!(length(&text.as_bytes()[..text.len() - 1]), None);
    }

    #[test]
    fn what_is_no_connect_with_a_login_is_nothing() {
        let login = "Proxy-Authorization: Basic Nzp4\r\n\r\n";
        for first in ["GET / HTTP/1.0", "CONNECT a HTTP/1.0", "CONNECT a:70000 HTTP/1.0", "CONNECT a:1 SPDY", ""] {
            assert_eq!(parse(format!("{first}\r\n{login}").as_bytes()), None, "{first}");
        }
        for login in [
            "",
            "Proxy-Authorization: Basic !\r\n",
            "Authorization: Basic Nzp4\r\n",
            "Proxy-Authorization: Basic eA==\r\n",
        ] {
            assert_eq!(parse(format!("CONNECT a:1 HTTP/1.0\r\n{login}\r\n").as_bytes()), None, "{login}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "CONNECT [ -~\r\n]{0,200}") {
            let _ = (parse(&bytes), length(&bytes), parse(text.as_bytes()));
        }

        #[test]
        fn what_is_written_is_read(host in "[a-z0-9.-]{1,40}", port: u16, user in "[a-z0-9]{1,9}", token in "[!-~]{1,40}") {
            let written = write(&host, port, &format!("{user}:{token}"));
            prop_assert_eq!(parse(written.as_bytes()), Some(Head { host, port, user, token }));
        }
    }
}
