//! Columns that INCLUDE adds: parts of a message other than the fields of its payload.

use arrow::array::ArrayRef;
use weir_common::catalog::{Column, Origin};
use weir_common::rounding::micros_of_nanos;
use weir_common::types::SqlType;
use weir_connector_nats::reader::{HeaderMap, HeaderValue};
use weir_connector_nats::{Message, headers};

use super::bad_record::BadRecord;
use super::cell::{Arena, Cell, Scratch};
use super::column::Builder;
use super::json::{Scanner, Value};
use super::jsonb;
use super::span::Span;

/// Returns true if the column's type is that of its origin.
pub(super) fn fits(column: &Column) -> bool {
    match &column.origin {
        Origin::Payload => true,
        Origin::Expression | Origin::Statement(_) => false,
        Origin::Offset | Origin::Subject | Origin::Partition => column.ty == SqlType::Varchar,
        Origin::Timestamp => column.ty == SqlType::Timestamptz,
        Origin::WholePayload => matches!(column.ty, SqlType::Jsonb | SqlType::Bytea),
        Origin::Headers => column.ty == Origin::headers_type(),
        Origin::Header { .. } => matches!(column.ty, SqlType::Bytea | SqlType::Varchar),
    }
}

/// The reason why a subject or header is not text.
pub(super) const NO_TEXT: &str = "it contains U+0000, which no text can hold";

/// The cell of an included column. `text` is the message's payload, which the scanner has accepted,
/// if it is JSON. `None` if the column is text and the value is not, see [`NO_TEXT`].
///
/// # Errors
/// [`BadRecord::NoJsonb`] if the whole payload is wanted and has no normal form.
///
/// # Panics
/// If the column is filled without a cell.
pub(super) fn cell(
    origin: &Origin,
    ty: &SqlType,
    message: &Message,
    text: &str,
    arena: &mut Arena,
) -> Result<Option<Cell>, BadRecord> {
    Ok(Some(match origin {
        Origin::Payload
        | Origin::Offset
        | Origin::Subject
        | Origin::Partition
        | Origin::Expression
        | Origin::Statement(_) => {
            unreachable!("{origin:?} is not made into a cell here")
        }
        Origin::Timestamp => {
            let nanos = i64::try_from(message.stored_ns).expect("a time fits into 63 bits");
            Cell::Integer(micros_of_nanos(nanos))
        }
        Origin::WholePayload if *ty == SqlType::Bytea => Cell::Bytes(push_bytes(&message.payload, arena)),
        Origin::WholePayload => whole(text, arena)?,
        Origin::Headers => match message.headers.as_deref() {
            Some(headers) => return Ok(all(headers, arena)),
            None => Cell::Null,
        },
        Origin::Header { name } => match message.headers.as_deref().and_then(|headers| first(headers, name)) {
            Some(value) if *ty == SqlType::Varchar => return Ok(push_text(value, arena).map(Cell::Text)),
            Some(value) => Cell::Bytes(push_bytes(value.as_bytes(), arena)),
            None => Cell::Null,
        },
    }))
}

/// The jsonb of a payload that the scanner has accepted. JSON's null is NULL, as it is in a field.
pub(super) fn whole(text: &str, arena: &mut Arena) -> Result<Cell, BadRecord> {
    let mut scanner = Scanner::new(text);
    scanner.skip_whitespace();
    let value = scanner.value(0)?;
    if value == Value::Null {
        return Ok(Cell::Null);
    }
    let start = arena.text.len();
    match jsonb::normalise(value, text, &mut arena.jsonb, &mut arena.text) {
        Some(()) => Ok(Cell::Text(Span::new(start, arena.text.len()))),
        None => Err(BadRecord::NoJsonb {
            reason: jsonb::fault(value, text).unwrap_or_else(|| "it is too large when written out".to_owned()),
        }),
    }
}

/// Builds a column of all headers, for callers without a scratch row.
pub(crate) struct HeadersColumn {
    builder: Builder,
    scratch: Scratch,
}

impl HeadersColumn {
    pub(crate) fn new() -> HeadersColumn {
        HeadersColumn { builder: Builder::new(&Origin::headers_type()), scratch: Scratch::new(0) }
    }

    /// Adds a message's headers. Returns their size in bytes.
    pub(crate) fn append(&mut self, headers: Option<&HeaderMap>) -> usize {
        self.scratch.clear();
        // Headers whose names are not text are left out, as they cannot be in a table either.
        let cell = headers.and_then(|headers| all(headers, &mut self.scratch.arena)).unwrap_or(Cell::Null);
        self.builder.append(cell, "", &self.scratch)
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        self.builder.finish()
    }
}

/// The first value of a header. The client's own look-up copies the name.
fn first<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let (_, values) = headers.iter().find(|(name, _)| <str>::eq(name.as_ref(), wanted))?;
    values.first().map(HeaderValue::as_str)
}

/// The array of all headers; `None` if a name is not text.
fn all(map: &HeaderMap, arena: &mut Arena) -> Option<Cell> {
    let fields = arena.nested.len();
    for (name, value) in headers::sorted(map) {
        let pair = [Cell::Text(push_text(name, arena)?), Cell::Bytes(push_bytes(value.as_bytes(), arena))];
        arena.nested.extend(pair);
    }
    let structs = arena.nested.len();
    for start in (fields..structs).step_by(2) {
        arena.nested.push(Cell::Struct(Span::new(start, start + 2)));
    }
    Some(Cell::List(Span::new(structs, arena.nested.len())))
}

fn push_text(text: &str, arena: &mut Arena) -> Option<Span> {
    if text.as_bytes().contains(&0) {
        return None;
    }
    let start = arena.text.len();
    arena.text.push_str(text);
    Some(Span::new(start, arena.text.len()))
}

fn push_bytes(bytes: &[u8], arena: &mut Arena) -> Span {
    let start = arena.bytes.len();
    arena.bytes.extend_from_slice(bytes);
    Span::new(start, arena.bytes.len())
}
