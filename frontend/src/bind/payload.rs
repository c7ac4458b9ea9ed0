//! The columns of a payload. Columns that a statement names are checked against the encoding; if it
//! names none, they are inferred.

use std::borrow::Cow;
use std::collections::HashMap;

use prost_reflect::MessageDescriptor;
use sqlparser::tokenizer::Location;
use weir_common::catalog::{Encode, Origin};
use weir_common::protobuf::{self, check};
use weir_common::types::SqlType;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{ColumnDef, CreateTable, Encoding, Format, Parsed};

use crate::protobuf::{Schema, schema_error};

/// The only column of a JSON table that was declared without columns.
const DOCUMENT: &str = "payload";

/// PostgreSQL's limit.
const NAME_BYTES_MAX: usize = 63;

/// Returns the statement with all its columns, and the encoding that fills them.
pub(super) fn complete<'a>(
    parsed: &Parsed,
    create: &'a CreateTable,
    format: &Format,
    schema: Option<Schema>,
) -> Result<(Cow<'a, CreateTable>, Encode), Error> {
    let at = |error: Error, location| error.at(parsed.position(location));
    let is_named = create.columns.iter().any(|column| column.origin == Origin::Payload);
    if let Some(location) = create.wildcard {
        if is_named {
            let error = Error::unsupported("columns beside * are not supported yet");
            return Err(at(error.with_hint("name all columns, or write * alone"), location));
        }
        if format.encoding != Encoding::Protobuf {
            let error = Error::user(sqlstate::SYNTAX_ERROR, "* needs a schema, which only ENCODE PROTOBUF has");
            return Err(at(error.with_hint("name the columns"), location));
        }
    }
    match (format.encoding, schema) {
        (Encoding::Json, _) if is_named => Ok((Cow::Borrowed(create), Encode::Json)),
        (Encoding::Json, _) => {
            let document = column(DOCUMENT, SqlType::Jsonb, create.name.location);
            Ok((Cow::Owned(with_columns(create, vec![document])), Encode::JsonDocument))
        }
        (Encoding::Bytes, _) => {
            check_bytes(parsed, create)?;
            Ok((Cow::Owned(with_raw_payload(create.clone())), Encode::Bytes))
        }
        (Encoding::Protobuf, Some(schema)) => {
            let message = schema.message.descriptor().map_err(|error| schema_error(&error))?;
            let create = if is_named {
                check_columns(parsed, create, &message)?;
                create.clone()
            } else {
                let columns = infer(format, &message, &schema.as_jsonb);
                with_columns(create, columns.map_err(|error| at(error, format.location))?)
            };
            Ok((Cow::Owned(with_raw_payload(create)), Encode::Protobuf(schema.message)))
        }
        (Encoding::Protobuf, None) => Err(Error::internal("a Protobuf table is bound without its schema")),
    }
}

/// Checks a statement whose columns need no payload, because none is delivered.
pub(super) fn without<'a>(
    parsed: &Parsed,
    create: &'a CreateTable,
    format: &Format,
) -> Result<Cow<'a, CreateTable>, Error> {
    const OPTION: &str = "consumer.headers_only";
    let refuse = |message: String, hint: &str, location| {
        let error = Error::user(sqlstate::INVALID_TABLE_DEFINITION, message).with_hint(hint);
        Err(error.at(parsed.position(location)))
    };
    let needs_it = |column: &&ColumnDef| matches!(column.origin, Origin::Payload | Origin::WholePayload);
    if let Some(column) = create.columns.iter().find(needs_it) {
        let message = format!("column \"{}\" is filled from payloads, which \"{OPTION}\" leaves out", column.name);
        return refuse(message, "leave out one of the two", column.location);
    }
    if let Some(location) = create.wildcard.or((format.encoding == Encoding::Protobuf).then_some(format.location)) {
        let message = format!("payloads are left out by \"{OPTION}\"");
        return refuse(message, "write ENCODE BYTES, and columns of INCLUDE only", location);
    }
    if create.columns.is_empty() {
        let message =
            format!("with \"{OPTION}\" a {} has the columns of INCLUDE, and there is none", create.kind.as_str());
        return refuse(
            message,
            "write INCLUDE header, INCLUDE subject or another one before WITH",
            create.name.location,
        );
    }
    Ok(Cow::Borrowed(create))
}

/// Returns the statement with these columns ahead of those of INCLUDE.
fn with_columns(create: &CreateTable, mut columns: Vec<ColumnDef>) -> CreateTable {
    columns.extend(create.columns.iter().cloned());
    CreateTable { columns, ..create.clone() }
}

/// Returns the statement with an INCLUDE payload of type bytea, because the payload is not JSON.
fn with_raw_payload(mut create: CreateTable) -> CreateTable {
    for column in create.columns.iter_mut().filter(|column| column.origin == Origin::WholePayload) {
        column.ty = SqlType::Bytea;
    }
    create
}

fn column(name: &str, ty: SqlType, location: Location) -> ColumnDef {
    ColumnDef::new(name.to_owned(), ty, Origin::Payload, location)
}

fn check_bytes(parsed: &Parsed, create: &CreateTable) -> Result<(), Error> {
    let mut columns = create.columns.iter().filter(|column| column.origin == Origin::Payload);
    let location = match (columns.next(), columns.next()) {
        (Some(only), None) if only.ty == SqlType::Bytea => return Ok(()),
        (Some(other), None) => other.location,
        (_, Some(second)) => second.location,
        (None, None) => create.name.location,
    };
    Err(Error::user(sqlstate::INVALID_TABLE_DEFINITION, "ENCODE BYTES takes exactly one column, of type bytea")
        .with_hint("write CREATE TABLE t (data bytea) …; what else is known of a message comes with INCLUDE")
        .at(parsed.position(location)))
}

fn check_columns(parsed: &Parsed, create: &CreateTable, message: &MessageDescriptor) -> Result<(), Error> {
    let mut taken: HashMap<u32, &str> = HashMap::new();
    for column in create.columns.iter().filter(|column| column.origin == Origin::Payload) {
        let at = |error: Error| error.at(parsed.position(column.location));
        let field = check(message, &column.name, &column.ty).map_err(|error| at(column_error(&column.name, &error)))?;
        if let Some(first) = taken.insert(field.number(), &column.name) {
            let error = protobuf::Error::Twice {
                field: field.name().to_owned(),
                first: first.to_owned(),
                second: column.name.clone(),
            };
            // If the names are equal, the check of all columns reports it with a better message.
            if first != column.name {
                return Err(at(column_error(&column.name, &error)));
            }
        }
    }
    Ok(())
}

fn infer(format: &Format, message: &MessageDescriptor, as_jsonb: &[String]) -> Result<Vec<ColumnDef>, Error> {
    let fields = protobuf::columns(message, as_jsonb).map_err(|error| schema_error(&error))?;
    if fields.is_empty() {
        let text = format!("the message \"{}\" has no fields", message.full_name());
        return Err(Error::user(sqlstate::INVALID_TABLE_DEFINITION, text));
    }
    if let Some(long) = fields.iter().find(|field| field.name.len() > NAME_BYTES_MAX) {
        return Err(Error::user(
            sqlstate::NAME_TOO_LONG,
            format!("the name of the field \"{}\" is too long", long.name),
        )
        .with_hint("names of columns have at most 63 bytes: name the columns to read"));
    }
    Ok(fields.into_iter().map(|field| column(&field.name, field.ty, format.location)).collect())
}

fn column_error(column: &str, error: &protobuf::Error) -> Error {
    let mapped = schema_error(error);
    Error { message: format!("column \"{column}\": {}", mapped.message), ..mapped }
}
