//! A jsonb value: finds parts of it, compares it, and normalises a text.
//!
//! The normal form is PostgreSQL's: keys sorted by length, then by bytes; the last of equal keys; a
//! space after each colon and comma. Compute nodes write the same form.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, sqlstate};

/// The value of an object's key; `None` if the key is missing, or the document is not an object.
pub(super) fn member<'a>(document: &'a str, key: &str) -> Result<Option<&'a str>, Error> {
    if !document.starts_with('{') {
        return scalar_or_array(document).map(|()| None);
    }
    let mut reader = serde_json::Deserializer::from_str(document);
    reader.deserialize_map(Member(key)).map_err(|error| invalid(document, &error))
}

/// The element of an array at an index, from 0. A negative index counts from the end.
pub(super) fn element(document: &str, index: i64) -> Result<Option<&str>, Error> {
    if !document.starts_with('[') {
        return Ok(None);
    }
    let index = match usize::try_from(index) {
        Ok(index) => index,
        Err(_) => {
            let back = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
            match count(document)?.checked_sub(back) {
                Some(index) => index,
                None => return Ok(None),
            }
        }
    };
    let mut reader = serde_json::Deserializer::from_str(document);
    reader.deserialize_seq(Element(index)).map_err(|error| invalid(document, &error))
}

/// Follows a path: keys of objects, indexes of arrays.
pub(super) fn at_path<'a, 'p>(
    document: &'a str,
    path: impl Iterator<Item = &'p str>,
) -> Result<Option<&'a str>, Error> {
    let mut place = document;
    for step in path {
        let next = if place.starts_with('[') {
            match step.trim().parse() {
                Ok(index) => element(place, index)?,
                Err(_) => None,
            }
        } else {
            member(place, step)?
        };
        match next {
            Some(next) => place = next,
            None => return Ok(None),
        }
    }
    Ok(Some(place))
}

/// A value as text: a string without its quotes, NULL for a JSON null, other values unchanged.
pub(in crate::functions) fn as_text(value: &str) -> datafusion::error::Result<Option<Cow<'_, str>>> {
    Ok(match value.as_bytes().first() {
        Some(b'n') => None,
        Some(b'"') => Some(Cow::Owned(serde_json::from_str(value).map_err(|error| invalid(value, &error))?)),
        _ => Some(Cow::Borrowed(value)),
    })
}

/// The result of `jsonb_typeof`.
pub(super) fn type_of(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// # Errors
/// `22023` if the value is not an array.
pub(super) fn array_length(value: &str) -> Result<i32, Error> {
    match type_of(value) {
        "array" => i32::try_from(count(value)?).map_err(|_| Error::out_of_range("integer out of range")),
        "object" => Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, "cannot get array length of a non-array")),
        _ => Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, "cannot get array length of a scalar")),
    }
}

/// True if a text is a key of the object, a string in the array, or the string itself.
pub(super) fn exists(document: &str, key: &str) -> Result<bool, Error> {
    match type_of(document) {
        "object" => Ok(member(document, key)?.is_some()),
        "array" => Ok(elements(document)?.iter().any(|element| is_string(element.get(), key))),
        _ => Ok(is_string(document, key)),
    }
}

fn is_string(value: &str, text: &str) -> bool {
    value.starts_with('"') && serde_json::from_str::<String>(value).is_ok_and(|string| string == text)
}

/// PostgreSQL's `@>`: true if everything in `inner` is also in `outer`, at the same place. The
/// order of an array's elements, and how often each occurs, does not matter. An array also contains
/// a scalar that equals one of its elements.
pub(super) fn contains(outer: &str, inner: &str) -> Result<bool, Error> {
    let is_scalar = |value| !matches!(type_of(value), "array" | "object");
    if type_of(outer) == "array" && is_scalar(inner) {
        return Ok(elements(outer)?.iter().any(|element| equal_scalars(element.get(), inner)));
    }
    contains_at_place(outer, inner, 0)
}

