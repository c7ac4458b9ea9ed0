//! Views of `pg_catalog` that `datafusion-pg-catalog` lacks, or that tell of the session that asks: its settings, cursors
//! and prepared statements; and those of things that Weir has not, which are empty.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray, new_empty_array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};

use crate::parser::DATABASE;
use crate::session::Session;

const TEXT: DataType = DataType::Utf8;
const BOOL: DataType = DataType::Boolean;
const INT: DataType = DataType::Int32;
const BIGINT: DataType = DataType::Int64;
const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// Views without a row: their columns are all that there is to know.
const EMPTY: &[(&str, &[(&str, DataType)])] = &[
    (
        "pg_matviews",
        &[
            ("schemaname", TEXT),
            ("matviewname", TEXT),
            ("matviewowner", TEXT),
            ("tablespace", TEXT),
            ("hasindexes", BOOL),
            ("ispopulated", BOOL),
            ("definition", TEXT),
        ],
    ),
    (
        "pg_indexes",
        &[("schemaname", TEXT), ("tablename", TEXT), ("indexname", TEXT), ("tablespace", TEXT), ("indexdef", TEXT)],
    ),
    (
        "pg_sequences",
        &[
            ("schemaname", TEXT),
            ("sequencename", TEXT),
            ("sequenceowner", TEXT),
            ("data_type", INT),
            ("start_value", BIGINT),
            ("min_value", BIGINT),
            ("max_value", BIGINT),
            ("increment_by", BIGINT),
            ("cycle", BOOL),
            ("cache_size", BIGINT),
            ("last_value", BIGINT),
        ],
    ),
    (
        "pg_available_extensions",
        &[("name", TEXT), ("default_version", TEXT), ("installed_version", TEXT), ("comment", TEXT)],
    ),
    (
        "pg_locks",
        &[
            ("locktype", TEXT),
            ("database", INT),
            ("relation", INT),
            ("transactionid", BIGINT),
            ("pid", INT),
            ("mode", TEXT),
            ("granted", BOOL),
        ],
    ),
    ("pg_rules", &[("schemaname", TEXT), ("tablename", TEXT), ("rulename", TEXT), ("definition", TEXT)]),
];

const SETTINGS: &str = "pg_settings";
const CURSORS: &str = "pg_cursors";
const STATEMENTS: &str = "pg_prepared_statements";
const ACTIVITY: &str = "pg_stat_activity";
const USERS: &str = "pg_user";
pub(super) const TIME_ZONES: &str = "pg_timezone_names";

const OF_SESSION: [&str; 6] = [SETTINGS, CURSORS, STATEMENTS, ACTIVITY, USERS, TIME_ZONES];

/// Whether a view is one of these, so that it is found without the name of its schema.
pub(super) fn is_view(name: &str) -> bool {
    OF_SESSION.contains(&name) || EMPTY.iter().any(|(empty, _)| *empty == name)
}

/// The schema `pg_catalog` as a session sees it.
#[derive(Debug)]
pub(super) struct SessionCatalog {
    pub(super) shared: Arc<dyn SchemaProvider>,
    pub(super) session: Arc<Session>,
}

