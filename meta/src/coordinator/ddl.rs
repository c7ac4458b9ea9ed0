//! Decisions of DDL statements over the catalog. Pure.

use weir_common::catalog::{Change, Declaration, Entry, Graph, Reads, Relation};
use weir_common::error::Kind;
use weir_common::ids::TableId;
use weir_common::rpc;

use super::storage::CatalogTxn;

/// The entries that dropping some comes to, each before those that it depends on.
///
/// # Errors
/// `42P01` if one of them is not there, `2BP01` if something else depends on one, unless that is to
/// be dropped too.
pub(super) fn dropped<'a>(catalog: &'a Graph, ids: &[TableId], cascade: bool) -> Result<Vec<&'a Entry>, rpc::Error> {
    let mut named: Vec<&Entry> = Vec::new();
    for id in ids {
        let entry = catalog.get(*id).ok_or_else(gone)?;
        if named.iter().all(|known| known.id() != *id) {
            named.push(entry);
        }
    }
    let mut dropped: Vec<&Entry> = Vec::new();
    for entry in &named {
        for next in catalog.above(entry.id()).into_iter().chain([*entry]) {
            if dropped.iter().all(|known| known.id() != next.id()) {
                dropped.push(next);
            }
        }
    }
    let is_named = |entry: &Entry| named.iter().any(|named| named.id() == entry.id());
    if cascade || dropped.iter().all(|entry| is_named(entry)) {
        return Ok(dropped);
    }
    let shown = |entry: &Entry| format!("{} {}", entry.relation.kind.as_str(), entry.name());
    // The nearest to the named ones come first, as in PostgreSQL.
    let detail = dropped.iter().rev().flat_map(|below| {
        let above = catalog.dependents(below.id()).into_iter().filter(|above| !is_named(above));
        above.map(|above| format!("{} depends on {}", shown(above), shown(below)))
    });
    let detail: Vec<String> = detail.collect();
    let what = match named.as_slice() {
        [one] => shown(one),
        _ => "desired object(s)".to_owned(),
    };
    let them = if named.len() == 1 { "it" } else { "them" };
    let message = format!("cannot drop {what} because other objects depend on {them}");
    Err(rpc::Error::new(Kind::User, message)
        .with_sqlstate("2BP01")
        .with_detail(detail.join("\n"))
        .with_hint("Use DROP ... CASCADE to drop the dependent objects too."))
}

/// The entries that a change adds or replaces.
///
/// # Errors
/// The user's, if it cannot be made.
pub(super) fn changed(catalog: &Graph, change: &Change) -> Result<Vec<Entry>, rpc::Error> {
    catalog.changed(change).map_err(|refused| {
        let error = rpc::Error::new(Kind::User, refused.to_string()).with_sqlstate(refused.sqlstate());
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
pub(crate) fn no_table(name: &str) -> rpc::Error {
    rpc::Error::new(Kind::User, format!("table \"{name}\" does not exist")).with_sqlstate("42P01")
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir_common::catalog::{Declaration, Definition, Encode, Plan, Reads, RelationKind, Source};

    use super::*;

    fn entry(id: u32, name: &str, on: &[u32]) -> Entry {
        let reads =
            |id: &u32| Reads { relation: TableId(*id), name: String::new(), columns: Vec::new(), expanded: None };
        let (kind, plan) = match on {
            [] => (RelationKind::Table, Plan::Stream(Source { options: BTreeMap::new(), encode: Encode::Json })),
            on => (RelationKind::View, Plan::Definition(Definition { names: on.iter().map(reads).collect() })),
        };
        let (columns, hidden, primary_key, sql) = (Vec::new(), Vec::new(), Vec::new(), String::new());
        let declared = Declaration { kind, name: name.to_owned(), columns, hidden, primary_key, plan, sql };
        Entry::new(TableId(id), declared, Vec::new(), None)
    }

    #[test]
    fn what_depends_on_dropped_entries_is_told_or_dropped() {
        let entries =
            [entry(1, "t", &[]), entry(2, "u", &[]), entry(3, "a", &[1]), entry(4, "b", &[3, 2]), entry(5, "c", &[2])];
        let catalog: Graph = entries.into_iter().collect();
        let drop = |ids: &[u32], cascade| {
            let ids: Vec<TableId> = ids.iter().copied().map(TableId).collect();
            dropped(&catalog, &ids, cascade).map(|entries| entries.iter().map(|entry| entry.id().0).collect::<Vec<_>>())
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
}
