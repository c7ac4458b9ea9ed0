//! A statement that writes, planned for one version of its table.

use std::sync::Arc;

use weir_common::catalog::{Entry, Plan, Relation, RelationKind, SYSTEM_SCHEMAS};
use weir_common::ids::TableId;
use weir_common::plan::{Conflict, Operator};
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{Command, Parsed, TableName, Write};
use weir_sql::planner::Prepared;
use weir_sql::syntax::table_names;
use weir_sql::writes::{Literals, Shape};

use crate::catalog::{Catalog, check_known};
use crate::names::SearchPath;
use crate::system::reads_tables;

/// A statement that can run any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Writing {
    pub(crate) parsed: Parsed,
    pub(crate) write: Box<Write>,
    /// The plan, if the statement was prepared.
    pub(crate) planned: Option<Arc<Planned>>,
}

/// A statement, planned.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) relation: Arc<Relation>,
    /// The query for its rows.
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) shape: Shape,
    /// The rows without a query.
    pub(crate) literals: Option<Literals>,
    /// True if the rows depend on tables.
    pub(crate) reads: bool,
    /// True if the rows depend on the table itself, which nobody may write meanwhile.
    pub(crate) locks: bool,
    /// The search path of the session.
    path: SearchPath,
}

impl Planned {
    pub(crate) fn new(
        (catalog, path): (&Catalog, SearchPath),
        write: &Write,
        relation: &Arc<Relation>,
        prepared: Prepared,
        (shape, literals): (Shape, Option<Literals>),
    ) -> Planned {
        let locks = match &write.command {
            // By a rule of its own an INSERT replaces rows that it has read.
            Command::Insert(_) => shape.deleted > 0 || reads(catalog, &path, &prepared, relation.id),
            Command::Update(_) | Command::Delete(_) | Command::Truncate => true,
        };
        Planned {
            relation: Arc::clone(relation),
            reads: reads_tables(&prepared.rewritten),
            prepared: Arc::new(prepared),
            shape,
            literals,
            locks,
            path,
        }
    }

    /// Returns true if the statement was planned with this search path, for the table that its name
    /// means in a catalog, as it is there.
    pub(crate) fn is_of(&self, catalog: &Catalog, path: &SearchPath, table: &TableName) -> bool {
        let is_same = |entry: &Entry| Arc::ptr_eq(&entry.relation, &self.relation) || entry.relation == self.relation;
        self.path == *path && catalog.named(path, table).is_some_and(is_same)
    }
}

/// Returns true if a query reads a table, be it through plain views.
fn reads(catalog: &Catalog, path: &SearchPath, query: &Prepared, table: TableId) -> bool {
    let names = table_names(&query.written);
    let named = names.iter().filter_map(|parts| catalog.read(path, parts));
    named.flat_map(|entry| catalog.read_by(entry)).any(|read| read.id() == table)
}

/// Finds the table that a statement writes to.
///
/// # Errors
/// The user's: there is none of this name, or it cannot be written so.
pub(crate) fn target<'a>(
    catalog: &'a Catalog,
    path: &SearchPath,
    parsed: &Parsed,
    table: &TableName,
    verb: &str,
) -> Result<&'a Entry, Error> {
    let at = |error: Error| error.at(parsed.position(table.location));
    let entry = catalog.named(path, table).ok_or_else(|| {
        at(match table.schema.as_deref().filter(|schema| SYSTEM_SCHEMAS.contains(schema)) {
            Some(schema) => Error::unsupported(format!("tables of the schema \"{schema}\" cannot be written")),
            None => Error::user(sqlstate::UNDEFINED_TABLE, format!("relation \"{table}\" does not exist")),
        })
    })?;
    check(entry, verb).map_err(at)?;
    Ok(entry)
}

fn check(entry: &Entry, verb: &str) -> Result<(), Error> {
    check_known(entry)?;
    let (kind, name) = (entry.relation.kind.as_str(), entry.name());
    match (&entry.job.plan, entry.relation.kind) {
        (_, RelationKind::MaterializedView | RelationKind::View) => {
            let message = format!("cannot change {kind} \"{name}\"");
            Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message).with_hint("write to the relations that it reads"))
        }
        (Plan::Query(query), _) if verb == "INSERT" || !query.is_append_only() => Ok(()),
        (Plan::Query(_), _) => {
            Err(Error::unsupported(format!("{verb} of the APPEND ONLY table \"{name}\" is not supported")))
        }
        (Plan::Stream(_), RelationKind::Table) if verb == "INSERT" && entry.relation.is_keyed() => Ok(()),
        _ => {
            let message =
                format!("{verb} of {kind} \"{name}\", whose rows come from a connector, is not supported yet");
            Err(Error::unsupported(message).with_hint("publish messages to the subject of the table"))
        }
    }
}

/// Returns true if statements may update and delete the rows of a table.
pub(crate) fn is_changeable(entry: &Entry) -> bool {
    check(entry, "UPDATE").is_ok()
}

/// Returns the rule of a table for a row whose key is there already.
pub(crate) fn conflict(entry: &Entry) -> Conflict {
    let Plan::Query(query) = &entry.job.plan else { return Conflict::Overwrite };
    let operators = query.plan.fragments.iter().flat_map(|fragment| &fragment.operators);
    let mut rules = operators.filter_map(|operator| match operator {
        Operator::Materialize { conflict, .. } => Some(*conflict),
        _ => None,
    });
    rules.next_back().unwrap_or_default()
}
