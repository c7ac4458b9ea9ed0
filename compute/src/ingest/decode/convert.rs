//! Converts a JSON value to a cell of a column's type. The documentation of [`super`] gives the
//! rules.
//!
//! Elements of arrays and fields of structs become cells of the scratch row's arena, so that
//! nothing is appended to a column before the whole value is known to fit. A value is scanned once
//! to find its end and once more to be read, and so is every array and object inside it, at its own
//! level. A byte is therefore looked at at most twice for each level, and a type has few levels.

use weir_common::decimal::{self, Excess};
use weir_common::interval::Interval;
use weir_common::types::{NUMERIC_PRECISION, NUMERIC_SCALE, SqlType, StructField};

use super::bad_record::RECORD_BYTES_MAX;
use super::cell::{Arena, Cell, Match, place};
use super::json::{Number, Scanner, Text, Value, unescape, unescape_text};
use super::span::Span;
use super::{jsonb, time};

/// Integers of at most this size are doubles exactly.
const DOUBLE_EXACT_MAX: u64 = 1 << 53;

/// The cell for a value of the payload. `None` if the value does not fit the type.
// Always inlined, see `Scanner::value`.
#[inline(always)]
pub(super) fn cell(ty: &SqlType, value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    if value == Value::Null {
        return Some(Cell::Null);
    }
    match ty {
        SqlType::Varchar => varchar(value, payload, arena),
        SqlType::BigInt => integer(value, payload, arena, i64::MIN..=i64::MAX),
        SqlType::Integer => integer(value, payload, arena, i64::from(i32::MIN)..=i64::from(i32::MAX)),
        SqlType::SmallInt => integer(value, payload, arena, i64::from(i16::MIN)..=i64::from(i16::MAX)),
        SqlType::Timestamp => timestamp(value, payload, arena, |(micros, _)| micros),
        SqlType::Timestamptz => {
            timestamp(value, payload, arena, |(micros, offset)| micros - offset.unwrap_or(0) * 1_000_000)
        }
        SqlType::Double => double(value, payload, arena),
        SqlType::Real => real(value, payload, arena),
        SqlType::Date => date(value, payload, arena),
        SqlType::Boolean => match value {
            Value::Boolean(value) => Some(Cell::Boolean(value)),
            _ => None,
        },
        SqlType::Jsonb => {
            let start = arena.text.len();
            jsonb::normalise(value, payload, &mut arena.jsonb, &mut arena.text)?;
            Some(Cell::Text(Span::new(start, arena.text.len())))
        }
        SqlType::Bytea => bytea(value, payload, arena),
        // A declared scale drops the digits behind it. Without one, no digit may be lost.
        SqlType::Numeric => number(value, payload, arena, NUMERIC_PRECISION, NUMERIC_SCALE, Excess::Refuse),
        SqlType::Decimal { precision, scale } => number(value, payload, arena, *precision, *scale, Excess::Round),
        SqlType::Time => time_of_day(value, payload, arena),
        SqlType::Interval => interval(value, payload, arena),
        SqlType::Array(element) => array(element, value, payload, arena),
        SqlType::Struct(fields) => object(fields, value, payload, arena),
    }
}

