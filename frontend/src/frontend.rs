//! The state that all connections of a process share, and the work that each kind of statement
//! does.
//!
//! This module dispatches statements. It knows nothing of the wire: an answer is a tag, or a stream
//! of rows.

mod runnable;
mod settings;

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::ParamValues;
use futures::TryStreamExt;
use futures::future::try_join_all;
use tokio::time::Instant;
use weir_common::catalog::{Entry, Relation, RelationKind, RelationName};
use weir_common::rpc;
use weir_proto::{ReplayRequest, ReplayResponse};
use weir_sql::error::{Error, sqlstate};
use weir_sql::execution::QueryThreads;
use weir_sql::parser::{
    self, Alter, CopyFormat, CreateTable, Declare, Encoding, Execute, Fetch, Format, Parsed, Statement, TableName,
    TransactionModes,
};
use weir_sql::planner::{Draft, Prepared};

pub(crate) use runnable::Runnable;
use settings::{check_read_only, check_writable, set, set_transaction};

use crate::bind;
use crate::catalog::{Catalog, CatalogCache, in_schema, no_schema};
use crate::commands;
use crate::config::Config;
use crate::definitions;
use crate::jobs::Jobs;
use crate::meta::Meta;
use crate::metrics::Metrics;
use crate::names::SearchPath;
use crate::notice::Notice;
use crate::protobuf;
use crate::query::{Planner, Queries};
use crate::results::{Columns, ResultSet};
use crate::scan::ComputeNodes;
use crate::session::{Change, Limits, Session, Sessions, SqlCursor};
use crate::snapshot::{Snapshot, Snapshots};
use crate::system::reads_tables;
use crate::waits::Waits;
use crate::write::{CopyIn, Pipeline, Writes, Writing, Written};

/// The parts of a frontend.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub(crate) config: Config,
    pub(crate) meta: Arc<Meta>,
    pub(crate) cache: CatalogCache,
    pub(crate) snapshots: Snapshots,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) queries: Arc<Queries>,
    pub(crate) writes: Writes,
    pub(crate) metrics: Metrics,
    pub(crate) sessions: Arc<Sessions>,
}

/// A statement whose parameters may still lack types.
enum Unready {
    Query(Draft),
    Copy(Draft, CopyFormat),
    Declare(Draft, Box<Declare>),
    Write(Box<Writing>),
    Command(Box<Parsed>),
}

/// The answer to a statement.
pub(crate) enum Answer {
    Rows(ResultSet),
    Copy(ResultSet, CopyFormat),
    /// Waits for the rows of a COPY.
    CopyIn(Box<CopyIn>),
    Done {
        tag: Cow<'static, str>,
        notices: Vec<Notice>,
        changes: Vec<Change>,
    },
    Begin(TransactionModes),
    Commit,
    Rollback,
    RollbackTo(String),
    /// Closes a portal or cursor, or all of them if there is no name. The connection owns the
    /// portals.
    Close(Option<String>),
    /// Deallocates a prepared statement, or all of them if there is no name. The connection owns
    /// them.
    Deallocate(Option<String>),
    DiscardAll(Vec<Change>),
}

impl Frontend {
    /// # Errors
    /// If the configuration cannot be used.
    pub(crate) fn new(config: Config) -> Result<Frontend, Error> {
        let meta = Arc::new(Meta::new(&config.meta_addrs)?);
        let cache = CatalogCache::default();
        let snapshots = Snapshots::new(Arc::clone(&meta), cache.clone());
        let (nodes, retry_max): (Arc<ComputeNodes>, _) = (Arc::default(), config.retry_max());
        let jobs = Arc::new(Jobs { meta: Arc::clone(&meta), nodes: Arc::clone(&nodes), retry_max });
        let waits = Waits { meta: Arc::clone(&meta), nodes, snapshots: snapshots.clone(), retry_max };
        let metrics = Metrics::new();
        let queries = Arc::new(Queries {
            planner: Planner::new(&config, &cache, waits, Arc::clone(&jobs))?,
            threads: QueryThreads::new()?,
            snapshots: snapshots.clone(),
            cache: cache.clone(),
            metrics: metrics.clone(),
            retry_max,
        });
        let writes = Writes {
            meta: Arc::clone(&meta),
            snapshots: snapshots.clone(),
            cache: cache.clone(),
            queries: Arc::clone(&queries),
            metrics: metrics.clone(),
            retry_max,
        };
        Ok(Frontend { snapshots, queries, writes, jobs, metrics, sessions: Arc::default(), config, meta, cache })
    }

