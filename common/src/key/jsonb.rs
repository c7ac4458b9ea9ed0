//! The order of jsonb values, as bytes: values compare as their keys do.
//!
//! The order is that of PostgreSQL's B-trees: object > array > boolean > number > string > null. If
//! two containers are of one kind, the one with more members is greater; otherwise members decide
//! in their order, each key before its value. A scalar by itself counts as an array of one element,
//! just below the array that holds it.
//!
//! A number begins with its sign and the place of its point, and goes on with its digits without
//! zeros at either end. No key is a prefix of another.

const NULL: u8 = 0;
const STRING: u8 = 1;
const NUMBER: u8 = 2;
const BOOLEAN: u8 = 3;
const ARRAY: u8 = 0x10;
const OBJECT: u8 = 0x11;

/// The key of a jsonb in normal form. Equal values have equal keys.
pub fn jsonb_key(document: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(document.len() + 8);
    write(document, &mut out);
    out
}

/// Appends the key of a jsonb in normal form.
pub(super) fn write(document: &str, out: &mut Vec<u8>) {
    let mut reader = Reader { text: document, at: 0 };
    if !matches!(reader.peek(), Some(b'{' | b'[')) {
        out.push(ARRAY);
        out.extend_from_slice(&1_u32.to_be_bytes());
        out.push(0);
    }
    reader.value(out);
}

