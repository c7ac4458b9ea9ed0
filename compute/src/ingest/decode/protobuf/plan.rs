//! The plan for each field of a message, made once from the schema and the table's columns.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use weir_common::protobuf::{Error, WellKnown, check, well_known};
use weir_common::types::SqlType;

use super::super::cell::Cell;
use super::super::span::Span;
use super::wire::WireType;

/// The way to read a message.
pub(super) struct Message {
    /// The fields that are read, or whose presence empties others, by number.
    pub(super) fields: Vec<Field>,
    /// The cells of a message in which no field is set, in the order of the columns or of the
    /// struct's fields.
    pub(super) template: Vec<Cell>,
    /// The fields that need a second look once everything is read.
    pub(super) closing: Vec<usize>,
}

/// The way to read a field.
pub(super) struct Field {
    pub(super) number: u32,
    /// The name of its column, or of the struct's field, if it has one.
    pub(super) name: String,
    /// Its place among the message's cells; `None` if it has no column.
    pub(super) cell: Option<usize>,
    pub(super) repeated: bool,
    pub(super) shape: Shape,
    /// The cells of the other members of its oneof.
    pub(super) rivals: Vec<usize>,
}

/// The value of a field, or each of its values.
pub(super) enum Shape {
    Scalar(Value),
    Message(Message, Meaning),
    /// A message that becomes jsonb.
    Json(MessageDescriptor),
    /// The entries of a map.
    Map(MessageDescriptor),
}

/// The value that a message has in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Struct,
    Timestamp,
    Duration,
    Wrapper,
}

/// A value other than a message, and its target.
pub(super) enum Value {
    Integer(Number),
    Decimal(Number),
    Double,
    Float,
    Bool,
    Text,
    Bytes,
    Enum(Names),
}

/// The wire form of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
}

/// The names of an enum's values, in the fixed text.
pub(super) struct Names(Vec<(i32, Span)>);

/// The arena's contents before any record: the names of enums, and the values of absent fields.
#[derive(Default)]
pub(super) struct Fixed {
    pub(super) text: String,
    pub(super) decimals: Vec<arrow::datatypes::i256>,
}

impl Fixed {
    fn text(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.push_str(text);
        Span::new(start, self.text.len())
    }

    fn zero(&mut self) -> Cell {
        if self.decimals.is_empty() {
            self.decimals.push(arrow::datatypes::i256::ZERO);
        }
        Cell::Decimal(0)
    }
}

impl Message {
    /// The field of a number. Fields mostly come in the order of their numbers: `expected` is the
    /// likely place of the next one.
    #[inline]
    pub(super) fn find(&self, number: u32, expected: &mut usize) -> Option<&Field> {
        for place in [*expected, *expected + 1] {
            if let Some(field) = self.fields.get(place)
                && field.number == number
            {
                *expected = place;
                return Some(field);
            }
        }
        let place = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        *expected = place;
        Some(&self.fields[place])
    }
}

impl Names {
    #[inline]
    pub(super) fn find(&self, number: i32) -> Option<Span> {
        // Most enums count from 0 without gaps.
        let likely = usize::try_from(number).ok().and_then(|place| self.0.get(place));
        if let Some((other, name)) = likely
            && *other == number
        {
            return Some(*name);
        }
        let place = self.0.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.0[place].1)
    }
}

impl Value {
    #[inline]
    pub(super) fn wire_type(&self) -> WireType {
        match self {
            Value::Double => WireType::SixtyFourBit,
            Value::Float => WireType::ThirtyTwoBit,
            Value::Bool | Value::Enum(_) => WireType::Varint,
            Value::Text | Value::Bytes => WireType::LengthDelimited,
            Value::Integer(number) | Value::Decimal(number) => match number {
                Number::Fixed32 | Number::Sfixed32 => WireType::ThirtyTwoBit,
                Number::Fixed64 | Number::Sfixed64 => WireType::SixtyFourBit,
                _ => WireType::Varint,
            },
        }
    }

    /// Returns true if several may be packed into one.
    #[inline]
    pub(super) fn can_be_packed(&self) -> bool {
        !matches!(self, Value::Text | Value::Bytes)
    }
}

/// The plan of a message whose fields are read into columns, or into the fields of a struct.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    columns: &[(&str, &SqlType)],
    fixed: &mut Fixed,
) -> Result<Message, Error> {
    let mut plan = Message { fields: Vec::new(), template: Vec::new(), closing: Vec::new() };
    let mut oneofs: Vec<(String, usize)> = Vec::new();
    for (cell, (name, ty)) in columns.iter().enumerate() {
        let field = check(descriptor, name, ty)?;
        if let Some(oneof) = field.containing_oneof() {
            oneofs.push((oneof.full_name().to_owned(), cell));
        }
        let shape = shape(&field, ty, fixed)?;
        plan.template.push(absent(&field, &shape, fixed));
        plan.fields.push(Field {
            number: field.number(),
            name: (*name).to_owned(),
            cell: Some(cell),
            repeated: field.is_list(),
            shape,
            rivals: Vec::new(),
        });
    }
    add_rivals(descriptor, &oneofs, &mut plan);
    plan.fields.sort_by_key(|field| field.number);
    let closing = plan.fields.iter().enumerate().filter(|(_, field)| field.needs_closing()).map(|(place, _)| place);
    plan.closing = closing.collect();
    Ok(plan)
}

