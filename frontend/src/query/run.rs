//! Runs a query on one snapshot, and retries on another if that snapshot is lost before a row has
//! been sent.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::common::ParamValues;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep};
use tracing::debug;
use weir_common::catalog::{Declaration, RelationKind};
use weir_common::error::Kind;
use weir_common::view::Evaluate;
use weir_sql::error::{Error, sqlstate};
use weir_sql::execution::{EXPLAIN_SCHEMA, QueryThreads, counted, uncounted};
use weir_sql::parser::{CreateView, Parsed};
use weir_sql::planner::{Prepared, plan};
use weir_sql::syntax::table_names;
use weir_sql::views::{self, Described};

use super::planner::Planner;
use crate::catalog::{Catalog, CatalogCache};
use crate::definitions;
use crate::encode::Origin;
use crate::metrics::Metrics;
use crate::notice::Notice;
use crate::results::{Batches, Columns, ResultSet};
use crate::session::{Limits, Session};
use crate::snapshot::{Snapshot, Snapshots, TERM_PAUSE};
use crate::system::{asks_the_catalog, origins, reads_tables};
use crate::waits::Wait;

/// The shared means to run queries; one per process.
#[derive(Debug)]
pub(crate) struct Queries {
    pub(crate) planner: Planner,
    pub(crate) threads: QueryThreads,
    pub(crate) snapshots: Snapshots,
    pub(crate) cache: CatalogCache,
    pub(crate) metrics: Metrics,
    /// The time for which a query that has sent no row is retried.
    pub(crate) retry_max: Duration,
}

