//! Statements that write: INSERT, UPDATE, DELETE, TRUNCATE, COPY FROM and CREATE TABLE AS.
//!
//! `weir_sql::writes` makes a query of a statement; [`statement`] keeps it with its table. The
//! query runs at the newest committed epoch, and [`rows`] takes what it gives. [`holding`] sends
//! the rows to the slots that own their keys, which hold them until meta's next barrier names the
//! statement. [`pending`] gathers the INSERTs of a pipeline, [`create`] fills new tables, and
//! [`copy`] reads the rows of COPY.
//!
//! Invariant: a statement that failed before anybody was asked to commit it, or whose term ended
//! before its commit, wrote nothing and never will. So it runs again.

mod copy;
mod create;
mod holding;
mod pending;
mod rows;
mod statement;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::ParamValues;
use futures::{StreamExt, TryStreamExt, stream};
use pgwire::api::Type;
use tokio::time::{Instant, sleep};
use tracing::debug;
use weir_common::error::Kind;
use weir_common::ids::TableId;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{Command, Parsed, Statement};
use weir_sql::planner::{Draft, Prepared};
use weir_sql::writes::{self, Target};

pub(crate) use copy::CopyIn;
use holding::Holding;
pub(crate) use pending::Pipeline;
use rows::{Taken, Taking, visible};
pub(crate) use statement::Writing;
use statement::{Planned, conflict, is_changeable, target};

use crate::catalog::{Catalog, CatalogCache};
use crate::meta::Meta;
use crate::metrics::Metrics;
use crate::query::{Queries, is_lost};
use crate::results::{Batches, Columns, ResultSet};
use crate::session::{Limits, Session};
use crate::snapshot::{Placement, Snapshot, Snapshots};

/// The pause before a statement runs again because its term has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// A statement's run that failed.
struct Failure {
    error: Error,
    /// True if it may have been committed: it may not run again.
    is_final: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, is_final: false }
    }
}

/// Where a statement's rows go, and what they are read from.
struct Ground {
    placement: Arc<Placement>,
    snapshot: Option<Arc<Snapshot>>,
}

/// The means to write; one per process.
#[derive(Debug)]
pub(crate) struct Writes {
    pub(crate) meta: Arc<Meta>,
    pub(crate) snapshots: Snapshots,
    pub(crate) cache: CatalogCache,
    pub(crate) queries: Arc<Queries>,
    pub(crate) metrics: Metrics,
    /// The time for which a statement runs again if it was not committed.
    pub(crate) retry_max: Duration,
}

/// The answer to a statement that writes.
pub(crate) enum Written {
    /// Its tag.
    Done(String),
    /// The rows of RETURNING.
    Rows(ResultSet),
}

impl Writes {
    async fn prepare_query(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        draft: Draft,
        hints: &[Option<Type>],
    ) -> Result<Prepared, Error> {
        self.queries.planner.prepare(session, catalog, draft, hints, &self.queries.threads).await
    }

    /// Plans a statement that writes, for a version of the catalog.
    pub(crate) async fn plan_write(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        parsed: &Parsed,
        hints: &[Option<Type>],
    ) -> Result<Planned, Error> {
        let Statement::Write(write) = &parsed.statement else {
            return Err(Error::internal("a statement that does not write is planned as one that does"));
        };
        let path = session.search_path();
        let entry = target(catalog, &path, parsed, &write.table, write.verb())?;
        let width = match writes::needs_width(write) {
            Some(query) => Some(self.names(session, catalog, parsed, query).await?.len()),
            None => None,
        };
        let mut others = Vec::new();
        for other in writes::others(write)? {
            let names = self.names(session, catalog, parsed, other.query.clone()).await?;
            others.push((other, names));
        }
        let mut write = write.clone();
        write.expand(&others);
        let is_changeable = is_changeable(entry);
        let into = Target { relation: &entry.relation, conflict: conflict(entry), is_changeable };
        let rows = writes::rows(parsed, &write, into, width)?;
        let draft = self.queries.planner.read(parsed.clone(), rows.query)?;
        let prepared = self.prepare_query(session, catalog, draft, hints).await?;
        Ok(Planned::new((catalog, path), &write, &entry.relation, prepared, (rows.shape, rows.literals)))
    }

    /// The names of the columns of a query that is part of a statement.
    async fn names(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        parsed: &Parsed,
        query: Box<sqlparser::ast::Query>,
    ) -> Result<Vec<String>, Error> {
        let query = Box::new(sqlparser::ast::Statement::Query(query));
        let draft = self.queries.planner.read(parsed.clone(), query)?;
        let prepared = self.prepare_query(session, catalog, draft, &[]).await?;
        Ok(self.queries.describe(session, &Arc::new(prepared), catalog).await?.names)
    }

