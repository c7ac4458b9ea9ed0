//! Checks that declared columns can hold the fields of a message. A column must hold every value of
//! its field unchanged; otherwise the statement is refused.

use std::collections::HashMap;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::{Error, WellKnown, element_type, kind_name, proto_type, scalar_type, well_known};
use crate::types::SqlType;

/// Returns the field with a column's name: an exact match, or else one that ignores the case of
/// ASCII letters.
pub fn find_field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    let folded = || message.fields().find(|field| field.name().eq_ignore_ascii_case(name));
    message.get_field_by_name(name).or_else(folded)
}

/// Checks one column.
///
/// # Errors
/// If there is no field for it, or its type does not fit. The fields of a struct must fit those of
/// its message in the same way.
pub fn check(message: &MessageDescriptor, name: &str, ty: &SqlType) -> Result<FieldDescriptor, Error> {
    let field = find_field(message, name).ok_or_else(|| Error::NoField {
        message: message.full_name().to_owned(),
        name: name.to_owned(),
        known: message.fields().map(|field| field.name().to_owned()).collect(),
    })?;
    check_field(&field, ty)?;
    Ok(field)
}

fn check_field(field: &FieldDescriptor, ty: &SqlType) -> Result<(), Error> {
    let (kind, fits) = (field.kind(), |allowed: &[SqlType]| allowed.contains(ty));
    let fits = match ty {
        SqlType::Array(element) if field.is_list() => return check_one(field, &kind, element, ty),
        _ if field.is_list() => false,
        _ if field.is_map() => fits(&[SqlType::Jsonb]),
        _ => return check_one(field, &kind, ty, ty),
    };
    if fits { Ok(()) } else { Err(misfit(field, ty)) }
}

/// Checks one value of a field against a type: that of the column, or of its elements.
fn check_one(field: &FieldDescriptor, kind: &Kind, ty: &SqlType, column: &SqlType) -> Result<(), Error> {
    match (kind, ty) {
        (Kind::Message(_), SqlType::Jsonb) => Ok(()),
        (Kind::Message(message), SqlType::Struct(fields)) => {
            let mut taken: HashMap<u32, &str> = HashMap::new();
            for member in fields {
                let inner = check(message, &member.name, &member.ty).map_err(|error| within(field, error))?;
                if let Some(first) = taken.insert(inner.number(), &member.name) {
                    return Err(Error::Twice {
                        field: format!("{}.{}", field.name(), inner.name()),
                        first: first.to_owned(),
                        second: member.name.clone(),
                    });
                }
            }
            Ok(())
        }
        _ if allowed(kind).contains(ty) => Ok(()),
        _ => Err(misfit(field, column)),
    }
}

/// Returns the types that a value fits into, without structs and jsonb for messages.
fn allowed(kind: &Kind) -> Vec<SqlType> {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => vec![SqlType::Integer, SqlType::BigInt, SqlType::Numeric],
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint32 | Kind::Fixed32 => {
            vec![SqlType::BigInt, SqlType::Numeric]
        }
        Kind::Float => vec![SqlType::Real, SqlType::Double],
        Kind::Message(message) => match well_known(message) {
            Some(WellKnown::Timestamp) => vec![SqlType::Timestamptz],
            Some(WellKnown::Duration) => vec![SqlType::Interval],
            Some(WellKnown::Wrapper) => {
                message.get_field_by_name("value").map(|value| allowed(&value.kind())).unwrap_or_default()
            }
            Some(WellKnown::Json) | None => Vec::new(),
        },
        kind => scalar_type(kind).into_iter().collect(),
    }
}

fn misfit(field: &FieldDescriptor, ty: &SqlType) -> Error {
    let kind = field.kind();
    let mut names: Vec<String> = allowed(&kind).iter().map(SqlType::to_string).collect();
    if let Kind::Message(message) = &kind
        && !field.is_map()
    {
        if !matches!(well_known(message), Some(WellKnown::Json)) && message.fields().len() > 0 {
            // The message is nested too deeply for a full type, so name any struct of its fields
            // instead.
            names.push(match element_type(&kind) {
                Ok(whole @ SqlType::Struct(_)) => whole.to_string(),
                _ => format!("a struct of fields of {}", kind_name(&kind)),
            });
        }
        names.push(SqlType::Jsonb.to_string());
    } else if field.is_map() {
        names = vec![SqlType::Jsonb.to_string()];
    }
    if field.is_list() {
        names = names.iter().map(|name| format!("{name}[]")).collect();
    }
    Error::Misfit {
        field: field.name().to_owned(),
        found: proto_type(field),
        ty: ty.to_string(),
        allowed: names.join(", "),
    }
}

/// Adds the path to an error in a struct.
fn within(outer: &FieldDescriptor, error: Error) -> Error {
    let inside = |field: String| format!("{}.{field}", outer.name());
    match error {
        Error::Misfit { field, found, ty, allowed } => Error::Misfit { field: inside(field), found, ty, allowed },
        Error::Twice { field, first, second } => Error::Twice { field: inside(field), first, second },
        other => other,
    }
}
