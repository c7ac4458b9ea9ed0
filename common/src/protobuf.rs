//! The schemas of Protobuf messages, as `CREATE TABLE … ENCODE PROTOBUF` stores them, and the
//! columns that their fields fit into. The frontend uses them to bind the statement, compute nodes
//! to plan how to decode.
//!
//! This module owns the stored form and the types of fields; it fetches and compiles nothing.
//! Invariant: a stored schema holds every type that its message refers to, so decoding it never
//! needs anything else.

mod fit;
mod infer;
mod prune;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use prost_reflect::{DescriptorError, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use fit::{check, find_field};
pub use infer::{columns, element_type};

use crate::types::SqlType;

/// The prefix of the types that come with Protobuf.
const GOOGLE: &str = "google.protobuf.";

/// The maximum number of messages that an error lists when a schema lacks the requested one.
const MESSAGES_SHOWN_MAX: usize = 10;

/// The schema of a table's messages, compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSchema {
    /// The full name of the message in a payload, without a leading point.
    pub message: String,
    /// A `FileDescriptorSet` with all types that the message refers to.
    descriptors: Descriptors,
}

/// An encoded `FileDescriptorSet`. In JSON it is text in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Descriptors(Vec<u8>);

/// The reason why a schema, or a column over it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors contradict themselves, or are malformed.
    #[error("the schema is not valid")]
    Invalid(#[source] DescriptorError),
    /// There is no such message.
    #[error("the schema has no message \"{message}\"")]
    NoMessage {
        /// The requested message.
        message: String,
        /// Some messages of the schema.
        known: Vec<String>,
    },
    /// A message contains itself, and SQL has no type for that.
    #[error("the message \"{message}\" contains itself: {path}")]
    Recursive {
        /// The message that occurs again.
        message: String,
        /// The names of the fields that lead from the outermost message to it.
        path: String,
    },
    /// Messages are nested more deeply than types may be.
    #[error("the field {path} is nested deeper than {} levels", infer::NESTING_MAX)]
    TooDeep {
        /// The names of the fields that lead to it.
        path: String,
    },
    /// A column has no field.
    #[error("the message \"{message}\" has no field \"{name}\"")]
    NoField {
        /// The message.
        message: String,
        /// The name of the column, or of a struct's field.
        name: String,
        /// The fields that the message has.
        known: Vec<String>,
    },
    /// Two columns have the same field.
    #[error("the field {field} is read into \"{first}\" and into \"{second}\"")]
    Twice {
        /// The field.
        field: String,
        /// The first column.
        first: String,
        /// The second column.
        second: String,
    },
    /// A column's type does not hold all values of its field.
    #[error("the field {field} is of type {found}, which does not fit into {ty}")]
    Misfit {
        /// The names of the fields that lead to it.
        field: String,
        /// Its type in the schema.
        found: String,
        /// The type that was declared.
        ty: String,
        /// The types that it fits into.
        allowed: String,
    },
}

/// Google's types that have a type in SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WellKnown {
    /// A point in time: `timestamptz`.
    Timestamp,
    /// A span of time: `interval`.
    Duration,
    /// A scalar that can be absent; its field is called `value`.
    Wrapper,
    /// JSON of any kind, or a message of any kind: `jsonb`.
    Json,
}

impl MessageSchema {
    /// Makes the schema of one message of a set, without types that the message does not refer to.
    /// Google's own types need not be in the set; if they are, they are replaced.
    ///
    /// # Errors
    /// If the set is not valid, or the message is not in it.
    pub fn new(set: FileDescriptorSet, message: &str) -> Result<MessageSchema, Error> {
        let mut pool = DescriptorPool::global();
        pool.add_file_descriptor_set(set).map_err(Error::Invalid)?;
        let name = message.strip_prefix('.').unwrap_or(message);
        let message = find(&pool, name)?;
        let file = prune::prune(&pool, &message);
        Ok(MessageSchema {
            message: name.to_owned(),
            descriptors: Descriptors(FileDescriptorSet { file }.encode_to_vec()),
        })
    }

    /// Returns the descriptor of the message, which leads to all other descriptors.
    ///
    /// # Errors
    /// If the stored bytes are not a schema, or not one of this message.
    pub fn descriptor(&self) -> Result<MessageDescriptor, Error> {
        let pool = DescriptorPool::decode(self.descriptors.0.as_slice()).map_err(Error::Invalid)?;
        find(&pool, &self.message)
    }
}

fn find(pool: &DescriptorPool, message: &str) -> Result<MessageDescriptor, Error> {
    pool.get_message_by_name(message).ok_or_else(|| {
        let own = pool.all_messages().filter(|known| !known.is_map_entry() && !known.full_name().starts_with(GOOGLE));
        let known = own.take(MESSAGES_SHOWN_MAX).map(|known| known.full_name().to_owned()).collect();
        Error::NoMessage { message: message.to_owned(), known }
    })
}

/// Returns the kind of Google's type that a message is, if it has a type in SQL.
pub fn well_known(message: &MessageDescriptor) -> Option<WellKnown> {
    match message.full_name().strip_prefix(GOOGLE)? {
        "Timestamp" => Some(WellKnown::Timestamp),
        "Duration" => Some(WellKnown::Duration),
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue"
        | "StringValue" | "BytesValue" => Some(WellKnown::Wrapper),
        "Struct" | "Value" | "ListValue" | "Any" => Some(WellKnown::Json),
        _ => None,
    }
}

/// Returns the SQL type of a field that is neither a message nor a group.
pub fn scalar_type(kind: &Kind) -> Option<SqlType> {
    Some(match kind {
        Kind::Double => SqlType::Double,
        Kind::Float => SqlType::Real,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => SqlType::Integer,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint32 | Kind::Fixed32 => SqlType::BigInt,
        Kind::Uint64 | Kind::Fixed64 => SqlType::Numeric,
        Kind::Bool => SqlType::Boolean,
        Kind::String | Kind::Enum(_) => SqlType::Varchar,
        Kind::Bytes => SqlType::Bytea,
        Kind::Message(_) => return None,
    })
}

/// Returns the type of a field in the notation of `.proto` files.
fn proto_type(field: &FieldDescriptor) -> String {
    if let Some(entry) = field.kind().as_message().filter(|_| field.is_map()) {
        let value = entry.map_entry_value_field();
        return format!("map<{}, {}>", kind_name(&entry.map_entry_key_field().kind()), kind_name(&value.kind()));
    }
    let name = kind_name(&field.kind());
    if field.is_list() { format!("repeated {name}") } else { name }
}

fn kind_name(kind: &Kind) -> String {
    let name = match kind {
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Message(message) => message.full_name(),
        Kind::Enum(descriptor) => descriptor.full_name(),
    };
    name.to_owned()
}

impl Serialize for Descriptors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Descriptors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Descriptors, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Descriptors).map_err(serde::de::Error::custom)
    }
}

/// Removes the parts of a file that only people and code generators read.
fn bare(file: &FileDescriptorProto) -> FileDescriptorProto {
    FileDescriptorProto { source_code_info: None, options: None, service: Vec::new(), ..file.clone() }
}

#[cfg(test)]
mod tests;
