//! A parsed `CREATE TABLE`, `CREATE [MATERIALIZED] VIEW` or `ALTER TABLE` → an entry for the
//! catalog.
//!
//! This module checks the definition of a table: names, columns, options that make sense together.
//! It does no IO; meta checks that the stream exists.

mod columns;
mod payload;
mod written;

use std::collections::{BTreeMap, HashMap};

use sqlparser::tokenizer::Location;
use weir_common::catalog::{Column, Declaration, Encode, OnError, Origin, Plan, RelationKind, Source};
use weir_connector_nats::options::{OptionError, Options, changed, check_change, same_option, secret_keys};
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{
    Alter, Change, ColumnDef, CreateTable, CreateView, Parsed, WithOption, amend, redact, reformat,
};
use weir_sql::views::Described;

pub(crate) use written::of_query;

use crate::protobuf::{Schema, is_credential};

/// RisingWave reserves names with this prefix, and so does Weir.
const RESERVED_PREFIX: &str = "_rw_";

/// PostgreSQL's system columns, which `SELECT *` does not show.
const SYSTEM_COLUMNS: [&str; 7] = ["ctid", "tableoid", "xmin", "xmax", "cmin", "cmax", "oid"];

/// PostgreSQL's limit.
const COLUMNS_MAX: usize = 1600;

/// A table to be created by meta, and notices for its author.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bound {
    pub(crate) declared: Declaration,
    pub(crate) notices: Vec<String>,
}

/// Returns true if an option's value must not be shown.
pub(crate) fn is_secret(option: &str) -> bool {
    secret_keys().contains(&option) || is_credential(option)
}

/// Checks a `CREATE TABLE` against itself and, if its payloads have a schema, against that.
///
/// # Errors
/// Always the user's, with SQLSTATE and position.
pub(crate) fn create_table(parsed: &Parsed, create: &CreateTable, schema: Option<Schema>) -> Result<Bound, Error> {
    let Some(format) = &create.format else {
        return written::create_table(parsed, create);
    };
    let mut notices = Vec::new();
    let options = options(parsed, create, &mut notices)?;
    let (create, encode) = match options.checked.consumer.headers_only {
        true => (payload::without(parsed, create, format)?, Encode::HeadersOnly),
        false => payload::complete(parsed, create, format, schema)?,
    };
    let create = &create;
    check_constraints(parsed, create)?;
    let columns = columns(parsed, create)?;
    let mut primary_key = primary_key(parsed, create)?;
    if create.kind == RelationKind::Source && !primary_key.is_empty() {
        // As in RisingWave.
        notices.push("the primary key of a source is not checked: a later message replaces no earlier one".to_owned());
        primary_key.clear();
    }
    let declared = Declaration {
        kind: create.kind,
        name: create.name.relation(),
        columns,
        hidden: Vec::new(),
        primary_key,
        plan: Plan::Stream(Source { options: options.written, encode }),
        on_error: OnError::default(),
        sql: sql(parsed, create)?,
    };
    Ok(Bound { declared, notices })
}

/// Returns a table with a change applied. `schema` is the new schema, if the change needs one.
///
/// # Errors
/// The errors of [`create_table`], and an error if the table cannot change in this way.
pub(crate) fn alter(
    parsed: &Parsed,
    alter: &Alter,
    before: &Declaration,
    schema: Option<Schema>,
) -> Result<Bound, Error> {
    let recreated = |sql: &str, location, schema| {
        let declared = columns::recreate(parsed, location, sql, schema, before)?;
        Ok(Bound { declared, notices: Vec::new() })
    };
    match &alter.change {
        Change::Options(options) => change_options(parsed, alter, options, before),
        Change::Columns(edits) => columns::edit(parsed, alter, edits, before),
        Change::Format(format, written) => {
            columns::check_encoding(parsed, format, before)?;
            recreated(&reformat(&before.sql, written)?, format.location, schema)
        }
        Change::RefreshSchema => recreated(&before.sql, alter.name.location, schema),
        Change::Replay => Ok(Bound { declared: before.clone(), notices: Vec::new() }),
        Change::Rename(_) | Change::RenameColumn(..) | Change::Swap(_) | Change::SetSchema(_) => {
            Err(Error::internal("names are changed without a new declaration"))
        }
    }
}

