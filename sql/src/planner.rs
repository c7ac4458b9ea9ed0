//! Plans a query: text → logical plan.
//!
//! Owns DataFusion's configuration and the pool of memory that all queries share. Invariant: a plan
//! only reads, and only from tables of one catalog.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::catalog::{CatalogProviderList, TableFunctionImpl};
use datafusion::common::config::Dialect;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::function_rewrite::ApplyFunctionRewrites;
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DataFusionStatement;
use postgres_types::Type;
use sqlparser::ast;
use sqlparser::tokenizer::Location;

use crate::error::{Error, sqlstate};
use crate::execution::{BoundWindows, CutSets, Explain, QueryThreads};
use crate::functions;
use crate::parameters::{Parameters, infer, placeholders};
use crate::parser::{DATABASE, PG_CATALOG, Parsed, SCHEMA, fold};
use crate::rules::{
    Aggregated, Averages, Booleans, Choices, Equality, ExactSums, Multisets, Ordered, Printed, Sent, Subqueries, Types,
    printers,
};
use crate::syntax::{self, Known};
use crate::types::names::TypeNames;

/// Rows in a batch.
const BATCH_ROWS: usize = 8192;

/// The maximal number of columns of a result, as in PostgreSQL.
const TARGETS_MAX: usize = 1_664;

/// The frontend's additions to SQL: the catalogs of PostgreSQL that it emulates, and functions over
/// them. Views are compiled without them.
#[derive(Debug, Default)]
pub struct SystemCatalogs {
    /// The relations of `pg_catalog`, which queries name without the schema.
    pub relations: HashSet<&'static str>,
    /// Functions that read the catalogs. They include those that print the values of a type
    /// ([`crate::types::oids`]).
    pub functions: Vec<ScalarUDF>,
    /// Functions that return rows of the catalogs, by their names.
    pub table_functions: Vec<(&'static str, Arc<dyn TableFunctionImpl>)>,
}

/// A query that can be planned: all its parameters have types.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The statement that contains the query.
    pub parsed: Parsed,
    /// The query as it was written, for the names of its columns.
    pub written: Box<ast::Statement>,
    /// The query as DataFusion reads it; every parameter has a type.
    pub rewritten: Box<ast::Statement>,
    /// The options of EXPLAIN, if the statement is one.
    pub explain: Option<Explain>,
    /// The parameters `$1`, `$2`, ….
    pub parameters: Parameters,
}

/// A query as DataFusion reads it, some of whose parameters may still lack a type.
#[derive(Debug)]
pub struct Draft {
    parsed: Parsed,
    /// The query as it was written.
    pub written: Box<ast::Statement>,
    /// The query as DataFusion reads it.
    pub rewritten: Box<ast::Statement>,
    explain: Option<Explain>,
}

/// Plans queries, all with one pool of memory.
pub struct Planner {
    template: SessionState,
    /// See [`SystemCatalogs::relations`].
    relations: HashSet<&'static str>,
}

impl std::fmt::Debug for Planner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planner").finish_non_exhaustive()
    }
}

impl Planner {
    /// `memory_limit_bytes` limits the memory of all queries together.
    ///
    /// # Errors
    /// Internal, if DataFusion cannot be set up.
    pub fn new(memory_limit_bytes: usize, system: SystemCatalogs) -> Result<Planner, Error> {
        let relations = system.relations.clone();
        Ok(Planner { template: template(memory_limit_bytes, system)?, relations })
    }

    /// The state from which the statements of a session start, with the session's own functions.
    pub fn template(&self, functions: impl IntoIterator<Item = ScalarUDF>) -> SessionState {
        let context = SessionContext::new_with_state(self.template.clone());
        for function in functions {
            context.register_udf(function);
        }
        context.state()
    }

    /// Memory of the pool that all queries share, for what a statement keeps outside of its plan.
    pub fn reservation(&self, name: &str) -> MemoryReservation {
        MemoryConsumer::new(name).register(&self.template.runtime_env().memory_pool)
    }

    /// True if the function of this name is an aggregate.
    pub fn is_aggregate(&self, name: &str) -> bool {
        self.template.aggregate_functions().contains_key(name)
    }

