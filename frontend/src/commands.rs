//! The answers of statements that are not queries: tables of a few rows, whose columns have
//! RisingWave's names.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::DataFusionError;
use weir_common::catalog::{Declaration, Entry, Plan, Reads, RelationKind, SYSTEM_SCHEMAS};
use weir_common::types::SqlType;
use weir_proto as proto;
use weir_sql::error::Error;
use weir_sql::execution::EXPLAIN_SCHEMA;
use weir_sql::parser::Statement;

use crate::catalog::Catalog;
use crate::definitions;
use crate::jobs::{self, Job};
use crate::meta::Cluster;
use crate::names::SearchPath;
use crate::session::Variables;

/// A result of text columns.
fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| SqlType::Varchar.field(name)).collect::<Vec<_>>()))
}

static FINDINGS: LazyLock<SchemaRef> = LazyLock::new(|| text_schema(&["topic", "severity", "finding", "hint"]));
static TABLES: LazyLock<SchemaRef> = LazyLock::new(|| text_schema(&["Name"]));
static CREATE_TABLE: LazyLock<SchemaRef> = LazyLock::new(|| text_schema(&["Name", "Create Sql"]));
static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| text_schema(&["Name", "Type", "Is Hidden", "Description"]));
static JOBS: LazyLock<SchemaRef> = LazyLock::new(|| {
    jobs::schema([
        "Id",
        "Name",
        "Kind",
        "State",
        "Since",
        "Reason",
        "Progress",
        "Lag",
        "Cpu",
        "StateRows",
        "StateBytes",
    ])
});
static CLUSTER: LazyLock<SchemaRef> =
    LazyLock::new(|| text_schema(&["Id", "Role", "Addr", "State", "Slots", "Term", "Epoch", "Error"]));
static VARIABLES: LazyLock<SchemaRef> = LazyLock::new(|| text_schema(&["name", "setting"]));

/// Returns the columns of a statement's answer before it runs; `None` if it has none.
pub(crate) fn schema_of(statement: &Statement) -> Option<SchemaRef> {
    match statement {
        Statement::ExplainCreate(_) => Some(Arc::clone(&FINDINGS)),
        Statement::ExplainView(_) => Some(Arc::clone(&EXPLAIN_SCHEMA)),
        Statement::ShowRelations(..) | Statement::ShowSchemas | Statement::ShowDatabases => Some(Arc::clone(&TABLES)),
        Statement::ShowCreate(..) => Some(Arc::clone(&CREATE_TABLE)),
        Statement::Describe(_) => Some(Arc::clone(&COLUMNS)),
        Statement::ShowJobs => Some(Arc::clone(&JOBS)),
        Statement::ShowCluster => Some(Arc::clone(&CLUSTER)),
        Statement::ShowAll => Some(Arc::clone(&VARIABLES)),
        Statement::ShowVariable(name) => Some(text_schema(&[name])),
        _ => None,
    }
}

/// Answers `EXPLAIN CREATE` with the findings of the checks.
pub(crate) fn findings(findings: Vec<proto::Finding>) -> Result<RecordBatch, Error> {
    let row = |found: proto::Finding| {
        let hint = Some(found.hint).filter(|hint| !hint.is_empty());
        vec![Some(found.topic), Some(found.severity), Some(found.finding), hint]
    };
    batch(&FINDINGS, findings.into_iter().map(row))
}

/// Answers `EXPLAIN CREATE MATERIALIZED VIEW` with how the view is kept up to date.
pub(crate) fn view_plan(view: &Declaration) -> Result<RecordBatch, Error> {
    let text = match &view.plan {
        Plan::Query(query) => {
            let name = |id| query.reads.iter().find(|reads| reads.relation == id).map(|reads| reads.name.to_string());
            query.plan.named(&name).to_string()
        }
        Plan::View(Reads { name, columns, .. }) => {
            let read: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            format!("Each row of {name} gives one row or none, where it is read\n  Read {}", read.join(", "))
        }
        Plan::Stream(_) | Plan::Definition(_) | Plan::Unknown(_) => {
            return Err(Error::internal("a materialized view has no plan"));
        }
    };
    batch(&EXPLAIN_SCHEMA, text.lines().map(|line| vec![Some(line.to_owned())]))
}

/// Answers `SHOW DATABASES`.
pub(crate) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<RecordBatch, Error> {
    batch(&TABLES, names.into_iter().map(|name| vec![Some(name.to_owned())]))
}

