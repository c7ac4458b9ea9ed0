//! A JSON scanner (RFC 8259) over text that is known to be UTF-8. It finds where values begin and
//! end, keeps numbers and strings as they are written, and allocates nothing. It accepts and
//! refuses the same texts as `serde_json`, which its property tests check, except that an unpaired
//! surrogate (`"\ud800"`) is found only when a string is unescaped.

use super::span::Span;

/// The greatest depth of nested objects and arrays.
pub(super) const DEPTH_MAX: usize = 127;

/// The reason why a text is not JSON, and the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) reason: &'static str,
    pub(super) at: usize,
}

/// A value, by its range in the scanned text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Number(Number),
    Text(Text),
    Array(Span),
    Object(Span),
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) span: Span,
    pub(super) negative: bool,
    /// The absolute value, if the number has neither fraction nor exponent and at most 19 digits.
    pub(super) magnitude: Option<u64>,
}

impl Number {
    /// The value of an integer that fits.
    #[inline]
    pub(super) fn as_i64(self) -> Option<i64> {
        let magnitude = self.magnitude?;
        if self.negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
    }
}

/// A string, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) span: Span,
    /// True if it has escapes.
    pub(super) escaped: bool,
}

/// A place in a text.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0 }
    }

    /// A scanner of a part of a text. Spans refer to the whole text.
    pub(super) fn within(text: &'a str, part: Span) -> Scanner<'a> {
        Scanner { text: &text[..part.end as usize], at: part.start as usize }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    pub(super) fn error(&self, reason: &'static str) -> Syntax {
        Syntax { reason, at: self.at }
    }

    /// The next byte.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    pub(super) fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes the byte if it comes next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8, reason: &'static str) -> Result<(), Syntax> {
        if self.take(byte) { Ok(()) } else { Err(self.error(reason)) }
    }

    /// Takes a string of exactly these bytes, quotes included, if it comes next. `key` must need no
    /// escapes.
    #[inline]
    pub(super) fn take_string(&mut self, key: &[u8]) -> bool {
        let rest = &self.text.as_bytes()[self.at..];
        let taken = rest.len() >= key.len() + 2
            && rest[0] == b'"'
            && rest[1 + key.len()] == b'"'
            && rest[1..=key.len()] == *key;
        if taken {
            self.at += key.len() + 2;
        }
        taken
    }

    /// The value that begins here. The whole of an array or object is passed over. `depth` is the
    /// number of arrays and objects around the value.
    // Always inlined, as are its callees. A `Value` that is returned through memory costs a stalled
    // load for each field, together a quarter of the time of decoding a record.
    #[inline(always)]
    pub(super) fn value(&mut self, depth: usize) -> Result<Value, Syntax> {
        match self.peek() {
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => Ok(Value::Number(self.number()?)),
            _ => self.rare_value(depth),
        }
    }

    /// A value that is neither a string nor a number.
    fn rare_value(&mut self, depth: usize) -> Result<Value, Syntax> {
        match self.peek() {
            Some(b't') => self.literal("true", Value::Boolean(true)),
            Some(b'f') => self.literal("false", Value::Boolean(false)),
            Some(b'n') => self.literal("null", Value::Null),
            Some(open @ (b'[' | b'{')) => {
                let start = self.at;
                self.skip_nested(depth)?;
                let span = Span::new(start, self.at);
                Ok(if open == b'[' { Value::Array(span) } else { Value::Object(span) })
            }
            Some(_) => Err(self.error("expected a value")),
            None => Err(self.error("unexpected end")),
        }
    }

    fn literal(&mut self, word: &'static str, value: Value) -> Result<Value, Syntax> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.error("expected a value"))
        }
    }

    /// The number that begins here.
    #[inline(always)]
    pub(super) fn number(&mut self) -> Result<Number, Syntax> {
        let start = self.at;
        let negative = self.take(b'-');
        let first = self.at;
        let mut magnitude: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            magnitude = magnitude.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first;
        if digits == 0 || (digits > 1 && self.text.as_bytes()[first] == b'0') {
            self.at = first;
            return Err(self.error("invalid number"));
        }
        let mut integer = true;
        if self.take(b'.') {
            integer = false;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.at += 1;
            let _signed = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let magnitude = (integer && digits <= 19).then_some(magnitude);
        Ok(Number { span: Span::new(start, self.at), negative, magnitude })
    }

    fn digits(&mut self) -> Result<(), Syntax> {
        let first = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == first { Err(self.error("invalid number")) } else { Ok(()) }
    }

    /// The string that begins here.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Result<Text, Syntax> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = find_special(self.text.as_bytes(), self.at);
            match self.peek() {
                Some(b'"') => {
                    let span = Span::new(start, self.at);
                    self.at += 1;
                    return Ok(Text { span, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.skip_escape()?;
                }
                Some(_) => return Err(self.error("control character in a string")),
                None => return Err(self.error("unexpected end")),
            }
        }
    }

    fn skip_escape(&mut self) -> Result<(), Syntax> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') if rest.len() >= 5 && rest[1..5].iter().all(u8::is_ascii_hexdigit) => self.at += 6,
            _ => return Err(self.error("invalid escape")),
        }
        Ok(())
    }

    /// Passes over an array or object, however deep, without recursion.
    fn skip_nested(&mut self, depth: usize) -> Result<(), Syntax> {
        // Each level has one bit, which is set for an object.
        let mut objects: u128 = 0;
        let mut levels = 0;
        loop {
            let open = self.peek();
            let mut closed = false;
            if let Some(b'[' | b'{') = open {
                if depth + levels >= DEPTH_MAX {
                    return Err(self.error("nested too deeply"));
                }
                let object = open == Some(b'{');
                self.at += 1;
                levels += 1;
                objects = objects << 1 | u128::from(object);
                self.skip_whitespace();
                closed = self.peek() == Some(if object { b'}' } else { b']' });
                if !closed {
                    if object {
                        self.key()?;
                    }
                    continue;
                }
            } else {
                self.value(depth + levels)?;
            }
            // A value has ended, or, if `closed`, an empty array or object is about to.
            loop {
                self.skip_whitespace();
                let object = objects & 1 == 1;
                let close = if object { b'}' } else { b']' };
                if !closed && self.take(b',') {
                    self.skip_whitespace();
                    if object {
                        self.key()?;
                    }
                    break;
                }
                self.expect(close, if object { "expected , or }" } else { "expected , or ]" })?;
                closed = false;
                objects >>= 1;
                levels -= 1;
                if levels == 0 {
                    return Ok(());
                }
            }
        }
    }

    /// A key with its colon and the whitespace after it.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Text, Syntax> {
        let key = self.string()?;
        self.colon()?;
        Ok(key)
    }

    #[inline]
    pub(super) fn colon(&mut self) -> Result<(), Syntax> {
        self.skip_whitespace();
        self.expect(b':', "expected :")?;
        self.skip_whitespace();
        Ok(())
    }
}

