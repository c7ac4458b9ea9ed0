//! Reasons why a payload is not a row of its table.

use weir_common::error::Kind;
use weir_common::types::SqlType;

use super::json::{Syntax, Value};

/// A larger payload is no record. NATS servers take no larger messages either.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// A payload and its decoded data beyond its own bytes (unescaped strings, normalised jsonb) may
/// take this much together. Frontends take twice as much at a time, so a stored row can always be
/// read.
pub(super) const RECORD_BYTES_MAX: usize = 128 << 20;
/// The values of a primary key may take this much, as long as a page of PostgreSQL's. Stored keys
/// may take twice as many bytes as the values and a few more.
pub(super) const KEY_BYTES_MAX: usize = weir_common::key::KEY_BYTES_MAX / 4;
/// This much of a value that does not fit is shown.
const FOUND_MAX: usize = 60;

/// The reason why a payload is not a row of the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The payload is not JSON at all.
    #[error("payload is not JSON: {reason} at byte {at}")]
    Syntax {
        /// The fault, or the expectation.
        reason: &'static str,
        /// Counted from 0.
        at: usize,
    },
    /// The payload is JSON, but not an object.
    #[error("payload is not a JSON object but {found}")]
    NotAnObject {
        /// The value.
        found: String,
    },
    /// One of several objects is not a row.
    #[error("object {object} of the payload: {bad}")]
    Object {
        /// Its number, counted from 1.
        object: usize,
        /// The reason.
        bad: Box<BadRecord>,
    },
    /// A field's value does not fit its column.
    #[error("column \"{column}\": expected {expected}, found {found}{}", more(.reason.as_ref()))]
    Type {
        /// The column's name.
        column: String,
        /// The column's type.
        expected: SqlType,
        /// The value, shortened.
        found: String,
        /// The reason why it does not fit, if its kind alone does not say so.
        reason: Option<String>,
    },
    /// The payload is not a Protobuf message, or not one of the table's.
    #[error("payload is not a message of the schema: {reason} at byte {at}")]
    Wire {
        /// The fault.
        reason: String,
        /// Counted from 0.
        at: usize,
    },
    /// A field of a Protobuf message does not fit its column.
    #[error("field \"{path}\": {reason}")]
    Field {
        /// The column, and the names of the fields in it that lead to the value, joined by points.
        path: String,
        /// The fault.
        reason: String,
    },
    /// A column of INCLUDE cannot hold its value.
    #[error("column \"{column}\": {reason}")]
    Included {
        /// The column's name.
        column: String,
        /// The fault.
        reason: &'static str,
    },
    /// The payload as a whole cannot be a jsonb.
    #[error("payload has no normal form as jsonb: {reason}")]
    NoJsonb {
        /// The obstacle.
        reason: String,
    },
    /// A column of the primary key has no value.
    #[error("column \"{column}\" of the primary key is null")]
    NullKey {
        /// The column's name.
        column: String,
    },
    /// The primary key would be unreasonably large.
    #[error("primary key is larger than {KEY_BYTES_MAX} bytes")]
    LargeKey,
    /// The row would be unreasonably large.
    #[error(
        "record is larger than {PAYLOAD_BYTES_MAX} bytes, or than {RECORD_BYTES_MAX} when decoded, and cannot be a row"
    )]
    TooLarge,
}

fn more(reason: Option<&String>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

impl BadRecord {
    /// The column that the payload does not fit, if it is a single one.
    pub fn column(&self) -> Option<&str> {
        match self {
            BadRecord::Type { column, .. } | BadRecord::NullKey { column } | BadRecord::Included { column, .. } => {
                Some(column)
            }
            BadRecord::Field { path, .. } => path.split('.').next(),
            BadRecord::Object { bad, .. } => bad.column(),
            _ => None,
        }
    }

    /// Always [`Kind::User`]: the publisher of the payload has to change it.
    pub fn kind(&self) -> Kind {
        Kind::User
    }
}

impl From<Syntax> for BadRecord {
    fn from(Syntax { reason, at }: Syntax) -> BadRecord {
        BadRecord::Syntax { reason, at }
    }
}

/// Shows a value of a text in an error.
pub(super) fn describe(value: Value, text: &str) -> String {
    let (kind, span, quote) = match value {
        Value::Null => return "null".to_owned(),
        Value::Boolean(value) => return value.to_string(),
        Value::Number(number) => ("number", number.span, ""),
        Value::Text(text) => ("string", text.span, "\""),
        Value::Array(span) => ("array", span, ""),
        Value::Object(span) => ("object", span, ""),
    };
    let text = span.of(text);
    let shown = &text[..text.floor_char_boundary(FOUND_MAX)];
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{kind} {quote}{shown}{more}{quote}")
}
