//! Says in words why a JSON value does not fit a column. Only refused values come here, so nothing
//! in here is fast.
//!
//! The rules are those of [`super::convert`]; this module finds the one that a value breaks. Places
//! are bytes of the payload, counted from 0.

use weir_common::decimal::{self, Excess};
use weir_common::interval::Interval;
use weir_common::types::{NUMERIC_PRECISION, NUMERIC_SCALE, SqlType, StructField};

use super::bad_record::describe;
use super::cell::Arena;
use super::convert;
use super::json::{Number, Scanner, Text, Value, text_fault, unescape};
use super::span::Span;
use super::{jsonb, time};

const NO_NUMBER: &str = "not a number";

/// The reason why a value does not fit, unless its kind alone says so. `text` is the payload.
pub(super) fn why(ty: &SqlType, value: Value, text: &str) -> Option<String> {
    let fault = match (ty, value) {
        (SqlType::Jsonb, value) => return jsonb::fault(value, text),
        (SqlType::Array(element), Value::Array(span)) => return element_fault(element, span, text),
        (SqlType::Struct(fields), Value::Object(span)) => return field_fault(fields, span, text),
        (_, Value::Number(number)) => number_fault(ty, number, text),
        (SqlType::Varchar, Value::Text(string)) => return text_fault(string.span, text, true),
        (_, Value::Text(string)) => match unescaped(string, text) {
            Ok(string) => string_fault(ty, &string),
            Err(fault) => return Some(fault),
        },
        _ => None,
    };
    fault.map(|fault| match value {
        // A number shows its own place.
        Value::Text(string) => format!("{fault}, at byte {}", string.span.start),
        _ => fault,
    })
}

/// A string's text, or the place at which it cannot be read.
fn unescaped(string: Text, text: &str) -> Result<String, String> {
    let mut out = String::new();
    match unescape(string.span.of(text), &mut out) {
        Some(()) => Ok(out),
        None => Err(text_fault(string.span, text, false).unwrap_or_else(|| "not readable".to_owned())),
    }
}

fn number_fault(ty: &SqlType, number: Number, text: &str) -> Option<String> {
    let has_fraction = number.span.of(text).bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    Some(match ty {
        SqlType::Numeric | SqlType::Decimal { .. } => return decimal_fault(ty, number.span.of(text)),
        SqlType::Real | SqlType::Double => format!("out of range for {ty}"),
        SqlType::SmallInt
        | SqlType::Integer
        | SqlType::BigInt
        | SqlType::Date
        | SqlType::Time
        | SqlType::Timestamp
        | SqlType::Timestamptz => {
            if has_fraction {
                "it has a fraction or an exponent".to_owned()
            } else {
                format!("out of range for {ty}")
            }
        }
        _ => return None,
    })
}

fn string_fault(ty: &SqlType, text: &str) -> Option<String> {
    Some(match ty {
        SqlType::SmallInt | SqlType::Integer | SqlType::BigInt => integer_fault(ty, text),
        SqlType::Real | SqlType::Double => match text.parse::<f64>() {
            Ok(_) => format!("out of range for {ty}"),
            Err(_) => NO_NUMBER.to_owned(),
        },
        SqlType::Numeric | SqlType::Decimal { .. } => return decimal_fault(ty, text),
        SqlType::Date => time::date_fault(text),
        SqlType::Time => time::of_day_fault(text),
        SqlType::Timestamp | SqlType::Timestamptz => time::timestamp_fault(text),
        SqlType::Interval => match Interval::parse(text) {
            Some(_) => "its time is 292 years or more".to_owned(),
            None => "not an interval".to_owned(),
        },
        SqlType::Bytea => bytea_fault(text),
        _ => return None,
    })
}

fn integer_fault(ty: &SqlType, text: &str) -> String {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    match digits.chars().find(|digit| !digit.is_ascii_digit()) {
        _ if digits.is_empty() => "no digits".to_owned(),
        Some('.' | 'e' | 'E') if text.parse::<f64>().is_ok() => "it has a fraction or an exponent".to_owned(),
        Some(other) => format!("invalid digit {other:?}"),
        None => format!("out of range for {ty}"),
    }
}