    /// Returns the columns of RETURNING; `None` without it.
    pub(crate) async fn describe_write(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        planned: &Planned,
    ) -> Result<Option<Columns>, Error> {
        if !planned.shape.returns {
            return Ok(None);
        }
        let all = self.queries.describe(session, &planned.prepared, catalog).await?;
        Ok(Some(all.without_first(planned.shape.deleted + planned.shape.inserted)))
    }

    /// Runs a statement that writes. Returns after its commit, unless it is an INSERT of a
    /// pipeline: then [`Writes::settle`] commits it.
    pub(crate) async fn write(
        &self,
        session: &Arc<Session>,
        limits: &Limits,
        writing: &Writing,
        values: Option<&ParamValues>,
        pipeline: Option<&Pipeline>,
    ) -> Result<Written, Error> {
        let deadline = limits.retry_until(self.retry_max);
        // The first run takes the newest placement that is known, which may be over.
        let mut recent = self.snapshots.recent();
        loop {
            let was_recent = recent.is_some();
            let run = self.run_write(session, writing, values, (recent.take(), deadline, pipeline));
            match run.await {
                Ok(answer) => return Ok(answer),
                Err(Failure { error, is_final: true }) => return Err(error),
                Err(Failure { error, .. })
                    if was_recent && !matches!(error.sqlstate.as_ref(), sqlstate::OUT_OF_MEMORY) =>
                {
                    debug!(error = error.message, "a statement runs again on a new placement");
                }
                Err(Failure { error, .. }) if is_lost(&error) && Instant::now() + PAUSE < deadline => {
                    debug!(error = error.message, "a statement runs again: its term has ended");
                    self.metrics.retried();
                    sleep(PAUSE).await;
                }
                Err(Failure { error, .. }) => return Err(error),
            }
        }
    }

    async fn run_write(
        &self,
        session: &Arc<Session>,
        writing: &Writing,
        values: Option<&ParamValues>,
        (recent, deadline, pipeline): (Option<Arc<Placement>>, Instant, Option<&Pipeline>),
    ) -> Result<Written, Failure> {
        if let (Some(placement), Command::Insert(_)) = (recent, &writing.write.command) {
            let planned = self.planned(session, &placement.catalog, writing).await?;
            if !planned.reads {
                let ground = Ground { placement, snapshot: None };
                return self.run_planned(session, writing, &planned, values, (ground, deadline, pipeline)).await;
            }
        }
        self.settle_first(pipeline, deadline).await?;
        let locked = match self.locked(session, writing).await? {
            Some(table) => Some((table, self.meta.lock(table, deadline).await?)),
            None => None,
        };
        let snapshot = self.snapshots.acquire(deadline).await?;
        let planned = self.planned(session, &snapshot.catalog, writing).await?;
        let needs = planned.locks.then_some(planned.relation.id);
        if needs.is_some() && needs != locked.as_ref().map(|(table, _)| *table) {
            // The table of this name is another one than that of a moment ago.
            let message = "the table was created or dropped meanwhile";
            return Err(Error::new(Kind::Fenced, sqlstate::SERIALIZATION_FAILURE, message).into());
        }
        let ground = Ground { placement: snapshot.placement(), snapshot: Some(snapshot) };
        self.run_planned(session, writing, &planned, values, (ground, deadline, pipeline)).await
    }

    /// Returns the table that a statement has to lock, by the newest catalog that is known.
    async fn locked(&self, session: &Arc<Session>, writing: &Writing) -> Result<Option<TableId>, Error> {
        let catalog = self.cache.newest();
        if let Command::Insert(_) = &writing.write.command {
            // Its plan shows if it reads the table.
            return match self.planned(session, &catalog, writing).await {
                Ok(planned) => Ok(planned.locks.then_some(planned.relation.id)),
                Err(_) => Ok(None),
            };
        }
        Ok(catalog.named(&session.search_path(), &writing.write.table).map(|entry| entry.id()))
    }

    /// The statement's plan, made now unless it was prepared for the table as it is.
    async fn planned(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        writing: &Writing,
    ) -> Result<Arc<Planned>, Error> {
        match &writing.planned {
            Some(planned) if planned.is_of(catalog, &session.search_path(), &writing.write.table) => {
                Ok(Arc::clone(planned))
            }
            Some(planned) => {
                let hints: Vec<Option<Type>> = planned.prepared.parameters.wire_types().into_iter().map(Some).collect();
                Ok(Arc::new(self.plan_write(session, catalog, &writing.parsed, &hints).await?))
            }
            None => {
                let planned = self.plan_write(session, catalog, &writing.parsed, &[]).await?;
                if !planned.prepared.parameters.is_empty() {
                    return Err(Error::user(sqlstate::UNDEFINED_PARAMETER, "there is no parameter $1"));
                }
                Ok(Arc::new(planned))
            }
        }
    }

