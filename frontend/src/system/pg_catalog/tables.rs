//! The rows of `pg_catalog`: PostgreSQL's own, from data files, and those of the catalog and the
//! session.
//!
//! A relation that is missing here has no rows, because Weir has no such objects.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;
use weir_sql::parser::DATABASE;
use weir_sql::types::names as type_names;

use super::cells::{Row, batch, read, row};
use super::objects::{Attribute, Key, Object, expression_oid, index_definition, namespaces, system_namespace_oid};
use super::relations::{self, Relation};
use super::{DATABASE_OID, ROOT, ROOT_OID};
use crate::catalog::Catalog;
use crate::session::Session;

/// The oids of `pg_class` and `pg_namespace` themselves.
pub(super) const PG_CLASS: u32 = 1259;
const PG_NAMESPACE: u32 = 2615;
/// `pg_am.oid` of tables and of indexes.
const HEAP: u32 = 2;
const BTREE: u32 = 403;
/// `pg_tablespace.oid` of `pg_default`.
const TABLESPACE: u32 = 1663;
/// The operator class of text, and of types that are compared as text.
const TEXT_CLASS: i64 = 3126;

const OPERATOR_CLASSES: &str = include_str!("data/pg_opclass.tsv");

/// Returns the rows that PostgreSQL has, from a data file.
fn file(name: &str) -> Option<&'static str> {
    Some(match name {
        "pg_type" => type_names::ROWS,
        "pg_proc" => super::PROCEDURES,
        "pg_am" => include_str!("data/pg_am.tsv"),
        "pg_language" => include_str!("data/pg_language.tsv"),
        "pg_tablespace" => include_str!("data/pg_tablespace.tsv"),
        "pg_collation" => include_str!("data/pg_collation.tsv"),
        "pg_opfamily" => include_str!("data/pg_opfamily.tsv"),
        "pg_opclass" => OPERATOR_CLASSES,
        "pg_cast" => include_str!("data/pg_cast.tsv"),
        _ => return None,
    })
}

/// Returns the rows of a relation that never change.
pub(super) fn fixed(relation: &Relation) -> Result<Vec<RecordBatch>> {
    let rows = match relation.name {
        "pg_class" => relations::all().iter().map(class_of_relation).collect(),
        "pg_attribute" => relations::all().iter().flat_map(attributes_of_relation).collect(),
        "pg_database" => vec![database()],
        "pg_authid" | "pg_roles" => vec![role(relation)],
        "pg_user" | "pg_shadow" => vec![user(relation)],
        "pg_timezone_names" => vec![row! { name: "UTC", abbrev: "UTC", is_dst: false }],
        "pg_timezone_abbrevs" => vec![row! { abbrev: "UTC", is_dst: false }],
        name => match file(name) {
            Some(text) => owned(relation, read(relation, text)?),
            None => return Ok(Vec::new()),
        },
    };
    Ok(vec![batch(relation, &rows)?])
}

/// Adds the owner and the schema of the objects that PostgreSQL itself owns, in `pg_catalog`.
fn owned(relation: &Relation, mut rows: Vec<Row>) -> Vec<Row> {
    for column in relation.columns.iter().map(|column| column.name) {
        let value = match column {
            "typnamespace" | "pronamespace" | "collnamespace" | "opfnamespace" | "opcnamespace" => 11,
            "typowner" | "proowner" | "lanowner" | "spcowner" | "collowner" | "opfowner" | "opcowner" => ROOT_OID,
            "prolang" => 12,
            _ => continue,
        };
        for row in &mut rows {
            row.push((column, value.into()));
        }
    }
    rows
}

fn database() -> Row {
    row! {
        oid: DATABASE_OID, datname: DATABASE, datdba: ROOT_OID, encoding: 6, datlocprovider: "c", datallowconn: true,
        datconnlimit: -1, dattablespace: TABLESPACE, datcollate: "C.UTF-8", datctype: "C.UTF-8",
    }
}

fn role(relation: &Relation) -> Row {
    let mut row = row! {
        oid: ROOT_OID, rolname: ROOT, rolsuper: true, rolinherit: true, rolcreaterole: true, rolcreatedb: true,
        rolcanlogin: true, rolreplication: false, rolbypassrls: true, rolconnlimit: -1,
    };
    if relation.name == "pg_roles" {
        row.push(("rolpassword", "********".into()));
    }
    row
}

