//! Tables without a connector: statements write their rows.
//!
//! A table is stored by its primary key. Without one it gets a hidden column that numbers its rows.

use weir_common::catalog::{
    Column, Constraints, Declaration, OnError, Origin, Plan, Query, RelationKind, RelationName,
};
use weir_common::plan::{Conflict, Distribution, Fragment, JobPlan, Operator, Stream, StreamColumn};
use weir_common::types::SqlType;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{ColumnDef, CreateTable, Parsed};

use super::{Bound, COLUMNS_MAX, check_column_name, columns, primary_key};

/// The hidden column by which the rows of a table without a primary key are stored.
const ROW_ID: &str = "_row_id";

/// Checks a `CREATE TABLE` without a connector. Its expressions are checked by whoever can plan
/// them.
///
/// # Errors
/// Always the user's, with SQLSTATE and position.
pub(super) fn create_table(parsed: &Parsed, create: &CreateTable) -> Result<Bound, Error> {
    if let Some(location) = create.wildcard {
        let error = Error::user(sqlstate::SYNTAX_ERROR, "* needs a schema, which a table without a connector lacks");
        return Err(error.with_hint("name the columns").at(parsed.position(location)));
    }
    let mut columns = columns(parsed, create)?;
    let key = primary_key(parsed, create)?;
    for (place, (column, written)) in columns.iter_mut().zip(&create.columns).enumerate() {
        column.origin = Origin::Statement(constraints(parsed, written, key.contains(&place))?);
    }
    let conflict = conflict(parsed, create, !key.is_empty())?;
    let declared =
        table(create.name.relation(), columns, key, Rule { conflict, append_only: create.append_only.is_some() });
    Ok(Bound { declared: Declaration { sql: parsed.sql().to_owned(), ..declared }, notices: Vec::new() })
}

/// How a table takes rows.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub(super) conflict: Conflict,
    pub(super) append_only: bool,
}

/// The table of a `CREATE TABLE … AS` with these columns.
///
/// # Errors
/// The user's, for a name that a column cannot have, and for too many columns.
pub(crate) fn of_query(name: RelationName, columns: Vec<(String, SqlType)>) -> Result<Declaration, Error> {
    if columns.len() > COLUMNS_MAX {
        return Err(Error::user(sqlstate::TOO_MANY_COLUMNS, format!("tables can have at most {COLUMNS_MAX} columns")));
    }
    columns.iter().try_for_each(|(name, _)| check_column_name(name))?;
    let column = |(name, ty)| Column { name, ty, origin: Origin::Statement(Constraints::default()) };
    let columns: Vec<Column> = columns.into_iter().map(column).collect();
    let quoted = weir_sql::keywords::quoted_identifier;
    let written: Vec<String> = columns.iter().map(|column| format!("{} {}", quoted(&column.name), column.ty)).collect();
    let sql = format!("CREATE TABLE {} ({})", quoted(&name.name), written.join(", "));
    let rule = Rule { conflict: Conflict::Overwrite, append_only: false };
    Ok(Declaration { sql, ..table(name, columns, Vec::new(), rule) })
}

/// A table that is stored by its key, or by a hidden column if it has none.
fn table(name: RelationName, columns: Vec<Column>, mut primary_key: Vec<usize>, rule: Rule) -> Declaration {
    let mut hidden = Vec::new();
    if primary_key.is_empty() {
        let mut name = ROW_ID.to_owned();
        while columns.iter().any(|column| column.name == name) {
            name.insert(0, '_');
        }
        hidden.push(Column { name, ty: SqlType::Bytea, origin: Origin::Expression });
        primary_key.push(columns.len());
    }
    let stored = columns.iter().chain(&hidden);
    let stored = stored.map(|column| StreamColumn { name: column.name.clone(), ty: column.ty.clone() }).collect();
    let fragment = Fragment {
        distribution: Distribution::Hash,
        operators: vec![Operator::Materialize { visible: columns.len(), conflict: rule.conflict, groups: None }],
        output: Stream { columns: stored, key: primary_key.clone(), append_only: rule.append_only },
    };
    let plan = JobPlan { fragments: vec![fragment], ..JobPlan::default() };
    Declaration {
        kind: RelationKind::Table,
        name,
        columns,
        hidden,
        primary_key,
        plan: Plan::Query(Query { reads: Vec::new(), plan, through: Vec::new() }),
        on_error: OnError::default(),
        sql: String::new(),
    }
}

fn constraints(parsed: &Parsed, column: &ColumnDef, is_key: bool) -> Result<Constraints, Error> {
    if let (Some(default), Some(_)) = (&column.default, &column.generated) {
        let message = format!("both default and generation expression specified for column \"{}\"", column.name);
        return Err(Error::user(sqlstate::SYNTAX_ERROR, message).at(parsed.position(default.location)));
    }
    if let (Some(generated), true) = (&column.generated, is_key) {
        return Err(Error::unsupported("a generated column in a primary key is not supported yet")
            .at(parsed.position(generated.location)));
    }
    let text = |computed: &weir_sql::parser::Computed| computed.text.clone();
    Ok(Constraints {
        not_null: is_key || column.not_null.is_some(),
        default: column.default.as_ref().map(text),
        generated: column.generated.as_ref().map(text),
    })
}

fn conflict(parsed: &Parsed, create: &CreateTable, is_keyed: bool) -> Result<Conflict, Error> {
    let refuse = |message: &str| {
        Err(Error::user(sqlstate::INVALID_TABLE_DEFINITION, message).at(parsed.position(create.name.location)))
    };
    match (create.on_conflict, is_keyed, create.append_only) {
        (Some(_), false, _) => refuse("ON CONFLICT needs a primary key"),
        (Some(Conflict::DoNothing) | None, true, Some(_)) => Ok(Conflict::DoNothing),
        (Some(_), true, Some(_)) => {
            refuse("the rows of an APPEND ONLY table are not replaced: write ON CONFLICT DO NOTHING")
        }
        // Nobody gives two rows one hidden key.
        (None, false, _) => Ok(Conflict::Overwrite),
        (rule, true, None) => Ok(rule.unwrap_or(Conflict::Overwrite)),
    }
}
