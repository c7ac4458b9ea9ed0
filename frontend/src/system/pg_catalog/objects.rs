//! The relations of a catalog in the form of PostgreSQL's catalogs: with oids, columns, and the
//! index of their primary key.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::TableReference;
use datafusion::error::Result;
use pgwire::api::Type;
use weir_common::catalog::{Entry, Relation, RelationKind};
use weir_common::ids::{SchemaId, TableId};
use weir_sql::parser::PG_CATALOG;
use weir_sql::types::{modifier, pg_type};

use super::super::weir_catalog::relations as weir_relations;
use super::super::{DEAD_LETTERS, INFORMATION_SCHEMA, RW_CATALOG, WEIR_CATALOG};
use super::relations;
use crate::catalog::Catalog;
use crate::definitions;
use crate::encode::Origin;
use crate::names::SearchPath;
use crate::scan::ScannedRelation;

/// PostgreSQL's `FirstNormalObjectId`; its own catalogs have lower oids.
const FIRST_OID: u32 = 16_384;
/// The number of oids per table, of which each [`Part`] uses one.
const OIDS_A_TABLE: u32 = 4;
/// The first oid of the relations in `weir_catalog`.
const WEIR_OID: u32 = 16_000;

/// The part of a table that an oid identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Relation = 0,
    Index = 1,
    Constraint = 2,
    DeadLetters = 3,
}

/// Returns the oid of a part of a table, which is always the same, on every node.
fn oid(table: TableId, part: Part) -> u32 {
    FIRST_OID.wrapping_add(table.0.wrapping_mul(OIDS_A_TABLE)).wrapping_add(part as u32)
}

/// Returns the oid of the expression of a relation's column.
pub(super) fn expression_oid(relation: u32, column: i64) -> u32 {
    // A relation has fewer columns than this, and ids are small numbers.
    let number = u32::try_from(column).unwrap_or_default();
    (1 << 31) | (relation.wrapping_sub(FIRST_OID) / OIDS_A_TABLE).wrapping_mul(2_048).wrapping_add(number)
}

/// Returns the oid of a relation, which is always the same, on every node.
pub(super) fn relation_oid(relation: TableId) -> u32 {
    oid(relation, Part::Relation)
}

/// The schemas of the system with their oids; the first two have those of PostgreSQL.
const SYSTEM_NAMESPACES: [(u32, &str); 5] = [
    (11, PG_CATALOG),
    (13_207, INFORMATION_SCHEMA),
    (DEAD_LETTERS_OID, DEAD_LETTERS),
    (WEIR_CATALOG_OID, WEIR_CATALOG),
    (16_102, RW_CATALOG),
];
const DEAD_LETTERS_OID: u32 = 16_100;
const WEIR_CATALOG_OID: u32 = 16_101;
/// The oid of `public`, as in PostgreSQL.
const PUBLIC_OID: u32 = 2200;

/// A schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) oid: u32,
    pub(super) name: String,
    pub(super) comment: Option<String>,
}

/// Returns all schemas, ordered by their oids.
pub(super) fn namespaces(catalog: &Catalog) -> Vec<Namespace> {
    let system = SYSTEM_NAMESPACES.iter().map(|(oid, name)| (*oid, (*name).to_owned(), None));
    let own = catalog.schemas().map(|schema| (schema_oid(schema.id), schema.name.clone(), schema.comment.clone()));
    let mut all: Vec<Namespace> =
        system.chain(own).map(|(oid, name, comment)| Namespace { oid, name, comment }).collect();
    all.sort_by_key(|namespace| namespace.oid);
    all
}

/// Returns the oid of a schema, which is always the same, on every node.
pub(super) fn schema_oid(schema: SchemaId) -> u32 {
    // Ids of schemas and of relations come from one counter.
    if schema.is_public() { PUBLIC_OID } else { oid(TableId(schema.0), Part::Relation) }
}

/// Returns the oid of a schema of the system.
pub(super) fn system_namespace_oid(name: &str) -> Option<u32> {
    SYSTEM_NAMESPACES.iter().find(|(_, known)| *known == name).map(|(oid, _)| *oid)
}

/// A relation that is not a system catalog.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) oid: u32,
    pub(super) schema: String,
    /// The oid of the schema.
    pub(super) namespace: u32,
    pub(super) name: String,
    /// `pg_class.relkind`.
    pub(super) kind: &'static str,
    pub(super) columns: Vec<Attribute>,
    pub(super) key: Option<Key>,
    /// The query of a view.
    pub(super) definition: Option<String>,
    pub(super) comment: Option<String>,
}

/// A column.
#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) name: String,
    /// `None` for a type that cannot be sent to clients.
    pub(super) ty: Option<Type>,
    /// `pg_attribute.atttypmod`.
    pub(super) modifier: i32,
    pub(super) is_nullable: bool,
    /// The expression of its default or, if it is generated, of its values.
    pub(super) expression: Option<String>,
    pub(super) is_generated: bool,
    pub(super) comment: Option<String>,
}

