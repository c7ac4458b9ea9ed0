//! Views. Plain ones are put in the place of their names (`definition`). For materialized ones this
//! module decides which queries can be kept up to date, and how.
//!
//! If a query selects, filters and computes columns of one source, every row of the source gives
//! one row or none. Such a query is compiled into an evaluator, which computes the view's rows from
//! batches of its source's rows. It uses only the logical rules of DataFusion that `optimized`
//! lists, because others prune or move parts of the plan. Any other query becomes a plan of
//! fragments (`query`, [`crate::streaming`]).
//!
//! A view is planned without a client: in UTC and with every variable at its default. Nothing in it
//! may depend on the time of a query or on the user who asks.

mod compiler;
mod definition;
mod query;
mod recomputed;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{cast_with_options, filter_record_batch};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider,
};
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use weir_common::catalog::{Column, Declaration, Origin, Plan, Reads, Relation, RelationKind, RelationName};
use weir_common::view::{self, Evaluate};

pub use compiler::{StoredFunctions, ViewCompiler};
pub use definition::{define, expand, narrowed, planned};
pub use recomputed::{Input, Recomputed};

use crate::error::Error;
use crate::execution::QueryThreads;
use crate::parser::{self, DATABASE, Parsed, Statement};
use crate::planner::{self, Planner, Prepared};
use crate::relation::NamedRelation;
use crate::types::stored_type;

/// The hint of errors about queries that cannot be views.
const POSSIBLE: &str =
    "so far a view can select, filter, compute, group, aggregate and unite rows of sources, tables and views";

/// The catalog's description of a view's query.
pub struct Described {
    /// The columns, under PostgreSQL's names.
    pub columns: Vec<Column>,
    /// Columns that are stored behind them, because the key needs them.
    pub hidden: Vec<Column>,
    /// The columns, hidden ones last, that rows are stored by. None if each row comes from a
    /// message of its own.
    pub primary_key: Vec<usize>,
    /// How the view is kept up to date.
    pub plan: Plan,
}

/// Determines which relation a view's query reads, which columns it has, and how it is kept up to
/// date. The query is planned in a state that belongs to no session.
///
/// # Errors
/// The user's.
pub async fn describe(
    planner: &Planner,
    threads: &QueryThreads,
    state: SessionState,
    parsed: &Parsed,
    query: Box<sqlparser::ast::Statement>,
) -> Result<Described, Error> {
    let prepared = prepared(planner, parsed, query)?;
    let described = async move {
        let plan = planner::plan(&state, &prepared).await?;
        let names: Vec<String> = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
        let names = prepared.column_names(&names);
        if is_of_rows(&plan)? {
            described(&optimized(&state, plan)?, names)
        } else {
            query::describe(&state, plan, names)
        }
    };
    threads.compute(described).await
}

/// Describes a view whose rows each come from one row of its source.
fn described(plan: &LogicalPlan, names: Vec<String>) -> Result<Described, Error> {
    let columns = columns(plan, names)?;
    let source = read_by(plan)?;
    let mut used = Vec::new();
    used_columns(plan, &mut used);
    let read = source.columns.iter().filter(|column| used.contains(&column.name));
    let reads = Reads::of(&source, read.cloned().collect());
    Ok(Described { columns, hidden: Vec::new(), primary_key: Vec::new(), plan: Plan::View(reads) })
}

/// The columns of a view, with these names.
fn columns(plan: &LogicalPlan, names: Vec<String>) -> Result<Vec<Column>, Error> {
    let column = |(name, field): (String, &Arc<Field>)| {
        let ty = stored_type(field).ok_or_else(|| {
            let message = format!("column \"{name}\" has the type {}, which cannot be stored", field.data_type());
            Error::unsupported(message).with_hint("cast it to a type of PostgreSQL's")
        })?;
        Ok(Column { name, ty, origin: Origin::Expression })
    };
    names.into_iter().zip(plan.schema().fields()).map(column).collect()
}

