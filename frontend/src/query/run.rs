//! Runs a query: on one snapshot, and on another if that is lost before a row has been sent.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ParamValues;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::ExecutionPlan;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use pgwire::api::portal::Format;
use pgwire::api::results::FieldInfo;
use tokio::time::{Instant, sleep};
use tracing::debug;
use weir_common::catalog::RelationKind;
use weir_common::error::Kind;

use super::explain;
use super::names::column_names;
use super::origins::origins;
use super::planner::{Prepared, plan};
use super::rewrite;
use super::tools::asks_the_catalog;
use crate::catalog::Catalog;
use crate::encode::{self, Origin};
use crate::error::{Error, sqlstate};
use crate::frontend::{Frontend, Notice};
use crate::session::{Limits, Session};
use crate::snapshot::Snapshot;

/// Between a lost snapshot and the next one; recovery takes longer than this, but not much.
const PAUSE: Duration = Duration::from_millis(50);

/// Batches that come as they are made.
pub(crate) type Batches = Pin<Box<dyn Stream<Item = Result<RecordBatch, Error>> + Send>>;

/// The columns of a result.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(crate) schema: SchemaRef,
    /// What the client is told they are called, by position.
    pub(crate) names: Vec<String>,
    /// Where they come from, by position, as far as that is known.
    origins: Vec<Origin>,
}

impl Columns {
    /// Columns called as in their schema.
    pub(crate) fn of(schema: SchemaRef) -> Columns {
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        Columns { schema, names, origins: Vec::new() }
    }

    fn named(prepared: &Prepared, schema: SchemaRef, origins: Vec<Origin>) -> Columns {
        let Columns { schema, names, .. } = Columns::of(schema);
        Columns { names: column_names(&prepared.written, &names), schema, origins }
    }

    /// As the client is told of them.
    ///
    /// # Errors
    /// `0A000` for a type that has no counterpart.
    pub(crate) fn described(&self, format: &Format) -> Result<Vec<FieldInfo>, Error> {
        encode::describe(&self.schema, &self.names, &self.origins, format)
    }
}

/// An answer with rows.
pub(crate) struct ResultSet {
    pub(crate) columns: Columns,
    pub(crate) batches: Batches,
    /// The command of the completion tag, and whether it tells the number of rows.
    pub(crate) tag: &'static str,
    /// What the client should know of the rows before they come.
    pub(crate) notices: Vec<Notice>,
}

impl ResultSet {
    /// An answer that is there already.
    pub(crate) fn ready(tag: &'static str, batch: RecordBatch) -> ResultSet {
        let columns = Columns::of(batch.schema());
        ResultSet { columns, batches: Box::pin(stream::iter([Ok(batch)])), tag, notices: Vec::new() }
    }
}