/// A primary key, and the index that PostgreSQL would have for it.
#[derive(Debug)]
pub(super) struct Key {
    /// The name of both the index and the constraint.
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) constraint: u32,
    /// The numbers of its columns, from 1.
    pub(super) columns: Vec<i64>,
}

impl Object {
    fn of(catalog: &Catalog, entry: &Entry) -> Object {
        let relation = &entry.relation;
        let mut columns = attributes(&relation.schema());
        for (place, (column, declared)) in columns.iter_mut().zip(&relation.columns).enumerate() {
            let constraints = declared.constraints().cloned().unwrap_or_default();
            column.is_nullable = !constraints.not_null && !relation.declared_key().contains(&place);
            column.is_generated = constraints.generated.is_some();
            column.expression = constraints.generated.or(constraints.default);
            column.comment = entry.about.column_comments.get(&declared.name).cloned();
        }
        let key = (!relation.declared_key().is_empty()).then(|| Key {
            name: format!("{}_pkey", relation.name.name),
            index: oid(relation.id, Part::Index),
            constraint: oid(relation.id, Part::Constraint),
            columns: relation.declared_key().iter().filter_map(|place| i64::try_from(place + 1).ok()).collect(),
        });
        let kind = match relation.kind {
            RelationKind::Table | RelationKind::Source => "r",
            RelationKind::MaterializedView => "m",
            RelationKind::View => "v",
        };
        Object {
            oid: oid(relation.id, Part::Relation),
            schema: relation.name.schema.clone(),
            namespace: schema_oid(entry.about.schema),
            name: relation.name.name.clone(),
            kind,
            columns,
            key,
            definition: (kind != "r").then(|| definition(catalog, entry)),
            comment: entry.about.comment.clone(),
        }
    }

    fn dead_letters_of(entry: &Entry) -> Option<Object> {
        let letters = ScannedRelation::dead_letters_of(entry)?;
        let schema = datafusion::catalog::TableProvider::schema(&letters);
        Some(Object {
            oid: oid(entry.id(), Part::DeadLetters),
            schema: DEAD_LETTERS.to_owned(),
            namespace: DEAD_LETTERS_OID,
            name: entry.name().to_string(),
            kind: "r",
            columns: attributes(&schema),
            key: None,
            definition: None,
            comment: None,
        })
    }

    /// Returns the column with a number, counted from 1.
    pub(super) fn column(&self, number: i64) -> Option<&Attribute> {
        self.columns.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }
}

fn attributes(schema: &Schema) -> Vec<Attribute> {
    let columns = schema.fields().iter().map(|field| Attribute {
        name: field.name().clone(),
        ty: pg_type(field).ok(),
        modifier: modifier(field),
        is_nullable: true,
        expression: None,
        is_generated: false,
        comment: None,
    });
    columns.collect()
}

/// Returns the query of a view.
fn definition(catalog: &Catalog, entry: &Entry) -> String {
    let query = definitions::query(catalog, entry).map(|query| query.to_string());
    format!(" {};", query.as_deref().unwrap_or(&entry.relation.sql).trim_end_matches(';'))
}

/// Returns all relations of a catalog that are not system catalogs, ordered by schema and name.
///
/// # Errors
/// Internal.
pub(super) fn all(catalog: &Arc<Catalog>) -> Result<Vec<Object>> {
    let relations = catalog.entries().map(|entry| Object::of(catalog, entry));
    let letters = catalog.entries().filter_map(Object::dead_letters_of);
    let ours = weir_relations(catalog)?.into_iter().zip(WEIR_OID..).map(|((name, schema), oid)| Object {
        oid,
        schema: WEIR_CATALOG.to_owned(),
        namespace: WEIR_CATALOG_OID,
        name: name.to_owned(),
        kind: "v",
        columns: attributes(&schema),
        key: None,
        definition: None,
        comment: None,
    });
    let mut all: Vec<Object> = relations.chain(letters).chain(ours).collect();
    all.sort_by(|one, other| (&one.schema, &one.name).cmp(&(&other.schema, &other.name)));
    Ok(all)
}

/// Returns the origin of a system catalog's column, counted from 0.
pub(in crate::system) fn origin(catalog: &Arc<Catalog>, table: &TableReference, place: usize) -> Option<Origin> {
    let number = i16::try_from(place).ok()?.checked_add(1)?;
    let schema = table.schema()?;
    let (table, modifier) = match schema {
        PG_CATALOG | INFORMATION_SCHEMA | RW_CATALOG => (relations::find(schema, table.table())?.oid, -1),
        _ => {
            let found = all(catalog).ok()?;
            let found = found.iter().find(|object| object.schema == schema && object.name == table.table())?;
            (found.oid, found.columns.get(place)?.modifier)
        }
    };
    Some(Origin { column: Some((table, number)), modifier })
}

