//! The schema of a table's Protobuf messages: located by the options of ENCODE PROTOBUF, fetched,
//! compiled.
//!
//! That happens while the table is created or altered, and the catalog keeps the result. The
//! location of the schema need not be reachable at any other time.

mod compile;
mod fetch;
mod options;

use weir_common::protobuf::{self, MessageSchema};
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{Format, Parsed};

pub(crate) use options::is_credential;

/// A schema, and the options for making columns from it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schema {
    pub(crate) message: MessageSchema,
    /// The full names of messages that become jsonb columns.
    pub(crate) as_jsonb: Vec<String>,
}

/// Locates, fetches and compiles the schema that a statement names.
///
/// # Errors
/// The user's, at the position of the faulty option.
pub(crate) async fn load(parsed: &Parsed, format: &Format) -> Result<Schema, Error> {
    let options = options::Options::read(parsed, format)?;
    let bytes = fetch::fetch(&options.location, &options.s3).await.map_err(|error| error.at(options.location_at))?;
    let (location, name) = (options.location, options.message);
    // A large schema takes a while to compile, and other sessions need this thread meanwhile.
    let compiled = tokio::task::spawn_blocking(move || {
        let set = compile::compile(&bytes, &location).map_err(|error| error.at(options.location_at))?;
        MessageSchema::new(set, &name).map_err(|error| {
            let place = match error {
                weir_common::protobuf::Error::NoMessage { .. } => options.message_at,
                _ => options.location_at,
            };
            schema_error(&error).at(place)
        })
    });
    let message =
        compiled.await.map_err(|_| Error::user(sqlstate::INVALID_PARAMETER_VALUE, "the schema cannot be compiled"));
    Ok(Schema { message: message??, as_jsonb: options.as_jsonb })
}

/// Converts a schema's error for the client.
pub(crate) fn schema_error(error: &protobuf::Error) -> Error {
    let text = weir_common::error::chain(error);
    let list = |what: &str, names: &[String]| match names {
        [] => format!("there are no {what}"),
        names => format!("{what} are {}", names.join(", ")),
    };
    match error {
        protobuf::Error::Invalid(_) => Error::user(sqlstate::INVALID_PARAMETER_VALUE, text)
            .with_hint("make it with protoc --include_imports --descriptor_set_out=schema, or give one .proto file"),
        protobuf::Error::NoMessage { known, .. } => {
            Error::user(sqlstate::UNDEFINED_OBJECT, text).with_hint(list("messages of the schema", known))
        }
        protobuf::Error::Recursive { message, .. } => Error::unsupported(text).with_hint(format!(
            "read it as jsonb, with the option messages_as_jsonb = '{message}', or name the columns to read"
        )),
        protobuf::Error::TooDeep { .. } => {
            Error::unsupported(text).with_hint("name the columns to read, or read a message in between as jsonb")
        }
        protobuf::Error::NoField { known, .. } => {
            Error::user(sqlstate::UNDEFINED_COLUMN, text).with_hint(list("fields of the message", known))
        }
        protobuf::Error::Twice { .. } => Error::user(sqlstate::DUPLICATE_COLUMN, text),
        protobuf::Error::Misfit { allowed, .. } => {
            Error::user(sqlstate::DATATYPE_MISMATCH, text).with_hint(format!("it fits into {allowed}"))
        }
    }
}

#[cfg(test)]
mod tests;
