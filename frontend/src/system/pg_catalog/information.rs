//! The rows of `information_schema`. Materialized views are not among them. The SQL standard has
//! none, and clients of PostgreSQL also look them up in `pg_catalog`, so they would find them
//! twice.

use pgwire::api::Type;
use weir_sql::parser::{DATABASE, PG_CATALOG};
use weir_sql::types::names as type_names;

use super::ROOT;
use super::cells::{Row, row};
use super::objects::{Attribute, Key, Namespace, Object};
use super::relations::{self, Relation};

/// The name of the only character set, and of its encoding.
const CHARACTER_SET: &str = "UTF8";

/// Returns the rows of a view.
pub(super) fn rows(name: &str, objects: &[Object], schemas: &[Namespace]) -> Vec<Row> {
    let objects = || objects.iter().filter(|object| object.kind != "m");
    match name {
        "columns" => objects().flat_map(columns).chain(relations::all().iter().flat_map(columns_of_relation)).collect(),
        "tables" => objects().map(table).chain(relations::all().iter().map(table_of_relation)).collect(),
        "views" => objects().filter(|object| object.kind == "v").map(view).chain(system_views()).collect(),
        "schemata" => schemas.iter().map(|namespace| schema(&namespace.name)).collect(),
        "table_constraints" => objects().flat_map(constraints).collect(),
        "check_constraints" => objects().flat_map(checks).collect(),
        "key_column_usage" => keys(objects()).flat_map(|(object, key)| key_columns(object, key)).collect(),
        "constraint_column_usage" => keys(objects()).flat_map(|(object, key)| constraint_columns(object, key)).collect(),
        "constraint_table_usage" => keys(objects()).map(|(object, key)| constraint_table(object, key)).collect(),
        "element_types" => objects().flat_map(element_types).collect(),
        "information_schema_catalog_name" => vec![row! { catalog_name: DATABASE }],
        "enabled_roles" => vec![row! { role_name: ROOT }],
        "character_sets" => vec![row! {
            character_set_name: CHARACTER_SET, character_repertoire: "UCS", form_of_use: CHARACTER_SET,
            default_collate_catalog: DATABASE, default_collate_schema: PG_CATALOG, default_collate_name: "default",
        }],
        "collations" => ["default", "C", "POSIX"]
            .map(|name| {
                row! {
                    collation_catalog: DATABASE, collation_schema: PG_CATALOG, collation_name: name, pad_attribute: "NO PAD",
                }
            })
            .to_vec(),
        "table_privileges" | "role_table_grants" => objects().map(privilege).collect(),
        _ => Vec::new(),
    }
}

fn keys<'a>(objects: impl Iterator<Item = &'a Object>) -> impl Iterator<Item = (&'a Object, &'a Key)> {
    objects.filter_map(|object| Some((object, object.key.as_ref()?)))
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "YES" } else { "NO" }
}

fn table_type(kind: &str) -> &'static str {
    match kind {
        "v" => "VIEW",
        _ => "BASE TABLE",
    }
}

fn table(object: &Object) -> Row {
    row! {
        table_catalog: DATABASE, table_schema: object.schema.as_str(), table_name: object.name.as_str(),
        table_type: table_type(object.kind), is_insertable_into: "NO", is_typed: "NO",
    }
}

fn table_of_relation(relation: &Relation) -> Row {
    row! {
        table_catalog: DATABASE, table_schema: relation.schema_name, table_name: relation.name,
        table_type: table_type(relation.kind), is_insertable_into: "NO", is_typed: "NO",
    }
}

fn view(object: &Object) -> Row {
    let mut row = view_row(&object.schema, &object.name);
    row.push(("view_definition", object.definition.as_deref().into()));
    row
}

fn view_row(schema: &str, name: &str) -> Row {
    row! {
        table_catalog: DATABASE, table_schema: schema, table_name: name, check_option: "NONE", is_updatable: "NO",
        is_insertable_into: "NO", is_trigger_updatable: "NO", is_trigger_deletable: "NO", is_trigger_insertable_into: "NO",
    }
}