#[inline(always)]
fn varchar(value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    match value {
        Value::Text(Text { span, escaped: false }) => Some(Cell::Payload(span)),
        Value::Text(text) => {
            let start = arena.text.len();
            unescape_text(text.span.of(payload), &mut arena.text)?;
            Some(Cell::Text(Span::new(start, arena.text.len())))
        }
        Value::Number(number) => Some(Cell::Payload(number.span)),
        Value::Boolean(value) => {
            let start = arena.text.len();
            arena.text.push_str(if value { "true" } else { "false" });
            Some(Cell::Text(Span::new(start, arena.text.len())))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Passes a string's text to `then`. None of it stays in the arena.
#[inline]
fn with_text<T>(text: Text, payload: &str, arena: &mut Arena, then: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let raw = text.span.of(payload);
    if !text.escaped {
        return then(raw);
    }
    let start = arena.text.len();
    unescape(raw, &mut arena.text)?;
    let result = then(&arena.text[start..]);
    arena.text.truncate(start);
    result
}

#[inline(always)]
fn integer(value: Value, payload: &str, arena: &mut Arena, range: std::ops::RangeInclusive<i64>) -> Option<Cell> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::Text(text) => with_text(text, payload, arena, |text| text.parse().ok()),
        _ => None,
    };
    number.filter(|number| range.contains(number)).map(Cell::Integer)
}

#[inline]
fn double(value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    match value {
        Value::Number(Number { magnitude: Some(magnitude @ 0..DOUBLE_EXACT_MAX), negative, .. }) => {
            #[expect(clippy::cast_precision_loss, reason = "such integers are doubles exactly")]
            let magnitude = magnitude as f64;
            Some(Cell::Float(if negative { -magnitude } else { magnitude }))
        }
        Value::Number(number) => finite::<f64>(number.span.of(payload)),
        Value::Text(text) => with_text(text, payload, arena, finite::<f64>),
        _ => None,
    }
}

fn real(value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    match value {
        Value::Number(number) => finite::<f32>(number.span.of(payload)),
        Value::Text(text) => with_text(text, payload, arena, finite::<f32>),
        _ => None,
    }
}

/// The nearest number of the type. It is infinite only if the text says so.
fn finite<F: std::str::FromStr + Into<f64>>(text: &str) -> Option<Cell> {
    let number: f64 = text.parse::<F>().ok()?.into();
    let overflow = number.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit());
    (!overflow).then_some(Cell::Float(number))
}

fn number(value: Value, payload: &str, arena: &mut Arena, precision: u8, scale: u8, excess: Excess) -> Option<Cell> {
    let read = |text: &str| decimal::parse(text, precision, scale, excess);
    let number = match value {
        Value::Number(number) => read(number.span.of(payload)),
        Value::Text(text) => with_text(text, payload, arena, read),
        _ => None,
    }?;
    let cell = Cell::Decimal(place(&arena.decimals));
    arena.decimals.push(number);
    Some(cell)
}

fn interval(value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    let Value::Text(text) = value else { return None };
    let interval = with_text(text, payload, arena, |text| Interval::parse(text)?.to_arrow())?;
    let cell = Cell::Interval(place(&arena.intervals));
    arena.intervals.push(interval);
    Some(cell)
}

fn time_of_day(value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    match value {
        Value::Number(number) => number.as_i64().filter(|micros| time::OF_DAY.contains(micros)).map(Cell::Integer),
        Value::Text(text) => with_text(text, payload, arena, time::of_day).map(Cell::Integer),
        _ => None,
    }
}

fn date(value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    match value {
        Value::Number(number) => number.as_i64().filter(|days| time::DAYS.contains(days)).map(Cell::Integer),
        Value::Text(text) => with_text(text, payload, arena, time::date).map(Cell::Integer),
        _ => None,
    }
}

#[inline]
fn timestamp(
    value: Value,
    payload: &str,
    arena: &mut Arena,
    at: impl FnOnce((i64, Option<i64>)) -> i64,
) -> Option<Cell> {
    match value {
        Value::Number(number) => number.as_i64().map(time::epoch).map(Cell::Integer),
        Value::Text(text) => with_text(text, payload, arena, time::timestamp).map(at).map(Cell::Integer),
        _ => None,
    }
}

fn bytea(value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    let Value::Text(text) = value else { return None };
    let mut bytes = std::mem::take(&mut arena.bytes);
    let start = bytes.len();
    let written = with_text(text, payload, arena, |text| match text.strip_prefix("\\x") {
        Some(hex) => write_hex(hex, &mut bytes),
        None => write_escaped(text, &mut bytes),
    });
    if written.is_none() {
        bytes.truncate(start);
    }
    let span = Span::new(start, bytes.len());
    arena.bytes = bytes;
    written.map(|()| Cell::Bytes(span))
}

/// Pairs of hexadecimal digits, with whitespace between pairs.
fn write_hex(hex: &str, out: &mut Vec<u8>) -> Option<()> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut rest = hex.bytes();
    while let Some(byte) = rest.next() {
        if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
            out.push(digit(byte)? << 4 | digit(rest.next()?)?);
        }
    }
    Some(())
}

/// Plain bytes, with `\\` for a backslash and `\ooo` for any byte.
fn write_escaped(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'\\' => match tail {
                [b'\\', tail @ ..] => {
                    out.push(b'\\');
                    rest = tail;
                }
                [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                    out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                    rest = tail;
                }
                _ => return None,
            },
            byte => out.push(*byte),
        }
    }
    Some(())
}

