//! The frames in which clients send messages: a type, a length, a body.
//!
//! This module bounds the size of a message and checks that its body has the form of its type,
//! because pgwire's decoder does not check that. It does no IO.

use weir_sql::error::{Error, sqlstate};

/// The maximum size of a message. The parser bounds the text of statements further; this leaves
/// room for parameters.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The size of a message's type and length.
pub(super) const HEAD_BYTES: usize = 5;

/// The state of the message at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Some of its bytes have not arrived yet.
    Incomplete,
    /// All of it is there, and its body is well-formed.
    Whole,
    /// It is larger than the limit.
    TooLarge { kind: u8, bytes: usize },
    /// All of it is there, and a text in it is not UTF-8.
    Garbled { kind: u8, bytes: usize },
}

/// Examines the message at the beginning of a buffer.
///
/// # Errors
/// `08P01` if the message is malformed. The connection cannot continue, because the start of the
/// next message is unknown.
pub(super) fn examine(buffer: &[u8]) -> Result<Frame, Error> {
    let Some(head) = buffer.first_chunk::<HEAD_BYTES>() else {
        return Ok(Frame::Incomplete);
    };
    let [kind, length @ ..] = *head;
    // The length includes itself, but not the type.
    let Some(body) = usize::try_from(i32::from_be_bytes(length)).ok().and_then(|length| length.checked_sub(4)) else {
        return Err(violation("invalid message length"));
    };
    if !is_known(kind) {
        return Err(violation(&format!("invalid frontend message type {kind}")));
    }
    if body > MESSAGE_BYTES_MAX {
        return Ok(Frame::TooLarge { kind, bytes: HEAD_BYTES + body });
    }
    let bytes = HEAD_BYTES + body;
    let Some(body) = buffer.get(HEAD_BYTES..bytes) else {
        return Ok(Frame::Incomplete);
    };
    match (Body { rest: body, is_garbled: false }).read(kind) {
        Some(false) => Ok(Frame::Whole),
        Some(true) => Ok(Frame::Garbled { kind, bytes }),
        None => Err(violation("invalid message format")),
    }
}

fn violation(message: &str) -> Error {
    Error::user(sqlstate::PROTOCOL_VIOLATION, message)
}

fn is_known(kind: u8) -> bool {
    b"QPBDECHSXpdcf".contains(&kind)
}

/// Returns true if an error in such a message makes the server skip all messages up to the next
/// Sync.
pub(super) fn is_extended(kind: u8) -> bool {
    b"PBDECHS".contains(&kind)
}

/// A body that is being read.
struct Body<'a> {
    rest: &'a [u8],
    /// True if a text in it was not UTF-8.
    is_garbled: bool,
}

impl<'a> Body<'a> {
    /// Reads the body to its end, as its type demands; returns whether it is garbled, or `None` if
    /// it is malformed.
    fn read(mut self, kind: u8) -> Option<bool> {
        match kind {
            b'Q' | b'f' => self.text()?,
            b'P' => {
                self.text()?;
                self.text()?;
                let types = self.count()?;
                self.take(4 * types)?;
            }
            b'B' => self.bind()?,
            b'D' | b'C' => {
                let target = self.take(1)?;
                if !matches!(target, b"S" | b"P") {
                    return None;
                }
                self.text()?;
            }
            b'E' => {
                self.text()?;
                self.take(4)?;
            }
            // The data of COPY and passwords may be any bytes.
            b'd' | b'p' => return Some(false),
            _ => {}
        }
        self.rest.is_empty().then_some(self.is_garbled)
    }

    fn bind(&mut self) -> Option<()> {
        self.text()?;
        self.text()?;
        let formats = self.count()?;
        self.take(2 * formats)?;
        for _ in 0..self.count()? {
            let length = i32::from_be_bytes(*self.take(4)?.first_chunk()?);
            if length >= 0 {
                self.take(usize::try_from(length).ok()?)?;
            } else if length != -1 {
                return None;
            }
        }
        let formats = self.count()?;
        self.take(2 * formats)?;
        Some(())
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn count(&mut self) -> Option<usize> {
        let count = self.take(2)?;
        Some(usize::from(u16::from_be_bytes(*count.first_chunk()?)))
    }

    /// Reads a text that ends with a zero.
    fn text(&mut self) -> Option<()> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        self.is_garbled |= str::from_utf8(self.take(end + 1)?).is_err();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(body.len() + 4).expect("a short body");
        [&[kind], length.to_be_bytes().as_slice(), body].concat()
    }

    /// One well-formed body for each type.
    const BODIES: &[(u8, &[u8])] = &[
        (b'Q', b"SELECT 1\0"),
        (b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17"),
        (b'B', b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x04abcd\xff\xff\xff\xff\0\x01\0\0"),
        (b'D', b"Ss\0"),
        (b'C', b"P\0"),
        (b'E', b"\0\0\0\0\x0a"),
        (b'H', b""),
        (b'S', b""),
        (b'X', b""),
    ];

    #[test]
    fn a_message_is_whole_when_its_last_byte_has_come() {
        for (kind, body) in BODIES {
            let message = message(*kind, body);
            for end in 0..message.len() {
                assert_eq!(examine(&message[..end]), Ok(Frame::Incomplete), "{}", char::from(*kind));
            }
            assert_eq!(examine(&message), Ok(Frame::Whole), "{}", char::from(*kind));
            assert_eq!(examine(&[&message, b"Q".as_slice()].concat()), Ok(Frame::Whole), "{}", char::from(*kind));
        }
    }

    #[test]
    fn a_body_that_is_cut_short_or_goes_on_is_refused() {
        for (kind, body) in BODIES {
            for end in 0..body.len() {
                assert!(examine(&message(*kind, &body[..end])).is_err(), "{} {end}", char::from(*kind));
            }
            assert!(examine(&message(*kind, &[body, b"x\0".as_slice()].concat())).is_err(), "{}", char::from(*kind));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(examine(b"GET / HTTP/1.1\r\n").is_err());
        assert!(examine(b"Q\0\0\0\x03").is_err());
        assert!(examine(b"Q\xff\xff\xff\xff").is_err());
        assert!(examine(&message(b'D', b"X\0")).is_err());
    }

    #[test]
    fn text_that_is_not_utf8_is_noticed() {
        let bytes = HEAD_BYTES + 3;
        assert_eq!(examine(&message(b'Q', b"a\xff\0")), Ok(Frame::Garbled { kind: b'Q', bytes }));
        // The values of parameters are bytes.
        assert_eq!(examine(&message(b'B', b"\0\0\0\0\0\x01\0\0\0\x01\xff\0\0")), Ok(Frame::Whole));
    }

    #[test]
    fn a_message_that_is_too_large_is_known_by_its_length() {
        let head = [b"P".as_slice(), &i32::MAX.to_be_bytes()].concat();
        let bytes = HEAD_BYTES - 4 + usize::try_from(i32::MAX).expect("at least 32 bits");
        assert_eq!(examine(&head), Ok(Frame::TooLarge { kind: b'P', bytes }));
    }
}
