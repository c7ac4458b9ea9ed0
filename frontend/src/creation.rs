//! Creates views. Of materialized ones it waits until they can be read, and drops those whose
//! creation is cancelled. Replaces plain ones.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, debug, info};
use weir_common::catalog::{
    Change, Declaration, Expanded, JobState, Plan, Reads, Relation, RelationKind, RelationName,
};
use weir_common::ids::TableId;
use weir_proto::CreateTableResponse;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{CreateView, Parsed};

use crate::catalog::{Catalog, placed};
use crate::completion::is_complete;
use crate::frontend::{Answer, Frontend, check_kind, create_tag, done, exists};
use crate::meta::Meta;
use crate::notice::Notice;
use crate::session::{Limits, Session};
use crate::{bind, definitions};

/// The most plain views that may lie upon each other: each is planned within the next.
const DEPTH_MAX: usize = 32;
/// The number of barriers that a new view asks for at once. A small one is complete by then.
const PROMPT_BARRIERS: usize = 3;
/// After these it asks for barriers too, but lets so many times the time of a commit pass
/// before each: commits on its behalf take a quarter of the time at most.
const REST: u32 = 3;
/// The least time between two of these barriers.
const REST_MIN: Duration = Duration::from_millis(100);
/// The time between two notices of the progress.
const TELL_INTERVAL: Duration = Duration::from_secs(2);

impl Frontend {
    /// Creates a view, or replaces a plain one. If the statement is cancelled while the view fills,
    /// the view is dropped.
    pub(crate) async fn create_view(
        &self,
        session: &Arc<Session>,
        parsed: &Parsed,
        create: &CreateView,
        limits: &Limits,
    ) -> Result<Answer, Error> {
        let position = parsed.position(create.name.location);
        let catalog = self.newest_catalog(limits).await?;
        let name = placed(&catalog, &session.search_path(), &create.name).map_err(|error| error.at(position))?;
        let known = catalog.entry(&name);
        if create.if_not_exists && known.is_some() {
            return Ok(exists(create.kind, &name));
        }
        let view = Declaration { name: name.clone(), ..self.view(session, parsed, create, &catalog).await? };
        let deadline = limits.retry_until(self.config.retry_max());
        if let Some(known) = known.filter(|_| create.or_replace) {
            check_kind(&known.relation, create.kind).map_err(|error| error.at(position))?;
            check_columns(&known.relation, &view)?;
            let change = Change::Replace { relation: known.id(), declared: Box::new(view) };
            self.meta.change_catalog(&change, deadline).await.map_err(|error| error.at(position))?;
            return Ok(done(create_tag(create.kind)));
        }
        let is_filled = matches!(view.plan, Plan::Query(_));
        let (meta, if_not_exists) = (Arc::clone(&self.meta), create.if_not_exists);
        let rate = session.variables().backfill_rate();
        // Goes on if the statement is cancelled, since only its end tells whether there is a view.
        let created = async move { meta.create_table(&view, if_not_exists, rate, deadline).await };
        let created = tokio::spawn(created.in_current_span());
        let mut creation = Creation {
            begun: Some(created),
            created: None,
            name: name.clone(),
            meta: Arc::clone(&self.meta),
            limits: limits.clone(),
            retry_max: self.config.retry_max(),
        };
        let response = creation
            .begun()
            .await
            .map_err(|error| if error.sqlstate == sqlstate::DUPLICATE_TABLE { error.at(position) } else { error })?;
        if !response.created {
            return Ok(exists(create.kind, &name));
        }
        if is_filled && !session.variables().is_on("background_ddl") {
            self.wait_until_complete(&name, TableId(response.table_id), limits).await?;
        }
        creation.created = None;
        let notices = response.notices.iter().map(Notice::new).collect();
        Ok(Answer::Done { tag: create_tag(create.kind).into(), notices, changes: Vec::new() })
    }

    /// Waits until a view can be read, and tells how far it is.
    async fn wait_until_complete(&self, name: &RelationName, view: TableId, limits: &Limits) -> Result<(), Error> {
        let mut told = Instant::now();
        for barrier in 0.. {
            let deadline = limits.retry_until(self.config.retry_max());
            let asked = Instant::now();
            self.meta.flush(deadline).await?;
            let took = asked.elapsed();
            let snapshot = self.queries.snapshots.acquire(deadline).await?;
            if is_complete(&snapshot, view, &self.queries.planner.nodes).await? {
                break;
            }
            check_created(&snapshot.catalog, view)?;
            if told.elapsed() >= TELL_INTERVAL {
                told = Instant::now();
                if let Some(progress) = self.jobs.progress(view, deadline).await? {
                    let message = format!("materialized view \"{name}\" has read {progress:.0} % of its input");
                    limits.tell(Notice::new(message));
                }
            }
            if barrier >= PROMPT_BARRIERS {
                sleep((REST * took).max(REST_MIN)).await;
            }
        }
        // Nodes take a job that has just failed for a complete one. The newest catalog tells.
        let newest = self.newest_catalog(limits).await?;
        check_created(&newest, view)
    }

    /// Plans a view. Names in its query are found along the session's search path.
    pub(crate) async fn view(
        &self,
        session: &Arc<Session>,
        parsed: &Parsed,
        create: &CreateView,
        catalog: &Arc<Catalog>,
    ) -> Result<Declaration, Error> {
        let database = self.queries.planner.database(session, catalog);
        let (create, sql) = definitions::with_schemas(parsed, create, &|name| database.schema_of(name));
        Ok(Declaration { sql, ..self.planned_view(parsed, &create, catalog).await? })
    }