fn contains_at_place(outer: &str, inner: &str, depth: usize) -> Result<bool, Error> {
    check_depth(depth)?;
    match (type_of(outer), type_of(inner)) {
        ("object", "object") => {
            let outer = members(outer)?;
            for (key, value) in members(inner)? {
                match outer.get(&key) {
                    Some(place) if contains_at_place(place.get(), value.get(), depth + 1)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        ("array", "array") => {
            let outer = elements(outer)?;
            for value in elements(inner)? {
                let mut found = false;
                for place in &outer {
                    found = found || contains_at_place(place.get(), value.get(), depth + 1)?;
                }
                if !found {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => Ok(equal_scalars(outer, inner)),
    }
}

/// Numbers are equal by value: `1.0` is `1`. Containers never count as equal here.
fn equal_scalars(left: &str, right: &str) -> bool {
    match (type_of(left), type_of(right)) {
        ("number", "number") => plain_number(left) == plain_number(right),
        ("string", "string") if left != right => {
            // A string may contain the same character in different spellings.
            let read = |text| serde_json::from_str::<String>(text).ok();
            read(left).is_some_and(|left| read(right) == Some(left))
        }
        ("array" | "object", _) | (_, "array" | "object") => false,
        _ => left == right,
    }
}

/// A number in normal form without insignificant zeros.
fn plain_number(number: &str) -> &str {
    let plain = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    if plain == "-0" { "0" } else { plain }
}

/// Reads the steps of a path from a text array in PostgreSQL's format, `{a,"b c",0}`.
///
/// # Errors
/// `22P02` if the text is not such an array.
pub(super) fn path(written: &str) -> Result<Vec<String>, Error> {
    let malformed = || {
        Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{written}\""))
            .with_hint("a path is written as '{key,0,other}'")
    };
    let inside = written.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(malformed)?;
    if inside.trim().is_empty() {
        return Ok(Vec::new());
    }
    let (mut steps, mut step) = (Vec::new(), String::new());
    let (mut in_quotes, mut was_quoted) = (false, false);
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => step.push(characters.next().ok_or_else(malformed)?),
            '"' => {
                // Only white space may precede the quote.
                if !in_quotes && step.trim().is_empty() {
                    step.clear();
                }
                in_quotes = !in_quotes;
                was_quoted = true;
            }
            ' ' if was_quoted && !in_quotes => {}
            ',' if !in_quotes => {
                steps.push(finished(&mut step, &mut was_quoted).ok_or_else(malformed)?);
            }
            '{' | '}' if !in_quotes => return Err(malformed()),
            character => step.push(character),
        }
    }
    if in_quotes {
        return Err(malformed());
    }
    steps.push(finished(&mut step, &mut was_quoted).ok_or_else(malformed)?);
    Ok(steps)
}

/// Ends a step; `None` if it is empty and not quoted.
fn finished(step: &mut String, was_quoted: &mut bool) -> Option<String> {
    let read = std::mem::take(step);
    if std::mem::take(was_quoted) {
        return Some(read);
    }
    let trimmed = read.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// The normal form of a text.
///
/// # Errors
/// `22P02` if the text is not JSON.
pub(in crate::functions) fn normalise(text: &str) -> Result<String, Error> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| invalid(text, &error))?;
    let mut out = String::with_capacity(text.len());
    write(raw.get(), 0, &mut out)?;
    Ok(out)
}

fn write(value: &str, depth: usize, out: &mut String) -> Result<(), Error> {
    check_depth(depth)?;
    match type_of(value) {
        "object" => {
            let members = members(value)?;
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| (key.len(), key.as_str()));
            out.push('{');
            for (place, (key, value)) in sorted.into_iter().enumerate() {
                out.push_str(if place == 0 { "" } else { ", " });
                write_string(key, out)?;
                out.push_str(": ");
                write(value.get(), depth + 1, out)?;
            }
            out.push('}');
        }
        "array" => {
            out.push('[');
            for (place, element) in elements(value)?.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { ", " });
                write(element.get(), depth + 1, out)?;
            }
            out.push(']');
        }
        "string" => {
            let string: String = serde_json::from_str(value).map_err(|error| invalid(value, &error))?;
            write_string(&string, out)?;
        }
        "number" => write_number(value, out)?,
        _ => out.push_str(value),
    }
    Ok(())
}

pub(super) fn write_string(string: &str, out: &mut String) -> Result<(), Error> {
    if string.contains('\0') {
        return Err(Error::user("22P05", "unsupported Unicode escape sequence")
            .with_detail("\\u0000 cannot be converted to text"));
    }
    // serde_json escapes the same characters as PostgreSQL.
    out.push_str(&serde_json::to_string(string).map_err(|error| invalid(string, &error))?);
    Ok(())
}