fn user(relation: &Relation) -> Row {
    let mut row = row! {
        usename: ROOT, usesysid: ROOT_OID, usecreatedb: true, usesuper: true, userepl: false, usebypassrls: true,
    };
    if relation.name == "pg_user" {
        row.push(("passwd", "********".into()));
    }
    row
}

fn class_of_relation(relation: &Relation) -> Row {
    row! {
        oid: relation.oid, relname: relation.name, relnamespace: system_namespace_oid(relation.schema_name).unwrap_or_default(),
        relowner: ROOT_OID, relam: if relation.kind == "r" { HEAP } else { 0 }, reltuples: -1, relpersistence: "p",
        relkind: relation.kind, relnatts: count(relation.columns.len()), relhasrules: relation.kind == "v",
        relispopulated: true, relreplident: "n",
    }
}

fn attributes_of_relation(relation: &'static Relation) -> Vec<Row> {
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
        attribute_row(relation.oid, number, &attribute)
    });
    columns.collect()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the rows that come from the catalog, in addition to the fixed ones.
///
/// # Errors
/// Internal.
pub(super) fn of_catalog(name: &str, catalog: &Arc<Catalog>) -> Result<Vec<Row>> {
    let made = [
        "pg_class",
        "pg_attribute",
        "pg_attrdef",
        "pg_index",
        "pg_constraint",
        "pg_indexes",
        "pg_tables",
        "pg_views",
        "pg_matviews",
        "pg_description",
        "pg_namespace",
        "pg_stat_all_tables",
        "pg_stat_user_tables",
        "pg_statio_all_tables",
        "pg_statio_user_tables",
        "pg_stat_all_indexes",
        "pg_stat_user_indexes",
        "pg_statio_all_indexes",
        "pg_statio_user_indexes",
    ];
    if !made.contains(&name) {
        return Ok(Vec::new());
    }
    let objects = &super::objects::all(catalog)?;
    Ok(match name {
        "pg_class" => objects.iter().flat_map(classes).collect(),
        "pg_attribute" => objects.iter().flat_map(attributes).collect(),
        "pg_attrdef" => objects.iter().flat_map(expressions).collect(),
        "pg_index" => keys(objects).map(|(object, key)| index(object, key)).collect(),
        "pg_constraint" => keys(objects).map(|(object, key)| constraint(object, key)).collect(),
        "pg_indexes" => keys(objects)
            .map(|(object, key)| {
                row! {
                    schemaname: object.schema.as_str(), tablename: object.name.as_str(), indexname: key.name.as_str(),
                    indexdef: index_definition(object, key),
                }
            })
            .collect(),
        "pg_namespace" => namespaces(catalog)
            .into_iter()
            .map(|schema| row! { oid: schema.oid, nspname: schema.name, nspowner: ROOT_OID })
            .collect(),
        "pg_description" => {
            let of_schemas = namespaces(catalog).into_iter().filter_map(|schema| {
                let comment = schema.comment?;
                Some(row! { objoid: schema.oid, classoid: PG_NAMESPACE, objsubid: 0, description: comment })
            });
            objects.iter().flat_map(descriptions).chain(of_schemas).collect()
        }
        "pg_stat_all_tables" | "pg_stat_user_tables" | "pg_statio_all_tables" | "pg_statio_user_tables" => objects
            .iter()
            .filter(|object| object.kind != "v")
            .map(|object| row! { relid: object.oid, schemaname: object.schema.as_str(), relname: object.name.as_str() })
            .collect(),
        "pg_stat_all_indexes" | "pg_stat_user_indexes" | "pg_statio_all_indexes" | "pg_statio_user_indexes" => {
            keys(objects).map(|(object, key)| statistics(object, key)).collect()
        }
        "pg_tables" => objects.iter().filter(|object| object.kind == "r").map(table).chain(system_tables()).collect(),
        "pg_views" => objects.iter().filter(|object| object.kind == "v").map(view).chain(system_views()).collect(),
        "pg_matviews" => objects
            .iter()
            .filter(|object| object.kind == "m")
            .map(|object| {
                row! {
                    schemaname: object.schema.as_str(), matviewname: object.name.as_str(), matviewowner: ROOT, hasindexes: false,
                    ispopulated: true, definition: object.definition.as_deref(),
                }
            })
            .collect(),
        _ => Vec::new(),
    })
}

fn keys(objects: &[Object]) -> impl Iterator<Item = (&Object, &Key)> {
    objects.iter().filter_map(|object| Some((object, object.key.as_ref()?)))
}