/// Changes the values of some of a table's options.
fn change_options(
    parsed: &Parsed,
    alter: &Alter,
    changes: &[WithOption],
    before: &Declaration,
) -> Result<Bound, Error> {
    let mut notices = Vec::new();
    let (changes, places) = written(changes, &mut notices);
    let source = stream(before)?;
    let options = changed(&source.options, &changes);
    let at = |error: OptionError| {
        let place = places.iter().find(|(key, _)| same_option(key, &error.option)).map(|(_, place)| *place);
        option_error(&error).at(parsed.position(place.unwrap_or(alter.name.location)))
    };
    check_change(&source.options, &options).map_err(at)?;
    // The notices of the table's creation need not be repeated.
    let known = Options::parse(&source.options).map(|options| options.notices).unwrap_or_default();
    let told = Options::parse(&options).map_err(at)?.notices;
    notices.extend(told.into_iter().filter(|notice| !known.contains(notice)));
    let pairs = changes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let sql = amend(&before.sql, pairs, same_option)?;
    let plan = Plan::Stream(Source { options, ..source.clone() });
    Ok(Bound { declared: Declaration { plan, sql, ..before.clone() }, notices })
}

/// Returns the source that a table's rows come from.
fn stream(declared: &Declaration) -> Result<&Source, Error> {
    declared.plan.stream().ok_or_else(|| {
        let message = format!("{} \"{}\" has no connector", declared.kind.as_str(), declared.name);
        Error::user(sqlstate::WRONG_OBJECT_TYPE, message)
    })
}

/// Returns the view that a `CREATE VIEW` or `CREATE MATERIALIZED VIEW` declares. `query` describes
/// its query.
///
/// # Errors
/// Always the user's, with SQLSTATE and position.
pub(crate) fn create_view(parsed: &Parsed, create: &CreateView, query: Described) -> Result<Declaration, Error> {
    let place = parsed.position(create.name.location);
    let Described { mut columns, mut hidden, primary_key, plan } = query;
    if create.columns.len() > columns.len() {
        let message = "too many column names were specified";
        let location = create.columns[columns.len()].location;
        return Err(Error::user(sqlstate::SYNTAX_ERROR, message).at(parsed.position(location)));
    }
    for (column, named) in columns.iter_mut().zip(&create.columns) {
        column.name.clone_from(&named.name);
    }
    for (place_of, column) in columns.iter().enumerate() {
        let at = |error: Error| {
            let written = create.columns.get(place_of).map(|named| parsed.position(named.location));
            error.with_hint("give it another name: … AS name").at(written.unwrap_or(place))
        };
        if columns[..place_of].iter().any(|before| before.name == column.name) {
            let message = format!("column \"{}\" specified more than once", column.name);
            return Err(at(Error::user(sqlstate::DUPLICATE_COLUMN, message)));
        }
        if SYSTEM_COLUMNS.contains(&column.name.as_str()) {
            return Err(at(conflict(&column.name)));
        }
    }
    for place in 0..hidden.len() {
        // Views over this one find its columns by their names.
        let (before, rest) = hidden.split_at_mut(place);
        while columns.iter().chain(before.iter()).any(|other| other.name == rest[0].name) {
            rest[0].name.insert(0, '_');
        }
    }
    Ok(Declaration {
        kind: create.kind,
        name: create.name.relation(),
        columns,
        hidden,
        primary_key,
        plan,
        on_error: create.on_error,
        sql: parsed.sql().to_owned(),
    })
}

fn conflict(column: &str) -> Error {
    let message = format!("column name \"{column}\" conflicts with a system column name");
    Error::user(sqlstate::DUPLICATE_COLUMN, message)
}

/// Returns the statement for the catalog, without the credentials for the schema's location, which
/// are not needed again.
fn sql(parsed: &Parsed, create: &CreateTable) -> Result<String, Error> {
    if create.format.iter().flat_map(|format| &format.options).any(|option| is_credential(&option.key)) {
        return redact(parsed.sql(), is_credential);
    }
    Ok(parsed.sql().to_owned())
}

fn columns(parsed: &Parsed, create: &CreateTable) -> Result<Vec<Column>, Error> {
    let position = |location: Location| parsed.position(location);
    if create.columns.len() > COLUMNS_MAX {
        return Err(Error::user("54011", format!("tables can have at most {COLUMNS_MAX} columns"))
            .at(position(create.name.location)));
    }
    let mut seen = HashMap::new();
    let mut columns = Vec::with_capacity(create.columns.len());
    for column in &create.columns {
        let place = position(column.location);
        if seen.insert(column.name.as_str(), ()).is_some() {
            let message = format!("column \"{}\" specified more than once", column.name);
            return Err(Error::user(sqlstate::DUPLICATE_COLUMN, message).at(place));
        }
        if column.origin == Origin::Payload {
            check_column_name(&column.name).map_err(|error| error.at(place))?;
        }
        columns.push(Column { name: column.name.clone(), ty: column.ty.clone(), origin: column.origin.clone() });
    }
    Ok(columns)
}

