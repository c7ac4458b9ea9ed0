//! The values of parameters: bytes from a client, in text or binary → scalars.
//!
//! This module parses every type that a parameter can have. A type without an Arrow type of its own
//! (a numeric without a scale, a time as text) is converted to the nearest one, because the query
//! casts each parameter to its type.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::types::{IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::arrow::datatypes::{DataType, i256};
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;
use postgres_types::Kind;
use weir_sql::error::{Error, sqlstate};
use weir_sql::functions::bytea;

/// The time from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
const JSONB_VERSION: u8 = 1;
/// The decimal digits that fit into Arrow's widest decimal.
const DIGITS_MAX: usize = 76;
/// The decimal digits that fit into Arrow's usual decimal.
const DIGITS_OF_128: usize = 38;

/// A value as the client sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw<'a> {
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// Parses a value of a type.
///
/// # Errors
/// `22P02` for text that is not a value of the type, `22P03` for such bytes, `22003` for values out
/// of range, `0A000` for types that parameters cannot have.
pub(crate) fn scalar(ty: &Type, raw: Raw<'_>) -> Result<ScalarValue, Error> {
    if let Kind::Array(element) = ty.kind() {
        let elements = match raw {
            Raw::Text(bytes) => text_elements(ty, utf8(bytes)?, element)?,
            Raw::Binary(bytes) => binary_elements(bytes, element)?,
        };
        return list(elements, element);
    }
    match raw {
        Raw::Text(bytes) => of_text(ty, utf8(bytes)?),
        Raw::Binary(bytes) => of_binary(ty, bytes),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    str::from_utf8(bytes)
        .map_err(|_| Error::user(sqlstate::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\""))
}

fn text(value: impl fmt::Display) -> ScalarValue {
    ScalarValue::Utf8(Some(value.to_string()))
}

fn of_text(ty: &Type, value: &str) -> Result<ScalarValue, Error> {
    let invalid = || invalid_text(ty, value);
    let trimmed = value.trim();
    Ok(match *ty {
        Type::BOOL => ScalarValue::Boolean(Some(boolean(trimmed).ok_or_else(invalid)?)),
        Type::INT2 => ScalarValue::Int16(Some(whole(ty, trimmed)?)),
        Type::INT4 => ScalarValue::Int32(Some(whole(ty, trimmed)?)),
        Type::INT8 => ScalarValue::Int64(Some(whole(ty, trimmed)?)),
        Type::OID => ScalarValue::Int64(Some(i64::from(whole::<u32>(ty, trimmed)?))),
        Type::FLOAT4 => ScalarValue::Float32(Some(trimmed.parse().map_err(|_| invalid())?)),
        Type::FLOAT8 => ScalarValue::Float64(Some(trimmed.parse().map_err(|_| invalid())?)),
        Type::NUMERIC => decimal(trimmed)?,
        Type::BYTEA => ScalarValue::Binary(Some(bytea(value).ok_or_else(invalid)?)),
        // The query casts the text, like that of a literal.
        _ => text(value),
    })
}

fn invalid_text(ty: &Type, value: &str) -> Error {
    let message = format!("invalid input syntax for type {}: \"{value}\"", name(ty));
    Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, message)
}

/// Returns the name of a type in the SQL standard and in PostgreSQL's messages.
pub(super) fn name(ty: &Type) -> &str {
    match *ty {
        Type::BOOL => "boolean",
        Type::INT2 => "smallint",
        Type::INT4 => "integer",
        Type::INT8 => "bigint",
        Type::FLOAT4 => "real",
        Type::FLOAT8 => "double precision",
        Type::VARCHAR => "character varying",
        Type::CHAR => "\"char\"",
        Type::BPCHAR => "character",
        Type::TIME => "time without time zone",
        Type::TIMESTAMP => "timestamp without time zone",
        Type::TIMESTAMPTZ => "timestamp with time zone",
        ref other => other.name(),
    }
}

fn whole<T: TryFrom<i64>>(ty: &Type, value: &str) -> Result<T, Error> {
    let out_of_range = || {
        let message = format!("value \"{value}\" is out of range for type {}", name(ty));
        Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, message)
    };
    match value.parse::<i64>() {
        Ok(number) => T::try_from(number).map_err(|_| out_of_range()),
        Err(error) => match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => Err(out_of_range()),
            _ => Err(invalid_text(ty, value)),
        },
    }
}

