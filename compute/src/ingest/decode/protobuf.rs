//! Decodes Protobuf messages into cells of the scratch row, straight from the wire, without
//! building messages.
//!
//! It takes two passes. The first reads the wire. A message may repeat a field anywhere: then the
//! last value counts, a nested message is merged with the earlier one, and an element is added to
//! its array. The fields of a nested message therefore get their cells when it is first met, and
//! elements are chained. The second pass sees only cells. It turns each chain into an array, and
//! each of Google's messages into its value. Fields that become jsonb are kept as they came until
//! then, and go through a built message (`json`).
//!
//! # Which values fit a column
//!
//! The column types that fit a field were checked when the table was created
//! (`weir_common::protobuf`).
//!
//! | field | value |
//! | --- | --- |
//! | number, bool, string, bytes | as it is; absent: NULL with presence, else 0, false or empty |
//! | enum | the name of its value, or its number in digits if it has no name |
//! | repeated | an array, empty if there is none |
//! | map | a jsonb object, empty if there is none; keys other than strings are written as strings |
//! | message | a struct, or jsonb; absent: NULL |
//! | member of a oneof | NULL if another member came after it |
//! | `google.protobuf.Timestamp` | of the years 1 to 9999, rounded to microseconds |
//! | `google.protobuf.Duration` | below 292 years, rounded to microseconds |
//! | wrappers (`Int32Value`, …) | the wrapped value; absent: NULL |
//!
//! A number that a closed enum (one of proto2) does not name counts as absent. Fields without a
//! column are skipped. A group is a message in another wire form. A field whose wire type differs
//! from the schema's makes the record bad: the publisher then has another schema, and a row without
//! the field would hide that. A missing required field makes the record bad as well, see `proto2`.

mod fault;
mod json;
mod plan;
mod proto2;
mod wire;

use arrow::datatypes::i256;
use weir_common::decimal::power_of_ten;
use weir_common::interval::Interval;
use weir_common::protobuf::{Error, MessageSchema};
use weir_common::rounding::{micros_of_amount, micros_of_nanos};
use weir_common::types::{NUMERIC_SCALE, SqlType};

use super::bad_record::BadRecord;
use super::cell::{Arena, Cell, Node, Scratch, place};
use super::span::Span;
use fault::{Fault, check_room};
use plan::{Field, Fixed, Message, Number, Shape, Value};
use proto2::Rules;
use wire::{Malformed, Wire, WireType, narrow};

/// The seconds of the years 1 to 9999, to which timestamps are limited.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS: i64 = 1_000_000_000;

/// Reads the messages of one table.
pub(super) struct Reader {
    plan: Message,
    rules: Option<Rules>,
}

impl Reader {
    /// Creates a reader of the fields that columns are named after, and a scratch row of `cells`
    /// cells, of which the reader fills the first.
    pub(super) fn new(
        schema: &MessageSchema,
        columns: &[(&str, &SqlType)],
        cells: usize,
    ) -> Result<(Reader, Scratch), Error> {
        let mut fixed = Fixed::default();
        let descriptor = schema.descriptor()?;
        let plan = plan::message(&descriptor, columns, &mut fixed)?;
        Ok((Reader { plan, rules: Rules::of(&descriptor) }, Scratch::with_fixed(cells, fixed.text, fixed.decimals)))
    }

    /// Reads a payload into the scratch row.
    pub(super) fn read(&self, payload: &[u8], scratch: &mut Scratch) -> Result<(), BadRecord> {
        let ruled = self.rules.as_ref().map(|rules| rules.apply(payload)).transpose()?;
        let payload = ruled.as_deref().unwrap_or(payload);
        let arena = &mut scratch.arena;
        let cells = reserve(&self.plan, arena)?;
        read_message(&self.plan, cells, &mut Wire::new(payload), arena)?;
        close(&self.plan, cells, payload, arena)?;
        scratch.cells[..cells.len()].copy_from_slice(cells.cells(&scratch.arena.nested));
        Ok(())
    }
}

