//! Errors that clients get when a statement fails: SQLSTATE, message, detail, hint, position.
//!
//! Owns the mapping of all other errors onto SQLSTATEs. Does not own the wire form of an error,
//! which is the server's.

use std::borrow::Cow;

use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use weir_common::error::{Kind, chain};
use weir_common::rpc;
use weir_common::view;

/// The SQLSTATEs that clients get, under PostgreSQL's names.
#[allow(missing_docs)] // Their names say what they mean.
pub mod sqlstate {
    pub const SUCCESSFUL_COMPLETION: &str = "00000";
    pub const WARNING: &str = "01000";
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const NULL_VALUE_NOT_ALLOWED: &str = "22004";
    pub const NUMERIC_VALUE_OUT_OF_RANGE: &str = "22003";
    pub const DIVISION_BY_ZERO: &str = "22012";
    pub const INVALID_ROW_COUNT_IN_LIMIT_CLAUSE: &str = "2201W";
    pub const INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE: &str = "2201X";
    pub const CARDINALITY_VIOLATION: &str = "21000";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const INVALID_DATETIME_FORMAT: &str = "22007";
    pub const DATETIME_FIELD_OVERFLOW: &str = "22008";
    pub const INVALID_TEXT_REPRESENTATION: &str = "22P02";
    pub const INVALID_ESCAPE_SEQUENCE: &str = "22025";
    pub const CHARACTER_NOT_IN_REPERTOIRE: &str = "22021";
    pub const INVALID_BINARY_REPRESENTATION: &str = "22P03";
    pub const BAD_COPY_FILE_FORMAT: &str = "22P04";
    pub const NOT_NULL_VIOLATION: &str = "23502";
    pub const TRANSACTION_RESOLUTION_UNKNOWN: &str = "08007";
    pub const INVALID_COLUMN_REFERENCE: &str = "42P10";
    pub const GENERATED_ALWAYS: &str = "428C9";
    pub const INVALID_OBJECT_DEFINITION: &str = "42P17";
    pub const DATA_EXCEPTION: &str = "22000";
    pub const ACTIVE_SQL_TRANSACTION: &str = "25001";
    pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
    pub const NO_ACTIVE_SQL_TRANSACTION: &str = "25P01";
    pub const ARRAY_SUBSCRIPT_ERROR: &str = "2202E";
    pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
    pub const INVALID_SQL_STATEMENT_NAME: &str = "26000";
    pub const INVALID_SAVEPOINT: &str = "3B001";
    pub const INVALID_CATALOG_NAME: &str = "3D000";
    pub const INVALID_CURSOR_NAME: &str = "34000";
    pub const INVALID_SCHEMA_NAME: &str = "3F000";
    pub const DUPLICATE_SCHEMA: &str = "42P06";
    pub const DEPENDENT_OBJECTS_STILL_EXIST: &str = "2BP01";
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const INVALID_NAME: &str = "42602";
    pub const NAME_TOO_LONG: &str = "42622";
    pub const DUPLICATE_COLUMN: &str = "42701";
    pub const AMBIGUOUS_COLUMN: &str = "42702";
    pub const UNDEFINED_COLUMN: &str = "42703";
    pub const INVALID_TABLE_DEFINITION: &str = "42P16";
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const GROUPING_ERROR: &str = "42803";
    pub const DATATYPE_MISMATCH: &str = "42804";
    pub const WRONG_OBJECT_TYPE: &str = "42809";
    pub const UNDEFINED_FUNCTION: &str = "42883";
    pub const RESERVED_NAME: &str = "42939";
    pub const UNDEFINED_PARAMETER: &str = "42P02";
    pub const DUPLICATE_CURSOR: &str = "42P03";
    pub const UNDEFINED_TABLE: &str = "42P01";
    pub const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
    pub const DUPLICATE_TABLE: &str = "42P07";
    pub const SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: &str = "42000";
    pub const OUT_OF_MEMORY: &str = "53200";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub const STATEMENT_TOO_COMPLEX: &str = "54001";
    pub const TOO_MANY_COLUMNS: &str = "54011";
    pub const NOT_IN_PREREQUISITE_STATE: &str = "55000";
    pub const QUERY_CANCELED: &str = "57014";
    pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: &str = "25P03";
    pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    pub const IO_ERROR: &str = "58030";
    pub const INTERNAL_ERROR: &str = "XX000";
    pub const DATA_CORRUPTED: &str = "XX001";
}

