//! The reply subject of a delivery: `$JS.ACK.…`, which carries the sequences and is where acknowledgements go.
//!
//! There are two forms: nine tokens (`$JS.ACK.stream.consumer.delivered.sseq.cseq.time.pending`), and eleven or more, with
//! domain and account before the stream and a trailing random token. Owns reading both and writing the subject of an
//! acknowledgement again from a [`Token`], so that no reply has to be kept while a message waits for its commit. Pure.

use std::fmt::Write;

/// What a reply subject says of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The message's place in the stream.
    pub stream_seq: u64,
    /// The number of the delivery, from 1, without gaps as long as all deliveries of the consumer arrive here.
    pub consumer_seq: u64,
    /// How often the message has been delivered, this time included.
    pub deliveries: u64,
    /// When the server stored the message, in nanoseconds since 1970.
    pub stored_ns: u64,
    /// How many messages the consumer has still to deliver.
    pub pending: u64,
}

/// What an acknowledgement needs of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The message's place in the stream.
    pub stream_seq: u64,
    /// The number of the delivery.
    pub consumer_seq: u64,
    /// How often the message had been delivered.
    pub deliveries: u64,
}

impl Delivered {
    /// What an acknowledgement needs of it.
    pub fn token(self) -> Token {
        Token { stream_seq: self.stream_seq, consumer_seq: self.consumer_seq, deliveries: self.deliveries }
    }
}

/// What all reply subjects of one consumer have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Up to the dot before the first number.
    prefix: String,
    /// How many tokens follow the five numbers.
    trailing: usize,
}

impl Form {
    /// Learns the form from a reply subject; nothing if it is none of a JetStream delivery.
    pub fn of(reply: &str) -> Option<Form> {
        if !reply.starts_with("$JS.ACK.") {
            return None;
        }
        let tokens = reply.split('.').count();
        let before = match tokens {
            9 => 4,
            11.. => 6,
            _ => return None,
        };
        let (end, _) = reply.match_indices('.').nth(before - 1)?;
        Some(Form { prefix: reply[..=end].to_owned(), trailing: tokens - before - 5 })
    }

    /// Reads a reply subject; nothing if it has another form.
    pub fn read(&self, reply: &str) -> Option<Delivered> {
        let rest = reply.strip_prefix(self.prefix.as_str())?.as_bytes();
        let mut at = 0;
        let mut number = || {
            let start = at;
            let mut value = 0_u64;
            while let Some(digit) = rest.get(at).copied().filter(u8::is_ascii_digit) {
                value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
                at += 1;
            }
            let ended = matches!(rest.get(at), None | Some(b'.'));
            let read = (at > start && ended).then_some(value);
            at += 1;
            read
        };
        let (deliveries, stream_seq, consumer_seq) = (number()?, number()?, number()?);
        let (stored_ns, pending) = (number()?, number()?);
        Some(Delivered { stream_seq, consumer_seq, deliveries, stored_ns, pending })
    }

    /// The subject that acknowledges a delivery. Time and pending are of no account to the server and stay 0.
    pub fn ack_subject(&self, token: Token) -> String {
        let mut subject = String::with_capacity(self.prefix.len() + 48);
        subject.push_str(&self.prefix);
        let Token { stream_seq, consumer_seq, deliveries } = token;
        let written = write!(subject, "{deliveries}.{stream_seq}.{consumer_seq}.0.0");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
        for _ in 0..self.trailing {
            subject.push_str("._");
        }
        subject
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_written() {
        let expected = Delivered {
            stream_seq: 1234,
            consumer_seq: 77,
            deliveries: 2,
            stored_ns: 1_700_000_000_000_000_000,
            pending: 9,
        };
        for (reply, ack) in [
            ("$JS.ACK.events.weir.2.1234.77.1700000000000000000.9", "$JS.ACK.events.weir.2.1234.77.0.0"),
            (
                "$JS.ACK.hub.AbC123.events.weir.2.1234.77.1700000000000000000.9.r4nd0m",
                "$JS.ACK.hub.AbC123.events.weir.2.1234.77.0.0._",
            ),
            (
                "$JS.ACK._.AbC123.events.weir.2.1234.77.1700000000000000000.9",
                "$JS.ACK._.AbC123.events.weir.2.1234.77.0.0",
            ),
        ] {
            let form = Form::of(reply).expect("a delivery");
            assert_eq!(form.read(reply), Some(expected), "{reply}");
            assert_eq!(form.ack_subject(expected.token()), ack);
        }
    }

    #[test]
    fn what_is_no_delivery_is_not_read() {
        for reply in ["", "_INBOX.abc", "$JS.ACK.a.b", "$JS.ACK.a.b.c.d.e.f.g.h"] {
            assert_eq!(Form::of(reply), None, "{reply}");
        }
        let form = Form::of("$JS.ACK.s.c.1.1.1.1.1").expect("a delivery");
        for reply in ["$JS.ACK.s.d.1.1.1.1.1", "$JS.ACK.s.c.x.1.1.1.1", "$JS.ACK.s.c.1.1.1", "$JS.ACK.s.c.1.1..1.1"] {
            assert_eq!(form.read(reply), None, "{reply}");
        }
        assert_eq!(form.read("$JS.ACK.s.c.1.99999999999999999999.1.1.1"), None, "does not fit into 64 bits");
    }
}