#[async_trait]
impl SchemaProvider for SessionCatalog {
    fn table_names(&self) -> Vec<String> {
        let mut names = self.shared.table_names();
        let ours = EMPTY.iter().map(|(name, _)| *name).chain(OF_SESSION);
        let new: Vec<String> = ours.map(str::to_owned).filter(|name| !names.contains(name)).collect();
        names.extend(new);
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if let Some((_, columns)) = EMPTY.iter().find(|(empty, _)| *empty == name) {
            return view(columns.iter().map(|(name, ty)| (*name, new_empty_array(ty))).collect());
        }
        match name {
            SETTINGS => view(settings(&self.session)),
            CURSORS => view(cursors(&self.session)),
            STATEMENTS => view(statements(&self.session)),
            ACTIVITY => view(activity(&self.session)),
            USERS => view(users()),
            TIME_ZONES => view(vec![("name", texts(["UTC"])), ("abbrev", texts(["UTC"])), ("is_dst", bools([false]))]),
            _ => self.shared.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        is_view(name) || self.shared.table_exist(name)
    }
}

type Columns = Vec<(&'static str, ArrayRef)>;

fn view(columns: Columns) -> Result<Option<Arc<dyn TableProvider>>> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
    Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn bools(values: impl IntoIterator<Item = bool>) -> ArrayRef {
    Arc::new(values.into_iter().map(Some).collect::<BooleanArray>())
}

/// A column that Weir knows nothing for.
fn nulls(ty: &DataType, rows: usize) -> ArrayRef {
    datafusion::arrow::array::new_null_array(ty, rows)
}

fn settings(session: &Session) -> Columns {
    let variables = session.variables();
    let all: Vec<(&str, &str)> = variables.all().collect();
    let values = || texts(all.iter().map(|(_, value)| *value));
    let same = |value: &'static str| texts(all.iter().map(|_| value));
    vec![
        ("name", texts(all.iter().map(|(name, _)| *name))),
        ("setting", values()),
        ("unit", nulls(&TEXT, all.len())),
        ("category", same("Weir")),
        ("short_desc", nulls(&TEXT, all.len())),
        ("extra_desc", nulls(&TEXT, all.len())),
        ("context", same("user")),
        ("vartype", same("string")),
        ("source", same("default")),
        ("min_val", nulls(&TEXT, all.len())),
        ("max_val", nulls(&TEXT, all.len())),
        ("enumvals", nulls(&TEXT, all.len())),
        ("boot_val", values()),
        ("reset_val", values()),
        ("sourcefile", nulls(&TEXT, all.len())),
        ("sourceline", nulls(&INT, all.len())),
        ("pending_restart", bools(all.iter().map(|_| false))),
    ]
}

fn cursors(session: &Session) -> Columns {
    let cursors = session.cursors();
    let all: Vec<(&str, bool)> = cursors.names().collect();
    vec![
        ("name", texts(all.iter().map(|(name, _)| *name))),
        ("statement", nulls(&TEXT, all.len())),
        ("is_holdable", bools(all.iter().map(|(_, holds)| *holds))),
        ("is_binary", bools(all.iter().map(|_| false))),
        ("is_scrollable", bools(all.iter().map(|_| false))),
        ("creation_time", nulls(&TIME, all.len())),
    ]
}

fn statements(session: &Session) -> Columns {
    let statements = session.statements();
    let all: Vec<(&str, Option<&str>)> = statements.names().collect();
    vec![
        ("name", texts(all.iter().map(|(name, _)| *name))),
        ("statement", Arc::new(all.iter().map(|(_, sql)| *sql).collect::<StringArray>())),
        ("prepare_time", nulls(&TIME, all.len())),
        ("parameter_types", nulls(&TEXT, all.len())),
        ("from_sql", bools(all.iter().map(|(_, sql)| sql.is_some()))),
    ]
}

/// Of the sessions of this frontend only the one that asks.
fn activity(session: &Session) -> Columns {
    let application = session.variables().get("application_name").unwrap_or_default().to_owned();
    vec![
        ("datid", nulls(&INT, 1)),
        ("datname", texts([DATABASE])),
        ("pid", Arc::new(Int32Array::from(vec![session.pid()]))),
        ("usesysid", nulls(&INT, 1)),
        ("usename", texts([session.user()])),
        ("application_name", texts([application.as_str()])),
        ("client_addr", nulls(&TEXT, 1)),
        ("client_hostname", nulls(&TEXT, 1)),
        ("client_port", nulls(&INT, 1)),
        ("backend_start", nulls(&TIME, 1)),
        ("xact_start", nulls(&TIME, 1)),
        ("query_start", nulls(&TIME, 1)),
        ("state_change", nulls(&TIME, 1)),
        ("wait_event_type", nulls(&TEXT, 1)),
        ("wait_event", nulls(&TEXT, 1)),
        ("state", texts(["active"])),
        ("query", nulls(&TEXT, 1)),
        ("backend_type", texts(["client backend"])),
    ]
}

fn users() -> Columns {
    vec![
        ("usename", texts([super::schema::ROOT])),
        ("usesysid", Arc::new(Int32Array::from(vec![10]))),
        ("usecreatedb", bools([true])),
        ("usesuper", bools([true])),
        ("userepl", bools([false])),
        ("usebypassrls", bools([true])),
        ("passwd", texts(["********"])),
        ("valuntil", nulls(&TIME, 1)),
        ("useconfig", nulls(&TEXT, 1)),
    ]
}