    /// Makes a parsed statement runnable, mostly without a request to meta.
    pub(crate) async fn read(&self, session: &Arc<Session>, parsed: Parsed) -> Result<Runnable, Error> {
        let parsed = self.expand(session, parsed).await?;
        self.ready(session, &self.cache.newest(), self.draft(session, parsed)?, &[]).await
    }

    /// Makes a statement runnable any number of times, and returns its columns; `None` if it
    /// returns no rows. `hints` are the parameter types that the client gave.
    pub(crate) async fn prepare(
        &self,
        session: &Arc<Session>,
        limits: &Limits,
        parsed: Parsed,
        hints: &[Option<pgwire::api::Type>],
    ) -> Result<(Runnable, Option<Columns>), Error> {
        let draft = self.draft(session, self.expand(session, parsed).await?)?;
        let needs_newest = match &draft {
            Unready::Query(query) | Unready::Copy(query, _) | Unready::Declare(query, _) => {
                reads_tables(&query.rewritten)
            }
            Unready::Write(_) => true,
            Unready::Command(_) => false,
        };
        let catalog = if needs_newest { self.newest_catalog(limits).await? } else { self.cache.newest() };
        let mut runnable = self.ready(session, &catalog, draft, hints).await?;
        let columns = match &mut runnable {
            Runnable::Write(writing) => {
                let planned = Arc::new(self.writes.plan_write(session, &catalog, &writing.parsed, hints).await?);
                let columns = self.writes.describe_write(session, &catalog, &planned).await?;
                writing.planned = Some(planned);
                columns
            }
            Runnable::Query(prepared) => Some(self.queries.describe(session, prepared, &catalog).await?),
            Runnable::Copy(..) | Runnable::Declare(..) => None,
            Runnable::Command(parsed) => match &parsed.statement {
                Statement::Fetch(fetch) => Some(cursor(session, parsed, fetch)?.columns.clone()),
                statement => commands::schema_of(statement).map(Columns::of),
            },
        };
        Ok((runnable, columns))
    }

    fn draft(&self, session: &Session, parsed: Parsed) -> Result<Unready, Error> {
        match &parsed.statement {
            Statement::Query(query) => {
                let query = query.clone();
                Ok(Unready::Query(self.queries.planner.read(parsed, query)?))
            }
            Statement::Copy { query, format } => {
                let (query, format) = (query.clone(), format.clone());
                Ok(Unready::Copy(self.queries.planner.read(parsed, query)?, format))
            }
            Statement::Declare(declare) => {
                let (declare, query) = (declare.clone(), declare.query.clone());
                Ok(Unready::Declare(self.queries.planner.read(parsed, query)?, declare))
            }
            Statement::Execute(execute) => {
                let (parsed, query) = called(session, &parsed, execute)?;
                Ok(Unready::Query(self.queries.planner.read(parsed, query)?))
            }
            Statement::Write(write) => {
                let write = write.clone();
                Ok(Unready::Write(Box::new(Writing { parsed, write, planned: None })))
            }
            _ => Ok(Unready::Command(Box::new(parsed))),
        }
    }

