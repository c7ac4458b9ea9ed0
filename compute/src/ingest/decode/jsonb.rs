//! The normal form of a `jsonb` value: the text that PostgreSQL prints for it. Keys are sorted by
//! length, then by bytes; of equal keys the last one counts; one space follows each colon and
//! comma; numbers are written out without an exponent and keep their trailing zeros; strings have
//! no escapes but the necessary ones.

use std::ops::Range;

use super::bad_record::RECORD_BYTES_MAX;
use super::json::{Scanner, Value, text_fault, unescape_text};

/// The largest exponent, either way, that is written out. It covers every double; PostgreSQL's
/// limit of 131,072 digits would let seven bytes grow to 128 KiB.
const EXPONENT_MAX: i64 = 400;

/// Buffers that are reused from value to value.
#[derive(Default)]
pub(super) struct Work {
    /// The unescaped keys of the open objects.
    keys: String,
    members: Vec<Member>,
    /// Room for sorting members and unescaping strings.
    spare: String,
}

/// A member of an open object.
#[derive(Clone)]
struct Member {
    key: Range<usize>,
    /// The place of key and value in the output.
    written: Range<usize>,
}

/// Appends the normal form of a value of `text`, which the scanner has accepted before. Returns
/// `None`, and undoes what was appended, if it has none.
pub(super) fn normalise(value: Value, text: &str, work: &mut Work, out: &mut String) -> Option<()> {
    let before = out.len();
    work.keys.clear();
    work.members.clear();
    let written = write(value, text, work, out);
    if written.is_none() {
        out.truncate(before);
    }
    written
}

/// The reason why a value has no normal form. `text` is the payload.
pub(super) fn fault(value: Value, text: &str) -> Option<String> {
    match value {
        Value::Null | Value::Boolean(_) => None,
        Value::Number(number) => {
            let exponent = number.span.of(text).split_once(['e', 'E'])?.1;
            let fits = exponent.parse::<i64>().is_ok_and(|exponent| exponent.abs() <= EXPONENT_MAX);
            let at = number.span.start;
            (!fits).then(|| format!("a number whose exponent is beyond ±{EXPONENT_MAX}, at byte {at}"))
        }
        Value::Text(string) => text_fault(string.span, text, true),
        Value::Array(span) | Value::Object(span) => {
            let is_object = matches!(value, Value::Object(_));
            let mut scanner = Scanner::within(text, span);
            let _opened = scanner.take(b'[') || scanner.take(b'{');
            scanner.skip_whitespace();
            while !matches!(scanner.peek(), Some(b']' | b'}') | None) {
                if is_object && let Some(fault) = text_fault(scanner.key().ok()?.span, text, true) {
                    return Some(fault);
                }
                if let Some(fault) = fault(scanner.value(0).ok()?, text) {
                    return Some(fault);
                }
                scanner.skip_whitespace();
                scanner.take(b',');
                scanner.skip_whitespace();
            }
            None
        }
    }
}

fn write(value: Value, text: &str, work: &mut Work, out: &mut String) -> Option<()> {
    // Numbers with exponents can grow a hundredfold. A text that is too large for a row need not be
    // finished.
    if out.len() > RECORD_BYTES_MAX {
        return None;
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Boolean(true) => out.push_str("true"),
        Value::Boolean(false) => out.push_str("false"),
        Value::Number(number) => write_number(number.span.of(text), out)?,
        Value::Text(string) => write_text(string.span.of(text), string.escaped, &mut work.spare, out)?,
        Value::Array(span) => write_array(span.of(text), work, out)?,
        Value::Object(span) => write_object(span.of(text), work, out)?,
    }
    Some(())
}

/// The value at the scanner. It is good, because it was accepted together with the value around it.
fn next(scanner: &mut Scanner<'_>) -> Option<Value> {
    scanner.skip_whitespace();
    let value = scanner.value(0).ok()?;
    scanner.skip_whitespace();
    Some(value)
}

fn write_array(text: &str, work: &mut Work, out: &mut String) -> Option<()> {
    let mut scanner = Scanner::new(text);
    scanner.take(b'[');
    scanner.skip_whitespace();
    out.push('[');
    if !scanner.take(b']') {
        loop {
            let value = next(&mut scanner)?;
            write(value, text, work, out)?;
            if !scanner.take(b',') {
                break;
            }
            out.push_str(", ");
        }
    }
    out.push(']');
    Some(())
}

