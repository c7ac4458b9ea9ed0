//! Infers the columns of a message if the statement names none.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::{Error, WellKnown, scalar_type, well_known};
use crate::types::{SqlType, StructField};

/// The maximum nesting of arrays and structs, as for declared types.
pub(super) const NESTING_MAX: usize = 16;

/// Returns a column for each field of the message, in the order of the declaration. Messages that
/// `as_jsonb` names become jsonb.
///
/// # Errors
/// If a message contains itself, or is nested too deeply.
pub fn columns(message: &MessageDescriptor, as_jsonb: &[String]) -> Result<Vec<StructField>, Error> {
    let mut walk = Walk { as_jsonb, messages: vec![message.full_name().to_owned()], fields: Vec::new() };
    walk.fields(message, 0)
}

/// Returns the type of one value of a field's kind, in an array or by itself.
///
/// # Errors
/// The errors of [`columns`].
pub fn element_type(kind: &Kind) -> Result<SqlType, Error> {
    Walk { as_jsonb: &[], messages: Vec::new(), fields: Vec::new() }.one(kind, 0)
}

/// The state of a walk over messages and their fields.
struct Walk<'a> {
    as_jsonb: &'a [String],
    /// The enclosing messages, outermost first.
    messages: Vec<String>,
    /// The enclosing fields.
    fields: Vec<String>,
}

impl Walk<'_> {
    fn fields(&mut self, message: &MessageDescriptor, depth: usize) -> Result<Vec<StructField>, Error> {
        let mut declared: Vec<FieldDescriptor> = message.fields().collect();
        declared.sort_by_key(|field| field.path().last().copied());
        let mut fields = Vec::with_capacity(declared.len());
        for field in declared {
            self.fields.push(field.name().to_owned());
            fields.push(StructField { name: field.name().to_owned(), ty: self.field(&field, depth)? });
            self.fields.pop();
        }
        Ok(fields)
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Result<SqlType, Error> {
        if field.is_map() {
            Ok(SqlType::Jsonb)
        } else if field.is_list() {
            Ok(SqlType::Array(Box::new(self.one(&field.kind(), depth + 1)?)))
        } else {
            self.one(&field.kind(), depth)
        }
    }

    fn one(&mut self, kind: &Kind, depth: usize) -> Result<SqlType, Error> {
        if depth > NESTING_MAX {
            return Err(Error::TooDeep { path: self.fields.join(".") });
        }
        let Kind::Message(message) = kind else {
            return Ok(scalar_type(kind).expect("whatever is not a message has a type"));
        };
        match well_known(message) {
            Some(WellKnown::Timestamp) => return Ok(SqlType::Timestamptz),
            Some(WellKnown::Duration) => return Ok(SqlType::Interval),
            Some(WellKnown::Json) => return Ok(SqlType::Jsonb),
            Some(WellKnown::Wrapper) => {
                let value = message.get_field_by_name("value").expect("each of Google's wrappers has one");
                return self.one(&value.kind(), depth);
            }
            None => {}
        }
        let name = message.full_name();
        // A struct without fields does not exist, so jsonb records at least that the message is
        // present.
        if self.as_jsonb.iter().any(|other| other == name) || message.fields().len() == 0 {
            return Ok(SqlType::Jsonb);
        }
        if self.messages.iter().any(|open| open == name) {
            return Err(Error::Recursive { message: name.to_owned(), path: self.fields.join(".") });
        }
        self.messages.push(name.to_owned());
        let fields = self.fields(message, depth + 1)?;
        self.messages.pop();
        Ok(SqlType::Struct(fields))
    }
}