/// Parses `on`, `off`, `1`, `0`, or any unambiguous prefix of `true`, `false`, `yes`, `no`, `off`.
fn boolean(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if begins("true", 1) || begins("yes", 1) || value == "on" || value == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || value == "0" {
        Some(false)
    } else {
        None
    }
}

/// Parses a decimal. Its scale is the number of digits that were written behind the point.
fn decimal(value: &str) -> Result<ScalarValue, Error> {
    let invalid = || invalid_text(&Type::NUMERIC, value);
    let lower = value.to_ascii_lowercase();
    if ["nan", "infinity", "-infinity", "inf", "-inf"].contains(&lower.as_str()) {
        return Err(Error::unsupported(format!("the numeric {value} is not supported")));
    }
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let exponent: i32 = exponent.parse().map_err(|_| invalid())?;
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !is_number || whole.len() + fraction.len() == 0 {
        return Err(invalid());
    }
    let mut digits = format!("{whole}{fraction}").trim_start_matches('0').to_owned();
    let mut scale = i64::try_from(fraction.len()).unwrap_or(i64::MAX) - i64::from(exponent);
    let too_long = || {
        Error::out_of_range("value overflows numeric format").with_hint(format!("{DIGITS_MAX} digits are supported"))
    };
    if scale < 0 {
        let zeros = usize::try_from(-scale).ok().filter(|zeros| digits.is_empty() || *zeros <= DIGITS_MAX);
        let zeros = if digits.is_empty() { 0 } else { zeros.ok_or_else(too_long)? };
        digits.push_str(&"0".repeat(zeros));
        scale = 0;
    }
    let places = usize::try_from(scale).unwrap_or(usize::MAX);
    let precision = digits.len().max(places).max(1);
    if precision > DIGITS_MAX {
        return Err(too_long());
    }
    if digits.is_empty() {
        digits.push('0');
    }
    let digits = format!("{sign}{digits}");
    let (precision, scale) = (precision as u8, scale as i8);
    if usize::from(precision) <= DIGITS_OF_128 {
        return Ok(ScalarValue::Decimal128(Some(digits.parse().map_err(|_| invalid())?), precision, scale));
    }
    Ok(ScalarValue::Decimal256(Some(i256::from_string(&digits).ok_or_else(invalid)?), precision, scale))
}

fn of_binary(ty: &Type, bytes: &[u8]) -> Result<ScalarValue, Error> {
    read_binary(ty, bytes)?.ok_or_else(|| invalid_binary(ty))
}

fn invalid_binary(ty: &Type) -> Error {
    let message = format!("invalid binary representation of a value of type {}", name(ty));
    Error::user(sqlstate::INVALID_BINARY_REPRESENTATION, message)
}