/// Why a statement failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The class of the failure, which retry policy reads.
    pub kind: Kind,
    /// The five characters that the SQL standard defines.
    pub sqlstate: Cow<'static, str>,
    /// The primary message: lower case, no full stop.
    pub message: String,
    /// Further facts about the failure.
    pub detail: Option<String>,
    /// Advice on how to avoid the failure.
    pub hint: Option<String>,
    /// The position in the client's text: a character count that starts at 1.
    pub position: Option<usize>,
}

impl Error {
    /// An error that the user has to correct.
    pub fn user(sqlstate: &'static str, message: impl Into<String>) -> Error {
        Error::new(Kind::User, sqlstate, message)
    }

    /// A request that this version does not support.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::user(sqlstate::FEATURE_NOT_SUPPORTED, message)
    }

    /// A fault of Weir itself.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(Kind::Internal, sqlstate::INTERNAL_ERROR, message)
    }

    /// The client or the node's shutdown cancelled the statement.
    pub fn canceled(reason: &str) -> Error {
        Error::user(sqlstate::QUERY_CANCELED, format!("canceling statement due to {reason}"))
    }

    /// A number divided by zero.
    pub fn division_by_zero() -> Error {
        Error::user(sqlstate::DIVISION_BY_ZERO, "division by zero")
    }

    /// A value that does not fit its type.
    pub fn out_of_range(message: impl Into<String>) -> Error {
        Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, message)
    }

    /// An error without detail, hint and position.
    pub fn new(kind: Kind, sqlstate: &'static str, message: impl Into<String>) -> Error {
        Error {
            kind,
            sqlstate: Cow::Borrowed(sqlstate),
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }
    }

    /// Adds a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a detail.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Error {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the position in the client's text, unless the error has one already.
    pub fn at(mut self, position: usize) -> Error {
        self.position.get_or_insert(position);
        self
    }

    /// The class of the failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl From<Error> for view::Error {
    fn from(error: Error) -> view::Error {
        view::Error { message: chain(&error), sqlstate: error.sqlstate }
    }
}

impl From<rpc::Error> for Error {
    fn from(error: rpc::Error) -> Error {
        let fallback = match error.kind {
            Kind::User => sqlstate::INVALID_PARAMETER_VALUE,
            Kind::Unavailable => sqlstate::CANNOT_CONNECT_NOW,
            Kind::Fenced => sqlstate::SERIALIZATION_FAILURE,
            Kind::Corrupt => sqlstate::DATA_CORRUPTED,
            Kind::Internal => sqlstate::INTERNAL_ERROR,
        };
        Error {
            kind: error.kind,
            sqlstate: error.sqlstate.map_or(Cow::Borrowed(fallback), Cow::Owned),
            message: error.message,
            detail: error.detail,
            hint: error.hint,
            position: None,
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Error {
        if let Some(own) = find_source(&error) {
            return own;
        }
        let text = plain_message(&error);
        let suggestion = suggestion(&text).map(str::to_owned);
        let (message, detail) = first_line(text);
        let mut mapped = mapped(error.find_root(), message);
        if mapped.kind == Kind::Internal && mapped.message.starts_with("function ") {
            mapped = Error::user(sqlstate::UNDEFINED_FUNCTION, mapped.message);
        }
        if mapped.detail.is_none() {
            mapped.detail = detail;
        }
        if let (None, Some(suggestion)) = (&mapped.hint, suggestion) {
            mapped.hint = Some(format!("perhaps you meant {suggestion}"));
        }
        mapped
    }
}

/// Maps an error of DataFusion's own.
fn mapped(root: &DataFusionError, message: String) -> Error {
    match root {
        DataFusionError::SQL(..) => Error::user(sqlstate::SYNTAX_ERROR, message),
        DataFusionError::NotImplemented(_) => Error::unsupported(message),
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } => {
                let name = match &field.relation {
                    Some(relation) => format!("{relation}.{}", field.name),
                    None => format!("\"{}\"", field.name),
                };
                // The suggestion is more useful than DataFusion's list of all columns.
                Error::user(sqlstate::UNDEFINED_COLUMN, format!("column {name} does not exist"))
            }
            SchemaError::AmbiguousReference { field } => {
                Error::user(sqlstate::AMBIGUOUS_COLUMN, format!("column reference \"{}\" is ambiguous", field.name))
            }
            _ => Error::user(sqlstate::UNDEFINED_COLUMN, message),
        },
        DataFusionError::Plan(_) | DataFusionError::Configuration(_) => Error::user(plan_sqlstate(&message), message),
        DataFusionError::ResourcesExhausted(_) => {
            // A user error, so that clients do not retry it at once.
            Error::user(sqlstate::OUT_OF_MEMORY, "the statement needs more memory than is free")
                .with_detail(message)
                .with_hint("raise `memory_limit_bytes` of the frontend, or read less at once")
        }
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::DivideByZero => Error::division_by_zero(),
            ArrowError::ArithmeticOverflow(_) => Error::out_of_range("value out of range").with_detail(message),
            _ => executed(message),
        },
        DataFusionError::Execution(_) => executed(message),
        _ => Error::internal(message),
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

/// Finds an error of this crate or of an RPC that DataFusion has wrapped.
fn find_source(error: &DataFusionError) -> Option<Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(own) = current.downcast_ref::<Error>() {
            return Some(own.clone());
        }
        if let Some(own) = current.downcast_ref::<rpc::Error>() {
            return Some(own.clone().into());
        }
        next = current.source();
    }
    None
}