/// The cell for an array. `None` if the value is not an array, or one of its elements does not fit.
pub(super) fn array(element: &SqlType, value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    let Value::Array(span) = value else { return None };
    let cells = reserve(count(payload, span)?, arena)?;
    let mut scanner = Scanner::within(payload, span);
    scanner.take(b'[');
    for place in cells.start..cells.end {
        scanner.skip_whitespace();
        let value = scanner.value(0).ok()?;
        let cell = cell(element, value, payload, arena)?;
        arena.nested[place as usize] = cell;
        if let (Cell::Null, SqlType::Struct(_)) = (cell, element) {
            arena.absent += absent(element);
        }
        scanner.skip_whitespace();
        scanner.take(b',');
    }
    Some(Cell::List(cells))
}

/// The cell for a struct. `None` if the value is not an object, or one of its fields does not fit.
/// Members match fields as those of the payload match columns.
pub(super) fn object(fields: &[StructField], value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    let Value::Object(span) = value else { return None };
    let cells = reserve(fields.len(), arena)?;
    let first_match = arena.matches.len();
    arena.matches.resize(first_match + fields.len(), Match::None);
    let mut scanner = Scanner::within(payload, span);
    scanner.take(b'{');
    scanner.skip_whitespace();
    while scanner.peek() != Some(b'}') {
        let key = scanner.key().ok()?;
        let start = scanner.at();
        let value = scanner.value(0).ok()?;
        let misfit = Cell::Misfit(Span::new(start, scanner.at()));
        // An escaped key is rare. Its text stays in the arena until the record is done.
        let unescaped = arena.text.len();
        if key.escaped {
            unescape(key.span.of(payload), &mut arena.text)?;
        }
        let unescaped = Span::new(unescaped, arena.text.len());
        for (index, field) in fields.iter().enumerate() {
            let key = if key.escaped { unescaped.of(&arena.text) } else { key.span.of(payload) };
            let how = match_of(&field.name, key);
            if how != Match::None && how >= arena.matches[first_match + index] {
                arena.matches[first_match + index] = how;
                let filled = cell(&field.ty, value, payload, arena).unwrap_or(misfit);
                arena.nested[cells.start as usize + index] = filled;
            }
        }
        scanner.skip_whitespace();
        scanner.take(b',');
        scanner.skip_whitespace();
    }
    arena.matches.truncate(first_match);
    let mut fit = true;
    for (cell, field) in cells.cells(&arena.nested).iter().zip(fields) {
        match (cell, &field.ty) {
            (Cell::Misfit(_), _) => fit = false,
            (Cell::Null, SqlType::Struct(_)) => arena.absent += absent(&field.ty),
            _ => {}
        }
    }
    fit.then_some(Cell::Struct(cells))
}

fn match_of(name: &str, key: &str) -> Match {
    if name == key {
        Match::Exact
    } else if name.eq_ignore_ascii_case(key) {
        Match::Folded
    } else {
        Match::None
    }
}

/// The size of a NULL. A NULL struct fills every one of its columns.
pub(super) fn absent(ty: &SqlType) -> usize {
    match ty {
        SqlType::Struct(fields) => fields.iter().map(|field| absent(&field.ty)).sum(),
        _ => size_of::<arrow::datatypes::i256>(),
    }
}

/// Reserves cells that are NULL until they are filled. Returns `None`, and marks the record, if it
/// would be too large.
fn reserve(count: usize, arena: &mut Arena) -> Option<Span> {
    // A number beside its cell is the most that a few bytes of payload can grow to.
    const ELEMENT: usize = size_of::<Cell>() + size_of::<arrow::datatypes::i256>();
    if count.saturating_mul(ELEMENT).saturating_add(arena.bytes()) > RECORD_BYTES_MAX {
        arena.too_large = true;
        return None;
    }
    let start = arena.nested.len();
    arena.nested.resize(start + count, Cell::Null);
    Some(Span::new(start, start + count))
}

/// The number of elements of an array that the scanner has accepted.
fn count(payload: &str, span: Span) -> Option<usize> {
    let mut scanner = Scanner::within(payload, span);
    scanner.take(b'[');
    scanner.skip_whitespace();
    let mut count = 0;
    while scanner.peek() != Some(b']') {
        scanner.value(0).ok()?;
        count += 1;
        scanner.skip_whitespace();
        scanner.take(b',');
        scanner.skip_whitespace();
    }
    Some(count)
}
