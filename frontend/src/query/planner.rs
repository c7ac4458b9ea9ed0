//! Provides `weir_sql`'s planner with the functions of a session and the tables of a statement.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::session_state::SessionState;
use pgwire::api::Type;
use sqlparser::ast;
use tokio_util::sync::CancellationToken;
use weir_sql::error::Error;
use weir_sql::execution::QueryThreads;
use weir_sql::parser::Parsed;
use weir_sql::planner::{self, Draft, Prepared};

use super::functions;
use crate::catalog::{Catalog, CatalogCache};
use crate::config::Config;
use crate::jobs::Jobs;
use crate::names::SearchPath;
use crate::scan::ComputeNodes;
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::system::{self, Database, SEARCHED, Searching};
use crate::waits::Waits;

/// Plans the queries of sessions; one per process.
#[derive(Debug)]
pub(crate) struct Planner {
    pub(super) sql: Arc<planner::Planner>,
    /// The nodes that queries read from.
    pub(crate) nodes: Arc<ComputeNodes>,
    /// The source of jobs and their conditions.
    jobs: Arc<Jobs>,
    /// The means to wait for messages.
    pub(super) waits: Waits,
}

impl Planner {
    /// # Errors
    /// Internal, if DataFusion cannot be set up.
    pub(crate) fn new(config: &Config, cache: &CatalogCache, waits: Waits, jobs: Arc<Jobs>) -> Result<Planner, Error> {
        let nodes = Arc::clone(&waits.nodes);
        let sql = planner::Planner::new(config.memory_limit_bytes, system::catalogs(cache))?;
        Ok(Planner { sql: Arc::new(sql), nodes, jobs, waits })
    }

    /// Returns the state in which a session's statement is planned and run. It contains the catalog
    /// and, if the statement is to run, the snapshot.
    pub(super) fn state(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        snapshot: Option<&Arc<Snapshot>>,
    ) -> SessionState {
        let template = session.template.get_or_init(|| self.sql.template(functions::of_session(session, &self.waits)));
        let mut config = template.config().clone();
        let database = self.database(session, catalog);
        // Names without a schema are looked for along the search path.
        let options = config.options_mut();
        SEARCHED.clone_into(&mut options.catalog.default_schema);
        Searching::add(database.path(), options);
        config = config.with_extension(Arc::clone(&self.nodes)).with_extension(Arc::clone(&self.jobs));
        if let Some(snapshot) = snapshot {
            config = config.with_extension(Arc::clone(snapshot));
        }
        planner::state(template, config, Arc::new(database))
    }

    /// Returns the relations that a session's statement can name.
    pub(crate) fn database(&self, session: &Arc<Session>, catalog: &Arc<Catalog>) -> Database {
        Database::new(catalog, session, &self.sql)
    }

    /// Returns the state in which the rows that a COPY has brought become rows of a table.
    pub(super) fn state_over(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        rows: Arc<dyn TableProvider>,
    ) -> SessionState {
        let state = self.state(session, catalog, None);
        let database = self.database(session, catalog).with_copied(rows);
        planner::state(&state, state.config().clone(), Arc::new(database))
    }

    /// Returns memory of the pool that all queries share.
    pub(crate) fn reservation(&self, name: &str) -> MemoryReservation {
        self.sql.reservation(name)
    }

    /// Returns the state in which a view is planned: in UTC, with every variable at its default,
    /// and with the search path of stored statements.
    pub(super) fn state_of_nobody(&self, catalog: &Arc<Catalog>) -> Result<SessionState, Error> {
        let session = Arc::new(Session::new(CancellationToken::new()));
        session.variables().set("search_path", Some(&SearchPath::of_stored().to_string()))?;
        Ok(self.state(&session, catalog, None))
    }

    /// Rewrites a query for DataFusion.
    ///
    /// # Errors
    /// The user's.
    pub(crate) fn read(&self, parsed: Parsed, written: Box<ast::Statement>) -> Result<Draft, Error> {
        let asked = system::plannable(&written, |name| self.sql.is_aggregate(name));
        self.sql.read(parsed, written, asked)
    }

    /// Gives a query's parameters their types. `hints` are the types that the client gave. Planning
    /// infers the others, which needs a catalog, and threads.
    ///
    /// # Errors
    /// The user's.
    pub(crate) async fn prepare(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        draft: Draft,
        hints: &[Option<Type>],
        threads: &QueryThreads,
    ) -> Result<Prepared, Error> {
        let known = system::parameter_types(&draft.written).filter(|_| hints.is_empty());
        let hints = known.as_deref().unwrap_or(hints);
        draft.prepare(hints, || self.state(session, catalog, None), threads).await
    }
}