/// Returns the row of a relation, and that of its key's index.
fn classes(object: &Object) -> Vec<Row> {
    let namespace = object.namespace;
    let relation = row! {
        oid: object.oid, relname: object.name.as_str(), relnamespace: namespace, relowner: ROOT_OID,
        relam: if object.kind == "v" { 0 } else { HEAP }, relfilenode: if object.kind == "v" { 0 } else { object.oid },
        reltuples: -1, relhasindex: object.key.is_some(), relpersistence: "p", relkind: object.kind,
        relnatts: count(object.columns.len()), relhasrules: object.kind != "r", relispopulated: true, relreplident: "d",
    };
    let index = object.key.as_ref().map(|key| {
        row! {
            oid: key.index, relname: key.name.as_str(), relnamespace: namespace, relowner: ROOT_OID, relam: BTREE,
            relfilenode: key.index, relpersistence: "p", relkind: "i", relnatts: count(key.columns.len()),
            relispopulated: true, relreplident: "n",
        }
    });
    std::iter::once(relation).chain(index).collect()
}

/// Returns the columns of a relation, and those of its key's index.
fn attributes(object: &Object) -> Vec<Row> {
    let mut rows: Vec<Row> =
        object.columns.iter().zip(1..).map(|(column, number)| attribute_row(object.oid, number, column)).collect();
    if let Some(key) = &object.key {
        let columns = key.columns.iter().filter_map(|number| object.column(*number));
        rows.extend(columns.zip(1..).map(|(column, number)| {
            let mut row = attribute_row(key.index, number, column);
            row.retain(|(name, _)| *name != "attnotnull");
            row
        }));
    }
    rows
}

/// Returns the defaults and the generation expressions of a relation's columns.
fn expressions(object: &Object) -> Vec<Row> {
    let columns = object.columns.iter().zip(1..);
    let rows = columns.filter_map(|(column, number)| {
        let expression = column.expression.as_deref()?;
        let oid = expression_oid(object.oid, number);
        Some(row! { oid: oid, adrelid: object.oid, adnum: number, adbin: expression })
    });
    rows.collect()
}

fn attribute_row(relation: u32, number: i64, column: &Attribute) -> Row {
    let oid = column.ty.as_ref().map_or(0, pgwire::api::Type::oid);
    let ty = type_names::by_oid(oid);
    row! {
        attrelid: relation, attname: column.name.as_str(), atttypid: oid, attstattarget: -1,
        attlen: ty.map_or(-1, |ty| ty.length), attnum: number,
        attndims: i64::from(ty.is_some_and(|ty| ty.name.starts_with('_'))), attcacheoff: -1, atttypmod: column.modifier,
        attbyval: ty.is_some_and(|ty| ty.is_by_value), attalign: ty.map_or("i", |ty| ty.alignment),
        attstorage: ty.map_or("x", |ty| ty.storage), attnotnull: !column.is_nullable, attislocal: true,
        attcollation: ty.map_or(0, |ty| ty.collation), atthasdef: column.expression.is_some(),
        attgenerated: if column.is_generated { "s" } else { "" },
    }
}

fn index(object: &Object, key: &Key) -> Row {
    let columns: Vec<&Attribute> = key.columns.iter().filter_map(|number| object.column(*number)).collect();
    let oids = columns.iter().map(|column| column.ty.as_ref().map_or(0, pgwire::api::Type::oid));
    let collations = oids.clone().map(|oid| type_names::by_oid(oid).map_or(0, |ty| i64::from(ty.collation)));
    let (classes, options) = (oids.map(operator_class).collect::<Vec<i64>>(), vec![0_i64; columns.len()]);
    row! {
        indexrelid: key.index, indrelid: object.oid, indnatts: count(key.columns.len()),
        indnkeyatts: count(key.columns.len()), indisunique: true, indisprimary: true, indimmediate: true, indisvalid: true,
        indisready: true, indislive: true, indkey: key.columns.clone(), indcollation: collations.collect::<Vec<i64>>(),
        indclass: classes, indoption: options,
    }
}

/// Returns the operator class by which an index sorts a type.
fn operator_class(ty: u32) -> i64 {
    static DEFAULTS: LazyLock<Vec<(u32, i64)>> = LazyLock::new(|| {
        let classes = OPERATOR_CLASSES.lines().skip(1).filter_map(|line| {
            let values: Vec<&str> = line.split('\t').collect();
            let (oid, ty, is_default) = (values.first()?, values.get(4)?, values.get(5)?);
            (*is_default == "t").then_some((ty.parse().ok()?, oid.parse().ok()?))
        });
        classes.collect()
    });
    DEFAULTS.iter().find(|(known, _)| *known == ty).map_or(TEXT_CLASS, |(_, class)| *class)
}

