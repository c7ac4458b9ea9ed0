//! Changes of a table's columns, and of the schema that they come from. The statement that created
//! the table is edited and bound again. An altered table is therefore the same as a table that was
//! created with the edited statement.

use sqlparser::tokenizer::Location;
use weir_common::catalog::{Encode, Impossible, Input, NewTable, Source};
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{Alter, ColumnEdit, Encoding, Format, Parsed, Statement, add_column, parse, retype};

use super::{Bound, create_table, stream};
use crate::protobuf::Schema;

/// Adds columns to a table, or changes the types of columns.
///
/// # Errors
/// Always the user's, with SQLSTATE and position.
pub(super) fn edit(parsed: &Parsed, alter: &Alter, edits: &[ColumnEdit], table: &NewTable) -> Result<Bound, Error> {
    let (mut sql, mut notices) = (table.sql.clone(), Vec::new());
    let encode = &stream(table)?.encode;
    let known = |name: &str| table.columns.iter().any(|column| column.name == name);
    for edit in edits {
        match edit {
            ColumnEdit::Add { column, if_not_exists: true, .. } if known(&column.name) => {
                let relation = format!("column \"{}\" of relation \"{}\"", column.name, table.name);
                notices.push(format!("{relation} already exists, skipping"));
            }
            ColumnEdit::Add { column, written, .. } => {
                sql = add_column(&sql, written)?.ok_or_else(|| {
                    Error::unsupported(format!(
                        "{} \"{}\" was created without a list of columns",
                        table.kind.as_str(),
                        table.name
                    ))
                    .with_hint(match encode {
                        Encode::Protobuf(_) => "its columns are those of its schema: ALTER … REFRESH SCHEMA",
                        _ => "only a list of columns can become longer: create it anew, with one",
                    })
                    .at(parsed.position(column.location))
                })?;
            }
            ColumnEdit::Type { column, written } => {
                let at = |error: Error| error.at(parsed.position(column.location));
                if !known(&column.name) {
                    let message = format!("column \"{}\" of relation \"{}\" does not exist", column.name, table.name);
                    return Err(at(Error::user(sqlstate::UNDEFINED_COLUMN, message)));
                }
                sql = retype(&sql, &column.name, written)?.ok_or_else(|| {
                    let message =
                        format!("the type of column \"{}\" is not a declared one, and cannot change", column.name);
                    at(Error::unsupported(message))
                })?;
            }
        }
    }
    let location = edits.first().map_or(alter.name.location, |edit| match edit {
        ColumnEdit::Add { column, .. } | ColumnEdit::Type { column, .. } => column.location,
    });
    let schema = match encode {
        Encode::Protobuf(message) => Some(Schema { message: message.clone(), as_jsonb: Vec::new() }),
        _ => None,
    };
    let table = recreate(parsed, location, &sql, schema, table)?;
    Ok(Bound { table, notices })
}

/// Returns the table that an edited statement creates with a schema, if the present table can
/// become that one. Errors point at `location`.
///
/// # Errors
/// Always the user's, with SQLSTATE and position.
pub(super) fn recreate(
    parsed: &Parsed,
    location: Location,
    sql: &str,
    schema: Option<Schema>,
    table: &NewTable,
) -> Result<NewTable, Error> {
    // Positions in the edited statement mean nothing to the author of this one.
    let failed = |error: Error| Error { position: None, ..error }.at(parsed.position(location));
    let created = create(sql, schema, table).map_err(failed)?;
    table.check_change(&created).map_err(|change| failed(impossible(&change)))?;
    Ok(created)
}

fn create(sql: &str, schema: Option<Schema>, table: &NewTable) -> Result<NewTable, Error> {
    let parsed = parse(sql)?.pop().ok_or_else(|| Error::internal("the edited statement is empty"))?;
    let Statement::CreateTable(create) = &parsed.statement else {
        return Err(Error::internal("the edited statement is not a CREATE TABLE"));
    };
    let created = create_table(&parsed, create, schema)?.table;
    let source = Source { options: stream(table)?.options.clone(), ..stream(&created)?.clone() };
    Ok(NewTable { input: Input::Stream(source), ..created })
}

/// Checks that the encoding of messages does not change.
///
/// # Errors
/// Always the user's, with SQLSTATE and position.
pub(super) fn check_encoding(parsed: &Parsed, format: &Format, table: &NewTable) -> Result<(), Error> {
    let same = match &stream(table)?.encode {
        Encode::Json | Encode::JsonDocument => format.encoding == Encoding::Json,
        Encode::Bytes => format.encoding == Encoding::Bytes,
        Encode::Protobuf(_) => format.encoding == Encoding::Protobuf,
        // No payload is read.
        Encode::HeadersOnly => true,
    };
    if same { Ok(()) } else { Err(impossible(&Impossible::Encoding).at(parsed.position(format.location))) }
}

fn impossible(change: &Impossible) -> Error {
    let (state, hint) = match change {
        Impossible::Gone { .. } => (sqlstate::FEATURE_NOT_SUPPORTED, "create it anew, without the column"),
        Impossible::Type { .. } => (
            sqlstate::DATATYPE_MISMATCH,
            "a type can become one that holds each of its values: a wider integer, numeric, double precision for real, a \
             struct with more fields at its end",
        ),
        Impossible::Key => (sqlstate::FEATURE_NOT_SUPPORTED, "create it anew, with another key"),
        Impossible::Encoding => {
            (sqlstate::FEATURE_NOT_SUPPORTED, "create another table for messages of another encoding")
        }
    };
    Error::user(state, change.to_string()).with_hint(hint)
}