/// Cells for a message in which no field is set.
fn reserve(message: &Message, arena: &mut Arena) -> Result<Span, Fault> {
    let start = arena.nested.len();
    let end = start + message.template.len();
    check_room(end, arena)?;
    arena.nested.extend_from_slice(&message.template);
    Ok(Span::new(start, end))
}

/// Reads the fields of a message into its cells, up to where the wire ends.
fn read_message(message: &Message, cells: Span, wire: &mut Wire<'_>, arena: &mut Arena) -> Result<(), Fault> {
    let mut expected = 0;
    while !wire.is_at_end() {
        let (number, wire_type) = wire.key()?;
        match message.find(number, &mut expected) {
            Some(field) => read_field(field, cells.start as usize, wire_type, wire, arena)?,
            None => wire.skip(number, wire_type)?,
        }
    }
    Ok(())
}

#[inline]
fn read_field(
    field: &Field,
    first_cell: usize,
    wire_type: WireType,
    wire: &mut Wire<'_>,
    arena: &mut Arena,
) -> Result<(), Fault> {
    for rival in &field.rivals {
        arena.nested[first_cell + rival] = Cell::Null;
    }
    let Some(cell) = field.cell else { return Ok(wire.skip(field.number, wire_type)?) };
    let cell = first_cell + cell;
    match (&field.shape, field.repeated) {
        (Shape::Scalar(value), false) => {
            arena.nested[cell] = scalar(field, value, wire_type, wire, arena)?;
        }
        (Shape::Scalar(value), true) if wire_type == WireType::LengthDelimited && value.can_be_packed() => {
            let mut packed = wire.nested()?;
            while !packed.is_at_end() {
                let element = scalar(field, value, value.wire_type(), &mut packed, arena)?;
                chain(cell, element, arena)?;
            }
        }
        (Shape::Scalar(value), true) => {
            let element = scalar(field, value, wire_type, wire, arena)?;
            chain(cell, element, arena)?;
        }
        (Shape::Message(inner, _), false) => {
            let mut body = body(field, wire_type, wire)?;
            let cells = match arena.nested[cell] {
                Cell::Struct(cells) => cells,
                _ => reserve(inner, arena)?,
            };
            arena.nested[cell] = Cell::Struct(cells);
            read_message(inner, cells, &mut body, arena).map_err(|fault| fault.within(&field.name))?;
        }
        (Shape::Message(inner, _), true) => {
            let mut body = body(field, wire_type, wire)?;
            let cells = reserve(inner, arena)?;
            chain(cell, Cell::Struct(cells), arena)?;
            read_message(inner, cells, &mut body, arena).map_err(|fault| fault.within(&field.name))?;
        }
        (Shape::Json(_) | Shape::Map(_), _) => {
            let body = body(field, wire_type, wire)?.span();
            chain(cell, Cell::Payload(body), arena)?;
        }
    }
    Ok(())
}

/// The contents of a field's message, in either wire form.
fn body<'a>(field: &Field, wire_type: WireType, wire: &mut Wire<'a>) -> Result<Wire<'a>, Fault> {
    match wire_type {
        WireType::LengthDelimited => Ok(wire.nested()?),
        WireType::StartGroup => Ok(wire.group(field.number)?),
        _ => Err(mistyped(field, wire)),
    }
}

fn mistyped(field: &Field, wire: &Wire<'_>) -> Fault {
    Fault::Field { name: field.name.clone(), reason: "its wire type is not that of the schema", at: wire.at() }
}

/// Adds an element to the chain that begins in a cell.
#[inline]
fn chain(cell: usize, element: Cell, arena: &mut Arena) -> Result<(), Fault> {
    let node = place(&arena.nodes);
    check_room(arena.nested.len(), arena)?;
    arena.nodes.push(Node { cell: element, next: Node::NONE });
    match arena.nested[cell] {
        Cell::Chain { first, last } => {
            arena.nodes[last as usize].next = node;
            arena.nested[cell] = Cell::Chain { first, last: node };
        }
        _ => arena.nested[cell] = Cell::Chain { first: node, last: node },
    }
    Ok(())
}