fn write_object(text: &str, work: &mut Work, out: &mut String) -> Option<()> {
    let mut scanner = Scanner::new(text);
    let (first_member, first_key) = (work.members.len(), work.keys.len());
    scanner.take(b'{');
    scanner.skip_whitespace();
    out.push('{');
    let inside = out.len();
    if !scanner.take(b'}') {
        loop {
            scanner.skip_whitespace();
            let key = scanner.key().ok()?;
            let key_start = work.keys.len();
            let raw = key.span.of(text);
            unescape_text(raw, &mut work.keys)?;
            let key_end = work.keys.len();
            let start = out.len();
            write_text(raw, key.escaped, &mut work.spare, out)?;
            out.push_str(": ");
            let value = next(&mut scanner)?;
            write(value, text, work, out)?;
            work.members.push(Member { key: key_start..key_end, written: start..out.len() });
            if !scanner.take(b',') {
                break;
            }
            out.push_str(", ");
        }
    }
    put_in_order(work, first_member, inside, out);
    work.members.truncate(first_member);
    work.keys.truncate(first_key);
    out.push('}');
    Some(())
}

/// Sorts the members of the object whose inside begins at `inside`, unless they are in order
/// already.
fn put_in_order(work: &mut Work, first_member: usize, inside: usize, out: &mut String) {
    let members = &mut work.members[first_member..];
    let rank = |member: &Member| {
        let key = &work.keys[member.key.clone()];
        (key.len(), key)
    };
    if members.is_sorted_by(|a, b| rank(a) < rank(b)) {
        return;
    }
    // Members of one key stay in their order.
    members.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)).then(a.written.start.cmp(&b.written.start)));
    work.spare.clear();
    for (place, member) in members.iter().enumerate() {
        let replaced = members.get(place + 1).is_some_and(|next| rank(next) == rank(member));
        if !replaced {
            if !work.spare.is_empty() {
                work.spare.push_str(", ");
            }
            work.spare.push_str(&out[member.written.clone()]);
        }
    }
    out.truncate(inside);
    out.push_str(&work.spare);
}

fn write_text(raw: &str, escaped: bool, spare: &mut String, out: &mut String) -> Option<()> {
    out.push('"');
    if escaped {
        spare.clear();
        unescape_text(raw, spare)?;
        for character in spare.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\0'..' ' => {
                    let hex = |digit: u32| char::from_digit(digit, 16).expect("below 16");
                    out.push_str("\\u00");
                    out.push(hex(u32::from(character) / 16));
                    out.push(hex(u32::from(character) % 16));
                }
                _ => out.push(character),
            }
        }
    } else {
        out.push_str(raw);
    }
    out.push('"');
    Some(())
}