/// The reason why a text is not a number of a numeric type.
fn decimal_fault(ty: &SqlType, text: &str) -> Option<String> {
    let (precision, scale) = match ty {
        SqlType::Decimal { precision, scale } => (*precision, *scale),
        _ => (NUMERIC_PRECISION, NUMERIC_SCALE),
    };
    let is_number = text.parse::<f64>().is_ok_and(|_| text.bytes().any(|byte| byte.is_ascii_digit()));
    if !is_number {
        let named = text.parse::<f64>().is_ok();
        return Some(if named { "a numeric is neither NaN nor infinite".to_owned() } else { NO_NUMBER.to_owned() });
    }
    // It would fit if it were rounded, so the excess is behind the point.
    Some(match decimal::parse(text, precision, scale, Excess::Round) {
        Some(_) => format!("more than {scale} digits after the point"),
        None => format!("out of range for {ty}, more than {} digits before the point", precision - scale),
    })
}

fn bytea_fault(text: &str) -> String {
    match text.strip_prefix("\\x") {
        Some(hex) => match hex.chars().find(|digit| !digit.is_ascii_hexdigit() && !digit.is_ascii_whitespace()) {
            Some(other) => format!("invalid hexadecimal digit {other:?}"),
            None => "an odd number of hexadecimal digits".to_owned(),
        },
        None => "a backslash that is followed by neither a backslash nor three octal digits".to_owned(),
    }
}

/// The first element of an array that does not fit, and the reason.
fn element_fault(element: &SqlType, span: Span, text: &str) -> Option<String> {
    let mut scanner = Scanner::within(text, span);
    scanner.take(b'[');
    scanner.skip_whitespace();
    let mut number = 0;
    while scanner.peek() != Some(b']') {
        number += 1;
        let value = scanner.value(0).ok()?;
        if let Some(fault) = fault_of(element, value, text) {
            return Some(format!("element {number}: {fault}"));
        }
        scanner.skip_whitespace();
        scanner.take(b',');
        scanner.skip_whitespace();
    }
    None
}

/// The first member of an object that does not fit its field, and the reason.
fn field_fault(fields: &[StructField], span: Span, text: &str) -> Option<String> {
    let mut scanner = Scanner::within(text, span);
    scanner.take(b'{');
    scanner.skip_whitespace();
    while scanner.peek() != Some(b'}') {
        let key = scanner.key().ok()?;
        let value = scanner.value(0).ok()?;
        let name = match unescaped(key, text) {
            Ok(name) => name,
            Err(fault) => return Some(format!("a key: {fault}")),
        };
        for field in fields.iter().filter(|field| field.name.eq_ignore_ascii_case(&name)) {
            if let Some(fault) = fault_of(&field.ty, value, text) {
                return Some(format!("field \"{}\": {fault}", field.name));
            }
        }
        scanner.skip_whitespace();
        scanner.take(b',');
        scanner.skip_whitespace();
    }
    None
}

