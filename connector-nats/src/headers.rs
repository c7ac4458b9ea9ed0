//! What a message was published with: the order of its headers, and those that the client did not parse.
//!
//! Anything can be published as headers, and the server stores it as it is. The client parses headers as it reads them from
//! the socket. Over those that it cannot parse it gives the whole connection up, or panics. Pure.

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Whether the client gets over a message with this subject and these headers; empty: there are none.
///
/// The client divides the line before a message with headers at any white space of Unicode, which a server allows in
/// subjects; and a subject that is not UTF-8 comes with the replacement character here.
pub fn is_readable(subject: &str, headers: &[u8]) -> bool {
    let odd = |c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER;
    (headers.is_empty() || read(headers).is_some()) && !subject.contains(odd)
}

/// The headers, as the client would parse them; nothing if there are none, or if the client cannot.
pub fn read(headers: &[u8]) -> Option<HeaderMap> {
    let mut lines = str::from_utf8(headers).ok()?.lines().peekable();
    let version = lines.next()?.strip_prefix("NATS/1.0")?.trim();
    let status = version.split_once(' ').map_or(version, |(status, _)| status.trim());
    if !status.is_empty() {
        StatusCode::from_str(status).ok()?;
    }
    let mut map = HeaderMap::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_str(name).ok()?;
        let mut value = value.trim_start().to_owned();
        // A field may go on in further lines.
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        value.truncate(value.trim_end().len());
        // A carriage return that ends no line: the client panics over it.
        map.append(name, HeaderValue::from_str(&value).ok()?);
    }
    Some(map)
}

/// The same of a message whose payload is left out: the server tells its size instead.
pub fn with_size(headers: &[u8], payload_bytes: usize) -> Option<HeaderMap> {
    let mut map = if headers.is_empty() { HeaderMap::new() } else { read(headers)? };
    map.insert("Nats-Msg-Size", payload_bytes.to_string().as_str());
    Some(map)
}

/// All headers in the order of their names, which is the only one that the client keeps; the values of one name in the order
/// in which they came.
pub fn sorted(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let mut sorted: Vec<(&str, &[HeaderValue])> =
        headers.iter().map(|(name, values)| (name.as_ref(), values.as_slice())).collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    sorted.into_iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_gives_up_over_is_known() {
        for good in ["", "NATS/1.0\r\n\r\n", "NATS/1.0\r\na: b\r\n c\r\nd:e\r\n\r\n", "NATS/1.0 503 Go away\r\n\r\n"] {
            assert!(is_readable("s", good.as_bytes()), "{good:?}");
        }
        for bad in [
            "HTTP/1.1\r\n\r\n",
            "NATS/1.0\r\nno colon\r\n\r\n",
            "NATS/1.0 x\r\n\r\n",
            "NATS/1.0 503\tx\r\n\r\n",
            "NATS/1.0\r\nn\u{e9}: b\r\n\r\n",
            "NATS/1.0\r\na: x\ry\r\n\r\n",
            "NATS/1.0\r\na: x\r\n y\rz\r\n\r\n",
        ] {
            assert!(!is_readable("s", bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_readable("s", b"NATS/1.0\r\na: \xff\r\n\r\n"));
        for bad in ["a\u{a0}b", "a\u{fffd}b"] {
            assert!(!is_readable(bad, b"NATS/1.0\r\na: b\r\n\r\n"), "{bad:?}");
        }
    }

    #[test]
    fn headers_are_read_as_the_client_does() {
        let read = read(b"NATS/1.0 100 Hello\r\nb:1\r\na:  x\r\n y \r\nb: 2\r\nempty:\r\n\r\n").expect("readable");
        let mut expected = HeaderMap::new();
        for (name, value) in [("a", "x y"), ("b", "1"), ("b", "2"), ("empty", "")] {
            expected.append(name, value);
        }
        assert_eq!(read, expected);
    }
}