/// Returns `None` if the bytes are not a value of the type.
fn read_binary(ty: &Type, bytes: &[u8]) -> Result<Option<ScalarValue>, Error> {
    let out_of_range = || Error::out_of_range(format!("{} out of range", name(ty)));
    Ok(match *ty {
        Type::BOOL => <[u8; 1]>::try_from(bytes).ok().map(|[byte]| ScalarValue::Boolean(Some(byte != 0))),
        Type::INT2 => exactly(bytes).map(|bytes| ScalarValue::Int16(Some(i16::from_be_bytes(bytes)))),
        Type::INT4 => exactly(bytes).map(|bytes| ScalarValue::Int32(Some(i32::from_be_bytes(bytes)))),
        Type::INT8 => exactly(bytes).map(|bytes| ScalarValue::Int64(Some(i64::from_be_bytes(bytes)))),
        Type::OID => exactly(bytes).map(|bytes| ScalarValue::Int64(Some(u32::from_be_bytes(bytes).into()))),
        Type::FLOAT4 => exactly(bytes).map(|bytes| ScalarValue::Float32(Some(f32::from_be_bytes(bytes)))),
        Type::FLOAT8 => exactly(bytes).map(|bytes| ScalarValue::Float64(Some(f64::from_be_bytes(bytes)))),
        Type::BYTEA => Some(ScalarValue::Binary(Some(bytes.to_vec()))),
        Type::JSONB => match bytes.split_first() {
            Some((&JSONB_VERSION, json)) => Some(text(utf8(json)?)),
            _ => None,
        },
        Type::UUID => exactly::<16>(bytes).map(|bytes| text(uuid(bytes))),
        Type::DATE => match exactly(bytes).map(i32::from_be_bytes) {
            Some(days) => Some(ScalarValue::Date32(Some(days.checked_add(EPOCH_DAYS).ok_or_else(out_of_range)?))),
            None => None,
        },
        Type::TIME => exactly(bytes).map(|bytes| ScalarValue::Time64Microsecond(Some(i64::from_be_bytes(bytes)))),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => match exactly(bytes).map(i64::from_be_bytes) {
            Some(micros) => {
                let micros = micros.checked_add(EPOCH_MICROS).ok_or_else(out_of_range)?;
                let zone = (*ty == Type::TIMESTAMPTZ).then(|| Arc::from("UTC"));
                Some(ScalarValue::TimestampMicrosecond(Some(micros), zone))
            }
            None => None,
        },
        Type::INTERVAL => match exactly::<16>(bytes) {
            Some(bytes) => Some(interval(bytes).ok_or_else(out_of_range)?),
            None => None,
        },
        Type::NUMERIC => match numeric(bytes)? {
            Some(digits) => Some(decimal(&digits)?),
            None => None,
        },
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::UNKNOWN => Some(text(utf8(bytes)?)),
        _ => {
            return Err(Error::unsupported(format!("a parameter of type {} in binary is not supported", name(ty)))
                .with_hint("send it as text"));
        }
    })
}

fn exactly<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn uuid(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Parses microseconds, days and months.
fn interval(bytes: [u8; 16]) -> Option<ScalarValue> {
    let bytes = u128::from_be_bytes(bytes);
    let (micros, days, months) = ((bytes >> 64) as i64, (bytes >> 32) as i32, bytes as i32);
    let nanos = micros.checked_mul(1_000)?;
    let value: IntervalMonthDayNano = IntervalMonthDayNanoType::make_value(months, days, nanos);
    Some(ScalarValue::IntervalMonthDayNano(Some(value)))
}

/// Writes out the digits of a numeric. The digits on the wire have base 10,000; the weight is the
/// power of 10,000 of the first one.
fn numeric(bytes: &[u8]) -> Result<Option<String>, Error> {
    let mut words = bytes.chunks(2).map(|pair| pair.try_into().ok().map(u16::from_be_bytes));
    let mut word = || words.next().flatten();
    let (Some(count), Some(weight), Some(sign), Some(scale)) = (word(), word(), word(), word()) else {
        return Ok(None);
    };
    let sign = match sign {
        0x0000 => "",
        0x4000 => "-",
        0xc000 | 0xd000 | 0xf000 => return Err(Error::unsupported("the numerics NaN and Infinity are not supported")),
        _ => return Ok(None),
    };
    let weight = i32::from(weight.cast_signed());
    let mut digits = Vec::with_capacity(usize::from(count).min(bytes.len()));
    for _ in 0..count {
        match word() {
            Some(digit) if digit < 10_000 => digits.push(digit),
            _ => return Ok(None),
        }
    }
    if bytes.len() != 8 + 2 * digits.len() {
        return Ok(None);
    }
    let digit = |power: i32| {
        usize::try_from(weight - power).ok().and_then(|index| digits.get(index)).copied().unwrap_or_default()
    };
    let whole: String = (0..=weight.max(0)).rev().map(|power| format!("{:04}", digit(power))).collect();
    let groups = i32::from(scale.div_ceil(4));
    let mut fraction: String = (1..=groups).map(|power| format!("{:04}", digit(-power))).collect();
    fraction.truncate(usize::from(scale));
    Ok(Some(format!("{sign}{whole}.{fraction}")))
}

/// Parses the elements of an array's text: `{1,NULL,"a \"b\""}`.
fn text_elements(ty: &Type, value: &str, element: &Type) -> Result<Vec<Option<ScalarValue>>, Error> {
    let malformed = || {
        let message = format!("malformed array literal: \"{value}\"");
        Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, message)
    };
    let inner = value.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(malformed)?;
    let mut elements = Vec::new();
    if inner.trim().is_empty() {
        return Ok(elements);
    }
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let (mut item, mut quoted) = (String::new(), false);
        if chars.next_if_eq(&'"').is_some() {
            quoted = true;
            loop {
                match chars.next().ok_or_else(malformed)? {
                    '"' => break,
                    '\\' => item.push(chars.next().ok_or_else(malformed)?),
                    c => item.push(c),
                }
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                match c {
                    '{' | '}' => return Err(several_dimensions(ty)),
                    '"' => return Err(malformed()),
                    '\\' => item.push(chars.next().ok_or_else(malformed)?),
                    c => item.push(c),
                }
            }
            item.truncate(item.trim_end().len());
            if item.is_empty() {
                return Err(malformed());
            }
        }
        let is_null = !quoted && item.eq_ignore_ascii_case("null");
        elements.push(if is_null { None } else { Some(scalar(element, Raw::Text(item.as_bytes()))?) });
        match chars.next() {
            None => return Ok(elements),
            Some(',') => {}
            Some(_) => return Err(malformed()),
        }
    }
}