/// Reads a value that is not a message.
#[inline]
fn scalar(
    field: &Field,
    value: &Value,
    wire_type: WireType,
    wire: &mut Wire<'_>,
    arena: &mut Arena,
) -> Result<Cell, Fault> {
    if wire_type != value.wire_type() {
        return Err(mistyped(field, wire));
    }
    Ok(match value {
        Value::Integer(number) => Cell::Integer(signed(*number, wire)?),
        Value::Decimal(number) => {
            let value = match number {
                Number::Uint64 => i256::from_parts(wire.varint()?.into(), 0),
                Number::Fixed64 => i256::from_parts(u64::from_le_bytes(wire.fixed()?).into(), 0),
                _ => i256::from_i128(signed(*number, wire)?.into()),
            };
            let cell = Cell::Decimal(place(&arena.decimals));
            arena.decimals.push(value.wrapping_mul(power_of_ten(NUMERIC_SCALE)));
            cell
        }
        Value::Double => Cell::Float(f64::from_le_bytes(wire.fixed()?)),
        Value::Float => Cell::Float(f32::from_le_bytes(wire.fixed()?).into()),
        Value::Bool => Cell::Boolean(wire.varint()? != 0),
        Value::Text => {
            let span = wire.nested()?.span();
            let text = str::from_utf8(span.bytes(wire.bytes())).map_err(|error| Fault::Field {
                name: field.name.clone(),
                reason: "invalid UTF-8",
                at: span.start as usize + error.valid_up_to(),
            })?;
            if let Some(at) = text.find('\0') {
                let reason = format!("U+0000, which no text can hold, at byte {}", span.start as usize + at);
                return Err(Fault::Value { path: vec![field.name.clone()], reason });
            }
            let start = arena.text.len();
            arena.text.push_str(text);
            Cell::Text(Span::new(start, arena.text.len()))
        }
        Value::Bytes => {
            let span = wire.nested()?.span();
            let start = arena.bytes.len();
            arena.bytes.extend_from_slice(span.bytes(wire.bytes()));
            Cell::Bytes(Span::new(start, arena.bytes.len()))
        }
        Value::Enum(names) => {
            let number = narrow(wire.varint()?);
            match names.find(number) {
                Some(name) => Cell::Text(name),
                None => {
                    use std::fmt::Write;
                    let start = arena.text.len();
                    write!(arena.text, "{number}").expect("a String takes everything");
                    Cell::Text(Span::new(start, arena.text.len()))
                }
            }
        }
    })
}

