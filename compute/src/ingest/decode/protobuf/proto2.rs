//! Applies two rules of proto2 beyond the wire format: required fields are present, and a number
//! that a closed enum does not name is not a value.
//!
//! Both are applied on the wire, before anything is decoded. Numbers without a name are taken out,
//! as if the message did not have them: alone, out of an array, or with their entry of a map. Then
//! every required field has to be present, in nested messages too, even if no column is filled from
//! it. A schema without either, such as any of proto3, has no rules and costs nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use prost::encoding::encode_varint;
use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor, Syntax};

use super::fault::Fault;
use super::wire::{Malformed, Wire, WireType, narrow};

/// The greatest depth of nested messages, as in Protobuf's own implementations.
pub(super) const DEPTH_MAX: usize = 100;

/// The rules of a schema, by message. The first message is that of payloads.
pub(super) struct Rules(Vec<Message>);

/// The rules of a message. A message has none if neither it nor the messages below it do.
#[derive(Default)]
struct Message {
    /// By their numbers.
    fields: Vec<Field>,
    required: usize,
    is_map_entry: bool,
}

/// The rules of a field. Fields without rules are passed over.
struct Field {
    number: u32,
    name: String,
    /// Its place among the required fields.
    required: Option<usize>,
    /// The full name of its oneof.
    oneof: Option<String>,
    repeated: bool,
    content: Content,
}

enum Content {
    /// It has nothing to check.
    Plain,
    /// The numbers of a closed enum, in order.
    Closed(Vec<i32>),
    /// A message with rules, by its place.
    Message(usize),
}

impl Rules {
    /// The rules of a message, if it has any.
    pub(super) fn of(root: &MessageDescriptor) -> Option<Rules> {
        let mut messages = vec![root.clone()];
        let mut known = HashMap::from([(root.full_name().to_owned(), 0)]);
        let mut at = 0;
        while at < messages.len() {
            for inner in messages[at].clone().fields().filter_map(|field| field.kind().as_message().cloned()) {
                known.entry(inner.full_name().to_owned()).or_insert_with(|| {
                    messages.push(inner);
                    messages.len() - 1
                });
            }
            at += 1;
        }
        let place = |field: &FieldDescriptor| known.get(field.kind().as_message()?.full_name()).copied();
        let mut ruled: Vec<bool> =
            messages.iter().map(|message| message.fields().any(|field| has_rule(&field))).collect();
        // A message that leads to one with rules has rules, too.
        loop {
            let leads =
                |message: &MessageDescriptor| message.fields().filter_map(|field| place(&field)).any(|to| ruled[to]);
            let more: Vec<usize> = (0..messages.len()).filter(|at| !ruled[*at] && leads(&messages[*at])).collect();
            if more.is_empty() {
                break;
            }
            more.into_iter().for_each(|at| ruled[at] = true);
        }
        let inner = |field: &FieldDescriptor| place(field).filter(|to| ruled[*to]);
        ruled[0].then(|| Rules(messages.iter().map(|message| Message::new(message, inner)).collect()))
    }

    /// The payload without numbers that have no name.
    ///
    /// # Errors
    /// If it is not a message, or a required field is missing.
    pub(super) fn apply<'a>(&self, payload: &'a [u8]) -> Result<Cow<'a, [u8]>, Fault> {
        let payload = match self.strip(0, Wire::new(payload), 0)? {
            Some(stripped) => Cow::Owned(stripped),
            None => Cow::Borrowed(payload),
        };
        self.check(0, &[Wire::new(&payload)], 0)?;
        Ok(payload)
    }

    /// The message without numbers that have no name, if it has any.
    fn strip(&self, message: usize, mut wire: Wire<'_>, depth: usize) -> Result<Option<Vec<u8>>, Malformed> {
        check_depth(depth, &wire)?;
        let mut edit = Edit { original: wire.bytes(), copied: wire.at(), out: None };
        while !wire.is_at_end() {
            let start = wire.at();
            let (number, wire_type) = wire.key()?;
            let value = wire.at();
            let Some(field) = self.0[message].find(number) else {
                wire.skip(number, wire_type)?;
                continue;
            };
            match (&field.content, wire_type) {
                (Content::Closed(known), WireType::Varint) => {
                    if known.binary_search(&narrow(wire.varint()?)).is_err() {
                        edit.replace(start, wire.at(), &[]);
                    }
                }
                (Content::Closed(known), WireType::LengthDelimited) if field.repeated => {
                    if let Some(kept) = strip_packed(known, wire.nested()?)? {
                        edit.replace(value, wire.at(), &with_length(&kept));
                    }
                }
                (Content::Message(inner), WireType::LengthDelimited) => {
                    let body = wire.nested()?;
                    if self.is_void_entry(*inner, body.clone())? {
                        edit.replace(start, wire.at(), &[]);
                    } else if let Some(stripped) = self.strip(*inner, body, depth + 1)? {
                        edit.replace(value, wire.at(), &with_length(&stripped));
                    }
                }
                (Content::Message(inner), WireType::StartGroup) => {
                    let body = wire.group(number)?;
                    let end = body.bytes().len();
                    if let Some(stripped) = self.strip(*inner, body, depth + 1)? {
                        edit.replace(value, end, &stripped);
                    }
                }
                _ => wire.skip(number, wire_type)?,
            }
        }
        Ok(edit.finish())
    }

    /// Returns true if a map's entry has a value without a name. The last of several values counts.
    fn is_void_entry(&self, message: usize, mut entry: Wire<'_>) -> Result<bool, Malformed> {
        let mut void = false;
        if self.0[message].is_map_entry {
            while !entry.is_at_end() {
                let (number, wire_type) = entry.key()?;
                match (self.0[message].find(number).map(|field| &field.content), wire_type) {
                    (Some(Content::Closed(known)), WireType::Varint) => {
                        void = known.binary_search(&narrow(entry.varint()?)).is_err();
                    }
                    _ => entry.skip(number, wire_type)?,
                }
            }
        }
        Ok(void)
    }

    /// Checks that the message that the bodies make together has all its required fields.
    fn check(&self, message: usize, bodies: &[Wire<'_>], depth: usize) -> Result<(), Fault> {
        let rules = &self.0[message];
        let mut seen = vec![false; rules.required];
        let mut parts: BTreeMap<usize, Vec<Wire<'_>>> = BTreeMap::new();
        for body in bodies {
            check_depth(depth, body)?;
            let mut wire = body.clone();
            while !wire.is_at_end() {
                let (number, wire_type) = wire.key()?;
                let Some(place) = rules.place(number) else {
                    wire.skip(number, wire_type)?;
                    continue;
                };
                let field = &rules.fields[place];
                if let Some(required) = field.required {
                    seen[required] = true;
                }
                if field.oneof.is_some() {
                    parts.retain(|other, _| *other == place || rules.fields[*other].oneof != field.oneof);
                }
                let inner = match (&field.content, wire_type) {
                    (Content::Message(_), WireType::LengthDelimited) => wire.nested()?,
                    (Content::Message(_), WireType::StartGroup) => wire.group(number)?,
                    _ => {
                        wire.skip(number, wire_type)?;
                        continue;
                    }
                };
                match (&field.content, field.repeated) {
                    (Content::Message(message), true) => {
                        self.check(*message, &[inner], depth + 1).map_err(|fault| fault.within(&field.name))?;
                    }
                    _ => parts.entry(place).or_default().push(inner),
                }
            }
        }
        if let Some(missing) = rules.fields.iter().find(|field| field.required.is_some_and(|place| !seen[place])) {
            let reason = "the schema requires it, and the message does not have it".to_owned();
            return Err(Fault::Value { path: vec![missing.name.clone()], reason });
        }
        for (place, bodies) in parts {
            let field = &rules.fields[place];
            if let Content::Message(message) = field.content {
                self.check(message, &bodies, depth + 1).map_err(|fault| fault.within(&field.name))?;
            }
        }
        Ok(())
    }
}

