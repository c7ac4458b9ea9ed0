//! Text of a query → logical plan.
//!
//! Owns DataFusion's configuration and the pool of memory that all queries share. Invariant: a plan is only made of
//! tables of one catalog, and only reads.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::config::Dialect;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::function_rewrite::ApplyFunctionRewrites;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DataFusionStatement;
use sqlparser::ast;
use sqlparser::tokenizer::Location;

use super::choices::Choices;
use super::equality::Equality;
use super::explain::Explain;
use super::literals::Booleans;
use super::multisets::Multisets;
use super::ordered::Ordered;
use super::pg_catalog::{self, Aggregated, CatalogTypes, Keywords, Printed, Sent, Vectors, printers};
use super::refused::Functions;
use super::schema::{Database, PG_CATALOG, is_jobs};
use super::subqueries::Subqueries;
use super::threads::QueryThreads;
use super::types::Types;
use super::window::BoundWindows;
use super::{infer, params, rewrite, scalars, tools};
use crate::catalog::{Catalog, CatalogCache};
use crate::config::Config;
use crate::error::{Error, sqlstate};
use crate::functions;
use crate::jobs::Jobs;
use crate::parser::{DATABASE, Parsed, SCHEMA, fold};
use crate::scan::ComputeNodes;
use crate::session::Session;
use crate::snapshot::Snapshot;

/// Rows a batch.
const BATCH_ROWS: usize = 8192;

/// Columns of a result, as in PostgreSQL.
const TARGETS_MAX: usize = 1_664;

/// A query with its parameters' types, ready to be planned.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) parsed: Parsed,
    /// As it was written, for the names of its columns.
    pub(super) written: Box<ast::Statement>,
    /// As DataFusion shall read it, every parameter with a type.
    pub(super) rewritten: Box<ast::Statement>,
    /// What EXPLAIN is asked to do, if it is one.
    pub(super) explain: Option<Explain>,
    /// Of `$1`, `$2`, ….
    pub(crate) parameters: params::Parameters,
    /// Whether it reads any table, so that it needs a snapshot.
    pub(super) reads_tables: bool,
}

/// A query as DataFusion shall read it, whose parameters may still lack a type.
#[derive(Debug)]
pub(crate) struct Draft {
    parsed: Parsed,
    written: Box<ast::Statement>,
    rewritten: Box<ast::Statement>,
    explain: Option<Explain>,
}

impl Draft {
    /// Whether it reads any table, so that it needs the newest catalog. It may not name it: `'t'::regclass` is looked up. Jobs
    /// are shown also while there is no snapshot to be had.
    pub(crate) fn reads_tables(&self) -> bool {
        rewrite::tables(&self.rewritten).iter().any(|name| !is_jobs(name)) || pg_catalog::looks_up(&self.rewritten)
    }
}

/// Plans queries. One a process.
pub(crate) struct Planner {
    template: SessionState,
    /// Whom queries read from.
    pub(crate) nodes: Arc<ComputeNodes>,
    /// Whom they ask about jobs, if there is a cluster.
    jobs: Option<Arc<Jobs>>,
}

impl std::fmt::Debug for Planner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planner").finish_non_exhaustive()
    }
}

impl Planner {
    /// # Errors
    /// Internal, if DataFusion cannot be set up.
    pub(crate) fn new(config: &Config, cache: CatalogCache) -> Result<Planner, Error> {
        Ok(Planner { template: template(config, cache)?, nodes: Arc::default(), jobs: None })
    }

    /// The same for the frontend of a cluster.
    pub(crate) fn with_jobs(self, jobs: Arc<Jobs>) -> Planner {
        Planner { jobs: Some(jobs), ..self }
    }

    /// The state in which a session's statement is planned and run: the catalog and, if it is to run, the snapshot.
    pub(super) fn state(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        snapshot: Option<&Arc<Snapshot>>,
    ) -> SessionState {
        let template = session.template.get_or_init(|| {
            let context = SessionContext::new_with_state(self.template.clone());
            for function in functions::of_session(session) {
                context.register_udf(function);
            }
            context.state()
        });
        let mut config = template.config().clone();
        config = config.with_extension(Arc::clone(&self.nodes));
        if let Some(jobs) = &self.jobs {
            config = config.with_extension(Arc::clone(jobs));
        }
        if let Some(snapshot) = snapshot {
            config = config.with_extension(Arc::clone(snapshot));
        }
        let database = Database { catalog: Arc::clone(catalog), session: Arc::clone(session) };
        let mut state = SessionStateBuilder::new_from_existing(template.clone())
            .with_config(config)
            .with_catalog_list(Arc::new(database))
            .build();
        // The template's time, which now() would return, is that of the session's first statement.
        state.mark_start_execution();
        state
    }