    async fn ready(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        draft: Unready,
        hints: &[Option<pgwire::api::Type>],
    ) -> Result<Runnable, Error> {
        let prepare = |query| self.queries.planner.prepare(session, catalog, query, hints, &self.queries.threads);
        match draft {
            Unready::Query(query) => Ok(Runnable::Query(Arc::new(prepare(query).await?))),
            Unready::Copy(query, format) => Ok(Runnable::Copy(Arc::new(prepare(query).await?), format)),
            Unready::Declare(query, declare) => Ok(Runnable::Declare(Arc::new(prepare(query).await?), declare)),
            Unready::Write(writing) => Ok(Runnable::Write(writing)),
            Unready::Command(parsed) => Ok(Runnable::Command(parsed)),
        }
    }

    /// Runs a statement until its answer begins. The rows that a pipeline has inserted before are
    /// committed first, unless the statement adds to them.
    pub(crate) async fn run(
        &self,
        session: &Arc<Session>,
        limits: &Limits,
        runnable: &Runnable,
        values: Option<&ParamValues>,
        pipeline: Option<&Pipeline>,
    ) -> Result<Answer, Error> {
        if let (Some(pipeline), false) = (pipeline, matches!(runnable, Runnable::Write(_))) {
            self.settle(pipeline, limits).await?;
        }
        match runnable {
            Runnable::Write(writing) => self.write(session, limits, writing, values, pipeline).await,
            Runnable::Query(prepared) => Ok(Answer::Rows(self.queries.open(session, limits, prepared, values).await?)),
            Runnable::Copy(prepared, format) => {
                let rows = self.queries.open(session, limits, prepared, values).await?;
                Ok(Answer::Copy(rows, format.clone()))
            }
            Runnable::Declare(prepared, declare) => self.declare(session, limits, prepared, declare, values).await,
            Runnable::Command(parsed) => self.command(session, limits, parsed).await,
        }
    }

    /// Commits what a pipeline has inserted.
    ///
    /// # Errors
    /// Nothing was inserted then, except with `08007`.
    pub(crate) async fn settle(&self, pipeline: &Pipeline, limits: &Limits) -> Result<(), Error> {
        self.writes.settle(pipeline, limits.retry_until(self.config.retry_max())).await
    }

    async fn write(
        &self,
        session: &Arc<Session>,
        limits: &Limits,
        writing: &Writing,
        values: Option<&ParamValues>,
        pipeline: Option<&Pipeline>,
    ) -> Result<Answer, Error> {
        check_writable(session, writing.write.verb())?;
        let notices = Vec::from_iter(lasting(session, writing.write.verb()));
        Ok(match self.writes.write(session, limits, writing, values, pipeline).await? {
            Written::Done(tag) => Answer::Done { tag: tag.into(), notices, changes: Vec::new() },
            Written::Rows(rows) => Answer::Rows(ResultSet { notices, ..rows }),
        })
    }

    /// Opens a cursor. Its query starts to run, so that its errors are reported now.
    async fn declare(
        &self,
        session: &Arc<Session>,
        limits: &Limits,
        prepared: &Arc<Prepared>,
        declare: &Declare,
        values: Option<&ParamValues>,
    ) -> Result<Answer, Error> {
        let Declare { name, location, holds, .. } = declare;
        let at = |error: Error| error.at(prepared.parsed.position(*location));
        if !holds {
            session
                .transaction()
                .check_open("DECLARE CURSOR")
                .map_err(|error| at(error).with_hint("begin a transaction first, or declare the cursor WITH HOLD"))?;
        }
        session.cursors().check_free(name).map_err(at)?;
        let rows = self.queries.open(session, limits, prepared, values).await?;
        let cursor = SqlCursor::new(rows.columns, rows.batches);
        let is_committed = !session.transaction().is_open();
        session.cursors().declare(name, cursor, *holds, is_committed).map_err(at)?;
        Ok(Answer::Done { tag: "DECLARE CURSOR".into(), notices: rows.notices, changes: Vec::new() })
    }