impl Message {
    fn new(message: &MessageDescriptor, inner: impl Fn(&FieldDescriptor) -> Option<usize>) -> Message {
        let mut rules = Message { is_map_entry: message.is_map_entry(), ..Message::default() };
        let matters = |field: &FieldDescriptor| has_rule(field) || inner(field).is_some();
        for field in message.fields() {
            let oneof = field.containing_oneof().filter(|oneof| oneof.fields().any(|member| matters(&member)));
            if !matters(&field) && oneof.is_none() {
                continue;
            }
            let required = (field.cardinality() == Cardinality::Required).then_some(rules.required);
            rules.required += usize::from(required.is_some());
            let content = match (closed(&field), inner(&field)) {
                (Some(known), _) => Content::Closed(known),
                (None, Some(place)) => Content::Message(place),
                (None, None) => Content::Plain,
            };
            rules.fields.push(Field {
                number: field.number(),
                name: field.name().to_owned(),
                required,
                oneof: oneof.map(|oneof| oneof.full_name().to_owned()),
                // This includes entries of a map.
                repeated: field.cardinality() == Cardinality::Repeated,
                content,
            });
        }
        rules.fields.sort_by_key(|field| field.number);
        rules
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }

    fn find(&self, number: u32) -> Option<&Field> {
        self.place(number).map(|place| &self.fields[place])
    }
}

fn has_rule(field: &FieldDescriptor) -> bool {
    field.cardinality() == Cardinality::Required || closed(field).is_some()
}

/// The numbers of the field's enum, in order, if it is closed.
fn closed(field: &FieldDescriptor) -> Option<Vec<i32>> {
    let Kind::Enum(descriptor) = field.kind() else { return None };
    let mut known: Vec<i32> = descriptor.values().map(|value| value.number()).collect();
    known.sort_unstable();
    (descriptor.parent_file().syntax() == Syntax::Proto2).then_some(known)
}

fn check_depth(depth: usize, wire: &Wire<'_>) -> Result<(), Malformed> {
    let reason = "messages nested too deeply";
    if depth > DEPTH_MAX { Err(Malformed { reason, at: wire.at() }) } else { Ok(()) }
}

/// The values of a packed array that have a name, if others have none.
fn strip_packed(known: &[i32], mut packed: Wire<'_>) -> Result<Option<Vec<u8>>, Malformed> {
    let mut edit = Edit { original: packed.bytes(), copied: packed.at(), out: None };
    while !packed.is_at_end() {
        let start = packed.at();
        if known.binary_search(&narrow(packed.varint()?)).is_err() {
            edit.replace(start, packed.at(), &[]);
        }
    }
    Ok(edit.finish())
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 5);
    encode_varint(body.len() as u64, &mut out);
    out.extend_from_slice(body);
    out
}

/// A part of the payload, copied once it changes.
struct Edit<'a> {
    /// The payload, up to the end of the part.
    original: &'a [u8],
    /// The end of the copied part or, while nothing has changed, the start of the part.
    copied: usize,
    out: Option<Vec<u8>>,
}

impl Edit<'_> {
    fn replace(&mut self, start: usize, end: usize, by: &[u8]) {
        let out = self.out.get_or_insert_default();
        out.extend_from_slice(&self.original[self.copied..start]);
        out.extend_from_slice(by);
        self.copied = end;
    }

    fn finish(self) -> Option<Vec<u8>> {
        let mut out = self.out?;
        out.extend_from_slice(&self.original[self.copied..]);
        Some(out)
    }
}