fn system_views() -> impl Iterator<Item = Row> {
    let views = relations::all().iter().filter(|relation| relation.kind == "v");
    views.map(|relation| view_row(relation.schema_name, relation.name))
}

fn schema(name: &str) -> Row {
    row! { catalog_name: DATABASE, schema_name: name, schema_owner: ROOT }
}

fn columns(object: &Object) -> Vec<Row> {
    let columns = object.columns.iter().zip(1..);
    columns.map(|(column, number)| column_row(&object.schema, &object.name, number, column)).collect()
}

fn columns_of_relation(relation: &'static Relation) -> Vec<Row> {
    let columns = relation.columns.iter().zip(1..).map(|(column, number)| {
        let attribute = Attribute {
            name: column.name.to_owned(),
            ty: Some(column.ty.clone()),
            modifier: -1,
            is_nullable: column.is_nullable,
            expression: None,
            is_generated: false,
            comment: None,
        };
        column_row(relation.schema_name, relation.name, number, &attribute)
    });
    columns.collect()
}

fn column_row(schema: &str, table: &str, number: i64, column: &Attribute) -> Row {
    let ty = column.ty.as_ref();
    let precision = ty.and_then(|ty| precision(ty, column.modifier));
    let expression = || column.expression.clone();
    let (digits, radix, scale) = precision.map_or((None, None, None), |(all, radix, scale)| (all, Some(radix), scale));
    row! {
        table_catalog: DATABASE, table_schema: schema, table_name: table, column_name: column.name.as_str(),
        ordinal_position: number, is_nullable: yes_no(column.is_nullable), data_type: data_type(ty),
        character_octet_length: ty.filter(|ty| matches!(**ty, Type::VARCHAR | Type::TEXT)).map(|_| 1 << 30),
        numeric_precision: digits, numeric_precision_radix: radix, numeric_scale: scale,
        datetime_precision: ty.and_then(datetime_precision), udt_catalog: DATABASE, udt_schema: PG_CATALOG,
        udt_name: ty.map(|ty| ty.name().to_owned()), dtd_identifier: number.to_string(), is_self_referencing: "NO",
        is_identity: "NO", identity_cycle: "NO", is_generated: if column.is_generated { "ALWAYS" } else { "NEVER" },
        is_updatable: "NO", column_default: expression().filter(|_| !column.is_generated),
        generation_expression: expression().filter(|_| column.is_generated),
    }
}

/// Returns the name of the type in the SQL standard.
fn data_type(ty: Option<&Type>) -> String {
    match ty {
        None => "USER-DEFINED".to_owned(),
        Some(ty) if ty.name().starts_with('_') => "ARRAY".to_owned(),
        Some(ty) => type_names::format_type(ty.oid(), None),
    }
}

/// Returns the digits of a number, their base, and the digits after the point.
fn precision(ty: &Type, modifier: i32) -> Option<(Option<i32>, i32, Option<i32>)> {
    let declared = (modifier >= 0).then(|| modifier - 4);
    match *ty {
        Type::INT2 => Some((Some(16), 2, Some(0))),
        Type::INT4 => Some((Some(32), 2, Some(0))),
        Type::INT8 => Some((Some(64), 2, Some(0))),
        Type::FLOAT4 => Some((Some(24), 2, None)),
        Type::FLOAT8 => Some((Some(53), 2, None)),
        Type::NUMERIC => {
            Some((declared.map(|modifier| (modifier >> 16) & 0xffff), 10, declared.map(|modifier| modifier & 0x7ff)))
        }
        _ => None,
    }
}

/// Returns the number of digits in fractions of a second.
fn datetime_precision(ty: &Type) -> Option<i32> {
    match *ty {
        Type::DATE => Some(0),
        Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::INTERVAL => Some(6),
        _ => None,
    }
}