/// A number that an `i64` holds.
#[inline]
fn signed(number: Number, wire: &mut Wire<'_>) -> Result<i64, Malformed> {
    Ok(match number {
        Number::Int32 => narrow(wire.varint()?).into(),
        Number::Int64 | Number::Uint64 => wire.varint()?.cast_signed(),
        #[expect(clippy::cast_possible_truncation, reason = "the upper half of what is written for 32 bits is ignored")]
        Number::Uint32 => (wire.varint()? as u32).into(),
        #[expect(clippy::cast_possible_truncation, reason = "as above")]
        Number::Sint32 => {
            let number = wire.varint()? as u32;
            i64::from((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
        }
        Number::Sint64 => {
            let number = wire.varint()?;
            (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
        }
        Number::Fixed32 => u32::from_le_bytes(wire.fixed()?).into(),
        Number::Sfixed32 => i32::from_le_bytes(wire.fixed()?).into(),
        Number::Fixed64 | Number::Sfixed64 => i64::from_le_bytes(wire.fixed()?),
    })
}

/// Turns the cells of a message into those of columns, without chains and Google's messages.
fn close(message: &Message, cells: Span, payload: &[u8], arena: &mut Arena) -> Result<(), Fault> {
    for field in &message.closing {
        let field = &message.fields[*field];
        let Some(cell) = field.cell else { continue };
        let cell = cells.start as usize + cell;
        let closed =
            close_field(field, arena.nested[cell], payload, arena).map_err(|fault| fault.within(&field.name))?;
        arena.nested[cell] = closed;
    }
    Ok(())
}

fn close_field(field: &Field, cell: Cell, payload: &[u8], arena: &mut Arena) -> Result<Cell, Fault> {
    match (&field.shape, cell) {
        (Shape::Map(entry), Cell::Chain { first, .. }) => json::map(entry, first, payload, arena),
        (Shape::Json(message), Cell::Chain { first, .. }) if !field.repeated => {
            json::message(message, first, payload, arena)
        }
        (shape, Cell::Chain { first, .. }) => {
            let elements = list(first, arena)?;
            for place in elements.start..elements.end {
                let element = arena.nested[place as usize];
                arena.nested[place as usize] = close_one(shape, element, payload, arena)?;
            }
            Ok(Cell::List(elements))
        }
        (shape, cell) => close_one(shape, cell, payload, arena),
    }
}

/// Puts the cells of a chain side by side.
fn list(first: u32, arena: &mut Arena) -> Result<Span, Fault> {
    let start = arena.nested.len();
    let mut next = first;
    while next != Node::NONE {
        let node = arena.nodes[next as usize];
        arena.nested.push(node.cell);
        next = node.next;
    }
    check_room(arena.nested.len(), arena)?;
    Ok(Span::new(start, arena.nested.len()))
}

fn close_one(shape: &Shape, cell: Cell, payload: &[u8], arena: &mut Arena) -> Result<Cell, Fault> {
    match (shape, cell) {
        (Shape::Message(message, meaning), Cell::Struct(cells)) => {
            close(message, cells, payload, arena)?;
            meaning.of(cells, arena)
        }
        (Shape::Json(message), Cell::Payload(body)) => json::element(message, body, payload, arena),
        (_, cell) => Ok(cell),
    }
}

impl plan::Meaning {
    /// The value of a message, from the cells of its fields.
    fn of(self, cells: Span, arena: &mut Arena) -> Result<Cell, Fault> {
        let value = |reason: &str| Fault::Value { path: Vec::new(), reason: reason.to_owned() };
        match self {
            plan::Meaning::Struct => Ok(Cell::Struct(cells)),
            plan::Meaning::Wrapper => Ok(arena.nested[cells.start as usize]),
            plan::Meaning::Timestamp => {
                let (seconds, nanos) = seconds_and_nanos(cells, arena);
                if !TIMESTAMP_SECONDS.contains(&seconds) || !(0..NANOS).contains(&nanos) {
                    return Err(value("a timestamp beyond the years 1 to 9999"));
                }
                Ok(Cell::Integer(seconds * 1_000_000 + micros_of_nanos(nanos)))
            }
            plan::Meaning::Duration => {
                let (seconds, nanos) = seconds_and_nanos(cells, arena);
                let is_one = nanos.abs() < NANOS && (seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0));
                let micros =
                    seconds.checked_mul(1_000_000).and_then(|whole| whole.checked_add(micros_of_duration(nanos)));
                let interval = micros.and_then(|micros| Interval { months: 0, days: 0, micros }.to_arrow());
                let Some(interval) = interval.filter(|_| is_one) else {
                    return Err(value("a duration of 292 years or more, or whose parts have two signs"));
                };
                let cell = Cell::Interval(place(&arena.intervals));
                arena.intervals.push(interval);
                Ok(cell)
            }
        }
    }
}

fn seconds_and_nanos(cells: Span, arena: &Arena) -> (i64, i64) {
    match cells.cells(&arena.nested) {
        [Cell::Integer(seconds), Cell::Integer(nanos)] => (*seconds, *nanos),
        other => unreachable!("planned as two integers: {other:?}"),
    }
}

/// Nanoseconds of a duration in microseconds, rounded as the fraction of an interval's seconds is.
#[expect(clippy::cast_precision_loss, reason = "below 10⁹")]
fn micros_of_duration(nanos: i64) -> i64 {
    micros_of_amount(nanos as f64 / 1e9 * 1e6)
}

#[cfg(test)]
mod tests;