/// The next quote, backslash or control character, or the end. Eight bytes at a time.
#[inline]
fn find_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The lowest set high bit marks the first byte that is below `limit` (at most 128). Higher ones
    // may be wrong.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let found =
            below(word, 0x20) | below(word ^ (ONES * u64::from(b'"')), 1) | below(word ^ (ONES * u64::from(b'\\')), 1);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\') {
        at += 1;
    }
    at
}

/// Appends the text of a string's raw form. Returns `None`, and undoes what was appended, if it has
/// an unpaired surrogate.
pub(super) fn unescape(raw: &str, out: &mut String) -> Option<()> {
    let before = out.len();
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let Some((character, tail)) = unescape_one(escape) else {
            out.truncate(before);
            return None;
        };
        out.push(character);
        rest = tail;
    }
    out.push_str(rest);
    Some(())
}

/// The same for a string that becomes a text. Texts of PostgreSQL and of its clients cannot hold a
/// NUL.
#[inline]
pub(super) fn unescape_text(raw: &str, out: &mut String) -> Option<()> {
    let before = out.len();
    unescape(raw, out)?;
    if out.as_bytes()[before..].contains(&0) {
        out.truncate(before);
        return None;
    }
    Some(())
}

/// The character of one escape, behind its backslash, and the text after it.
fn unescape_one(escape: &str) -> Option<(char, &str)> {
    let character = match escape.as_bytes().first()? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let unit = |text: &str| u32::from_str_radix(text.get(1..5)?, 16).ok();
            let high = unit(escape)?;
            if !(0xd800..0xdc00).contains(&high) {
                return Some((char::from_u32(high)?, &escape[5..]));
            }
            let low = escape[5..].strip_prefix('\\').filter(|next| next.starts_with('u')).and_then(unit)?;
            let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            return Some((char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)?, &escape[11..]));
        }
        same => char::from(*same),
    };
    Some((character, &escape[1..]))
}