    async fn command(&self, session: &Arc<Session>, limits: &Limits, parsed: &Parsed) -> Result<Answer, Error> {
        check_read_only(session, &parsed.statement)?;
        let path = session.search_path();
        let deadline = limits.retry_until(self.config.retry_max());
        let show = |batch| Ok(Answer::Rows(ResultSet::ready("SHOW", batch)));
        match &parsed.statement {
            Statement::CreateTable(create) => {
                let answer = self.create_table(session, parsed, create, deadline).await?;
                Ok(answer.with_notices(lasting(session, create_tag(create.kind))))
            }
            Statement::CreateTableAs(create) => {
                let (tag, notices) = self.writes.create_table_as(session, parsed, create, limits).await?;
                let answer = Answer::Done { tag: tag.into(), notices, changes: Vec::new() };
                Ok(answer.with_notices(lasting(session, create_tag(RelationKind::Table))))
            }
            Statement::CopyFrom(copy) => {
                Ok(Answer::CopyIn(Box::new(self.writes.copy_in(session, limits, parsed, copy).await?)))
            }
            Statement::CreateView(create) => {
                let answer = self.create_view(session, parsed, create, limits).await?;
                Ok(answer.with_notices(lasting(session, create_tag(create.kind))))
            }
            Statement::ExplainCreate(create) => {
                let mut bound = bind::create_table(parsed, create, schema(parsed, create.format.as_ref()).await?)?;
                bound.declared.name = self.placed(&path, parsed, &create.name, deadline).await?.0;
                let findings = self.meta.explain_create(&bound.declared, deadline).await?;
                Ok(Answer::Rows(ResultSet::ready("EXPLAIN", commands::findings(findings)?)))
            }
            Statement::ExplainView(create) => {
                let catalog = self.newest_catalog(limits).await?;
                let view = self.view(session, parsed, create, &catalog).await?;
                Ok(Answer::Rows(ResultSet::ready("EXPLAIN", commands::view_plan(&view)?)))
            }
            Statement::Alter(alter) => {
                let answer = self.alter(parsed, alter, (&path, limits), deadline).await?;
                Ok(answer.with_notices(lasting(session, alter_tag(alter.kind))))
            }
            Statement::Drop { kind, names, if_exists, cascade } => {
                let options = (*if_exists, *cascade);
                let answer = self.drop_relations(parsed, (*kind, names), options, (&path, limits)).await?;
                Ok(answer.with_notices(lasting(session, drop_tag(*kind))))
            }
            Statement::Schema(command) => {
                let answer = self.schema_command(parsed, command, limits).await?;
                Ok(answer.with_notices(lasting(session, command.tag())))
            }
            Statement::Comment(comment) => {
                let answer = self.comment(parsed, comment, (&path, limits)).await?;
                Ok(answer.with_notices(lasting(session, "COMMENT")))
            }
            Statement::ShowSchemas
            | Statement::ShowRelations(..)
            | Statement::ShowCreate(..)
            | Statement::Describe(_) => show(self.shown(&path, limits, parsed).await?),
            Statement::ShowDatabases => show(commands::names([parser::DATABASE])?),
            Statement::ShowJobs => show(commands::jobs(&self.jobs.list(deadline).await?)?),
            Statement::CancelJobs(jobs) => self.cancel_jobs(jobs, limits).await,
            Statement::ShowCluster => show(commands::cluster(&self.meta.cluster(deadline).await?)?),
            Statement::ShowVariable(name) => show(commands::variable(name, &session.variables())?),
            Statement::ShowAll => show(commands::variables(&session.variables())?),
            Statement::Flush => {
                self.meta.flush(deadline).await?;
                Ok(done("FLUSH"))
            }
            Statement::Set { name, value, is_local, location } => {
                set(session, name, value.as_deref(), *is_local).map_err(|error| error.at(parsed.position(*location)))
            }
            Statement::ResetAll => {
                Ok(Answer::Done { tag: "RESET".into(), notices: Vec::new(), changes: session.variables().reset() })
            }
            Statement::SetTransaction { modes, of_session } => set_transaction(session, modes, *of_session),
            Statement::Begin(modes) => Ok(Answer::Begin(modes.clone())),
            Statement::Commit => Ok(Answer::Commit),
            Statement::Rollback => Ok(Answer::Rollback),
            Statement::Savepoint(name) => session.transaction().save(name).map(|()| done("SAVEPOINT")),
            Statement::Release(name) => session.transaction().release(name).map(|()| done("RELEASE")),
            Statement::RollbackTo(name) => Ok(Answer::RollbackTo(name.clone())),
            Statement::Fetch(fetch) => {
                let cursor = cursor(session, parsed, fetch)?;
                let (columns, batches) = (cursor.columns.clone(), cursor.fetch(fetch.count));
                Ok(Answer::Rows(ResultSet { columns, batches, tag: "FETCH", notices: Vec::new() }))
            }
            Statement::Move(fetch) => {
                let batches = cursor(session, parsed, fetch)?.fetch(fetch.count);
                let count = |count, batch: RecordBatch| std::future::ready(Ok(count + batch.num_rows()));
                let moved = batches.try_fold(0, count).await?;
                Ok(Answer::Done { tag: format!("MOVE {moved}").into(), notices: Vec::new(), changes: Vec::new() })
            }
            Statement::Close(name) => Ok(Answer::Close(name.clone())),
            Statement::Deallocate(name) => Ok(Answer::Deallocate(name.clone())),
            Statement::DiscardAll if session.transaction().is_open() => {
                let message = "DISCARD ALL cannot run inside a transaction block";
                Err(Error::user(sqlstate::ACTIVE_SQL_TRANSACTION, message))
            }
            Statement::DiscardAll => Ok(Answer::DiscardAll(session.variables().reset())),
            Statement::Nothing(tag) => Ok(done(tag)),
            Statement::Prepare(prepare) => {
                let position = parsed.position(prepare.location);
                let added = session.statements().add(&prepare.name, parsed.clone());
                added.map_err(|error| error.at(position))?;
                Ok(done("PREPARE"))
            }
            Statement::Query(_)
            | Statement::Write(_)
            | Statement::Copy { .. }
            | Statement::Declare(_)
            | Statement::Execute(_)
            | Statement::Verify(_) => Err(Error::internal("a query is not run as a command")),
        }
    }