    async fn planned_view(
        &self,
        parsed: &Parsed,
        create: &CreateView,
        catalog: &Arc<Catalog>,
    ) -> Result<Declaration, Error> {
        let through = definitions::through(catalog, &create.query);
        let depth =
            through.iter().filter_map(|view| catalog.by_id(view.relation)).map(|view| catalog.depth(view)).max();
        if depth.unwrap_or(0) >= DEPTH_MAX {
            let message = format!("views can be nested at most {DEPTH_MAX} deep");
            return Err(Error::user(sqlstate::STATEMENT_TOO_COMPLEX, message).at(parsed.position(create.name.location)));
        }
        if create.kind == RelationKind::View {
            let described = self.queries.define_view(catalog, parsed, create).await?;
            return bind::create_view(parsed, create, described);
        }
        let mut described = self.queries.describe_view(catalog, parsed, create.query.clone()).await?;
        let inputs = described.plan.reads().iter().filter_map(|reads| catalog.by_id(reads.relation));
        inputs.into_iter().try_for_each(|input| catalog.check_whole(input))?;
        match &mut described.plan {
            Plan::Query(query) => query.through = through,
            Plan::View(Reads { expanded, .. }) if !through.is_empty() => {
                let query = definitions::expanded(catalog, &create.query).to_string();
                *expanded = Some(Expanded { through, query });
            }
            Plan::View(_) | Plan::Stream(_) | Plan::Definition(_) | Plan::Unknown(_) => {}
        }
        let view = bind::create_view(parsed, create, described)?;
        if let Plan::View(_) = &view.plan {
            // Compile the view as the compute nodes will, to find errors now.
            self.queries.compile_view(&view).await?;
        }
        Ok(view)
    }

    /// Cancels jobs that fill new views: drops the views.
    pub(crate) async fn cancel_jobs(&self, jobs: &[u32], limits: &Limits) -> Result<Answer, Error> {
        let deadline = limits.retry_until(self.config.retry_max());
        let snapshot = self.queries.snapshots.acquire(deadline).await?;
        for job in jobs {
            let missing = || Error::user(sqlstate::UNDEFINED_OBJECT, format!("there is no job {job}"));
            let entry = snapshot.catalog.by_id(TableId(*job)).filter(|entry| entry.has_job()).ok_or_else(missing)?;
            let (kind, name) = (entry.relation.kind.as_str(), entry.name());
            if is_complete(&snapshot, entry.id(), &self.queries.planner.nodes).await? {
                let message = format!("{kind} \"{name}\" is not being created");
                let error = Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, message);
                return Err(error.with_hint(format!("use DROP {} to drop it", kind.to_uppercase())));
            }
            self.meta.drop_tables(&[entry.id()], true, deadline).await?;
        }
        Ok(done("CANCEL JOBS"))
    }
}

/// A view that is being created. It is dropped if its statement ends early.
struct Creation {
    /// Present until it is known whether it was created.
    begun: Option<JoinHandle<Result<CreateTableResponse, Error>>>,
    /// Present while it is being created by this statement.
    created: Option<TableId>,
    name: RelationName,
    meta: Arc<Meta>,
    limits: Limits,
    retry_max: Duration,
}

impl Creation {
    /// Waits until the view exists.
    async fn begun(&mut self) -> Result<CreateTableResponse, Error> {
        let begun = self.begun.as_mut().expect("it is waited for once");
        let response = begun.await.map_err(|error| Error::internal(error.to_string()));
        self.begun = None;
        let response = response??;
        self.created = response.created.then_some(TableId(response.table_id));
        Ok(response)
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        let (begun, created) = (self.begun.take(), self.created.take());
        if begun.is_none() && created.is_none() {
            return;
        }
        let (name, meta, retry_max) = (self.name.clone(), Arc::clone(&self.meta), self.retry_max);
        self.limits.tidy_up(async move {
            let created = match begun {
                Some(begun) => match begun.await {
                    Ok(Ok(response)) if response.created => Some(TableId(response.table_id)),
                    _ => None,
                },
                None => created,
            };
            let Some(created) = created else { return };
            match meta.drop_tables(&[created], true, Instant::now() + retry_max).await {
                Ok(_) => debug!(view = %name, "dropped a view whose creation was cancelled"),
                // Somebody else dropped it.
                Err(error) if error.sqlstate == sqlstate::UNDEFINED_TABLE => {}
                Err(error) => info!(view = %name, error = error.message, "a view whose creation was cancelled remains"),
            }
        });
    }
}

/// Checks that no job has failed on the rows that a view which is being created finds.
fn check_created(catalog: &Catalog, view: TableId) -> Result<(), Error> {
    let Some(entry) = catalog.by_id(view) else { return Ok(()) };
    let JobState::Failed { error, .. } = &entry.job.state else { return catalog.check_whole(entry) };
    let message = format!("materialized view \"{}\" failed while it was being created: {error}", entry.name());
    let hint = "it is dropped; mend its input, or create it with another on_error";
    Err(Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, message).with_hint(hint))
}

/// Checks that a replaced view keeps its columns, in PostgreSQL's words.
fn check_columns(before: &Relation, after: &Declaration) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::user(sqlstate::INVALID_TABLE_DEFINITION, message));
    if after.columns.len() < before.columns.len() {
        return refuse("cannot drop columns from view".to_owned());
    }
    for (old, new) in before.columns.iter().zip(&after.columns) {
        if old.name != new.name {
            let message = format!("cannot change name of view column \"{}\" to \"{}\"", old.name, new.name);
            return refuse(message)
                .map_err(|error| error.with_hint("use ALTER VIEW … RENAME COLUMN … to change the name of a column"));
        }
        if old.ty != new.ty {
            let (name, old, new) = (&old.name, &old.ty, &new.ty);
            return refuse(format!("cannot change data type of view column \"{name}\" from {old} to {new}"));
        }
    }
    Ok(())
}