/// Describes the first place in a string or key that no text can hold: a lone surrogate, or U+0000
/// if `nul` is set.
pub(super) fn text_fault(span: Span, text: &str, nul: bool) -> Option<String> {
    let raw = span.of(text);
    let unit = |at: usize| u32::from_str_radix(raw.get(at + 2..at + 6)?, 16).ok();
    let is_escape = |at: usize| raw.as_bytes().get(at) == Some(&b'\\') && raw.as_bytes().get(at + 1) == Some(&b'u');
    let mut at = 0;
    while let Some(found) = raw.get(at..)?.find('\\') {
        at += found;
        if !is_escape(at) {
            at += 2;
            continue;
        }
        let place = span.start as usize + at;
        match unit(at)? {
            0 if nul => return Some(format!("U+0000, which no text can hold, at byte {place}")),
            0xd800..0xdc00 if is_escape(at + 6) && matches!(unit(at + 6), Some(0xdc00..0xe000)) => at += 12,
            0xd800..0xe000 => return Some(format!("a lone surrogate at byte {place}")),
            _ => at += 6,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> Result<(), Syntax> {
        let mut scanner = Scanner::new(text);
        scanner.skip_whitespace();
        scanner.value(0)?;
        scanner.skip_whitespace();
        if scanner.peek().is_some() { Err(scanner.error("trailing characters")) } else { Ok(()) }
    }

    fn serde_accepts(text: &str) -> bool {
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    }

    #[test]
    fn special_bytes_are_found_wherever_they_stand() {
        for special in [b'"', b'\\', 0, 0x1f] {
            for before in 0..20 {
                let mut bytes = vec![0x80_u8; before];
                bytes.push(special);
                bytes.extend([b'"'; 9]);
                assert_eq!(find_special(&bytes, 0), before);
            }
        }
        assert_eq!(find_special("\u{7f} é".repeat(5).as_bytes(), 0), 5 * "\u{7f} é".len());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(accepts(&nested(DEPTH_MAX)), Ok(()));
        assert!(serde_accepts(&nested(DEPTH_MAX)));
        assert_eq!(accepts(&nested(DEPTH_MAX + 1)).map_err(|error| error.reason), Err("nested too deeply"));
        assert_eq!(accepts(&"[{\"a\":".repeat(1 << 20)).map_err(|error| error.reason), Err("nested too deeply"));
    }

    #[test]
    fn surrogates_are_paired() {
        let unescaped = |raw: &str| {
            let mut out = String::from("before ");
            unescape(raw, &mut out).map(|()| out.clone()).ok_or(out)
        };
        assert_eq!(unescaped(r"a\ud83d\ude00\n"), Ok("before a😀\n".to_owned()));
        for raw in [r"a\ud83d", r"\ud83d\n", r"\ud83dx", r"\ud83d\u0041", r"\ude00", r"\ud83d\ud83d"] {
            assert_eq!(unescaped(raw), Err("before ".to_owned()), "{raw}");
        }
    }

    /// Fragments that together make interesting nonsense.
    fn fragments() -> impl Strategy<Value = String> {
        let fragment = prop_oneof![
            "[{}\\[\\]:,\" \\\\]",
            "-?(0|[1-9][0-9]{0,3}|00|01)?(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?",
            "\"([a-z]|\\\\[\"\\\\/bfnrtux0])*\"",
            "(true|false|null|tru|nul)",
            "[\\t\\n\\r \u{a0}\u{1}é]",
        ];
        prop::collection::vec(fragment, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn the_same_texts_are_accepted_as_by_serde_json(text in fragments()) {
            prop_assert_eq!(accepts(&text).is_ok(), serde_accepts(&text), "{:?}", accepts(&text));
        }

        #[test]
        fn strings_mean_the_same_as_to_serde_json(content in any::<String>()) {
            let json = serde_json::to_string(&content).expect("a string");
            let text = Scanner::new(&json).string().expect("a string");
            let mut out = String::new();
            let raw = text.span.of(&json);
            prop_assert_eq!(unescape(raw, &mut out), Some(()));
            prop_assert_eq!(&out, &content);
            prop_assert!(text.escaped || raw == content);
        }

        #[test]
        fn integers_mean_the_same_as_to_serde_json(number: i64) {
            let text = number.to_string();
            prop_assert_eq!(Scanner::new(&text).number().expect("a number").as_i64(), Some(number));
        }
    }
}