    /// Answers a statement that shows what is in the catalog.
    async fn shown(&self, path: &SearchPath, limits: &Limits, parsed: &Parsed) -> Result<RecordBatch, Error> {
        let catalog = self.newest_catalog(limits).await?;
        match &parsed.statement {
            Statement::ShowSchemas => commands::schemas(&catalog),
            Statement::ShowRelations(kind, schema) => {
                commands::relations(&catalog, *kind, in_schema(&catalog, parsed, schema.as_ref())?, path)
            }
            Statement::ShowCreate(kind, name) => {
                let entry = find(&catalog, path, parsed, name)?;
                check_kind(&entry.relation, *kind).map_err(|error| error.at(parsed.position(name.location)))?;
                commands::created(&catalog, entry)
            }
            Statement::Describe(name) => commands::columns(find(&catalog, path, parsed, name)?),
            _ => Err(Error::internal("the catalog does not tell that")),
        }
    }

    async fn create_table(
        &self,
        session: &Arc<Session>,
        parsed: &Parsed,
        create: &CreateTable,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        // An existing table keeps its schema, so the statement must not fail if the schema's
        // location is gone.
        let needs_schema = create.format.as_ref().is_some_and(|format| format.encoding == Encoding::Protobuf);
        let path = session.search_path();
        if needs_schema && create.if_not_exists {
            let (name, catalog) = self.placed(&path, parsed, &create.name, deadline).await?;
            if catalog.entry(&name).is_some() {
                return Ok(exists(create.kind, &name));
            }
        }
        let schema = schema(parsed, create.format.as_ref()).await?;
        let mut bound = bind::create_table(parsed, create, schema)?;
        bound.declared.name = self.placed(&path, parsed, &create.name, deadline).await?.0;
        self.writes.check_expressions(session, parsed, create, &bound.declared).await?;
        let position = parsed.position(create.name.location);
        let response =
            self.meta.create_table(&bound.declared, create.if_not_exists, None, deadline).await.map_err(|error| {
                if error.sqlstate == sqlstate::DUPLICATE_TABLE { error.at(position) } else { error }
            })?;
        if !response.created {
            return Ok(exists(create.kind, &bound.declared.name));
        }
        let mut notices: Vec<Notice> = bound.notices.iter().map(Notice::new).collect();
        // Meta reads the options too, and may return the same notices.
        let more = response.notices.iter().filter(|notice| !bound.notices.contains(notice));
        notices.extend(more.map(Notice::new));
        Ok(Answer::Done { tag: create_tag(create.kind).into(), notices, changes: Vec::new() })
    }

