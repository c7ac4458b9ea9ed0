//! The schema of a table's Protobuf messages: found by the options of ENCODE PROTOBUF, fetched, compiled.
//!
//! That happens once, while the table is created; what comes of it is kept in the catalog, so that whoever hands schemas out
//! need not be there ever again.

mod compile;
mod fetch;
mod options;

use weir_common::protobuf::MessageSchema;

use crate::bind::schema_error;
use crate::error::{Error, sqlstate};
use crate::parser::{Format, Parsed};

pub(crate) use options::is_credential;

/// A schema, and how columns are to be made of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schema {
    pub(crate) message: MessageSchema,
    /// The full names of messages that are read as jsonb.
    pub(crate) as_jsonb: Vec<String>,
}

/// Finds, fetches and compiles the schema that a statement names.
///
/// # Errors
/// With the place of the option that is to blame.
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

#[cfg(test)]
mod tests;