/// DataFusion's message without its own prefixes ("Error during planning: ") and without a
/// backtrace.
fn plain_message(error: &DataFusionError) -> String {
    let root = error.find_root();
    let text = match root {
        DataFusionError::Plan(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Configuration(text)
        | DataFusionError::ResourcesExhausted(text) => text.clone(),
        DataFusionError::SchemaError(schema, _) => schema.to_string(),
        DataFusionError::ArrowError(arrow, _) => arrow.to_string(),
        other => chain(other),
    };
    let text = text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default().trim().to_owned();
    let text = text.strip_suffix('.').map_or(text.clone(), str::to_owned);
    lower_first(text)
}

/// The name that DataFusion suggests instead of one that it does not know.
fn suggestion(text: &str) -> Option<&str> {
    text.split_once("Did you mean '")?.1.split_once('\'').map(|(name, _)| name)
}

/// Splits a text into a message of one line and a detail that holds the rest.
fn first_line(text: String) -> (String, Option<String>) {
    // DataFusion has several phrasings of this: no variant of the function takes these arguments.
    if let Some((signature, rest)) = text.split_once("argument types '").and_then(|(_, rest)| rest.split_once('\'')) {
        let candidates = rest.split_once("Candidate functions:").map(|(_, list)| list.replace("\n\t", " "));
        let detail = candidates.map(|list| format!("candidates:{list}"));
        return (format!("function {signature} does not exist"), detail);
    }
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let first = first.split_once(". Did you mean").map_or(first, |(first, _)| first).trim_end_matches('.');
    let message = match first.strip_prefix("invalid function '") {
        Some(name) => format!("function {} does not exist", name.trim_end_matches('\'')),
        None => first.to_owned(),
    };
    let detail = (!rest.is_empty() && !rest.starts_with("Did you mean") && !rest.starts_with("Valid fields"))
        .then(|| rest.to_owned());
    (message, detail)
}

/// Puts the first letter in lower case, as PostgreSQL does, unless the first word is an acronym.
fn lower_first(text: String) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_ascii_uppercase() && !second.is_ascii_uppercase() => {
            format!("{}{}", first.to_ascii_lowercase(), &text[1..])
        }
        _ => text,
    }
}

/// Derives the SQLSTATE from the text, since DataFusion's error does not say which kind of name was
/// missing.
fn plan_sqlstate(message: &str) -> &'static str {
    if message.starts_with("table '") && message.ends_with("not found") {
        sqlstate::UNDEFINED_TABLE
    } else if message.starts_with("function ") {
        sqlstate::UNDEFINED_FUNCTION
    } else if message.contains("must be in GROUP BY") {
        sqlstate::GROUPING_ERROR
    } else if message.starts_with("cannot coerce") {
        sqlstate::DATATYPE_MISMATCH
    } else {
        sqlstate::SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION
    }
}

/// Maps a failure at run time. Only its text tells the cause.
fn executed(message: String) -> Error {
    let lower = message.to_ascii_lowercase();
    let contains = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if let Some(error) = cast_failed(&message) {
        return error;
    }
    let sqlstate = if contains(&["divide by zero", "division by zero"]) {
        return Error::division_by_zero();
    } else if contains(&["more than one row"]) {
        sqlstate::CARDINALITY_VIOLATION
    } else if contains(&["overflow", "out of range", "can't cast value", "to store in a decimal"]) {
        sqlstate::NUMERIC_VALUE_OUT_OF_RANGE
    } else if contains(&["cast error", "parser error", "parse error"]) {
        sqlstate::INVALID_TEXT_REPRESENTATION
    } else {
        sqlstate::DATA_EXCEPTION
    };
    Error::user(sqlstate, message)
}