/// Answers `SHOW SCHEMAS`.
pub(crate) fn schemas(catalog: &Catalog) -> Result<RecordBatch, Error> {
    let mut all: Vec<&str> = catalog.schemas().map(|schema| schema.name.as_str()).chain(SYSTEM_SCHEMAS).collect();
    all.sort_unstable();
    names(all)
}

/// Answers `SHOW TABLES`, `SHOW SOURCES`, `SHOW VIEWS` and `SHOW MATERIALIZED VIEWS`: those of a
/// schema, or else those that are found without one.
pub(crate) fn relations(
    catalog: &Catalog,
    kind: RelationKind,
    schema: Option<&str>,
    path: &SearchPath,
) -> Result<RecordBatch, Error> {
    let is_shown = |entry: &&Entry| match schema {
        Some(schema) => entry.name().schema == schema,
        None => {
            let found = catalog.read(path, std::slice::from_ref(&entry.name().name));
            found.is_some_and(|found| found.id() == entry.id())
        }
    };
    let mut shown: Vec<&str> = catalog
        .entries()
        .filter(|entry| entry.relation.kind == kind)
        .filter(is_shown)
        .map(|entry| entry.name().name.as_str())
        .collect();
    shown.sort_unstable();
    names(shown)
}

/// Answers `SHOW CREATE TABLE` and the like with the statement as it was written, but for names
/// that have changed. Secrets, which only options can hold, are redacted.
pub(crate) fn created(catalog: &Catalog, entry: &Entry) -> Result<RecordBatch, Error> {
    let sql = definitions::shown(catalog, entry)?;
    batch(&CREATE_TABLE, [vec![Some(format!("{}.{}", entry.name().schema, entry.name().name)), Some(sql)]])
}

/// Answers `DESCRIBE` with the columns, then the primary key and the comment on the relation, as
/// RisingWave does.
pub(crate) fn columns(entry: &Entry) -> Result<RecordBatch, Error> {
    let Entry { relation, about, .. } = entry;
    let rows = relation.columns.iter().map(|column| {
        let comment = about.column_comments.get(&column.name).cloned();
        vec![Some(column.name.clone()), Some(column.ty.to_string()), Some("false".to_owned()), comment]
    });
    let key: Vec<&str> = relation.declared_key().iter().map(|&place| relation.columns[place].name.as_str()).collect();
    let key = (!key.is_empty()).then(|| vec![Some("primary key".to_owned()), Some(key.join(", ")), None, None]);
    let comment = about.comment.clone();
    let comment = comment
        .map(|comment| vec![Some("table description".to_owned()), Some(entry.name().to_string()), None, Some(comment)]);
    batch(&COLUMNS, rows.chain(key).chain(comment))
}

/// Answers `SHOW JOBS` with each job's state, since when and why.
pub(crate) fn jobs(jobs: &[Job]) -> Result<RecordBatch, Error> {
    jobs::batch(&JOBS, jobs)
}

/// Answers `SHOW CLUSTER`.
pub(crate) fn cluster(cluster: &Cluster) -> Result<RecordBatch, Error> {
    let rows = cluster.nodes.iter().map(|node| {
        let slots: Vec<String> = node.slots.iter().map(u32::to_string).collect();
        let cells = [node.id.clone(), node.role.clone(), node.address.clone(), node.state.clone(), slots.join(",")];
        let tail = [cluster.term.to_string(), cluster.epoch.to_string()];
        let error = Some(node.trouble.clone()).filter(|trouble| !trouble.is_empty());
        cells.into_iter().chain(tail).map(Some).chain([error]).collect()
    });
    batch(&CLUSTER, rows)
}

/// Answers `SHOW name`.
pub(crate) fn variable(name: &str, variables: &Variables) -> Result<RecordBatch, Error> {
    let value = variables.show(name)?.to_owned();
    batch(&text_schema(&[name]), [vec![Some(value)]])
}

/// Answers `SHOW ALL`.
pub(crate) fn variables(variables: &Variables) -> Result<RecordBatch, Error> {
    batch(&VARIABLES, variables.all().map(|(name, value)| vec![Some(name.to_owned()), Some(value.to_owned())]))
}

fn batch(schema: &SchemaRef, rows: impl IntoIterator<Item = Vec<Option<String>>>) -> Result<RecordBatch, Error> {
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); schema.fields().len()];
    for row in rows {
        for (column, cell) in columns.iter_mut().zip(row) {
            column.push(cell);
        }
    }
    let arrays = columns.into_iter().map(|column| Arc::new(StringArray::from(column)) as ArrayRef).collect();
    let batch = RecordBatch::try_new(Arc::clone(schema), arrays).map_err(DataFusionError::from)?;
    Ok(batch)
}