/// Returns the primary key, and a constraint for each column that is not NULL.
fn constraints(object: &Object) -> Vec<Row> {
    let constraint = |name: String, kind: &'static str| {
        row! {
            constraint_catalog: DATABASE, constraint_schema: object.schema.as_str(), constraint_name: name, table_catalog: DATABASE,
            table_schema: object.schema.as_str(), table_name: object.name.as_str(), constraint_type: kind, is_deferrable: "NO",
            initially_deferred: "NO", enforced: "YES",
        }
    };
    let key = object.key.iter().map(|key| constraint(key.name.clone(), "PRIMARY KEY"));
    key.chain(not_null(object).map(|(name, _)| constraint(name, "CHECK"))).collect()
}

/// Returns the NOT NULL constraints, with the names that PostgreSQL gives to constraints without a
/// name.
fn not_null(object: &Object) -> impl Iterator<Item = (String, &Attribute)> {
    let namespace = object.namespace;
    let columns = object.columns.iter().zip(1..).filter(|(column, _)| !column.is_nullable);
    columns.map(move |(column, number)| (format!("{namespace}_{}_{number}_not_null", object.oid), column))
}

fn checks(object: &Object) -> Vec<Row> {
    let checks = not_null(object).map(|(name, column)| {
        row! {
            constraint_catalog: DATABASE, constraint_schema: object.schema.as_str(), constraint_name: name,
            check_clause: format!("{} IS NOT NULL", column.name),
        }
    });
    checks.collect()
}

fn key_columns(object: &Object, key: &Key) -> Vec<Row> {
    let columns = key.columns.iter().filter_map(|number| object.column(*number)).zip(1_i64..);
    let rows = columns.map(|(column, position)| {
        row! {
            constraint_catalog: DATABASE, constraint_schema: object.schema.as_str(), constraint_name: key.name.as_str(),
            table_catalog: DATABASE, table_schema: object.schema.as_str(), table_name: object.name.as_str(),
            column_name: column.name.as_str(), ordinal_position: position,
        }
    });
    rows.collect()
}

fn constraint_columns(object: &Object, key: &Key) -> Vec<Row> {
    let columns = key.columns.iter().filter_map(|number| object.column(*number));
    let rows = columns.map(|column| {
        row! {
            table_catalog: DATABASE, table_schema: object.schema.as_str(), table_name: object.name.as_str(),
            column_name: column.name.as_str(), constraint_catalog: DATABASE, constraint_schema: object.schema.as_str(),
            constraint_name: key.name.as_str(),
        }
    });
    rows.collect()
}

fn constraint_table(object: &Object, key: &Key) -> Row {
    row! {
        table_catalog: DATABASE, table_schema: object.schema.as_str(), table_name: object.name.as_str(),
        constraint_catalog: DATABASE, constraint_schema: object.schema.as_str(), constraint_name: key.name.as_str(),
    }
}

/// Returns the types of the elements of columns that are arrays.
fn element_types(object: &Object) -> Vec<Row> {
    let arrays = object.columns.iter().zip(1_i64..).filter_map(|(column, number)| {
        let element = type_names::by_oid(type_names::by_oid(column.ty.as_ref()?.oid())?.element)?;
        element.name.starts_with(|first| first != '_').then_some((element, number))
    });
    let rows = arrays.map(|(element, number)| {
        row! {
            object_catalog: DATABASE, object_schema: object.schema.as_str(), object_name: object.name.as_str(),
            object_type: if object.kind == "v" { "VIEW" } else { "TABLE" }, collection_type_identifier: number.to_string(),
            data_type: type_names::format_type(element.ty.oid(), None), udt_catalog: DATABASE, udt_schema: PG_CATALOG,
            udt_name: element.name, dtd_identifier: format!("a{number}"),
        }
    });
    rows.collect()
}

/// Returns the only privilege on a relation: to read it.
fn privilege(object: &Object) -> Row {
    row! {
        grantor: ROOT, grantee: ROOT, table_catalog: DATABASE, table_schema: object.schema.as_str(),
        table_name: object.name.as_str(), privilege_type: "SELECT", is_grantable: "YES", with_hierarchy: "YES",
    }
}