    /// Rewrites a query for DataFusion. `asked` is the query to plan; it differs from `written`
    /// where a tool's query was replaced.
    ///
    /// # Errors
    /// The user's.
    pub fn read(&self, parsed: Parsed, written: Box<ast::Statement>, asked: ast::Statement) -> Result<Draft, Error> {
        let explain = Explain::of(&written, &parsed)?;
        let known = Known {
            is_scalar: &|name| self.template.scalar_functions().contains_key(name),
            is_aggregate: &|name| self.is_aggregate(name),
            is_window: &|name| self.template.window_functions().contains_key(name),
            returns_table: &|name| self.template.table_functions().contains_key(name),
            is_in_pg_catalog: &|name| self.relations.contains(name),
        };
        let rewritten = Box::new(syntax::rewritten(asked, &known)?);
        Ok(Draft { parsed, written, rewritten, explain })
    }
}

impl Draft {
    /// Gives the query's parameters their types. `hints` holds the types that the client gave;
    /// planning in `state`, on `threads`, finds the others.
    ///
    /// # Errors
    /// The user's.
    pub async fn prepare(
        self,
        hints: &[Option<Type>],
        state: impl FnOnce() -> SessionState,
        threads: &QueryThreads,
    ) -> Result<Prepared, Error> {
        let mut prepared = self.hinted(hints)?;
        if !prepared.parameters.is_complete() {
            prepared.infer_parameters(state(), threads).await?;
        }
        Ok(prepared)
    }

    /// The query of a view, which has no parameters.
    ///
    /// # Errors
    /// The user's, if it has one.
    pub(crate) fn closed(self) -> Result<Prepared, Error> {
        let prepared = self.hinted(&[])?;
        if prepared.parameters.is_empty() {
            return Ok(prepared);
        }
        Err(Error::user(sqlstate::UNDEFINED_PARAMETER, "there is no parameter $1")
            .with_hint("write the value itself: a view outlives the statement that creates it"))
    }

    /// The query with the types of parameters that are known without planning it.
    fn hinted(self, hints: &[Option<Type>]) -> Result<Prepared, Error> {
        let Draft { parsed, written, rewritten, explain } = self;
        let count = placeholders::count(&written).map_err(|(name, location)| {
            let message = format!("there is no parameter {name}");
            Error::user(sqlstate::UNDEFINED_PARAMETER, message).at(parsed.position(location))
        })?;
        let count = count.max(hints.len());
        let parameters = Parameters::hinted(count, hints, &placeholders::written_types(&written));
        let mut prepared = Prepared { parsed, written, rewritten, explain, parameters };
        placeholders::cast_parameters(&mut prepared.rewritten, |number| prepared.parameters.cast_of(number));
        Ok(prepared)
    }
}

impl Prepared {
    /// PostgreSQL's names for the columns of the result, given DataFusion's names.
    pub fn column_names(&self, fields: &[String]) -> Vec<String> {
        syntax::column_names(&self.written, fields)
    }

    /// Plans the query to find the types of the parameters that the client left open. Parameters
    /// that this leaves open become text.
    async fn infer_parameters(&mut self, state: SessionState, threads: &QueryThreads) -> Result<(), Error> {
        let open = self.clone();
        let known = self.parameters.known();
        let inferred = threads.compute(async move {
            let mut plan = plan(&state, &open).await?;
            // These two rules give the plan PostgreSQL's types.
            let rules: [&dyn AnalyzerRule; 2] = [&Choices, &Types];
            for rule in rules {
                plan = rule.analyze(plan, state.config_options())?;
            }
            Ok(infer::parameter_types(&plan, known)?)
        });
        let found = match inferred.await {
            Ok(found) => found,
            // A parameter without a type can make the plan fail, as in `SELECT $1`. Once it has a
            // type, the query is planned again.
            Err(error) if matches!(error.sqlstate.as_ref(), sqlstate::UNDEFINED_TABLE | sqlstate::UNDEFINED_COLUMN) => {
                return Err(error);
            }
            Err(_) => HashMap::new(),
        };
        let open = self.parameters.complete(&found);
        placeholders::cast_parameters(&mut self.rewritten, |number| open.get(&number).cloned());
        Ok(())
    }
}