    /// Reads a query for DataFusion.
    ///
    /// # Errors
    /// The user's.
    pub(crate) fn read(&self, parsed: Parsed, written: Box<ast::Statement>) -> Result<Draft, Error> {
        let explain = Explain::of(&written, &parsed)?;
        let is_aggregate = |name: &str| self.template.aggregate_functions().contains_key(name);
        let kinds = Functions {
            is_scalar: &|name| self.template.scalar_functions().contains_key(name),
            is_aggregate: &is_aggregate,
            is_window: &|name| self.template.window_functions().contains_key(name),
        };
        let read = rewrite::for_datafusion(tools::plannable(&written, is_aggregate), &kinds)?;
        let mut rewritten = Box::new(rewrite::common(read)?);
        scalars::as_queries(&mut rewritten, |name| self.template.table_functions().contains_key(name));
        Ok(Draft { parsed, written, rewritten, explain })
    }

    /// Gives a query's parameters their types. `hints` are those that the client gave; the others are found by planning,
    /// which needs a catalog, and threads.
    ///
    /// # Errors
    /// The user's.
    pub(crate) async fn prepare(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        draft: Draft,
        hints: &[Option<pgwire::api::Type>],
        threads: &QueryThreads,
    ) -> Result<Prepared, Error> {
        let reads_tables = draft.reads_tables();
        let Draft { parsed, written, rewritten, explain } = draft;
        let known = tools::parameter_types(&written).filter(|_| hints.is_empty());
        let hints = known.as_deref().unwrap_or(hints);
        let count = rewrite::parameter_count(&written).map_err(|(name, location)| {
            let message = format!("there is no parameter {name}");
            Error::user(sqlstate::UNDEFINED_PARAMETER, message).at(parsed.position(location))
        })?;
        let count = count.max(hints.len());
        let parameters = params::Parameters::hinted(count, hints, &rewrite::written_types(&written));
        let mut prepared = Prepared { parsed, written, rewritten, explain, parameters, reads_tables };
        rewrite::cast_parameters(&mut prepared.rewritten, |number| prepared.parameters.cast_of(number));
        if !prepared.parameters.is_complete() {
            self.infer_parameters(session, catalog, &mut prepared, threads).await?;
        }
        Ok(prepared)
    }

    /// Finds the types of the parameters that the client left open by planning the query; what that cannot tell is text.
    async fn infer_parameters(
        &self,
        session: &Arc<Session>,
        catalog: &Arc<Catalog>,
        prepared: &mut Prepared,
        threads: &QueryThreads,
    ) -> Result<(), Error> {
        let (state, open) = (self.state(session, catalog, None), prepared.clone());
        let known = prepared.parameters.known();
        let inferred = threads.compute(async move {
            let mut plan = plan(&state, &open).await?;
            // With these two the types in the plan are PostgreSQL's.
            let rules: [&dyn AnalyzerRule; 2] = [&Choices, &Types];
            for rule in rules {
                plan = rule.analyze(plan, state.config_options())?;
            }
            Ok(infer::parameter_types(&plan, known)?)
        });
        let found = match inferred.await {
            Ok(found) => found,
            // A parameter without a type can make the plan fail, as in `SELECT $1`; with a type it has another chance.
            Err(error) if matches!(error.sqlstate.as_ref(), sqlstate::UNDEFINED_TABLE | sqlstate::UNDEFINED_COLUMN) => {
                return Err(error);
            }
            Err(_) => HashMap::new(),
        };
        let open = prepared.parameters.complete(&found);
        rewrite::cast_parameters(&mut prepared.rewritten, |number| open.get(&number).cloned());
        Ok(())
    }
}

/// The plan of a query, parameters still open.
///
/// # Errors
/// The user's, with position where it is known.
pub(super) async fn plan(state: &SessionState, prepared: &Prepared) -> Result<LogicalPlan, Error> {
    check_tables(state, prepared)?;
    let statement = match prepared.rewritten.as_ref() {
        ast::Statement::Explain { statement, .. } => statement.clone(),
        _ => prepared.rewritten.clone(),
    };
    let plan = state
        .statement_to_plan(DataFusionStatement::Statement(statement))
        .await
        .map_err(|error| located(error, &prepared.parsed))?;
    let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_reads.verify_plan(&plan).map_err(|_| Error::unsupported("only queries are supported"))?;
    if plan.schema().fields().len() > TARGETS_MAX {
        let message = format!("target lists can have at most {TARGETS_MAX} entries");
        return Err(Error::user(sqlstate::TOO_MANY_COLUMNS, message).with_hint("name the columns that are needed"));
    }
    Ok(plan)
}

