//! The relations of `pg_catalog`, `information_schema` and `rw_catalog`: their oids, and their
//! columns with the types of PostgreSQL 15 and RisingWave.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pgwire::api::Type;
use weir_sql::parser::PG_CATALOG;
use weir_sql::types::{arrow_type, marked};

use super::super::{INFORMATION_SCHEMA, RW_CATALOG};

/// One line per relation: its oid, its name with its schema, its kind, and its columns as
/// `name:type`, with `!` if the column has no NULL.
const RELATIONS: &str = include_str!("data/relations.tsv");

/// A relation.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) schema_name: &'static str,
    pub(super) name: &'static str,
    /// `r` or `v`, as in `pg_class.relkind`.
    pub(super) kind: &'static str,
    pub(super) columns: Vec<Column>,
    pub(super) schema: SchemaRef,
    /// See [`super::fixed`].
    pub(super) fixed: super::Fixed,
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) ty: Type,
    pub(super) is_nullable: bool,
}

impl Column {
    pub(super) fn arrow(&self) -> DataType {
        arrow_type(&self.ty)
    }

    fn field(&self) -> Field {
        marked(Field::new(self.name, self.arrow(), true), &self.ty)
    }
}

static ALL: LazyLock<Vec<Relation>> = LazyLock::new(|| RELATIONS.lines().filter_map(relation).collect());

static BY_NAME: LazyLock<HashMap<(&'static str, &'static str), &'static Relation>> =
    LazyLock::new(|| ALL.iter().map(|relation| ((relation.schema_name, relation.name), relation)).collect());

static BY_OID: LazyLock<HashMap<u32, &'static Relation>> =
    LazyLock::new(|| ALL.iter().map(|relation| (relation.oid, relation)).collect());

/// Returns all relations, ordered by name.
pub(super) fn all() -> &'static [Relation] {
    &ALL
}

pub(super) fn find(schema: &str, name: &str) -> Option<&'static Relation> {
    // The given key does not live as long as those of the map.
    let schema = [PG_CATALOG, INFORMATION_SCHEMA, RW_CATALOG].into_iter().find(|known| *known == schema)?;
    BY_NAME.get(&(schema, name)).copied()
}

pub(super) fn by_oid(oid: u32) -> Option<&'static Relation> {
    BY_OID.get(&oid).copied()
}

fn relation(line: &'static str) -> Option<Relation> {
    let mut parts = line.split('\t');
    let (oid, name, kind, columns) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (schema_name, name) = name.split_once('.')?;
    let columns: Vec<Column> = columns.split(' ').filter_map(column).collect();
    let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
    Some(Relation { oid: oid.parse().ok()?, schema_name, name, kind, columns, schema, fixed: OnceLock::new() })
}

fn column(text: &'static str) -> Option<Column> {
    let (name, ty) = text.split_once(':')?;
    let (ty, is_nullable) = ty.strip_suffix('!').map_or((ty, true), |ty| (ty, false));
    // Types that only PostgreSQL's planner reads become text; their columns are always NULL here.
    let ty = weir_sql::types::names::by_name(ty).unwrap_or(Type::TEXT);
    Some(Column { name, ty, is_nullable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_relation() {
        assert_eq!(all().len(), RELATIONS.lines().count());
        let class = find(PG_CATALOG, "pg_class").expect("it is there");
        assert_eq!((class.oid, class.kind, class.columns.len()), (1259, "r", 33));
        let index = find(PG_CATALOG, "pg_index").expect("it is there");
        let keys = index.columns.iter().find(|column| column.name == "indkey").expect("it is there");
        assert_eq!((keys.ty.clone(), keys.is_nullable), (Type::INT2_VECTOR, false));
        assert!(find("public", "pg_class").is_none());
    }
}