/// The maximal exponent of a number, in either direction, as on compute nodes.
const EXPONENT_MAX: i64 = 400;

/// Writes a number without its exponent. Zeros are kept as written.
fn write_number(number: &str, out: &mut String) -> Result<(), Error> {
    let (sign, unsigned) = number.strip_prefix('-').map_or(("", number), |unsigned| ("-", unsigned));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent: i64 =
        exponent.parse().ok().filter(|exponent: &i64| exponent.abs() <= EXPONENT_MAX).ok_or_else(|| {
            Error::out_of_range("value overflows numeric format")
                .with_detail(format!("the exponent of {number} is too large"))
        })?;
    if mantissa.bytes().any(|digit| matches!(digit, b'1'..=b'9')) {
        out.push_str(sign);
    }
    if mantissa.len() == unsigned.len() {
        out.push_str(mantissa);
        return Ok(());
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: String = [whole, fraction].concat();
    let mut point = i64::try_from(whole.len()).unwrap_or(i64::MAX) + exponent;
    while point <= 0 {
        digits.insert(0, '0');
        point += 1;
    }
    let point = usize::try_from(point).unwrap_or(usize::MAX);
    while digits.len() < point {
        digits.push('0');
    }
    let (whole, fraction) = digits.split_at(point);
    let whole = whole.trim_start_matches('0');
    out.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    Ok(())
}

/// Values are walked recursively, so their nesting is limited, as on compute nodes.
const DEPTH_MAX: usize = 127;

fn check_depth(depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        let message = format!("a jsonb is nested deeper than {DEPTH_MAX} levels");
        return Err(Error::user(sqlstate::STATEMENT_TOO_COMPLEX, message));
    }
    Ok(())
}

pub(super) fn members(object: &str) -> Result<BTreeMap<String, &RawValue>, Error> {
    serde_json::from_str(object).map_err(|error| invalid(object, &error))
}

pub(super) fn elements(array: &str) -> Result<Vec<&RawValue>, Error> {
    serde_json::from_str(array).map_err(|error| invalid(array, &error))
}

fn count(array: &str) -> Result<usize, Error> {
    let mut reader = serde_json::Deserializer::from_str(array);
    reader.deserialize_seq(Count).map_err(|error| invalid(array, &error))
}

/// A document that is not an object has no members. Checks that it is JSON, because a text may
/// never have been normalised.
fn scalar_or_array(document: &str) -> Result<(), Error> {
    serde_json::from_str::<IgnoredAny>(document).map(|_| ()).map_err(|error| invalid(document, &error))
}

fn invalid(text: &str, error: &serde_json::Error) -> Error {
    let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json")
        .with_detail(format!("{error}, in: {shown}"))
}

/// The maximal part of an invalid text that an error shows.
const SHOWN_CHARS_MAX: usize = 100;