/// A failed cast in PostgreSQL's words, if the message is one of Arrow's about casts.
fn cast_failed(message: &str) -> Option<Error> {
    let cast = message.strip_prefix("cast error: ").unwrap_or(message);
    if let Some((value, ty)) =
        cast.strip_prefix("Cannot cast string '").and_then(|rest| rest.rsplit_once("' to value of "))
    {
        let ty = type_name(ty.strip_suffix(" type")?)?;
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let whole = value.trim().trim_start_matches(['+', '-']);
        return Some(match ty {
            "smallint" | "integer" | "bigint" if is_number(whole) => {
                Error::out_of_range(format!("value \"{value}\" is out of range for type {ty}"))
            }
            _ => {
                let message = format!("invalid input syntax for type {ty}: \"{value}\"");
                Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, message)
            }
        });
    }
    if let Some((_, ty)) = cast.strip_prefix("Can't cast value ").and_then(|rest| rest.split_once(" to type ")) {
        return Some(Error::out_of_range(format!("{} out of range", type_name(ty)?)));
    }
    if cast.contains(" to store in a Decimal") {
        let detail = cast.strip_prefix("invalid argument error: ").unwrap_or(cast);
        return Some(Error::out_of_range("numeric field overflow").with_detail(detail));
    }
    None
}

/// PostgreSQL's name of one of Arrow's types, as its messages print it.
fn type_name(ty: &str) -> Option<&'static str> {
    Some(match ty.split(['(', ' ']).next()? {
        "Boolean" => "boolean",
        "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "Float32" => "real",
        "Float64" => "double precision",
        "Date32" | "Date64" => "date",
        "Time32" | "Time64" => "time",
        "Timestamp" => "timestamp",
        "Interval" => "interval",
        "Decimal128" | "Decimal256" => "numeric",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_casts_have_postgresqls_words() {
        for (message, sqlstate, expected) in [
            (
                "cast error: Cannot cast string 'x' to value of Int32 type",
                "22P02",
                "invalid input syntax for type integer: \"x\"",
            ),
            (
                "cast error: Cannot cast string '99999999999' to value of Int32 type",
                "22003",
                "value \"99999999999\" is out of range for type integer",
            ),
            (
                "cast error: Cannot cast string 'it's' to value of Date32 type",
                "22P02",
                "invalid input syntax for type date: \"it's\"",
            ),
            ("cast error: Can't cast value 3000000000 to type Int32", "22003", "integer out of range"),
            (
                "invalid argument error: 12345678901.00 is too large to store in a Decimal128 of precision 10",
                "22003",
                "numeric field overflow",
            ),
            ("cast error: something else", "22P02", "cast error: something else"),
        ] {
            let error = executed(message.to_owned());
            assert_eq!((error.sqlstate.as_ref(), error.message.as_str()), (sqlstate, expected), "{message}");
        }
    }

    #[test]
    fn an_rpc_error_keeps_its_kind_through_datafusion() {
        let fenced = rpc::Error::new(Kind::Fenced, "term 4 is over");
        let wrapped = DataFusionError::External(Box::new(fenced)).context("while scanning");
        let error = Error::from(DataFusionError::Shared(std::sync::Arc::new(wrapped)));
        assert_eq!(error.kind(), Kind::Fenced);
        assert_eq!(error.sqlstate, sqlstate::SERIALIZATION_FAILURE);
    }

    #[test]
    fn a_message_is_one_line_with_the_proposal_as_its_hint() {
        let error = Error::from(DataFusionError::Plan("Invalid function 'counts'.\nDid you mean 'count'?".to_owned()));
        assert_eq!(error.message, "function counts does not exist");
        assert_eq!((error.sqlstate.as_ref(), error.hint.as_deref()), ("42883", Some("perhaps you meant count")));
        assert_eq!(error.detail, None);
    }

    #[test]
    fn messages_start_in_lower_case() {
        assert_eq!(lower_first("No field named x".to_owned()), "no field named x");
        assert_eq!(lower_first("SQL is hard".to_owned()), "SQL is hard");
    }
}