/// Reads the normal form from its beginning. A text that is not in normal form may end early, but
/// never fails.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips a byte if it comes next.
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn skip_space(&mut self) {
        while self.skip(b' ') {}
    }

    fn value(&mut self, out: &mut Vec<u8>) {
        match self.peek() {
            Some(b'{') => {
                out.push(OBJECT);
                self.members(b'}', out, |reader, out| {
                    reader.string(out);
                    reader.skip(b':');
                    reader.skip_space();
                    reader.value(out);
                });
            }
            Some(b'[') => {
                out.push(ARRAY);
                self.members(b']', out, |reader, out| reader.value(out));
            }
            Some(b'"') => {
                out.push(STRING);
                self.string(out);
            }
            Some(b't' | b'f') => {
                let is_true = self.peek() == Some(b't');
                out.extend_from_slice(&[BOOLEAN, u8::from(is_true)]);
                self.at += if is_true { 4 } else { 5 };
            }
            Some(b'n') => {
                out.push(NULL);
                self.at += 4;
            }
            _ => self.number(out),
        }
    }

    /// Writes the number of members, then each of them.
    fn members(&mut self, end: u8, out: &mut Vec<u8>, member: impl Fn(&mut Self, &mut Vec<u8>)) {
        let place = out.len();
        out.extend_from_slice(&[0; 4]);
        if end == b']' {
            out.push(1);
        }
        let mut count = 0_u32;
        self.at += 1;
        while !matches!(self.peek(), None | Some(b'}' | b']')) {
            let before = self.at;
            member(self, out);
            count = count.saturating_add(1);
            self.skip(b',');
            self.skip_space();
            if self.at == before {
                break;
            }
        }
        self.skip(end);
        out[place..place + 4].copy_from_slice(&count.to_be_bytes());
    }

    /// Writes a string's bytes and a zero, which no string contains.
    fn string(&mut self, out: &mut Vec<u8>) {
        let bytes = self.text.as_bytes();
        let first = self.at;
        let mut is_plain = true;
        self.at += 1;
        while let Some(byte) = bytes.get(self.at).filter(|byte| **byte != b'"') {
            is_plain = is_plain && *byte != b'\\';
            self.at += if *byte == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        let written = self.text.get(first..self.at).unwrap_or_default();
        if is_plain {
            out.extend_from_slice(written.trim_matches('"').as_bytes());
        } else {
            out.extend_from_slice(serde_json::from_str::<String>(written).unwrap_or_default().as_bytes());
        }
        out.push(0);
    }

    /// Writes the sign, the number of digits before the point, and the digits without zeros at
    /// either end.
    fn number(&mut self, out: &mut Vec<u8>) {
        let is_negative = self.skip(b'-');
        let rest = &self.text.as_bytes()[self.at.min(self.text.len())..];
        let length = rest.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'.')).count();
        let number = &rest[..length];
        self.at += length;
        let point = number.iter().position(|byte| *byte == b'.').unwrap_or(length);
        let digits: Vec<u8> = number.iter().copied().filter(|byte| *byte != b'.').collect();
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        let significant = digits.iter().rposition(|digit| *digit != b'0').map_or(&[][..], |last| &digits[zeros..=last]);
        out.push(NUMBER);
        if significant.is_empty() {
            out.push(1);
            return;
        }
        let magnitude = i64::try_from(point).unwrap_or(i64::MAX) - i64::try_from(zeros).unwrap_or(i64::MAX);
        // Flipping the highest bit makes the unsigned bytes keep the order of the signed number.
        let magnitude = (magnitude as u64) ^ (1 << 63);
        let encoded = magnitude.to_be_bytes().into_iter().chain(significant.iter().copied()).chain([0]);
        out.push(if is_negative { 0 } else { 2 });
        out.extend(encoded.map(|byte| if is_negative { !byte } else { byte }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys are stored.
    #[test]
    fn the_layout_does_not_change() {
        for (document, expected) in [
            ("null", &b"\x10\0\0\0\x01\0\0"[..]),
            ("-1.50", b"\x10\0\0\0\x01\0\x02\0\x7f\xff\xff\xff\xff\xff\xff\xfe\xce\xca\xff"),
            (
                r#"{"a": 10, "bb": ["x", true]}"#,
                b"\x11\0\0\0\x02a\0\x02\x02\x80\0\0\0\0\0\0\x021\0bb\0\x10\0\0\0\x02\x01\x01x\0\x03\x01",
            ),
        ] {
            assert_eq!(jsonb_key(document), expected, "{document}");
        }
    }

    /// As PostgreSQL 15 sorts them; its empty array is below everything else.
    #[test]
    fn values_are_in_postgresqls_order() {
        let sorted = [
            "[]",
            "null",
            r#""""#,
            r#""a""#,
            r#""a\"b""#,
            r#""ab""#,
            r#""b""#,
            "-100",
            "-20.5",
            "-20",
            "-3",
            "-0.01",
            "0",
            "0.001",
            "0.5",
            "3",
            "3.25",
            "10",
            "100",
            "false",
            "true",
            "[null]",
            "[1]",
            "[true]",
            "[[]]",
            "[{}]",
            "[1, 2]",
            "[1, 10]",
            "{}",
            r#"{"a": 1}"#,
            r#"{"a": 2}"#,
            r#"{"b": 0}"#,
            r#"{"aa": 0}"#,
            r#"{"a": 0, "b": 0}"#,
        ];
        // A longer key is stored after a shorter one, but the two compare as strings.
        for pair in sorted.windows(2).filter(|pair| pair[1] != r#"{"aa": 0}"# && pair[0] != r#"{"aa": 0}"#) {
            assert!(jsonb_key(pair[0]) < jsonb_key(pair[1]), "{} < {}", pair[0], pair[1]);
        }
        let [a, aa, b] = [r#"{"a": 1}"#, r#"{"aa": 0}"#, r#"{"b": 0}"#].map(jsonb_key);
        assert!(a < aa && aa < b);
        for (one, other) in [("1.0", "1"), ("100", "100.00"), ("[0.50]", "[0.5]"), (r#"{"a": 1.10}"#, r#"{"a": 1.1}"#)]
        {
            assert_eq!(jsonb_key(one), jsonb_key(other), "{one} = {other}");
        }
    }

    #[test]
    fn no_text_is_too_strange() {
        for text in ["", "{", "[", "[1,", "\"", "\"\\", "-", "nul", "{\"a\"", "{\"a\": [", "xyz", "[x]", "é"] {
            let _key = jsonb_key(text);
        }
    }
}