impl Queries {
    /// Starts a query; returns once its first rows are there.
    ///
    /// # Errors
    /// The user's; Unavailable and Fenced if no snapshot could be read until the time for retries
    /// was over.
    pub(crate) async fn open(
        &self,
        session: &Arc<Session>,
        limits: &Limits,
        prepared: &Arc<Prepared>,
        values: Option<&ParamValues>,
    ) -> Result<ResultSet, Error> {
        let deadline = limits.retry_until(self.retry_max);
        let held = session.transaction().snapshot();
        // EXPLAIN shows a plan.
        let wait = Wait::of(session, || table_names(&prepared.written)).filter(|_| prepared.explain.is_none());
        loop {
            match self.attempt(session, prepared, values, (deadline, held.clone(), wait.as_ref())).await {
                Err(error) if is_lost(&error) && held.is_some() => {
                    return Err(lost(
                        error,
                        "the snapshot that the transaction reads was lost",
                        "run the transaction again",
                    ));
                }
                Err(error)
                    if is_lost(&error)
                        && reads_tables(&prepared.rewritten)
                        && Instant::now() + TERM_PAUSE < deadline =>
                {
                    debug!(error = error.message, "the snapshot is lost, trying again");
                    self.metrics.retried();
                    sleep(TERM_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(
        &self,
        session: &Arc<Session>,
        prepared: &Arc<Prepared>,
        values: Option<&ParamValues>,
        (deadline, held, wait): (Instant, Option<Arc<Snapshot>>, Option<&Wait>),
    ) -> Result<ResultSet, Error> {
        let snapshot = match (held, wait) {
            _ if !reads_tables(&prepared.rewritten) => None,
            (Some(held), wait) => {
                wait.map_or(Ok(()), |wait| wait.check(session, &held))?;
                Some(held)
            }
            (None, None) => Some(self.snapshots.acquire(deadline).await?),
            (None, Some(wait)) => Some(self.planner.waits.acquire(session, wait).await?),
        };
        let catalog = snapshot.as_ref().map_or_else(|| self.cache.newest(), |snapshot| Arc::clone(&snapshot.catalog));
        let mut state = self.planner.state(session, &catalog, snapshot.as_ref());
        if asks_the_catalog(&prepared.written) {
            // These results have few rows, whose order clients rely on.
            state.config_mut().options_mut().execution.target_partitions = 1;
        }
        let state = Arc::new(state);
        let planned = physical_plan(Arc::clone(&state), Arc::clone(prepared), values.cloned(), Arc::clone(&catalog));
        let (plan, origins) = self.threads.compute(planned).await?;
        if let Some(explain) = prepared.explain {
            let context = state.task_ctx();
            let explained = self.threads.run(plan, move |plan| explain.run(plan, context)).await?;
            return Ok(ResultSet::ready("EXPLAIN", explained));
        }
        let columns = Columns::named(prepared, plan.schema(), origins);
        let rows = self.threads.execute(plan, state.task_ctx())?;
        let read = snapshot.clone();
        let batches = started(rows, snapshot).await?;
        if let Some(snapshot) = read {
            let is_repeatable = session.variables().is_repeatable();
            session.transaction().read(&snapshot, is_repeatable);
        }
        Ok(ResultSet { columns, batches, tag: "SELECT", notices: failures(session, prepared, &catalog) })
    }

    /// Runs a query on a snapshot, or without tables on none. Returns its columns and its rows.
    ///
    /// # Errors
    /// The user's; Unavailable and Fenced if the snapshot is lost.
    pub(crate) async fn stream(
        &self,
        session: &Arc<Session>,
        prepared: &Arc<Prepared>,
        values: Option<&ParamValues>,
        (catalog, snapshot): (Arc<Catalog>, Option<Arc<Snapshot>>),
    ) -> Result<(Columns, Batches), Error> {
        let state = Arc::new(self.planner.state(session, &catalog, snapshot.as_ref()));
        let planned = physical_plan(Arc::clone(&state), Arc::clone(prepared), values.cloned(), catalog);
        let (plan, origins) = self.threads.compute(planned).await?;
        let columns = Columns::named(prepared, plan.schema(), origins);
        let rows = self.threads.execute(plan, state.task_ctx())?;
        let rows = rows.map_err(move |error| {
            // The snapshot stays pinned as long as the stream lives.
            let _held = &snapshot;
            Error::from(error)
        });
        Ok((columns, Box::pin(rows)))
    }

    /// Runs a query over the rows that a COPY has brought.
    ///
    /// # Errors
    /// The user's.
    pub(crate) async fn stream_of(
        &self,
        session: &Arc<Session>,
        prepared: &Arc<Prepared>,
        (catalog, rows): (Arc<Catalog>, Arc<dyn TableProvider>),
    ) -> Result<Batches, Error> {
        let state = Arc::new(self.planner.state_over(session, &catalog, rows));
        let planned = physical_plan(Arc::clone(&state), Arc::clone(prepared), None, catalog);
        let (plan, _) = self.threads.compute(planned).await?;
        Ok(Box::pin(self.threads.execute(plan, state.task_ctx())?.map_err(Error::from)))
    }

    /// Plans a query, with the names in it resolved.
    ///
    /// # Errors
    /// The user's.
    pub(crate) async fn plan(
        &self,
        session: &Arc<Session>,
        prepared: Arc<Prepared>,
        catalog: &Arc<Catalog>,
    ) -> Result<LogicalPlan, Error> {
        let state = self.planner.state(session, catalog, None);
        let planned = async move {
            let logical = uncounted(plan(&state, &prepared).await?)?;
            // Types are checked too.
            state.analyzer().execute_and_check(logical.clone(), state.config_options(), |_, _| {})?;
            Ok(logical)
        };
        self.threads.compute(planned).await
    }

    /// Returns the columns of a query's result.
    ///
    /// # Errors
    /// The user's.
    pub(crate) async fn describe(
        &self,
        session: &Arc<Session>,
        prepared: &Arc<Prepared>,
        catalog: &Arc<Catalog>,
    ) -> Result<Columns, Error> {
        if prepared.explain.is_some() {
            return Ok(Columns::of(Arc::clone(&EXPLAIN_SCHEMA)));
        }
        let (state, prepared) = (self.planner.state(session, catalog, None), Arc::clone(prepared));
        let catalog = Arc::clone(catalog);
        let described = async move {
            let plan = plan(&state, &prepared).await?;
            let origins = origins(&plan, &catalog);
            let plan = uncounted(prepared.parameters.with_nulls(plan)?)?;
            let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
            Ok(Columns::named(&prepared, Arc::new(plan.schema().as_arrow().clone()), origins))
        };
        self.threads.compute(described).await
    }

    /// Finds the relation that a view's query reads, and the view's columns.
    ///
    /// # Errors
    /// The user's.
    pub(crate) async fn describe_view(
        &self,
        catalog: &Arc<Catalog>,
        parsed: &Parsed,
        query: Box<sqlparser::ast::Statement>,
    ) -> Result<Described, Error> {
        let state = self.planner.state_of_nobody(catalog)?;
        views::describe(&self.planner.sql, &self.threads, state, parsed, query).await
    }

    /// Finds the columns of a plain view, and those that its query uses of the relations it names.
    ///
    /// # Errors
    /// The user's.
    pub(crate) async fn define_view(
        &self,
        catalog: &Arc<Catalog>,
        parsed: &Parsed,
        create: &CreateView,
    ) -> Result<Described, Error> {
        let state = self.planner.state_of_nobody(catalog)?;
        let names = definitions::named(catalog, &create.query);
        views::define(&self.planner.sql, &self.threads, state, (parsed, create.query.clone()), names).await
    }

    /// Compiles a view as compute nodes will.
    ///
    /// # Errors
    /// If they cannot compile it.
    pub(crate) async fn compile_view(&self, view: &Declaration) -> Result<Box<dyn Evaluate>, Error> {
        views::compile(&self.planner.sql, &self.threads, view).await
    }
}

/// Returns true if a retry on another snapshot may succeed.
pub(crate) fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Fenced)
}

/// Returns a warning for each table of a query whose job has failed.
///
/// Its rows are right up to the point where the job stopped, and stay readable, because a user of a
/// stopped table first wants to see its contents. Every query warns that the rows are not up to
/// date.
fn failures(session: &Session, prepared: &Prepared, catalog: &Catalog) -> Vec<Notice> {
    let (read, path) = (table_names(&prepared.written), session.search_path());
    let named = read.iter().filter_map(|parts| catalog.read(&path, parts));
    // The statement itself reads a source, so the source's job does not matter.
    let entries = named.flat_map(|entry| catalog.read_by(entry));
    let jobs =
        entries.filter(|entry| entry.relation.kind != RelationKind::Source).filter_map(|entry| catalog.job(entry));
    let failed = jobs.filter_map(|job| {
        let failure = job.failure?;
        let (kind, name, state, error) = (job.kind, job.name, failure.state(), failure.error);
        let message = format!("{kind} \"{name}\" {state} and is not kept up to date: {error}");
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
    let plan = counted(plan, &state).await?;
    Ok((state.create_physical_plan(&plan).await?, origins))
}

/// Waits for the first rows. Until then, a lost snapshot can be replaced without the client
/// noticing; afterwards its loss fails the query.
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