    async fn run_planned(
        &self,
        session: &Arc<Session>,
        writing: &Writing,
        planned: &Planned,
        values: Option<&ParamValues>,
        (ground, deadline, pipeline): (Ground, Instant, Option<&Pipeline>),
    ) -> Result<Written, Failure> {
        if let Some(pipeline) = pipeline.filter(|_| !planned.reads && !planned.shape.returns) {
            let rows = self.inserted(session, planned, values, &ground).await?;
            let count = rows.num_rows();
            self.defer(pipeline, planned, rows, (ground.placement, deadline)).await?;
            return Ok(done(writing, count));
        }
        self.settle_first(pipeline, deadline).await?;
        let Ground { placement, snapshot } = ground;
        let nodes = Arc::clone(&self.queries.planner.nodes);
        let mut holding = Holding::new(placement, Arc::clone(&planned.relation), nodes);
        let literal = planned.literals.as_ref().map(|literals| literals.rows(values, now_us())).transpose()?.flatten();
        let (taken, schema) = match literal {
            Some(rows) => {
                rows::check_nulls(&planned.relation, &rows)?;
                holding.insert(&rows).await?;
                (Taken { rows: rows.num_rows(), returned: Vec::new() }, None)
            }
            None => {
                let (schema, mut batches) =
                    self.batches(session, planned, values, &holding.placement, snapshot).await?;
                let memory = self.queries.planner.reservation("rows of a statement");
                let mut taking = Taking::new(planned, memory);
                while let Some(batch) = batches.try_next().await? {
                    taking.take(&mut holding, batch).await?;
                }
                (taking.end(&mut holding).await?, Some(schema))
            }
        };
        if let Some(statement) = holding.held().await? {
            let committed = self.meta.commit(holding.placement.term, &statement, deadline).await;
            committed.map_err(|error| Failure { is_final: error.kind() != Kind::Fenced, error })?;
        }
        match schema {
            Some(columns) if planned.shape.returns => Ok(returned(writing, planned, columns, taken)),
            _ => Ok(done(writing, taken.rows)),
        }
    }

    /// Commits what the pipeline has inserted before.
    async fn settle_first(&self, pipeline: Option<&Pipeline>, deadline: Instant) -> Result<(), Failure> {
        match pipeline {
            Some(pipeline) => self.settle(pipeline, deadline).await.map_err(|error| Failure { error, is_final: true }),
            None => Ok(()),
        }
    }

    /// The rows that an INSERT without tables gives.
    async fn inserted(
        &self,
        session: &Arc<Session>,
        planned: &Planned,
        values: Option<&ParamValues>,
        ground: &Ground,
    ) -> Result<RecordBatch, Error> {
        if let Some(literals) = &planned.literals
            && let Some(rows) = literals.rows(values, now_us())?
        {
            rows::check_nulls(&planned.relation, &rows)?;
            return Ok(rows);
        }
        let (_, batches) = self.batches(session, planned, values, &ground.placement, None).await?;
        let batches: Vec<RecordBatch> = batches.try_collect().await?;
        let rows = batches.iter().map(|batch| visible(&planned.relation, batch.columns(), batch.num_rows()));
        rows::joined(&planned.relation.schema(), &rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// Starts the query of a statement.
    async fn batches(
        &self,
        session: &Arc<Session>,
        planned: &Planned,
        values: Option<&ParamValues>,
        placement: &Placement,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Result<(Columns, Batches), Error> {
        let catalog = Arc::clone(&placement.catalog);
        self.queries.stream(session, &planned.prepared, values, (catalog, snapshot)).await
    }
}

/// Microseconds since 1970.
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The answer to a statement without RETURNING.
fn done(writing: &Writing, rows: usize) -> Written {
    Written::Done(match writing.write.verb() {
        "INSERT" => format!("INSERT 0 {rows}"),
        "TRUNCATE TABLE" => "TRUNCATE TABLE".to_owned(),
        verb => format!("{verb} {rows}"),
    })
}

/// The answer of RETURNING.
fn returned(writing: &Writing, planned: &Planned, columns: Columns, taken: Taken) -> Written {
    let columns = columns.without_first(planned.shape.deleted + planned.shape.inserted);
    let tag = match writing.write.verb() {
        "INSERT" => "INSERT 0",
        verb => verb,
    };
    let batches = stream::iter(taken.returned.into_iter().map(Ok)).boxed();
    Written::Rows(ResultSet { columns, batches, tag, notices: Vec::new() })
}
