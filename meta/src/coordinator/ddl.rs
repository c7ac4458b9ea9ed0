//! Decisions of DDL statements over the catalog. Pure.

use weir_common::catalog::{Change, Changed, Declaration, Entry, Graph, Reads, Relation, RelationName, Schema};
use weir_common::error::Kind;
use weir_common::ids::{SchemaId, TableId};
use weir_common::rpc;

use super::storage::CatalogTxn;

/// The relations or schemas that a DROP names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dropping {
    pub(crate) relations: Vec<TableId>,
    pub(crate) schemas: Vec<SchemaId>,
    /// True if what depends on them is dropped too.
    pub(crate) cascade: bool,
    /// The entries that whoever asks knows to be in the schemas.
    pub(crate) known: Vec<TableId>,
}

/// The entries that a DROP comes to, each before those that it depends on.
///
/// # Errors
/// `42P01` or `3F000` if one of those that it names is not there, `2BP01` if something else depends
/// on one, unless that is to be dropped too.
pub(super) fn dropped<'a>(catalog: &'a Graph, dropping: &Dropping) -> Result<Vec<&'a Entry>, rpc::Error> {
    let mut schemas: Vec<&Schema> = Vec::new();
    for id in &dropping.schemas {
        let schema = catalog.schema(*id).ok_or_else(schema_gone)?;
        if id.is_public() {
            let message = "cannot drop schema public because it is required by the database system";
            return Err(rpc::Error::new(Kind::User, message).with_sqlstate("2BP01"));
        }
        if !schemas.contains(&schema) {
            schemas.push(schema);
        }
    }
    let mut named: Vec<&Entry> = Vec::new();
    for id in &dropping.relations {
        let entry = catalog.get(*id).ok_or_else(gone)?;
        if named.iter().all(|known| known.id() != *id) {
            named.push(entry);
        }
    }
    let mut dropped: Vec<&Entry> = Vec::new();
    let in_schemas: Vec<&Entry> = schemas.iter().flat_map(|schema| catalog.of_schema(schema.id)).collect();
    for entry in named.iter().chain(&in_schemas) {
        for next in catalog.above(entry.id()).into_iter().chain([*entry]) {
            if dropped.iter().all(|known| known.id() != next.id()) {
                dropped.push(next);
            }
        }
    }
    let is_named = |entry: &Entry| named.iter().any(|named| named.id() == entry.id());
    if dropping.cascade || dropped.iter().all(|entry| is_named(entry)) {
        return Ok(dropped);
    }
    let shown = |entry: &Entry| format!("{} {}", entry.relation.kind.as_str(), entry.name());
    // What is in schemas comes first, then the nearest to the named ones, as in PostgreSQL.
    let contained = schemas.iter().flat_map(|schema| {
        let inside = catalog.of_schema(schema.id).filter(|entry| !is_named(entry));
        inside.map(|entry| format!("{} depends on schema {}", shown(entry), schema.name))
    });
    let detail = dropped.iter().rev().flat_map(|below| {
        let above = catalog.dependents(below.id()).into_iter().filter(|above| !is_named(above));
        above.map(|above| format!("{} depends on {}", shown(above), shown(below)))
    });
    let detail: Vec<String> = contained.chain(detail).collect();
    let (what, them) = match (named.as_slice(), schemas.as_slice()) {
        ([one], []) => (shown(one), "it"),
        ([], [one]) => (format!("schema {}", one.name), "it"),
        _ => ("desired object(s)".to_owned(), "them"),
    };
    let message = format!("cannot drop {what} because other objects depend on {them}");
    Err(rpc::Error::new(Kind::User, message)
        .with_sqlstate("2BP01")
        .with_detail(detail.join("\n"))
        .with_hint("Use DROP ... CASCADE to drop the dependent objects too."))
}

/// The parts of the catalog that a change adds or replaces. A new schema gets the id `next`.
///
/// # Errors
/// The user's, if it cannot be made.
pub(super) fn changed(catalog: &Graph, change: &Change, next: SchemaId) -> Result<Changed, rpc::Error> {
    catalog.changed(change, next).map_err(|refused| {
        let error = rpc::Error::new(Kind::User, refused.to_string()).with_sqlstate(refused.sqlstate());
        let error = match refused.detail() {
            Some(detail) => error.with_detail(detail),
            None => error,
        };
        match refused.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    })
}

/// Checks that the relations which the statement of a new view names are still those that it was
/// planned with.
///
/// # Errors
/// `40001`, if they are not.
pub(super) fn check_inputs(catalog: &Graph, view: &Declaration) -> Result<(), rpc::Error> {
    let has = |reads: &Reads| {
        let relation = catalog.get(reads.relation).map(|entry| &entry.relation);
        relation.is_some_and(|relation| {
            let Relation { columns, hidden, .. } = &**relation;
            reads.columns.iter().all(|column| columns.contains(column) || hidden.contains(column))
        })
    };
    let changed = view.plan.depends().iter().find(|reads| !has(reads)).map(|reads| &reads.name);
    let gone = view.plan.through().iter().find(|named| catalog.get(named.relation).is_none()).map(|named| &named.name);
    let Some(name) = changed.or(gone) else { return Ok(()) };
    let message =
        format!("\"{name}\", which \"{}\" reads, was changed or dropped by somebody else meanwhile", view.name);
    Err(rpc::Error::new(Kind::User, message).with_sqlstate("40001").with_hint("try again"))
}

