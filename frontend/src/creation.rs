//! Creates materialized views and waits until they can be read; drops those whose creation is
//! cancelled.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, debug, info};
use weir_common::catalog::{Declaration, Plan, RelationKind};
use weir_common::ids::TableId;
use weir_proto::CreateTableResponse;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{CreateView, Parsed};

use crate::bind;
use crate::catalog::Catalog;
use crate::completion::is_complete;
use crate::frontend::{Answer, Frontend, create_tag, done, exists};
use crate::meta::Meta;
use crate::notice::Notice;
use crate::session::{Limits, Session};

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
    /// Creates a view. If the statement is cancelled while the view fills, the view is dropped.
    pub(crate) async fn create_view(
        &self,
        session: &Session,
        parsed: &Parsed,
        create: &CreateView,
        limits: &Limits,
    ) -> Result<Answer, Error> {
        let kind = RelationKind::MaterializedView;
        let catalog = self.newest_catalog(limits).await?;
        if create.if_not_exists && catalog.entry(&create.name.name).is_some() {
            return Ok(exists(kind, &create.name.name));
        }
        let view = self.view(parsed, create, &catalog).await?;
        let position = parsed.position(create.name.location);
        let is_filled = matches!(view.plan, Plan::Query(_));
        let deadline = limits.retry_until(self.config.retry_max());
        let name = view.name.clone();
        let (meta, if_not_exists) = (Arc::clone(&self.meta), create.if_not_exists);
        let rate = session.variables().backfill_rate();
        // Goes on if the statement is cancelled, since only its end tells whether there is a view.
        let created = async move { meta.create_table(&view, if_not_exists, rate, deadline).await };
        let created = tokio::spawn(created.in_current_span());
        let mut creation = Creation {
            begun: Some(created),
            created: None,
            name,
            meta: Arc::clone(&self.meta),
            limits: limits.clone(),
            retry_max: self.config.retry_max(),
        };
        let response = creation
            .begun()
            .await
            .map_err(|error| if error.sqlstate == sqlstate::DUPLICATE_TABLE { error.at(position) } else { error })?;
        if !response.created {
            return Ok(exists(kind, &creation.name));
        }
        if is_filled && !session.variables().is_on("background_ddl") {
            self.wait_until_complete(&creation.name, TableId(response.table_id), limits).await?;
        }
        creation.created = None;
        let notices = response.notices.iter().map(Notice::new).collect();
        Ok(Answer::Done { tag: create_tag(kind).into(), notices, changes: Vec::new() })
    }

    /// Waits until a view can be read, and tells how far it is.
    async fn wait_until_complete(&self, name: &str, view: TableId, limits: &Limits) -> Result<(), Error> {
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
        Ok(())
    }

    /// Plans a view.
    pub(crate) async fn view(
        &self,
        parsed: &Parsed,
        create: &CreateView,
        catalog: &Arc<Catalog>,
    ) -> Result<Declaration, Error> {
        let described = self.queries.describe_view(catalog, parsed, create.query.clone()).await?;
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
            let entry = snapshot.catalog.by_id(TableId(*job)).ok_or_else(missing)?;
            let (kind, name) = (entry.relation.kind.as_str(), entry.name());
            if is_complete(&snapshot, entry.id(), &self.queries.planner.nodes).await? {
                let message = format!("{kind} \"{name}\" is not being created");
                let error = Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, message);
                return Err(error.with_hint(format!("use DROP {} to drop it", kind.to_uppercase())));
            }
            self.meta.drop_table(name, true, deadline).await?;
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
    name: String,
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
        let (name, meta, retry_max) = (std::mem::take(&mut self.name), Arc::clone(&self.meta), self.retry_max);
        self.limits.tidy_up(async move {
            let created = match begun {
                Some(begun) => match begun.await {
                    Ok(Ok(response)) if response.created => Some(TableId(response.table_id)),
                    _ => None,
                },
                None => created,
            };
            let Some(created) = created else { return };
            if let Err(error) = drop_view(&meta, &name, created, Instant::now() + retry_max).await {
                info!(view = name, error = error.message, "a view whose creation was cancelled remains");
            }
        });
    }
}

/// Drops a view, unless its name has become that of another one.
async fn drop_view(meta: &Meta, name: &str, view: TableId, deadline: Instant) -> Result<(), Error> {
    let catalog = meta.catalog(deadline).await?;
    if catalog.entry(name).is_some_and(|entry| entry.id() == view) {
        meta.drop_table(name, true, deadline).await?;
        debug!(view = name, "dropped a view whose creation was cancelled");
    }
    Ok(())
}