fn constraint(object: &Object, key: &Key) -> Row {
    row! {
        oid: key.constraint, conname: key.name.as_str(), connamespace: object.namespace,
        contype: "p", convalidated: true, conrelid: object.oid, conindid: key.index, confupdtype: " ", confdeltype: " ",
        confmatchtype: " ", conislocal: true, connoinherit: true, conkey: key.columns.clone(),
    }
}

/// Returns a row without counts, because nothing counts how often a key is used.
fn statistics(object: &Object, key: &Key) -> Row {
    row! {
        relid: object.oid, indexrelid: key.index, schemaname: object.schema.as_str(), relname: object.name.as_str(),
        indexrelname: key.name.as_str(),
    }
}

/// Returns the comments on a relation and its columns.
fn descriptions(object: &Object) -> Vec<Row> {
    let of_columns = object.columns.iter().zip(1_i64..).map(|(column, number)| (number, &column.comment));
    let all = std::iter::once((0, &object.comment)).chain(of_columns);
    let rows = all.filter_map(|(number, comment)| {
        let comment = comment.as_deref()?;
        Some(row! { objoid: object.oid, classoid: PG_CLASS, objsubid: number, description: comment })
    });
    rows.collect()
}

fn table(object: &Object) -> Row {
    row! {
        schemaname: object.schema.as_str(), tablename: object.name.as_str(), tableowner: ROOT, hasindexes: object.key.is_some(),
        hasrules: false, hastriggers: false, rowsecurity: false,
    }
}

fn system_tables() -> impl Iterator<Item = Row> {
    relations::all().iter().filter(|relation| relation.kind == "r").map(|relation| {
        row! {
            schemaname: relation.schema_name, tablename: relation.name, tableowner: ROOT, hasindexes: false,
            hasrules: false, hastriggers: false, rowsecurity: false,
        }
    })
}

fn view(object: &Object) -> Row {
    row! { schemaname: object.schema.as_str(), viewname: object.name.as_str(), viewowner: ROOT, definition: object.definition.as_deref() }
}

fn system_views() -> impl Iterator<Item = Row> {
    relations::all()
        .iter()
        .filter(|relation| relation.kind == "v")
        .map(|relation| row! { schemaname: relation.schema_name, viewname: relation.name, viewowner: ROOT })
}

/// Returns the rows of views that show the state of the session that reads them.
pub(super) fn of_session(name: &str, session: &Session) -> Vec<Row> {
    match name {
        "pg_settings" => settings(session),
        "pg_cursors" => {
            let cursors = session.cursors();
            let rows = cursors.names().map(|(name, holds)| {
                row! { name: name, is_holdable: holds, is_binary: false, is_scrollable: false }
            });
            rows.collect()
        }
        "pg_prepared_statements" => {
            let statements = session.statements();
            let rows = statements.names().map(|(name, sql)| {
                row! { name: name, statement: sql, from_sql: sql.is_some() }
            });
            rows.collect()
        }
        "pg_stat_activity" => session.sessions.all().iter().map(|session| activity(session)).collect(),
        "pg_stat_ssl" => vec![row! { pid: session.pid(), ssl: false }],
        "pg_stat_gssapi" => vec![row! { pid: session.pid(), gss_authenticated: false, encrypted: false }],
        _ => Vec::new(),
    }
}

fn settings(session: &Session) -> Vec<Row> {
    let variables = session.variables();
    let rows = variables.all().map(|(name, value)| {
        row! {
            name: name, setting: value, category: "Weir", context: "user", vartype: "string", source: "default",
            boot_val: value, reset_val: value, pending_restart: false,
        }
    });
    rows.collect()
}

/// Returns the row of a session of this frontend.
fn activity(session: &Session) -> Row {
    let application = session.variables().get("application_name").unwrap_or_default().to_owned();
    let doing = session.activity.now();
    let micros = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_micros()).ok()
    };
    let wait_event = doing.wait_event();
    row! {
        datid: DATABASE_OID, datname: DATABASE, pid: session.pid(), usesysid: ROOT_OID, usename: session.user(),
        application_name: application, backend_start: micros(doing.connected),
        xact_start: doing.transaction_start.and_then(micros), query_start: doing.query_start.and_then(micros),
        state_change: micros(doing.state_change), wait_event_type: wait_event.map(|_| "Client"), wait_event: wait_event,
        state: doing.state.as_str(), query: doing.query, backend_type: "client backend",
    }
}