/// The answer to a statement about a table that is not there.
pub(crate) fn no_table(name: &RelationName) -> rpc::Error {
    rpc::Error::new(Kind::User, format!("table \"{name}\" does not exist")).with_sqlstate("42P01")
}

/// The answer to a statement that creates something in a schema that is not there.
pub(crate) fn no_schema(name: &str) -> rpc::Error {
    rpc::Error::new(Kind::User, format!("schema \"{name}\" does not exist")).with_sqlstate("3F000")
}

/// The decision on a DDL statement.
pub(super) enum Decided<C, T> {
    /// Nothing is to be changed; the answer.
    Nothing(T),
    /// The catalog is to be changed.
    Store(C, CatalogTxn),
}

fn gone() -> rpc::Error {
    let message = "a relation was dropped by somebody else meanwhile";
    rpc::Error::new(Kind::User, message).with_sqlstate("42P01")
}

fn schema_gone() -> rpc::Error {
    let message = "a schema was dropped by somebody else meanwhile";
    rpc::Error::new(Kind::User, message).with_sqlstate("3F000")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir_common::catalog::{Declaration, Definition, Encode, OnError, Plan, Reads, RelationKind, Source};

    use super::*;

    fn entry(id: u32, name: &str, on: &[u32]) -> Entry {
        let reads = |id: &u32| Reads {
            relation: TableId(*id),
            name: RelationName::public(""),
            columns: Vec::new(),
            expanded: None,
        };
        let (kind, plan) = match on {
            [] => (RelationKind::Table, Plan::Stream(Source { options: BTreeMap::new(), encode: Encode::Json })),
            on => (RelationKind::View, Plan::Definition(Definition { names: on.iter().map(reads).collect() })),
        };
        let (columns, hidden, primary_key, sql) = (Vec::new(), Vec::new(), Vec::new(), String::new());
        let (name, on_error) = (RelationName::public(name), OnError::default());
        let declared = Declaration { kind, name, columns, hidden, primary_key, plan, on_error, sql };
        Entry::new(TableId(id), declared, Vec::new(), None)
    }

    #[test]
    fn what_depends_on_dropped_entries_is_told_or_dropped() {
        let entries =
            [entry(1, "t", &[]), entry(2, "u", &[]), entry(3, "a", &[1]), entry(4, "b", &[3, 2]), entry(5, "c", &[2])];
        let catalog: Graph = entries.into_iter().collect();
        let drop = |ids: &[u32], cascade| {
            let relations = ids.iter().copied().map(TableId).collect();
            dropped(&catalog, &Dropping { relations, cascade, ..Dropping::default() })
                .map(|entries| entries.iter().map(|entry| entry.id().0).collect::<Vec<_>>())
        };
        assert_eq!(drop(&[4, 5, 4], false), Ok(vec![4, 5]));
        assert_eq!(drop(&[1], true), Ok(vec![4, 3, 1]));
        assert_eq!(drop(&[3, 4], false), Ok(vec![4, 3]), "named ones may depend on each other");
        let refused = drop(&[1], false).expect_err("others depend on it");
        assert_eq!(refused.sqlstate.as_deref(), Some("2BP01"));
        assert_eq!(refused.message, "cannot drop table t because other objects depend on it");
        assert_eq!(refused.detail.as_deref(), Some("view a depends on table t\nview b depends on view a"));
        let refused = drop(&[1, 2], false).expect_err("others depend on them");
        assert_eq!(refused.message, "cannot drop desired object(s) because other objects depend on them");
        assert_eq!(drop(&[9], true).expect_err("it is not there").sqlstate.as_deref(), Some("42P01"));
    }

    #[test]
    fn a_schema_is_dropped_with_what_is_in_it_or_refused() {
        let schema = |id: u32, name: &str| Schema { id: SchemaId(id), name: name.to_owned(), comment: None };
        let (s, empty) = (schema(8, "s"), schema(9, "empty"));
        let entries = [entry(1, "t", &[]).in_schema(&s), entry(2, "u", &[]), entry(3, "v", &[1, 2])];
        let catalog = Graph::new([s, empty], entries);
        let drop = |schemas: &[u32], cascade| {
            let schemas = schemas.iter().copied().map(SchemaId).collect();
            let dropped = dropped(&catalog, &Dropping { schemas, cascade, ..Dropping::default() });
            dropped.map(|entries| entries.iter().map(|entry| entry.id().0).collect::<Vec<_>>())
        };
        assert_eq!(drop(&[9], false), Ok(vec![]));
        assert_eq!(drop(&[8, 9, 8], true), Ok(vec![3, 1]));
        let refused = drop(&[8], false).expect_err("it is not empty");
        assert_eq!(refused.sqlstate.as_deref(), Some("2BP01"));
        assert_eq!(refused.message, "cannot drop schema s because other objects depend on it");
        let detail = "table s.t depends on schema s\nview v depends on table s.t";
        assert_eq!((refused.detail.as_deref(), refused.hint.is_some()), (Some(detail), true));
        let refused = drop(&[9, 8], false).expect_err("one is not empty");
        assert_eq!(refused.message, "cannot drop desired object(s) because other objects depend on them");
        assert_eq!(drop(&[7], true).expect_err("it is not there").sqlstate.as_deref(), Some("3F000"));
        assert_eq!(drop(&[0], true).expect_err("it stays").sqlstate.as_deref(), Some("2BP01"));
    }
}