/// Compiles the statement of a view that is in the catalog or about to be added to it.
///
/// # Errors
/// If the statement is not a view any more, because its meaning has changed since it was created.
pub async fn compile(
    planner: &Planner,
    threads: &QueryThreads,
    view: &Declaration,
) -> Result<Box<dyn Evaluate>, Error> {
    let not_a_view =
        || Error::internal(format!("the stored statement of \"{}\" is not a materialized view", view.name));
    let Plan::View(reads) = &view.plan else { return Err(not_a_view()) };
    let expanded = reads.expanded.as_ref().map(|expanded| &expanded.query);
    let parsed = parser::parse(expanded.unwrap_or(&view.sql))?.pop().ok_or_else(not_a_view)?;
    let query = match &parsed.statement {
        Statement::CreateView(create) | Statement::ExplainView(create) => &create.query,
        Statement::Query(query) if expanded.is_some() => query,
        _ => return Err(not_a_view()),
    };
    let template = planner.template([]);
    let state = planner::state(&template, template.config().clone(), database_of(reads.as_read())?);
    let prepared = prepared(planner, &parsed, query.clone())?;
    let state = Arc::new(state);
    let planning = Arc::clone(&state);
    let planned = async move { optimized(&planning, planner::plan(&planning, &prepared).await?) };
    let plan = threads.compute(planned).await?;
    read_by(&plan)?;
    let (fields, columns) = (plan.schema().fields(), &view.columns);
    let same = fields.len() == columns.len()
        && fields.iter().zip(columns).all(|(field, column)| stored_type(field).as_ref() == Some(&column.ty));
    if !same {
        let message = format!("the columns of \"{}\" have changed since it was created", view.name);
        return Err(Error::internal(message).with_hint("drop it and create it again"));
    }
    let schema = weir_common::catalog::schema(columns);
    let reads = reads.columns.len();
    let compiled = async move {
        let mut steps = Vec::new();
        add_steps(&state, &plan, &mut steps)?;
        Ok(Compiled { reads, steps, schema })
    };
    Ok(Box::new(threads.compute(compiled).await?))
}

/// A database of one relation. The relation has no rows, because a view's plan does not scan it.
fn database_of(relation: Relation) -> Result<Arc<dyn CatalogProviderList>, Error> {
    let relation = Arc::new(relation);
    let RelationName { schema: schema_name, name } = relation.name.clone();
    let rows = Arc::new(EmptyTable::new(relation.schema()));
    let (database, catalog, schema) =
        (MemoryCatalogProviderList::new(), MemoryCatalogProvider::new(), MemorySchemaProvider::new());
    schema.register_table(name, Arc::new(NamedRelation::new(relation, rows)))?;
    catalog.register_schema(&schema_name, Arc::new(schema))?;
    database.register_catalog(DATABASE.to_owned(), Arc::new(catalog));
    Ok(Arc::new(database))
}

/// The query of a view, ready to be planned.
fn prepared(planner: &Planner, parsed: &Parsed, query: Box<sqlparser::ast::Statement>) -> Result<Prepared, Error> {
    let asked = query.as_ref().clone();
    planner.read(parsed.clone(), query, asked)?.closed()
}