/// What all sessions have in common.
fn template(config: &Config, cache: CatalogCache) -> Result<SessionState, Error> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(config.memory_limit_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    let mut session =
        SessionConfig::new().with_default_catalog_and_schema(DATABASE, SCHEMA).with_batch_size(BATCH_ROWS);
    let options = session.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.parse_float_as_decimal = true;
    // Aggregates are given their rows in the order of a sub-query.
    options.sql_parser.enable_subquery_sort_elimination = false;
    options.execution.time_zone = Some("UTC".to_owned());
    let context = SessionContext::new_with_config_rt(session, runtime);
    let lookups = pg_catalog::functions(&cache);
    let printers = printers(&lookups);
    for function in functions::common().into_iter().chain(lookups) {
        context.register_udf(function);
    }
    context.register_udtf("pg_get_keywords", Arc::new(Keywords));
    for name in ["generate_series", "range"] {
        if let Some(function) = functions::of_integers(&context.state(), name) {
            context.register_udtf(name, function);
        }
    }
    let state = context.state();
    let find = |name: &str| state.scalar_functions().get(name).cloned();
    for function in functions::bounded(find).into_iter().chain(functions::choosing(find)) {
        context.register_udf(function);
    }
    if let Some(numbers) = state.table_functions().get("generate_series") {
        context.register_udtf(functions::NUMBERS, Arc::clone(numbers.function()));
    }
    let state = context.state();
    // Ours come first: DataFusion's own would refuse what they do not know.
    let ours: [Arc<dyn ExprPlanner>; 6] = [
        Arc::new(Booleans),
        Arc::new(functions::Literals),
        Arc::new(functions::ArrayOperators),
        Arc::new(functions::JsonbOperators),
        Arc::new(functions::Extract),
        Arc::new(Vectors),
    ];
    let operators = ours.into_iter().chain(state.expr_planners().iter().cloned()).collect();
    Ok(SessionStateBuilder::new_from_existing(state)
        .with_expr_planners(operators)
        .with_type_planner(Arc::new(CatalogTypes))
        .with_analyzer_rules(vec![
            Arc::new(Choices),
            Arc::new(ResolveGroupingFunction::new()),
            Arc::new(Booleans),
            Arc::new(Multisets),
            Arc::new(Ordered),
            Arc::new(Types),
            Arc::new(TypeCoercion::new()),
            Arc::new(ApplyFunctionRewrites::new(vec![
                Arc::new(functions::CheckedArithmetic),
                Arc::new(Printed(Arc::clone(&printers))),
                Arc::new(functions::Casts),
            ])),
            Arc::new(Aggregated),
            Arc::new(Equality),
            Arc::new(Sent(printers)),
            Arc::new(Subqueries),
        ])
        .with_physical_optimizer_rule(Arc::new(BoundWindows))
        .build())
}

/// DataFusion does not say where the name of a table that it misses stands; so look before it does.
fn check_tables(state: &SessionState, prepared: &Prepared) -> Result<(), Error> {
    let with = rewrite::with_names(&prepared.written);
    for parts in rewrite::tables(&prepared.written) {
        let folded: Vec<String> = parts.iter().map(fold).collect();
        let position = parts.first().map_or(1, |first| prepared.parsed.position(first.span.start));
        let exists = match folded.as_slice() {
            [name] if with.contains(name) => true,
            [name] => table_exists(state, SCHEMA, name) || table_exists(state, PG_CATALOG, name),
            [schema, name] => table_exists(state, schema, name),
            [database, schema, name] if database == DATABASE => table_exists(state, schema, name),
            [_, _, _] => {
                let name = folded.join(".");
                return Err(Error::unsupported(format!("cross-database references are not implemented: \"{name}\""))
                    .at(position));
            }
            _ => false,
        };
        if !exists {
            let name = folded.join(".");
            let error = Error::user(sqlstate::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"));
            return Err(error.at(position));
        }
    }
    Ok(())
}

fn table_exists(state: &SessionState, schema: &str, name: &str) -> bool {
    let database = state.catalog_list().catalog(DATABASE);
    database.and_then(|database| database.schema(schema)).is_some_and(|schema| schema.table_exist(name))
}

/// An error of planning with the position that DataFusion's diagnostic names.
fn located(error: DataFusionError, parsed: &Parsed) -> Error {
    let diagnostic = error.diagnostic().cloned();
    let mapped = Error::from(error);
    let Some(diagnostic) = diagnostic else {
        return mapped;
    };
    match diagnostic.span {
        Some(span) if span.start.line > 0 => {
            mapped.at(parsed.position(Location::new(span.start.line, span.start.column)))
        }
        _ => mapped,
    }
}