/// The fault of a value inside another one, if it has one.
fn fault_of(ty: &SqlType, value: Value, text: &str) -> Option<String> {
    if convert::cell(ty, value, text, &mut Arena::default()).is_some() {
        return None;
    }
    Some(match (ty, why(ty, value, text)) {
        (SqlType::Array(_) | SqlType::Struct(_), Some(why)) => why,
        (_, Some(why)) => format!("expected {ty}, found {}: {why}", describe(value, text)),
        (_, None) => format!("expected {ty}, found {}", describe(value, text)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(ty: &str, json: &str) -> Option<String> {
        let ty: SqlType = serde_json::from_str(ty).expect("a type");
        let value = Scanner::new(json).value(0).expect("JSON");
        assert_eq!(convert::cell(&ty, value, json, &mut Arena::default()), None, "{json} fits into {ty}");
        why(&ty, value, json)
    }

    #[test]
    fn every_refusal_has_its_reason() {
        for (ty, json, reason) in [
            (r#""integer""#, "2147483648", "out of range for integer"),
            (r#""small_int""#, "-32769", "out of range for smallint"),
            (r#""big_int""#, "9223372036854775808", "out of range for bigint"),
            (r#""big_int""#, "1.0", "it has a fraction or an exponent"),
            (r#""big_int""#, r#""1e3""#, "it has a fraction or an exponent, at byte 1"),
            (r#""big_int""#, r#""12x""#, "invalid digit 'x', at byte 1"),
            (r#""big_int""#, r#""""#, "no digits, at byte 1"),
            (r#""integer""#, r#""99999999999""#, "out of range for integer, at byte 1"),
            (r#""real""#, "1e39", "out of range for real"),
            (r#""double""#, r#""x""#, "not a number, at byte 1"),
            (r#""double""#, r#""\ud800""#, "a lone surrogate at byte 1"),
            (r#""varchar""#, r#""ab\ud83d\n""#, "a lone surrogate at byte 3"),
            (r#""varchar""#, r#""\ud83d\ude00\ude00""#, "a lone surrogate at byte 13"),
            (r#""varchar""#, r#""a\u0000""#, "U+0000, which no text can hold, at byte 2"),
            (r#""numeric""#, r#""NaN""#, "a numeric is neither NaN nor infinite, at byte 1"),
            (r#""numeric""#, r#""1,5""#, "not a number, at byte 1"),
            (r#""numeric""#, "1e-29", "more than 28 digits after the point"),
            (r#""numeric""#, "1e48", "out of range for numeric, more than 48 digits before the point"),
            (
                r#"{"decimal":{"precision":10,"scale":2}}"#,
                "123456789.1",
                "out of range for numeric(10,2), more than 8 digits before the point",
            ),
            (r#""date""#, r#""2024-13-01""#, "month 13, at byte 1"),
            (r#""date""#, r#""2023-02-29""#, "day 29 of month 2, at byte 1"),
            (r#""date""#, r#""tomorrow""#, "not of the form YYYY-MM-DD, at byte 1"),
            (r#""date""#, "99999999999", "out of range for date"),
            (r#""time""#, r#""25:00""#, "hour 25, at byte 1"),
            (r#""timestamp""#, r#""2024-01-01 12:60""#, "minute 60, at byte 1"),
            (r#""timestamptz""#, r#""2024-01-01T12:00:00+16""#, "offset \"+16\", at byte 1"),
            (r#""interval""#, r#""9999999 hours""#, "its time is 292 years or more, at byte 1"),
            (r#""interval""#, r#""1 fortnight""#, "not an interval, at byte 1"),
            (r#""bytea""#, r#""\\x0g""#, "invalid hexadecimal digit 'g', at byte 1"),
            (r#""bytea""#, r#""\\x012""#, "an odd number of hexadecimal digits, at byte 1"),
            (r#""jsonb""#, r#"{"a":["\ud800"]}"#, "a lone surrogate at byte 7"),
            (r#""jsonb""#, r#"{"\u0000":1}"#, "U+0000, which no text can hold, at byte 2"),
            (r#""jsonb""#, "[1, 1e401]", "a number whose exponent is beyond ±400, at byte 4"),
            (
                r#"{"array":"integer"}"#,
                r#"[1, "x"]"#,
                "element 2: expected integer, found string \"x\": invalid digit 'x', at byte 5",
            ),
            (
                r#"{"array":{"array":"boolean"}}"#,
                "[[true],[1]]",
                "element 2: element 1: expected boolean, found number 1",
            ),
        ] {
            assert_eq!(fault(ty, json).as_deref(), Some(reason), "{json} as {ty}");
        }
    }

    #[test]
    fn another_kind_of_value_needs_no_further_reason() {
        for (ty, json) in [(r#""boolean""#, "1"), (r#""integer""#, "true"), (r#""varchar""#, "[]"), (r#""date""#, "{}")]
        {
            assert_eq!(fault(ty, json), None, "{json} as {ty}");
        }
    }
}