/// True if each row of a query's answer comes from one row of a source.
fn is_of_rows(plan: &LogicalPlan) -> Result<bool, Error> {
    match plan {
        LogicalPlan::Projection(projection) => is_of_rows(&projection.input),
        LogicalPlan::Filter(filter) => is_of_rows(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => is_of_rows(&alias.input),
        LogicalPlan::TableScan(scan) if !NamedRelation::reads_letters(scan)? => {
            Ok(NamedRelation::of(scan)?.is_some_and(|relation| relation.kind == RelationKind::Source))
        }
        _ => Ok(false),
    }
}

/// Coerces the types and simplifies the expressions of a plan; nothing else.
fn optimized(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan, Error> {
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    // Must precede the simplification, which turns expressions that depend on the time into
    // constants.
    check_expressions(&plan)?;
    let rules: [Arc<dyn OptimizerRule + Send + Sync>; 1] = [Arc::new(SimplifyExpressions::new())];
    Ok(Optimizer::with_rules(rules.into()).optimize(plan, state, |_, _| {})?)
}

/// The source that a plan reads, if each row of the result comes from one of its rows.
///
/// # Errors
/// Internal, if the plan does something else.
fn read_by(plan: &LogicalPlan) -> Result<Arc<Relation>, Error> {
    let other = || Error::internal("the query of a view has become another one");
    match plan {
        LogicalPlan::Projection(projection) => read_by(&projection.input),
        LogicalPlan::Filter(filter) => read_by(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => read_by(&alias.input),
        LogicalPlan::TableScan(scan) => NamedRelation::of(scan)?.ok_or_else(other),
        _ => Err(other()),
    }
}

/// Refuses expressions whose value changes from call to call, and sub-queries, which read other
/// rows.
fn check_expressions(plan: &LogicalPlan) -> Result<(), Error> {
    let mut found = None;
    plan.apply(|node| {
        for expr in node.expressions() {
            expr.apply(|part| {
                let refused = match part {
                    Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                        Some(format!("{}(), whose value depends on when or by whom it is asked,", call.func.name()))
                    }
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => Some("a subquery".to_owned()),
                    _ => None,
                };
                found = found.take().or(refused);
                Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match found {
        Some(what) => Err(Error::unsupported(format!("{what} is not supported yet in a materialized view"))),
        None => Ok(()),
    }
}

/// Collects the columns of the source that the expressions nearest to it name.
fn used_columns(plan: &LogicalPlan, used: &mut Vec<String>) {
    let (input, is_projection) = match plan {
        LogicalPlan::Projection(projection) => (&projection.input, true),
        LogicalPlan::Filter(filter) => (&filter.input, false),
        LogicalPlan::SubqueryAlias(alias) => (&alias.input, false),
        _ => return,
    };
    if is_projection {
        // Expressions above a projection see its columns, not the source's.
        used.clear();
    }
    used.extend(plan.expressions().iter().flat_map(Expr::column_refs).map(|column| column.name.clone()));
    used_columns(input, used);
}

/// One step from the source's rows to the view's.
#[derive(Debug)]
enum Step {
    /// Keeps the rows for which the expression is true.
    Filter(Arc<dyn PhysicalExpr>),
    /// Replaces the columns of each row by these.
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
}

/// Appends the steps of a plan that [`read_by`] accepts.
fn add_steps(state: &SessionState, plan: &LogicalPlan, steps: &mut Vec<Step>) -> Result<(), Error> {
    match plan {
        LogicalPlan::Projection(projection) => {
            add_steps(state, &projection.input, steps)?;
            let input = projection.input.schema();
            let columns = projection.expr.iter().map(|expr| state.create_physical_expr(expr.clone(), input));
            let columns = columns.collect::<Result<_, DataFusionError>>()?;
            steps.push(Step::Project(columns, Arc::new(projection.schema.as_arrow().clone())));
        }
        LogicalPlan::Filter(filter) => {
            add_steps(state, &filter.input, steps)?;
            steps.push(Step::Filter(state.create_physical_expr(filter.predicate.clone(), filter.input.schema())?));
        }
        LogicalPlan::SubqueryAlias(alias) => add_steps(state, &alias.input, steps)?,
        _ => {}
    }
    Ok(())
}

/// A compiled view.
#[derive(Debug)]
struct Compiled {
    /// The number of columns that the view reads.
    reads: usize,
    steps: Vec<Step>,
    /// The schema of the view's own columns.
    schema: SchemaRef,
}

impl Evaluate for Compiled {
    fn evaluate(&self, rows: RecordBatch) -> Result<RecordBatch, view::Error> {
        // The message is the one that a query would get, in PostgreSQL's words.
        self.run(rows).map_err(|error| Error::from(error).into())
    }
}

impl Compiled {
    fn run(&self, mut rows: RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let mut own = self.reads;
        for step in &self.steps {
            match step {
                Step::Filter(predicate) => {
                    let kept = predicate.evaluate(&rows)?.into_array(rows.num_rows())?;
                    rows = filter_record_batch(&rows, kept.as_boolean())?;
                }
                Step::Project(columns, schema) => {
                    let made = columns.iter().map(|column| column.evaluate(&rows)?.into_array(rows.num_rows()));
                    let made = made.collect::<Result<Vec<ArrayRef>, DataFusionError>>()?;
                    (rows, own) = (beside(made, schema, &rows, own)?, columns.len());
                }
            }
        }
        let stored = self.schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
            match field.data_type() == column.data_type() {
                true => Ok(Arc::clone(column)),
                false => cast_with_options(column, field.data_type(), &DEFAULT_CAST_OPTIONS),
            }
        });
        let stored = stored.collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
        Ok(beside(stored, &self.schema, &rows, own)?)
    }
}

/// Replaces the first `own` columns of a batch.
fn beside(
    mut columns: Vec<ArrayRef>,
    schema: &Schema,
    rows: &RecordBatch,
    own: usize,
) -> Result<RecordBatch, ArrowError> {
    columns.extend_from_slice(&rows.columns()[own..]);
    // A column may contain NULLs even where DataFusion knows the expression as never NULL.
    let fields = schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    let behind = rows.schema();
    let fields = fields.chain(behind.fields()[own..].iter().cloned());
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options)
}