/// Notes the cells that each member of a oneof empties. Members without a column do that too, so
/// the plan has them.
fn add_rivals(descriptor: &MessageDescriptor, oneofs: &[(String, usize)], plan: &mut Message) {
    for field in descriptor.fields() {
        let Some(oneof) = field.containing_oneof() else { continue };
        let planned = plan.fields.iter().position(|planned| planned.number == field.number());
        let own = planned.and_then(|place| plan.fields[place].cell);
        let members = oneofs.iter().filter(|(name, cell)| name == oneof.full_name() && Some(*cell) != own);
        let rivals: Vec<usize> = members.map(|(_, cell)| *cell).collect();
        match planned {
            Some(place) => plan.fields[place].rivals = rivals,
            None if rivals.is_empty() => {}
            None => plan.fields.push(Field {
                number: field.number(),
                name: field.name().to_owned(),
                cell: None,
                repeated: false,
                shape: Shape::Scalar(Value::Bool),
                rivals,
            }),
        }
    }
}

impl Field {
    fn needs_closing(&self) -> bool {
        let shape = match &self.shape {
            Shape::Scalar(_) => false,
            Shape::Message(message, meaning) => *meaning != Meaning::Struct || !message.closing.is_empty(),
            Shape::Json(_) | Shape::Map(_) => true,
        };
        self.cell.is_some() && (self.repeated || shape)
    }
}

fn shape(field: &FieldDescriptor, ty: &SqlType, fixed: &mut Fixed) -> Result<Shape, Error> {
    let ty = match ty {
        SqlType::Array(element) if field.is_list() => element,
        other => other,
    };
    let message = match field.kind() {
        Kind::Message(message) => message,
        kind => return Ok(Shape::Scalar(value(&kind, ty, fixed))),
    };
    if field.is_map() {
        return Ok(Shape::Map(message));
    }
    let inside = |columns: &[(&str, &SqlType)], meaning, fixed: &mut Fixed| {
        Ok(Shape::Message(self::message(&message, columns, fixed)?, meaning))
    };
    match (ty, well_known(&message)) {
        (SqlType::Jsonb, _) => Ok(Shape::Json(message)),
        (SqlType::Struct(fields), _) => {
            let columns: Vec<(&str, &SqlType)> = fields.iter().map(|field| (field.name.as_str(), &field.ty)).collect();
            inside(&columns, Meaning::Struct, fixed)
        }
        (_, Some(WellKnown::Wrapper)) => inside(&[("value", ty)], Meaning::Wrapper, fixed),
        (_, well_known) => {
            let meaning = if well_known == Some(WellKnown::Timestamp) { Meaning::Timestamp } else { Meaning::Duration };
            inside(&[("seconds", &SqlType::BigInt), ("nanos", &SqlType::Integer)], meaning, fixed)
        }
    }
}

fn value(kind: &Kind, ty: &SqlType, fixed: &mut Fixed) -> Value {
    let number = match kind {
        Kind::Double => return Value::Double,
        Kind::Float => return Value::Float,
        Kind::Bool => return Value::Bool,
        Kind::String => return Value::Text,
        Kind::Bytes => return Value::Bytes,
        Kind::Enum(descriptor) => return Value::Enum(names(descriptor, fixed)),
        Kind::Message(_) => unreachable!("messages are planned for elsewhere"),
        Kind::Int32 => Number::Int32,
        Kind::Int64 => Number::Int64,
        Kind::Uint32 => Number::Uint32,
        Kind::Uint64 => Number::Uint64,
        Kind::Sint32 => Number::Sint32,
        Kind::Sint64 => Number::Sint64,
        Kind::Fixed32 => Number::Fixed32,
        Kind::Fixed64 => Number::Fixed64,
        Kind::Sfixed32 => Number::Sfixed32,
        Kind::Sfixed64 => Number::Sfixed64,
    };
    if *ty == SqlType::Numeric { Value::Decimal(number) } else { Value::Integer(number) }
}

/// If a number has several names, the one declared first counts.
fn names(descriptor: &EnumDescriptor, fixed: &mut Fixed) -> Names {
    let mut names: Vec<(i32, Span)> = Vec::with_capacity(descriptor.values().len());
    for value in &descriptor.enum_descriptor_proto().value {
        names.push((value.number(), fixed.text(value.name())));
    }
    names.sort_by_key(|(number, _)| *number);
    names.dedup_by_key(|(number, _)| *number);
    Names(names)
}

/// The cell of a field that is absent.
fn absent(field: &FieldDescriptor, shape: &Shape, fixed: &mut Fixed) -> Cell {
    let nothing = Span::new(0, 0);
    if field.is_list() {
        return Cell::List(nothing);
    }
    match shape {
        Shape::Map(_) => Cell::Text(fixed.text("{}")),
        _ if field.supports_presence() => Cell::Null,
        Shape::Scalar(value) => match value {
            Value::Integer(_) => Cell::Integer(0),
            Value::Decimal(_) => fixed.zero(),
            Value::Double | Value::Float => Cell::Float(0.0),
            Value::Bool => Cell::Boolean(false),
            Value::Text => Cell::Text(nothing),
            Value::Bytes => Cell::Bytes(nothing),
            Value::Enum(names) => names.find(0).map_or(Cell::Null, Cell::Text),
        },
        Shape::Message(..) | Shape::Json(_) => Cell::Null,
    }
}