/// Writes a number as PostgreSQL's `numeric` does.
fn write_number(number: &str, out: &mut String) -> Option<()> {
    let (sign, unsigned) = match number.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", number),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let zero = !mantissa.bytes().any(|digit| matches!(digit, b'1'..=b'9'));
    if !zero {
        out.push_str(sign);
    }
    if mantissa.len() == unsigned.len() {
        out.push_str(unsigned);
        return Some(());
    }
    let exponent: i64 = exponent.parse().ok().filter(|exponent: &i64| exponent.abs() <= EXPONENT_MAX)?;
    // The point moves `exponent` places to the right in the row of all digits.
    let point = i64::try_from(whole.len()).ok()? + exponent;
    let total = i64::try_from(whole.len() + fraction.len()).ok()?;
    let digit = |place: i64| {
        let place = usize::try_from(place).ok();
        let digit = place.and_then(|place| match place.checked_sub(whole.len()) {
            None => whole.as_bytes().get(place),
            Some(place) => fraction.as_bytes().get(place),
        });
        digit.map_or('0', |digit| char::from(*digit))
    };
    let first = (0..point).find(|place| digit(*place) != '0').unwrap_or(point.max(0));
    if first >= point {
        out.push('0');
    }
    out.extend((first..point).map(digit));
    if total > point {
        out.push('.');
        out.extend((point..total).map(digit));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(text: &str) -> Option<String> {
        let mut out = String::from("before");
        let value = Scanner::new(text).value(0).expect("JSON");
        let normalised = normalise(value, text, &mut Work::default(), &mut out);
        assert!(normalised.is_some() || out == "before");
        normalised.map(|()| out.split_off("before".len()))
    }

    /// PostgreSQL 15 prints these for `'…'::jsonb`.
    #[test]
    fn values_look_as_in_postgresql() {
        for (text, printed) in [
            (
                r#"{"bb":1,"a":{"z":null,"y":true},"c":[1,2 , {}]}"#,
                r#"{"a": {"y": true, "z": null}, "c": [1, 2, {}], "bb": 1}"#,
            ),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#),
            (r#"{"b":{"y":1,"x":2,"y":3},"b":{"d":1,"c":2},"a":0}"#, r#"{"a": 0, "b": {"c": 2, "d": 1}}"#),
            (r#"{"é":1,"zz":2,"a":3}"#, r#"{"a": 3, "zz": 2, "é": 1}"#),
            (r#"{"\u0061":1,"a":2}"#, r#"{"a": 2}"#),
            (r#"[]"#, "[]"),
            (r#" [ ]"#.trim(), "[]"),
            (r#""a\/b\u00e9\u0001\ud83d\ude00\"\\\n""#, r#""a/bé\u0001😀\"\\\n""#),
            ("1.10", "1.10"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("1e5", "100000"),
            ("1.50E+1", "15.0"),
            ("1.5e3", "1500"),
            ("12345e-3", "12.345"),
            ("1e-3", "0.001"),
            ("10e-3", "0.010"),
            ("0e5", "0"),
            ("0.00e1", "0.0"),
            ("-0.5e1", "-5"),
            ("0.05e1", "0.5"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            assert_eq!(normal(text).as_deref(), Some(printed), "{text}");
        }
    }

    #[test]
    fn what_has_no_normal_form_is_refused() {
        for text in
            ["1e401", "[1e-401]", r#"{"a":1e99999999999999999999}"#, r#""\ud800""#, r#"{"\ud800":1}"#, r#""\u0000""#]
        {
            assert_eq!(normal(text), None, "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "(\\PC|[\\x01-\\x1f\"\\\\]){0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map("[a-c\"\n]{0,3}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn keys_are_in_order(value: Value, text: &str) -> bool {
        let (Value::Object(span) | Value::Array(span)) = value else { return true };
        let text = span.of(text);
        let text = &text[1..text.len() - 1];
        let mut scanner = Scanner::new(text);
        let mut last: Option<(usize, String)> = None;
        while scanner.peek().is_some() {
            if let Value::Object(_) = value {
                let mut key = String::new();
                unescape_text(scanner.key().expect("a key").span.of(text), &mut key).expect("a string");
                let rank = Some((key.len(), key));
                if last >= rank {
                    return false;
                }
                last = rank;
            }
            if !keys_are_in_order(next(&mut scanner).expect("a value"), text) {
                return false;
            }
            scanner.take(b',');
            scanner.skip_whitespace();
        }
        true
    }

    proptest! {
        #[test]
        fn the_normal_form_means_the_same_and_is_its_own(value in any_json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let normalised = normal(&text.expect("JSON")).expect("a normal form");
            let back: serde_json::Value = serde_json::from_str(&normalised).expect("JSON");
            prop_assert_eq!(back, value);
            let scanned = Scanner::new(&normalised).value(0).expect("JSON");
            prop_assert!(keys_are_in_order(scanned, &normalised));
            let again = normal(&normalised);
            prop_assert_eq!(again.as_ref(), Some(&normalised));
        }

        #[test]
        fn numbers_keep_their_value(whole in 0_u32.., fraction in "[0-9]{0,6}", exponent in -30_i32..30, minus: bool) {
            let sign = if minus { "-" } else { "" };
            let point = if fraction.is_empty() { "" } else { "." };
            let text = format!("{sign}{whole}{point}{fraction}e{exponent}");
            let normalised = normal(&text).expect("a normal form");
            let value = |text: &str| text.parse::<f64>().expect("a number");
            prop_assert_eq!(value(&normalised), value(&text), "{} became {}", text, normalised);
            prop_assert!(!normalised.contains(['e', 'E']));
        }
    }
}