    async fn alter(
        &self,
        parsed: &Parsed,
        alter: &Alter,
        (path, limits): (&SearchPath, &Limits),
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let place = parsed.position(alter.name.location);
        let catalog = self.newest_catalog(limits).await?;
        let Some(entry) = catalog.named(path, &alter.name) else {
            let missing = missing(&catalog, alter.kind.as_str(), &alter.name);
            if alter.if_exists {
                let notices = vec![Notice::new(missing.message + ", skipping")];
                return Ok(Answer::Done { tag: alter_tag(alter.kind).into(), notices, changes: Vec::new() });
            }
            return Err(missing.at(place));
        };
        if let Some(answer) = self.alter_names(parsed, alter, (&catalog, path, entry), deadline).await? {
            return Ok(answer);
        }
        check_kind(&entry.relation, alter.kind).map_err(|error| error.at(place))?;
        let replay = alter.change == parser::Change::Replay;
        if replay {
            check_replay(entry).map_err(|error| error.at(place))?;
        }
        let schema = match &alter.change {
            parser::Change::Format(format, _) => schema(parsed, Some(format)).await?,
            parser::Change::RefreshSchema => Some(refreshed(&entry.relation).await.map_err(|error| error.at(place))?),
            _ => None,
        };
        let before = definitions::declaration(&catalog, entry)?;
        let bound = bind::alter(parsed, alter, &before, schema)?;
        // Dead letters that were committed before the new term have no writer any more, and can be
        // replayed.
        let response = self.meta.alter_table(&bound.declared, &entry.relation.sql, replay, deadline).await?;
        let mut notices: Vec<Notice> = bound.notices.iter().map(Notice::new).collect();
        notices.extend(response.notices.iter().filter(|notice| !bound.notices.contains(notice)).map(Notice::new));
        if replay {
            notices.push(Notice::new(self.replay(entry, limits).await?));
        }
        Ok(Answer::Done { tag: alter_tag(alter.kind).into(), notices, changes: Vec::new() })
    }