/// Returns the places of the primary key's columns.
fn primary_key(parsed: &Parsed, create: &CreateTable) -> Result<Vec<usize>, Error> {
    let mut places = Vec::with_capacity(create.primary_key.len());
    for part in &create.primary_key {
        let failed = |state, message: String| Error::user(state, message).at(parsed.position(part.location));
        let place = create.columns.iter().position(|column| column.name == part.name).ok_or_else(|| {
            let message = format!("column \"{}\" named in key does not exist", part.name);
            failed(sqlstate::UNDEFINED_COLUMN, message)
        })?;
        if places.contains(&place) {
            let message = format!("column \"{}\" appears twice in primary key constraint", part.name);
            return Err(failed(sqlstate::DUPLICATE_COLUMN, message));
        }
        let ty = &create.columns[place].ty;
        if !ty.can_be_key() {
            let message = format!("column \"{}\" of type {ty} cannot be part of a primary key", part.name);
            return Err(failed(sqlstate::FEATURE_NOT_SUPPORTED, message));
        }
        places.push(place);
    }
    Ok(places)
}

/// Refuses constraints on the columns of messages.
fn check_constraints(parsed: &Parsed, create: &CreateTable) -> Result<(), Error> {
    let refuse = |error: Error, location| Err(error.at(parsed.position(location)));
    if create.on_conflict.is_some() {
        let error = Error::unsupported("ON CONFLICT of a table with a connector is not supported yet");
        return refuse(error.with_hint("a message replaces the row that has its key"), create.name.location);
    }
    let outside = |column: &ColumnDef| !create.primary_key.iter().any(|part| part.name == column.name);
    for column in &create.columns {
        if let Some(generated) = &column.generated {
            return refuse(Error::unsupported("a generated column is not supported yet"), generated.location);
        }
        if let Some(default) = &column.default {
            return refuse(Error::unsupported("DEFAULT is not supported yet"), default.location);
        }
        if let Some(location) = column.not_null.filter(|_| outside(column)) {
            let error = Error::unsupported("NOT NULL is only supported for columns of the primary key");
            let hint = "leave it out: a field that is missing in a message is NULL";
            return refuse(error.with_hint(hint), location);
        }
    }
    Ok(())
}

/// Checks that a column can have a name.
///
/// # Errors
/// The user's.
pub(crate) fn check_column_name(name: &str) -> Result<(), Error> {
    if SYSTEM_COLUMNS.contains(&name) {
        return Err(conflict(name));
    }
    if name.starts_with(RESERVED_PREFIX) {
        let message = format!("column name \"{name}\" is reserved");
        return Err(Error::user(sqlstate::RESERVED_NAME, message)
            .with_hint(format!("names that begin with {RESERVED_PREFIX} belong to the system")));
    }
    Ok(())
}

/// The options of WITH.
struct Given {
    /// The options in the form that the catalog stores.
    written: BTreeMap<String, String>,
    checked: Options,
}

/// Parses the options. If a key is given twice, the last value counts.
fn options(parsed: &Parsed, create: &CreateTable, notices: &mut Vec<String>) -> Result<Given, Error> {
    let (values, places) = written(&create.options, notices);
    let checked = Options::parse(&values).map_err(|error| {
        let location = places.get(error.option.as_str()).copied().unwrap_or(create.name.location);
        option_error(&error).at(parsed.position(location))
    })?;
    notices.extend(checked.notices.iter().cloned());
    Ok(Given { written: values, checked })
}

/// Returns the values of options, and the location of each.
fn written<'a>(
    options: &'a [WithOption],
    notices: &mut Vec<String>,
) -> (BTreeMap<String, String>, HashMap<&'a str, Location>) {
    let (mut values, mut places) = (BTreeMap::new(), HashMap::new());
    for option in options {
        if values.insert(option.key.clone(), option.value.clone()).is_some() {
            let notice = format!("option \"{}\" is given more than once; the last value is used", option.key);
            if !notices.contains(&notice) {
                notices.push(notice);
            }
        }
        places.insert(option.key.as_str(), option.key_location);
    }
    (values, places)
}

fn option_error(error: &OptionError) -> Error {
    let mapped = Error::user(sqlstate::INVALID_PARAMETER_VALUE, error.to_string());
    match &error.hint {
        Some(hint) => mapped.with_hint(hint.clone()),
        None => mapped,
    }
}

#[cfg(test)]
mod tests;