/// Returns the origin of a column of a relation or of its dead letters, counted from 0.
pub(in crate::system) fn origin_in(relation: &Relation, of_dead_letters: bool, place: usize) -> Option<Origin> {
    let number = i16::try_from(place).ok()?.checked_add(1)?;
    let (part, modifier) = match of_dead_letters {
        true => (Part::DeadLetters, -1),
        false => (Part::Relation, modifier(relation.schema().fields().get(place)?)),
    };
    Some(Origin { column: Some((oid(relation.id, part), number)), modifier })
}

/// A relation or the index of one, found by its oid or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
}

/// Finds schemas and relations, indexes included.
#[derive(Debug)]
pub(super) struct Lookup {
    objects: Vec<Object>,
    namespaces: Vec<Namespace>,
    /// The schemas in which names are looked for.
    path: SearchPath,
}

impl Lookup {
    /// # Errors
    /// Internal.
    pub(super) fn new(catalog: &Arc<Catalog>, path: SearchPath) -> Result<Lookup> {
        Ok(Lookup { objects: all(catalog)?, namespaces: namespaces(catalog), path })
    }

    /// Returns the schemas of the search path that exist, without `pg_catalog` unless it is named.
    pub(super) fn searched(&self) -> impl Iterator<Item = &str> {
        self.path.schemas().filter(|schema| self.namespace(schema).is_some())
    }

    /// Returns a schema.
    pub(super) fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.name == name)
    }

    /// Returns the schema with an oid.
    pub(super) fn namespace_by_oid(&self, oid: u32) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.oid == oid)
    }

    /// Returns true if the unqualified name of a relation finds it.
    pub(super) fn is_visible(&self, found: &Found) -> bool {
        self.by_name(None, &found.name).is_some_and(|visible| visible.oid == found.oid)
    }

    pub(super) fn by_oid(&self, oid: u32) -> Option<Found> {
        if let Some(relation) = relations::by_oid(oid) {
            return Some(Found { oid, schema: relation.schema_name.to_owned(), name: relation.name.to_owned() });
        }
        let found = |object: &Object, name: &String| Found { oid, schema: object.schema.clone(), name: name.clone() };
        self.objects.iter().find_map(|object| match &object.key {
            _ if object.oid == oid => Some(found(object, &object.name)),
            Some(key) if key.index == oid => Some(found(object, &key.name)),
            _ => None,
        })
    }

    /// Finds a relation or index by name. Without a schema, it follows the search path.
    pub(super) fn by_name(&self, schema: Option<&str>, name: &str) -> Option<Found> {
        let searched = || std::iter::once(PG_CATALOG).chain(self.path.schemas()).collect();
        let schemas: Vec<&str> = schema.map_or_else(searched, |schema| vec![schema]);
        schemas.into_iter().find_map(|schema| {
            let found = |oid| Found { oid, schema: schema.to_owned(), name: name.to_owned() };
            if let Some(relation) = relations::find(schema, name) {
                return Some(found(relation.oid));
            }
            self.objects.iter().filter(|object| object.schema == schema).find_map(|object| match &object.key {
                _ if object.name == name => Some(found(object.oid)),
                Some(key) if key.name == name => Some(found(key.index)),
                _ => None,
            })
        })
    }

    pub(super) fn object(&self, oid: u32) -> Option<&Object> {
        self.objects.iter().find(|object| object.oid == oid)
    }

    /// Returns the relation of an index.
    pub(super) fn indexed(&self, index: u32) -> Option<(&Object, &Key)> {
        self.objects
            .iter()
            .find_map(|object| object.key.as_ref().filter(|key| key.index == index).map(|key| (object, key)))
    }

    /// Returns the relation of a constraint.
    pub(super) fn constrained(&self, constraint: u32) -> Option<(&Object, &Key)> {
        let of = |object: &Object| object.key.as_ref().is_some_and(|key| key.constraint == constraint);
        self.objects.iter().find(|object| of(object)).and_then(|object| Some((object, object.key.as_ref()?)))
    }
}

/// Returns the `CREATE UNIQUE INDEX …` of a key's index.
pub(super) fn index_definition(object: &Object, key: &Key) -> String {
    let (schema, columns) = (quoted(&object.schema), key_columns(object, key));
    format!("CREATE UNIQUE INDEX {} ON {schema}.{} USING btree ({columns})", quoted(&key.name), quoted(&object.name))
}

/// Returns the columns of a key in the form that they have in a statement.
pub(super) fn key_columns(object: &Object, key: &Key) -> String {
    let columns = key.columns.iter().filter_map(|number| object.column(*number)).map(|column| quoted(&column.name));
    columns.collect::<Vec<_>>().join(", ")
}

pub(super) fn quoted(name: &str) -> String {
    weir_sql::keywords::quoted_identifier(name)
}
