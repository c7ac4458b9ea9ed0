//! Whether the client can parse what a message was published with.
//!
//! Anything can be published as headers, and the server stores it as it is. The client parses headers as it reads them from
//! the socket, and gives the whole connection up over those that it cannot parse. Pure.

use std::str::FromStr;

use async_nats::{HeaderName, StatusCode};

/// Whether the client gets over these headers; empty: there are none.
pub fn are_readable(headers: &[u8]) -> bool {
    if headers.is_empty() {
        return true;
    }
    let Ok(text) = std::str::from_utf8(headers) else { return false };
    let mut lines = text.lines();
    let Some(version) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else { return false };
    let status = version.split_whitespace().next();
    let is_field = |line: &str| match line.split_once(':') {
        Some((name, _)) => HeaderName::from_str(name).is_ok(),
        // A field may go on in further lines.
        None => line.starts_with(char::is_whitespace),
    };
    status.is_none_or(|status| StatusCode::from_str(status).is_ok())
        && lines.all(|line| line.is_empty() || is_field(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_gives_up_over_is_known() {
        for good in ["", "NATS/1.0\r\n\r\n", "NATS/1.0\r\na: b\r\n c\r\nd:e\r\n\r\n", "NATS/1.0 503 Go away\r\n\r\n"] {
            assert!(are_readable(good.as_bytes()), "{good:?}");
        }
        for bad in
            ["HTTP/1.1\r\n\r\n", "NATS/1.0\r\nno colon\r\n\r\n", "NATS/1.0 x\r\n\r\n", "NATS/1.0\r\nn\u{e9}: b\r\n\r\n"]
        {
            assert!(!are_readable(bad.as_bytes()), "{bad:?}");
        }
        assert!(!are_readable(b"NATS/1.0\r\na: \xff\r\n\r\n"));
    }
}
