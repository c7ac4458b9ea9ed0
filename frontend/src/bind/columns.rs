//! Changes of a table's columns, and of the schema that they come from. The statement that created
//! the table is edited and bound again. An altered table is therefore the same as a table that was
//! created with the edited statement.

use sqlparser::tokenizer::Location;
use weir_common::catalog::{Declaration, Encode, Impossible, Plan, Source};
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{Alter, ColumnEdit, Encoding, Format, Parsed, Statement, add_column, parse, retype};

use super::{Bound, create_table, stream};
use crate::protobuf::Schema;

/// Adds columns to a table, or changes the types of columns.
///
/// # Errors
/// Always the user's, with SQLSTATE and position.
pub(super) fn edit(parsed: &Parsed, alter: &Alter, edits: &[ColumnEdit], before: &Declaration) -> Result<Bound, Error> {
    let (mut sql, mut notices) = (before.sql.clone(), Vec::new());
    let encode = before.plan.stream().map(|source| &source.encode);
    let known = |name: &str| before.columns.iter().any(|column| column.name == name);
    for edit in edits {
        match edit {
            ColumnEdit::Add { column, if_not_exists: true, .. } if known(&column.name) => {
                let relation = format!("column \"{}\" of relation \"{}\"", column.name, before.name);
                notices.push(format!("{relation} already exists, skipping"));
            }
            ColumnEdit::Add { column, written, .. } => {
                sql = add_column(&sql, written)?.ok_or_else(|| {
                    Error::unsupported(format!(
                        "{} \"{}\" was created without a list of columns",
                        before.kind.as_str(),
                        before.name
                    ))
                    .with_hint(match encode {
                        Some(Encode::Protobuf(_)) => "its columns are those of its schema: ALTER … REFRESH SCHEMA",
                        _ => "only a list of columns can become longer: create it anew, with one",
                    })
                    .at(parsed.position(column.location))
                })?;
            }
            ColumnEdit::Type { column, written } => {
                let at = |error: Error| error.at(parsed.position(column.location));
                if !known(&column.name) {
                    let message = format!("column \"{}\" of relation \"{}\" does not exist", column.name, before.name);
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
        Some(Encode::Protobuf(message)) => Some(Schema { message: message.clone(), as_jsonb: Vec::new() }),
        _ => None,
    };
    let declared = recreate(parsed, location, &sql, schema, before)?;
    Ok(Bound { declared, notices })
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
    before: &Declaration,
) -> Result<Declaration, Error> {
    // Positions in the edited statement mean nothing to the author of this one.
    let failed = |error: Error| Error { position: None, ..error }.at(parsed.position(location));
    let created = create(sql, schema, before).map_err(failed)?;
    before.check_change(&created).map_err(|change| failed(impossible(&change)))?;
    Ok(created)
}

fn create(sql: &str, schema: Option<Schema>, before: &Declaration) -> Result<Declaration, Error> {
    let parsed = parse(sql)?.pop().ok_or_else(|| Error::internal("the edited statement is empty"))?;
    let Statement::CreateTable(create) = &parsed.statement else {
        return Err(Error::internal("the edited statement is not a CREATE TABLE"));
    };
    let created = create_table(&parsed, create, schema)?.declared;
    let Some(source) = before.plan.stream() else { return Ok(created) };
    let source = Source { options: source.options.clone(), ..stream(&created)?.clone() };
    Ok(Declaration { plan: Plan::Stream(source), ..created })
}

/// Checks that the encoding of messages does not change.
///
/// # Errors
/// Always the user's, with SQLSTATE and position.
pub(super) fn check_encoding(parsed: &Parsed, format: &Format, before: &Declaration) -> Result<(), Error> {
    let same = match &stream(before)?.encode {
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