/// Starts a query; returns with its first rows.
///
/// # Errors
/// The user's; Unavailable and Fenced if no snapshot could be read until the time for trying again was over.
pub(crate) async fn open(
    frontend: &Frontend,
    session: &Arc<Session>,
    limits: &Limits,
    prepared: &Arc<Prepared>,
    values: Option<&ParamValues>,
) -> Result<ResultSet, Error> {
    let deadline = limits.retry_until(frontend.config.retry_max());
    let held = session.transaction().snapshot();
    loop {
        match attempt(frontend, session, prepared, values, (deadline, held.clone())).await {
            Err(error) if is_lost(&error) && held.is_some() => {
                return Err(lost(
                    error,
                    "the snapshot that the transaction reads was lost",
                    "run the transaction again",
                ));
            }
            Err(error) if is_lost(&error) && prepared.reads_tables && Instant::now() + PAUSE < deadline => {
                debug!(error = error.message, "the snapshot is lost, trying again");
                frontend.metrics.retried();
                sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// Whether another snapshot may help.
fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Fenced)
}

async fn attempt(
    frontend: &Frontend,
    session: &Arc<Session>,
    prepared: &Arc<Prepared>,
    values: Option<&ParamValues>,
    (deadline, held): (Instant, Option<Arc<Snapshot>>),
) -> Result<ResultSet, Error> {
    let snapshot = match held {
        _ if !prepared.reads_tables => None,
        Some(held) => Some(held),
        None => Some(frontend.snapshots.acquire(deadline).await?),
    };
    let catalog = snapshot.as_ref().map_or_else(|| frontend.cache.newest(), |snapshot| Arc::clone(&snapshot.catalog));
    let mut state = frontend.planner.state(session, &catalog, snapshot.as_ref());
    if asks_the_catalog(&prepared.written) {
        // Few rows, whose order clients take for granted.
        state.config_mut().options_mut().execution.target_partitions = 1;
    }
    let state = Arc::new(state);
    let planned = physical_plan(Arc::clone(&state), Arc::clone(prepared), values.cloned(), Arc::clone(&catalog));
    let (plan, origins) = frontend.threads.compute(planned).await?;
    if let Some(explain) = prepared.explain {
        let context = state.task_ctx();
        let explained = frontend.threads.run(plan, move |plan| explain.run(plan, context)).await?;
        return Ok(ResultSet::ready("EXPLAIN", explained));
    }
    let columns = Columns::named(prepared, plan.schema(), origins);
    let rows = frontend.threads.execute(plan, state.task_ctx())?;
    let read = snapshot.clone();
    let batches = started(rows, snapshot).await?;
    if let Some(snapshot) = read {
        let is_repeatable = session.variables().is_repeatable();
        session.transaction().read(&snapshot, is_repeatable);
    }
    Ok(ResultSet { columns, batches, tag: "SELECT", notices: failures(prepared, &catalog) })
}

/// A warning for each table of a query whose job has failed.
///
/// Its rows are right up to where it stopped, and stay readable: what a user wants of a table that has stopped is first
/// of all what is in it. But nobody shall take them for fresh, so every query says that they are not.
fn failures(prepared: &Prepared, catalog: &Catalog) -> Vec<Notice> {
    let read = rewrite::table_names(&prepared.written);
    // A source is read for the statement itself.
    let tables = read.iter().filter_map(|name| catalog.table(name));
    let jobs =
        tables.filter(|table| table.declared.kind != RelationKind::Source).filter_map(|table| catalog.job(table));
    let failed = jobs.filter_map(|job| {
        let error = job.failure?.error;
        let message = format!("{} \"{}\" has failed and is not kept up to date: {error}", job.kind, job.name);
        let hint = "its rows end where it stopped; mend the cause, then drop it and create it again";
        Some(Notice::warning(sqlstate::WARNING, message).with_hint(hint))
    });
    failed.collect()
}

async fn physical_plan(
    state: Arc<SessionState>,
    prepared: Arc<Prepared>,
    values: Option<ParamValues>,
    catalog: Arc<Catalog>,
) -> Result<(Arc<dyn ExecutionPlan>, Vec<Origin>), Error> {
    let mut plan = plan(&state, &prepared).await?;
    let origins = origins(&plan, &catalog);
    if let Some(values) = values {
        plan = plan.replace_params_with_values(&values)?;
    }
    Ok((state.create_physical_plan(&plan).await?, origins))
}

/// Waits for the first rows, so that a snapshot that is lost before them can be replaced unseen. Afterwards its loss
/// fails the query.
async fn started(mut rows: SendableRecordBatchStream, snapshot: Option<Arc<Snapshot>>) -> Result<Batches, Error> {
    let first = loop {
        match rows.try_next().await? {
            Some(batch) if batch.num_rows() == 0 => {}
            first => break first,
        }
    };
    let rest = rows.map_err(move |error| {
        // The snapshot stays pinned as long as the stream lives.
        let _held = &snapshot;
        after_first_row(error.into())
    });
    Ok(match first {
        Some(batch) => Box::pin(stream::iter([Ok(batch)]).chain(rest)),
        None => Box::pin(stream::empty()),
    })
}

fn after_first_row(error: Error) -> Error {
    if !is_lost(&error) {
        return error;
    }
    lost(error, "the snapshot that the query reads was lost", "run the query again")
}

fn lost(error: Error, message: &str, hint: &str) -> Error {
    Error::new(Kind::Fenced, sqlstate::SERIALIZATION_FAILURE, message).with_detail(error.message).with_hint(hint)
}

/// The columns of a query's result.
///
/// # Errors
/// The user's.
pub(crate) async fn describe(
    frontend: &Frontend,
    session: &Arc<Session>,
    prepared: &Arc<Prepared>,
    catalog: &Arc<Catalog>,
) -> Result<Columns, Error> {
    if prepared.explain.is_some() {
        return Ok(Columns::of(Arc::clone(&explain::SCHEMA)));
    }
    let (state, prepared) = (frontend.planner.state(session, catalog, None), Arc::clone(prepared));
    let catalog = Arc::clone(catalog);
    let described = async move {
        let plan = plan(&state, &prepared).await?;
        let origins = origins(&plan, &catalog);
        let plan = prepared.parameters.with_nulls(plan)?;
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
        Ok(Columns::named(&prepared, Arc::new(plan.schema().as_arrow().clone()), origins))
    };
    frontend.threads.compute(described).await
}
