//! The rows of `rw_catalog`: those of RisingWave's catalogs that mean the same in Weir.
//!
//! Columns about what Weir does not keep, such as when an object was created, are NULL. Ids are the
//! oids of `pg_class`.

use std::sync::Arc;

use datafusion::error::Result;
use weir_common::catalog::{Encode, Entry, Plan, RelationKind, Source};
use weir_sql::parser::DATABASE;
use weir_sql::types::names as type_names;
use weir_sql::types::pg_type;

use super::cells::{Row, row};
use super::objects::{all, namespaces, relation_oid, schema_oid};
use super::tables::PG_CLASS;
use super::{DATABASE_OID, ROOT, ROOT_OID};
use crate::catalog::Catalog;
use crate::definitions;

/// Returns the rows of a relation.
///
/// # Errors
/// Internal.
pub(super) fn rows(name: &str, catalog: &Arc<Catalog>) -> Result<Vec<Row>> {
    let of_kind = |kind| catalog.entries().filter(move |entry| entry.relation.kind == kind);
    Ok(match name {
        "rw_tables" => of_kind(RelationKind::Table).map(|entry| stored(catalog, entry)).collect(),
        "rw_materialized_views" => {
            of_kind(RelationKind::MaterializedView).map(|entry| stored(catalog, entry)).collect()
        }
        "rw_views" => of_kind(RelationKind::View).map(|entry| named(catalog, entry)).collect(),
        "rw_sources" => catalog.entries().filter_map(|entry| source(catalog, entry)).collect(),
        "rw_relations" => catalog
            .entries()
            .map(|entry| {
                let mut row = named(catalog, entry);
                row.push(("relation_type", entry.relation.kind.as_str().into()));
                row
            })
            .collect(),
        "rw_columns" => catalog.entries().flat_map(columns).collect(),
        "rw_depend" => catalog.entries().flat_map(dependencies).collect(),
        "rw_description" => descriptions(catalog)?,
        "rw_schemas" => namespaces(catalog)
            .into_iter()
            .map(|schema| row! { id: schema.oid, name: schema.name, owner: ROOT_OID })
            .collect(),
        "rw_databases" => vec![row! { id: DATABASE_OID, name: DATABASE, owner: ROOT_OID }],
        "rw_users" => vec![row! {
            id: ROOT_OID, name: ROOT, is_super: true, create_db: true, create_user: true, can_login: true,
        }],
        _ => Vec::new(),
    })
}

/// Returns the columns that all relations have.
fn named(catalog: &Catalog, entry: &Entry) -> Row {
    row! {
        id: relation_oid(entry.id()), name: entry.name().name.as_str(), schema_id: schema_oid(entry.about.schema), owner: ROOT_OID,
        // A statement that cannot be read may contain secrets.
        definition: definitions::shown(catalog, entry).ok(),
    }
}

fn stored(catalog: &Catalog, entry: &Entry) -> Row {
    let mut row = named(catalog, entry);
    let is_append_only = match &entry.job.plan {
        Plan::Stream(_) => !entry.relation.is_keyed(),
        Plan::View(_) => true,
        Plan::Query(query) => query.is_append_only(),
        Plan::Definition(_) | Plan::Unknown(_) => false,
    };
    row.push(("append_only", is_append_only.into()));
    row
}

/// Returns the row of a source, or of a table with a connector.
fn source(catalog: &Catalog, entry: &Entry) -> Option<Row> {
    let Source { options, encode } = entry.job.stream()?;
    let encode = match encode {
        Encode::Json | Encode::JsonDocument => "JSON",
        Encode::Bytes | Encode::HeadersOnly => "BYTES",
        Encode::Protobuf(_) => "PROTOBUF",
    };
    let is_table = entry.relation.kind == RelationKind::Table;
    let names: Vec<String> = entry.relation.columns.iter().map(|column| column.name.clone()).collect();
    let mut row = named(catalog, entry);
    row.extend(row! {
        connector: options.get("connector").map(String::as_str), columns: super::cells::Cell::Texts(names),
        format: "PLAIN", row_encode: encode, append_only: !entry.relation.is_keyed(),
        associated_table_id: is_table.then(|| relation_oid(entry.id())), is_shared: !is_table,
    });
    Some(row)
}

fn columns(entry: &Entry) -> Vec<Row> {
    let relation = &entry.relation;
    let visible = relation.columns.len();
    let schema = relation.stored_schema();
    let columns = schema.fields().iter().enumerate().map(|(place, field)| {
        let oid = pg_type(field).map_or(0, |ty| ty.oid());
        let ty = type_names::by_oid(oid);
        let is_key = relation.primary_key.contains(&place);
        let rules = relation.column(place).constraints();
        let is_nullable = !relation.declared_key().contains(&place) && !rules.is_some_and(|rules| rules.not_null);
        let generated = rules.and_then(|rules| rules.generated.as_deref());
        row! {
            relation_id: relation_oid(entry.id()), name: field.name().as_str(),
            position: i64::try_from(place + 1).unwrap_or(i64::MAX), is_hidden: place >= visible, is_primary_key: is_key,
            is_distribution_key: is_key, is_generated: generated.is_some(), is_nullable: is_nullable,
            generation_expression: generated,
            data_type: relation.column(place).ty.to_string(), type_oid: oid, type_len: ty.map_or(-1, |ty| ty.length),
            udt_type: ty.map_or("", |ty| ty.name),
        }
    });
    columns.collect()
}

fn dependencies(entry: &Entry) -> Vec<Row> {
    let mut on: Vec<u32> = entry.depends_on().map(relation_oid).collect();
    on.sort_unstable();
    on.dedup();
    on.into_iter().map(|on| row! { objid: relation_oid(entry.id()), refobjid: on }).collect()
}

fn descriptions(catalog: &Arc<Catalog>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for object in all(catalog)? {
        let of_columns = object.columns.iter().zip(1_i64..).map(|(column, number)| (Some(number), &column.comment));
        for (number, comment) in std::iter::once((None, &object.comment)).chain(of_columns) {
            if let Some(comment) = comment.as_deref() {
                rows.push(row! { objoid: object.oid, classoid: PG_CLASS, objsubid: number, description: comment });
            }
        }
    }
    Ok(rows)
}