fn several_dimensions(ty: &Type) -> Error {
    Error::unsupported(format!("a parameter of type {} with more than one dimension is not supported", name(ty)))
}

/// Parses the elements of an array. Its form is: the number of dimensions, a flag for NULLs, the
/// type of elements; a length and a lower bound for each dimension; a length and bytes for each
/// element.
fn binary_elements(bytes: &[u8], element: &Type) -> Result<Vec<Option<ScalarValue>>, Error> {
    let invalid = || invalid_binary(element);
    let mut rest = bytes;
    let word = |rest: &mut &[u8]| {
        let (word, after) = rest.split_first_chunk::<4>().ok_or_else(invalid)?;
        *rest = after;
        Ok::<_, Error>(i32::from_be_bytes(*word))
    };
    let (dimensions, _has_nulls, _oid) = (word(&mut rest)?, word(&mut rest)?, word(&mut rest)?);
    match dimensions {
        0 => return Ok(Vec::new()),
        1 => {}
        _ => return Err(several_dimensions(element)),
    }
    let (count, _bound) = (word(&mut rest)?, word(&mut rest)?);
    let mut elements = Vec::new();
    for _ in 0..count {
        let Ok(length) = usize::try_from(word(&mut rest)?) else {
            elements.push(None);
            continue;
        };
        let (bytes, after) = rest.split_at_checked(length).ok_or_else(invalid)?;
        rest = after;
        elements.push(Some(scalar(element, Raw::Binary(bytes))?));
    }
    if rest.is_empty() { Ok(elements) } else { Err(invalid()) }
}