/// The state in which one statement is planned and run: the session's, with the relations that the
/// statement reads.
pub fn state(template: &SessionState, config: SessionConfig, database: Arc<dyn CatalogProviderList>) -> SessionState {
    let mut state = SessionStateBuilder::new_from_existing(template.clone())
        .with_config(config)
        .with_catalog_list(database)
        .build();
    // now() returns the state's start time. The template's is that of the session's first
    // statement.
    state.mark_start_execution();
    state
}

/// Plans a query. Its parameters have no values yet.
///
/// # Errors
/// The user's, with the position where it is known.
pub async fn plan(state: &SessionState, prepared: &Prepared) -> Result<LogicalPlan, Error> {
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

/// The state that all sessions share.
fn template(memory_limit_bytes: usize, system: SystemCatalogs) -> Result<SessionState, Error> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory_limit_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    let mut session =
        SessionConfig::new().with_default_catalog_and_schema(DATABASE, SCHEMA).with_batch_size(BATCH_ROWS);
    let options = session.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.parse_float_as_decimal = true;
    // Aggregates receive their rows in the order of a sub-query, so its ORDER BY must stay.
    options.sql_parser.enable_subquery_sort_elimination = false;
    options.execution.time_zone = Some("UTC".to_owned());
    let context = SessionContext::new_with_config_rt(session, runtime);
    let printers = printers(&system.functions);
    for function in functions::common().into_iter().chain(system.functions) {
        context.register_udf(function);
    }
    for aggregate in functions::exact() {
        context.register_udaf(aggregate);
    }
    for (name, function) in system.table_functions {
        context.register_udtf(name, function);
    }
    // PostgreSQL has no such function. `generate_series` becomes `unnest` of a list.
    context.deregister_udtf("range");
    let state = context.state();
    let find = |name: &str| state.scalar_functions().get(name).cloned();
    for function in functions::bounded(find).into_iter().chain(functions::choosing(find)) {
        context.register_udf(function);
    }
    if let Some(numbers) = state.table_functions().get("generate_series") {
        context.register_udtf(functions::NUMBERS, Arc::clone(numbers.function()));
    }
    let state = context.state();
    // Ours come first, because DataFusion's own planners would refuse expressions that they do not
    // know.
    let ours: [Arc<dyn ExprPlanner>; 6] = [
        Arc::new(Booleans),
        Arc::new(functions::Literals),
        Arc::new(functions::ArrayOperators),
        Arc::new(functions::JsonbOperators),
        Arc::new(functions::Extract),
        Arc::new(functions::Vectors),
    ];
    let operators = ours.into_iter().chain(state.expr_planners().iter().cloned()).collect();
    Ok(SessionStateBuilder::new_from_existing(state)
        .with_expr_planners(operators)
        .with_type_planner(Arc::new(TypeNames))
        .with_analyzer_rules(vec![
            Arc::new(Choices),
            Arc::new(ResolveGroupingFunction::new()),
            Arc::new(Booleans),
            Arc::new(Multisets),
            Arc::new(Ordered),
            Arc::new(Types),
            Arc::new(Averages),
            Arc::new(TypeCoercion::new()),
            Arc::new(ExactSums),
            Arc::new(ApplyFunctionRewrites::new(vec![
                Arc::new(functions::CheckedArithmetic),
                Arc::new(Printed(Arc::clone(&printers))),
                Arc::new(functions::Assigned),
                Arc::new(functions::Casts),
            ])),
            Arc::new(Aggregated),
            Arc::new(Equality),
            Arc::new(Sent(printers)),
            Arc::new(Subqueries),
        ])
        .with_physical_optimizer_rule(Arc::new(BoundWindows))
        .with_physical_optimizer_rule(Arc::new(CutSets))
        .build())
}

/// Checks that the tables exist. DataFusion checks too, but does not report the position of the
/// missing name.
fn check_tables(state: &SessionState, prepared: &Prepared) -> Result<(), Error> {
    let with = syntax::with_names(&prepared.written);
    for parts in syntax::tables(&prepared.written) {
        let folded: Vec<String> = parts.iter().map(fold).collect();
        let position = parts.first().map_or(1, |first| prepared.parsed.position(first.span.start));
        let exists = match folded.as_slice() {
            [name] if with.contains(name) => true,
            [name] => {
                let default = &state.config_options().catalog.default_schema;
                table_exists(state, default, name) || table_exists(state, PG_CATALOG, name)
            }
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

/// Converts a planning error, with the position that DataFusion's diagnostic names.
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