    /// Makes every slot replay its dead letters of a table, and waits until the rows can be read.
    /// Returns a summary.
    async fn replay(&self, table: &Entry, limits: &Limits) -> Result<String, Error> {
        let deadline = || limits.retry_until(self.config.retry_max());
        let snapshot = self.snapshots.acquire(deadline()).await?;
        let entry = snapshot.catalog.by_id(table.id()).ok_or_else(|| {
            Error::user(sqlstate::UNDEFINED_TABLE, format!("table \"{}\" was dropped meanwhile", table.name()))
        })?;
        let replayed = snapshot.slots.iter().map(async |slot| {
            let request = ReplayRequest {
                term: Some(snapshot.term.into()),
                slot: slot.slot.0,
                table: entry.id().0,
                layout: entry.relation.layout().into(),
            };
            let mut node = self.queries.planner.nodes.client(&slot.address, &snapshot)?;
            let interrupted = |status: tonic::Status| {
                let error = rpc::Error::from(status);
                let message =
                    format!("the replay of slot {} at {} was interrupted: {}", slot.slot, slot.address, error.message);
                let hint = error.hint.clone().unwrap_or_else(|| "run it again: what became a row stays one".to_owned());
                Error::from(rpc::Error { message, ..error }).with_hint(hint)
            };
            Ok::<_, Error>(node.replay(request).await.map_err(interrupted)?.into_inner())
        });
        let (mut rows, mut letters) = (0, 0);
        for ReplayResponse { replayed, remaining } in try_join_all(replayed).await? {
            rows += replayed;
            letters += remaining;
        }
        self.meta.flush(deadline()).await?;
        let count =
            |number: u64| if number == 1 { "1 dead letter".to_owned() } else { format!("{number} dead letters") };
        Ok(match letters {
            0 => format!("{} replayed", count(rows)),
            _ => format!("{} replayed; {letters} still cannot be rows of the table", count(rows)),
        })
    }

    /// Returns the newest committed catalog, which contains everything that was acknowledged
    /// before.
    pub(crate) async fn newest_catalog(&self, limits: &Limits) -> Result<Arc<Catalog>, Error> {
        let snapshot: Arc<Snapshot> = self.snapshots.acquire(limits.retry_until(self.config.retry_max())).await?;
        Ok(Arc::clone(&snapshot.catalog))
    }
}

impl Answer {
    fn with_notices(self, more: impl IntoIterator<Item = Notice>) -> Answer {
        match self {
            Answer::Done { tag, mut notices, changes } => {
                notices.extend(more);
                Answer::Done { tag, notices, changes }
            }
            other => other,
        }
    }
}

/// Returns the prepared query that an EXECUTE calls, with its text.
fn called(
    session: &Session,
    parsed: &Parsed,
    execute: &Execute,
) -> Result<(Parsed, Box<sqlparser::ast::Statement>), Error> {
    let at = |error: Error| error.at(parsed.position(execute.location));
    let prepared = session.statements().get(&execute.name).map_err(at)?;
    let Statement::Prepare(prepare) = &prepared.statement else {
        return Err(Error::internal("what was prepared is no PREPARE"));
    };
    let query = prepare.with_arguments(&execute.arguments).map_err(at)?;
    Ok((Parsed::clone(&prepared), query))
}

/// Returns a warning for a statement that ignores the open transaction block. Drivers open blocks
/// unasked, so the statement is not refused.
pub(crate) fn lasting(session: &Session, command: &str) -> Option<Notice> {
    session.transaction().is_open().then(|| {
        let message = format!("{command} is done at once: ROLLBACK does not undo it");
        Notice::warning(sqlstate::WARNING, message)
    })
}

/// Loads the schema of the messages, if the encoding has one.
async fn schema(parsed: &Parsed, format: Option<&Format>) -> Result<Option<protobuf::Schema>, Error> {
    match format {
        Some(format) if format.encoding == Encoding::Protobuf => protobuf::load(parsed, format).await.map(Some),
        _ => Ok(None),
    }
}

/// Loads the schema of a table's messages anew, from the location in the table's statement.
async fn refreshed(table: &Relation) -> Result<protobuf::Schema, Error> {
    let refuse =
        |message: String, hint: &str| Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, message).with_hint(hint);
    let format = parser::stored(&table.sql)?.format.filter(|format| format.encoding == Encoding::Protobuf);
    let Some(format) = format else {
        let message = format!("messages of {} \"{}\" have no schema", table.kind.as_str(), table.name);
        return Err(refuse(message, "add columns with ADD COLUMN"));
    };
    if format.options.iter().any(|option| protobuf::is_credential(&option.key)) {
        let message = format!("the credentials for the schema of \"{}\" were not kept", table.name);
        return Err(refuse(message, "give them again: ALTER … FORMAT PLAIN ENCODE PROTOBUF (…)"));
    }
    let parsed = parser::parse(&table.sql)?.pop().ok_or_else(|| Error::internal("the stored statement is empty"))?;
    // Positions in the stored statement mean nothing to the author of another one.
    protobuf::load(&parsed, &format).await.map_err(|error| Error { position: None, ..error })
}