/// Reads an object to its end, and keeps the last value of one key.
struct Member<'k>(&'k str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(IsKey(self.0))? {
            if is_wanted {
                found = Some(map.next_value::<&RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a key without keeping it.
struct IsKey<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// Reads an array to its end, and keeps one element.
struct Element(usize);

impl<'de> Visitor<'de> for Element {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.0 {
            if array.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = array.next_element::<&RawValue>()?.map(RawValue::get);
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

/// Counts the elements of an array.
struct Count;

impl<'de> Visitor<'de> for Count {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while array.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str =
        r#"{"a": {"b": [10, 20.50, null]}, "n": null, "s": "x\"y", "big": 123456789012345678901234567890}"#;

    fn at<'a>(document: &'a str, written: &str) -> Option<&'a str> {
        let path = path(written).expect(written);
        at_path(document, path.iter().map(String::as_str)).expect(document)
    }

    #[test]
    fn parts_are_found_as_they_stand() {
        assert_eq!(member(DOCUMENT, "big"), Ok(Some("123456789012345678901234567890")));
        assert_eq!(member(DOCUMENT, "n"), Ok(Some("null")));
        assert_eq!(member(DOCUMENT, "missing"), Ok(None));
        assert_eq!(member("[1]", "0"), Ok(None));
        assert_eq!(member("7", "a"), Ok(None));
        assert_eq!(element("[1, [2], 3]", 1), Ok(Some("[2]")));
        assert_eq!(element("[1, [2], 3]", -1), Ok(Some("3")));
        assert_eq!(element("[1, [2], 3]", 3), Ok(None));
        assert_eq!(element("[1, [2], 3]", -4), Ok(None));
        assert_eq!(element(DOCUMENT, 0), Ok(None));
    }

    #[test]
    fn paths_lead_through_objects_and_arrays() {
        assert_eq!(at(DOCUMENT, "{a,b,1}"), Some("20.50"));
        assert_eq!(at(DOCUMENT, "{a,b,-1}"), Some("null"));
        assert_eq!(at(DOCUMENT, "{}"), Some(DOCUMENT));
        assert_eq!(at(DOCUMENT, "{ a , \"b\" }"), Some("[10, 20.50, null]"));
        assert_eq!(at(DOCUMENT, "{a,c}"), None);
        assert_eq!(at(DOCUMENT, "{a,b,x}"), None);
        assert_eq!(at(r#"{"a,b": 1}"#, "{\"a,b\"}"), Some("1"));
        for malformed in ["a", "{a", "{a,,b}", "{\"a}", "{{a}}"] {
            assert_eq!(path(malformed).expect_err(malformed).sqlstate, "22P02");
        }
    }

    #[test]
    fn text_loses_its_quotes_and_null_is_nothing() {
        let text = |value| as_text(value).expect(value).map(Cow::into_owned);
        assert_eq!(text(r#""x\"y""#).as_deref(), Some("x\"y"));
        assert_eq!(text("null"), None);
        assert_eq!(text("1.50").as_deref(), Some("1.50"));
        assert_eq!(text(r#"{"a": 1}"#).as_deref(), Some(r#"{"a": 1}"#));
    }

    /// Examples from PostgreSQL's documentation and its regression tests.
    #[test]
    fn containment_is_postgresqls() {
        for (outer, inner, expected) in [
            (r#""foo""#, r#""foo""#, true),
            ("[1, 2, 3]", "[1, 3]", true),
            ("[1, 2, 3]", "[3, 1]", true),
            ("[1, 2, 3]", "[1, 2, 2]", true),
            (r#"{"product": "PostgreSQL", "version": 9.4, "jsonb": true}"#, r#"{"version": 9.4}"#, true),
            ("[1, 2, [1, 3]]", "[1, 3]", false),
            ("[1, 2, [1, 3]]", "[[1, 3]]", true),
            (r#"{"foo": {"bar": "baz"}}"#, r#"{"bar": "baz"}"#, false),
            (r#"{"foo": {"bar": "baz"}}"#, r#"{"foo": {}}"#, true),
            (r#"["foo", "bar"]"#, r#""bar""#, true),
            (r#""bar""#, r#"["bar"]"#, false),
            (r#"{"a": [1]}"#, r#"{"a": 1}"#, false),
            ("[1.0]", "[1]", true),
            ("[null]", "null", true),
            ("{}", "[]", false),
        ] {
            assert_eq!(contains(outer, inner), Ok(expected), "{outer} @> {inner}");
        }
        assert_eq!(exists(r#"{"a": 1}"#, "a"), Ok(true));
        assert_eq!(exists(r#"["a"]"#, "a"), Ok(true));
        assert_eq!(exists("[1]", "1"), Ok(false));
    }

    /// As PostgreSQL 15 prints `'…'::jsonb`.
    #[test]
    fn texts_are_brought_into_normal_form() {
        for (text, expected) in [
            (r#"{"bb":1,"a":[1,2,{"c":null}]}"#, r#"{"a": [1, 2, {"c": null}], "bb": 1}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
            (" 1e3 ", "1000"),
            ("1.50e1", "15.0"),
            ("-1.2e-3", "-0.0012"),
            ("-0", "0"),
            ("1.00", "1.00"),
            (r#""\u00e4\n\u0001""#, "\"ä\\n\\u0001\""),
            ("[]", "[]"),
            ("{}", "{}"),
        ] {
            assert_eq!(normalise(text).expect(text), expected, "{text}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(normalise(&deep).expect_err("too deep").sqlstate, "54001");
        for text in ["", "{", "{a: 1}", "[1,]", "1 2", "nul"] {
            assert_eq!(normalise(text).expect_err(text).sqlstate, "22P02", "{text}");
        }
    }
}
