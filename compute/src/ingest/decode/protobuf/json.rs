//! Converts messages and maps to jsonb by Protobuf's own mapping to JSON (fields by their names in
//! the schema, enums by theirs, bytes in base64, timestamps in RFC 3339), except that numbers of 64
//! bits stay numbers. Such a message is built, so it costs more than a struct, and must be smaller.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions};

use super::super::bad_record::RECORD_BYTES_MAX;
use super::super::cell::{Arena, Cell, Node};
use super::super::json::{Scanner, Syntax, Value};
use super::super::jsonb;
use super::super::span::Span;
use super::fault::{Fault, check_room};

/// The largest message that becomes jsonb. Once built, it takes up to fifty times as much.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

const OPTIONS: SerializeOptions =
    SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true).skip_default_fields(false);

/// A message of this type may hold one that the schema does not have. Its bytes are shown then.
const ANY: &str = "google.protobuf.Any";

/// The jsonb of a message in the pieces of a chain.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    first: u32,
    payload: &[u8],
    arena: &mut Arena,
) -> Result<Cell, Fault> {
    let message = build(descriptor, pieces(first, &arena.nodes), payload)?;
    with_buffer(arena, |json| write(&message, json))
}

/// The jsonb of a message in one piece.
pub(super) fn element(
    descriptor: &MessageDescriptor,
    body: Span,
    payload: &[u8],
    arena: &mut Arena,
) -> Result<Cell, Fault> {
    let message = build(descriptor, [body], payload)?;
    with_buffer(arena, |json| write(&message, json))
}

/// The jsonb object of a map's entries. The last entry of each key counts.
pub(super) fn map(entry: &MessageDescriptor, first: u32, payload: &[u8], arena: &mut Arena) -> Result<Cell, Fault> {
    let nodes = std::mem::take(&mut arena.nodes);
    let written = with_buffer(arena, |json| {
        let mut written = Vec::new();
        json.push(b'{');
        for body in pieces(first, &nodes) {
            let mut message = build(entry, [body], payload)?;
            // Proto2 and proto3 may leave out either, which is the default then.
            for field in [entry.map_entry_key_field(), entry.map_entry_value_field()] {
                if !message.has_field(&field) {
                    let absent = message.get_field(&field).into_owned();
                    message.set_field(&field, absent);
                }
            }
            written.clear();
            write(&message, &mut written)?;
            if json.len() > 1 {
                json.push(b',');
            }
            write_member(&written, json)?;
            if json.len() > RECORD_BYTES_MAX {
                return Err(Fault::TooLarge);
            }
        }
        json.push(b'}');
        Ok(())
    });
    arena.nodes = nodes;
    written
}

/// Writes an entry, `{"key":…,"value":…}`, as a member of an object. Keys other than strings are
/// put in quotes.
fn write_member(entry: &[u8], json: &mut Vec<u8>) -> Result<(), Fault> {
    let text = str::from_utf8(entry).map_err(|_| failed("invalid UTF-8"))?;
    let mut scanner = Scanner::new(text);
    scanner.take(b'{');
    let mut next = || {
        let mut read = || {
            scanner.key()?;
            let start = scanner.at();
            scanner.value(1)?;
            let span = Span::new(start, scanner.at());
            scanner.take(b',');
            Ok(span)
        };
        read().map_err(|error: Syntax| failed(error.reason))
    };
    let (key, value) = (next()?.of(text), next()?.of(text));
    let quote: &[u8] = if key.starts_with('"') { b"" } else { b"\"" };
    for part in [quote, key.as_bytes(), quote, b":", value.as_bytes()] {
        json.extend_from_slice(part);
    }
    Ok(())
}

/// The bodies in a chain.
fn pieces(first: u32, nodes: &[Node]) -> impl Iterator<Item = Span> {
    let node = |place: u32| nodes.get(place as usize);
    std::iter::successors(node(first), move |last| node(last.next)).filter_map(|node| match node.cell {
        Cell::Payload(body) => Some(body),
        _ => None,
    })
}

/// Builds the message that its bodies make together.
fn build(
    descriptor: &MessageDescriptor,
    bodies: impl IntoIterator<Item = Span>,
    payload: &[u8],
) -> Result<DynamicMessage, Fault> {
    let mut message = DynamicMessage::new(descriptor.clone());
    let mut bytes = 0;
    for body in bodies {
        bytes += body.len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(failed(&format!("larger than {MESSAGE_BYTES_MAX} bytes, and no jsonb can be made of it")));
        }
        message.merge(body.bytes(payload)).map_err(|error| failed(&error.to_string()))?;
    }
    Ok(message)
}

fn write(message: &DynamicMessage, json: &mut Vec<u8>) -> Result<(), Fault> {
    let start = json.len();
    let written = message.serialize_with_options(&mut serde_json::Serializer::new(&mut *json), &OPTIONS);
    match written {
        Err(_) if message.descriptor().full_name() == ANY => {
            json.truncate(start);
            let part = |name| message.get_field_by_name(name).map(std::borrow::Cow::into_owned);
            let url = part("type_url");
            let url = url.as_ref().and_then(prost_reflect::Value::as_str).unwrap_or_default();
            let value = part("value");
            let value = value.as_ref().and_then(prost_reflect::Value::as_bytes).map(|bytes| &bytes[..]);
            let shown = serde_json::json!({ "@type": url, "value": STANDARD.encode(value.unwrap_or_default()) });
            serde_json::to_writer(json, &shown).map_err(|error| failed(&error.to_string()))
        }
        written => written.map_err(|error| failed(&error.to_string())),
    }
}

/// Writes JSON into a reused buffer, and returns its jsonb. JSON's null is NULL.
fn with_buffer(arena: &mut Arena, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Fault>) -> Result<Cell, Fault> {
    let mut json = std::mem::take(&mut arena.json);
    json.clear();
    let cell = write(&mut json).and_then(|()| normalise(&json, arena));
    arena.json = json;
    cell
}

fn normalise(json: &[u8], arena: &mut Arena) -> Result<Cell, Fault> {
    let text = str::from_utf8(json).map_err(|_| failed("invalid UTF-8"))?;
    let value = Scanner::new(text).value(0).map_err(|error| failed(error.reason))?;
    if value == Value::Null {
        return Ok(Cell::Null);
    }
    let start = arena.text.len();
    if jsonb::normalise(value, text, &mut arena.jsonb, &mut arena.text).is_none() {
        // Places refer to the written JSON, which nobody sees.
        let reason = jsonb::fault(value, text).unwrap_or_else(|| "too large when written out".to_owned());
        let reason =
            reason.rsplit_once(" at byte ").map_or(reason.as_str(), |(reason, _)| reason).trim_end_matches(',');
        return Err(failed(reason));
    }
    check_room(arena.nested.len(), arena)?;
    Ok(Cell::Text(Span::new(start, arena.text.len())))
}

fn failed(reason: &str) -> Fault {
    Fault::Value { path: Vec::new(), reason: reason.to_owned() }
}
