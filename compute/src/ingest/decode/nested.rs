//! Arrays and structs: their elements and fields become cells of the scratch row's arena, so that nothing is appended to
//! a column before all of a value is known to fit.
//!
//! A value is scanned once to find where it ends and once more to be read, as is every array and object inside of it at
//! its own level: a byte is looked at at most twice a level, and a type has few levels.

use weir_common::types::{SqlType, StructField};

use super::RECORD_BYTES_MAX;
use super::cell::{Arena, Cell, Match, Span};
use super::convert;
use super::json::{Scanner, Value, unescape};

/// The cell for an array. `None` if it is none, or one of its elements does not fit.
pub(super) fn array(element: &SqlType, value: Value, payload: &str, arena: &mut Arena) -> Option<Cell> {
    let Value::Array(span) = value else { return None };
    let cells = reserve(count(payload, span)?, arena)?;
    let mut scanner = Scanner::within(payload, span);
    scanner.take(b'[');
    for place in cells.start..cells.end {
        scanner.skip_whitespace();
        let value = scanner.value(0).ok()?;
        let cell = convert::cell(element, value, payload, arena)?;
        arena.nested[place as usize] = cell;
        if let (Cell::Null, SqlType::Struct(_)) = (cell, element) {
            arena.absent += absent(element);
        }
        scanner.skip_whitespace();
        scanner.take(b',');
    }
    Some(Cell::List(cells))
}

/// The cell for a struct. `None` if it is no object, or one of its fields does not fit. Members are to fields as those
/// of the payload are to columns.
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
        // An escaped key is rare; its text stays in the arena until the record is done.
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
                let filled = convert::cell(&field.ty, value, payload, arena).unwrap_or(misfit);
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

/// How many bytes a NULL takes: that of a struct fills every column of it.
pub(super) fn absent(ty: &SqlType) -> usize {
    match ty {
        SqlType::Struct(fields) => fields.iter().map(|field| absent(&field.ty)).sum(),
        _ => size_of::<arrow::datatypes::i256>(),
    }
}

/// Room for cells that are NULL until they are filled. `None`, and the record is marked, if it would be too large.
fn reserve(count: usize, arena: &mut Arena) -> Option<Span> {
    // A number beside its cell is the largest that a few bytes of payload can grow to.
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