/// Makes a list of one type. Numerics may have different scales, so they become text, which the
/// query casts.
fn list(elements: Vec<Option<ScalarValue>>, element: &Type) -> Result<ScalarValue, Error> {
    let is_numeric = *element == Type::NUMERIC;
    let written = elements.into_iter().map(|value| match value {
        Some(value) if is_numeric => Some(text(value)),
        value => value,
    });
    let written: Vec<Option<ScalarValue>> = written.collect();
    let of_elements = written.iter().flatten().next().map_or(DataType::Utf8, ScalarValue::data_type);
    let null = ScalarValue::try_from(&of_elements)?;
    let values: Vec<ScalarValue> = written.into_iter().map(|value| value.unwrap_or_else(|| null.clone())).collect();
    Ok(ScalarValue::List(ScalarValue::new_list_nullable(&values, &of_elements)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(ty: &Type, value: &str) -> String {
        match scalar(ty, Raw::Text(value.as_bytes())) {
            Ok(scalar) => scalar.to_string(),
            Err(error) => error.sqlstate.into_owned(),
        }
    }

    fn binary(ty: &Type, bytes: &[u8]) -> String {
        match scalar(ty, Raw::Binary(bytes)) {
            Ok(scalar) => scalar.to_string(),
            Err(error) => error.sqlstate.into_owned(),
        }
    }

    #[test]
    fn text_is_read_as_postgresql_reads_it() {
        for (ty, value, expected) in [
            (Type::BOOL, " TRUE ", "true"),
            (Type::BOOL, "of", "false"),
            (Type::BOOL, "o", "22P02"),
            (Type::INT2, "32768", "22003"),
            (Type::INT4, " 7 ", "7"),
            (Type::INT4, "7x", "22P02"),
            (Type::INT8, "99999999999999999999", "22003"),
            (Type::FLOAT8, "-Infinity", "-inf"),
            (Type::FLOAT8, "", "22P02"),
            (Type::NUMERIC, "12.50", "12.50"),
            (Type::NUMERIC, "1e3", "1000"),
            (Type::NUMERIC, "-.5e-2", "-0.005"),
            (Type::NUMERIC, "0", "0"),
            (Type::NUMERIC, "1e80", "22003"),
            (Type::NUMERIC, "0e99999", "0"),
            (Type::NUMERIC, "NaN", "0A000"),
            (Type::NUMERIC, ".", "22P02"),
            (Type::BYTEA, "\\x00fF", "00FF"),
            (Type::BYTEA, "a\\\\\\001", "615C01"),
            (Type::BYTEA, "\\x0", "22P02"),
            (Type::BYTEA, "\\9", "22P02"),
            (Type::INT4_ARRAY, "{1, NULL ,3}", "[1, , 3]"),
            (Type::INT4_ARRAY, "{}", "[]"),
            (Type::TEXT_ARRAY, r#"{a,"b, \"c\"","null"}"#, r#"[a, b, "c", null]"#),
            (Type::INT4_ARRAY, "{1,}", "22P02"),
            (Type::INT4_ARRAY, "{{1},{2}}", "0A000"),
            (Type::INT4_ARRAY, "1", "22P02"),
        ] {
            assert_eq!(text_of(&ty, value), expected, "{ty} {value}");
        }
    }

    #[test]
    fn binary_is_read_as_postgresql_sends_it() {
        let eight = |number: i64| number.to_be_bytes().to_vec();
        let interval = [eight(1_000_000), 2_i32.to_be_bytes().to_vec(), 3_i32.to_be_bytes().to_vec()].concat();
        let array = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7];
        for (ty, bytes, expected) in [
            (Type::BOOL, vec![1], "true"),
            (Type::INT4, 7_i32.to_be_bytes().to_vec(), "7"),
            (Type::INT4, eight(7), "22P03"),
            (Type::DATE, 0_i32.to_be_bytes().to_vec(), "2000-01-01"),
            (Type::DATE, i32::MAX.to_be_bytes().to_vec(), "22003"),
            (Type::TIMESTAMP, eight(0), "946684800000000"),
            (Type::TIMESTAMPTZ, eight(i64::MAX), "22003"),
            (Type::TIME, eight(1), "1"),
            (Type::INTERVAL, interval, "IntervalMonthDayNano { months: 3, days: 2, nanoseconds: 1000000000 }"),
            (Type::JSONB, b"\x01{}".to_vec(), "{}"),
            (Type::JSONB, b"{}".to_vec(), "22P03"),
            (Type::UUID, (0..16).collect(), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
            (Type::TEXT, b"\xff".to_vec(), "22021"),
            (Type::INT4_ARRAY, array.to_vec(), "[7]"),
            (Type::INT4_ARRAY, array[..27].to_vec(), "22P03"),
            (Type::INT4_ARRAY, vec![0; 12], "[]"),
            (Type::POINT, vec![0; 16], "0A000"),
        ] {
            assert_eq!(binary(&ty, &bytes), expected, "{ty} {bytes:?}");
        }
    }

    #[test]
    fn binary_numerics_are_written_out() {
        let numeric = |words: &[u16]| -> String {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            binary(&Type::NUMERIC, &bytes)
        };
        assert_eq!(numeric(&[2, 0, 0, 2, 12, 5000]), "12.50");
        assert_eq!(numeric(&[1, 0xffff, 0x4000, 3, 50]), "-0.005");
        assert_eq!(numeric(&[1, 2, 0, 0, 1]), "100000000");
        assert_eq!(numeric(&[0, 0, 0, 0]), "0");
        assert_eq!(numeric(&[0, 0, 0xc000, 0]), "0A000");
        assert_eq!(numeric(&[2, 0, 0, 0, 1]), "22P03");
        assert_eq!(numeric(&[1, 0, 0, 0, 10_000]), "22P03");
        assert_eq!(numeric(&[1, 32_767, 0, 0, 1]), "22003");
    }
}