/// Answers a `CREATE … IF NOT EXISTS` for a relation that exists.
pub(crate) fn exists(kind: RelationKind, table: &RelationName) -> Answer {
    let message = format!("relation \"{table}\" already exists, skipping");
    let notices = vec![Notice::with_sqlstate(sqlstate::DUPLICATE_TABLE, message)];
    Answer::Done { tag: create_tag(kind).into(), notices, changes: Vec::new() }
}

pub(crate) fn done(tag: &'static str) -> Answer {
    Answer::Done { tag: tag.into(), notices: Vec::new(), changes: Vec::new() }
}

fn cursor(session: &Session, parsed: &Parsed, fetch: &Fetch) -> Result<Arc<SqlCursor>, Error> {
    session.cursors().get(&fetch.name).map_err(|error| error.at(parsed.position(fetch.location)))
}

/// Checks that the dead letters of a relation can be replayed.
fn check_replay(entry: &Entry) -> Result<(), Error> {
    let (kind, name) = (entry.relation.kind, entry.name());
    if entry.job.dead_letters.is_some() {
        return Ok(());
    }
    let error =
        Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, format!("{} \"{name}\" keeps no dead letters", kind.as_str()));
    let hint = "they are read from the stream, with the columns of now, whenever somebody asks for them; a view has them \
                once it is dropped and created again";
    Err(if kind == RelationKind::Source { error.with_hint(hint) } else { error })
}

/// Checks the kind of a relation, because statements for tables do not apply to sources, nor the
/// reverse.
pub(crate) fn check_kind(relation: &Relation, kind: RelationKind) -> Result<(), Error> {
    let is = relation.kind;
    if is == kind {
        return Ok(());
    }
    let message = format!("\"{}\" is not a {}", relation.name, kind.as_str());
    let hint = format!(
        "it is a {}: write {} instead of {}",
        is.as_str(),
        is.as_str().to_uppercase(),
        kind.as_str().to_uppercase()
    );
    Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message).with_hint(hint))
}

pub(crate) fn create_tag(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Table => "CREATE TABLE",
        RelationKind::Source => "CREATE SOURCE",
        RelationKind::MaterializedView => "CREATE MATERIALIZED VIEW",
        RelationKind::View => "CREATE VIEW",
    }
}

pub(crate) fn alter_tag(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Table => "ALTER TABLE",
        RelationKind::Source => "ALTER SOURCE",
        RelationKind::MaterializedView => "ALTER MATERIALIZED VIEW",
        RelationKind::View => "ALTER VIEW",
    }
}

pub(crate) fn drop_tag(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Table => "DROP TABLE",
        RelationKind::Source => "DROP SOURCE",
        RelationKind::MaterializedView => "DROP MATERIALIZED VIEW",
        RelationKind::View => "DROP VIEW",
    }
}

/// Finds the relation that a statement names.
pub(crate) fn find<'a>(
    catalog: &'a Catalog,
    path: &SearchPath,
    parsed: &Parsed,
    name: &TableName,
) -> Result<&'a Entry, Error> {
    let missing = || missing(catalog, "relation", name).at(parsed.position(name.location));
    catalog.named(path, name).ok_or_else(missing)
}

/// The error for a relation that is not there: if the statement names a schema, it may be that.
pub(crate) fn missing(catalog: &Catalog, kind: &str, name: &TableName) -> Error {
    match &name.schema {
        Some(schema) if !catalog.has_schema(schema) => no_schema(schema),
        _ => Error::user(sqlstate::UNDEFINED_TABLE, format!("{kind} \"{name}\" does not exist")),
    }
}
