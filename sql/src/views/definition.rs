//! Plain views: queries with names, which statements are planned with in their places.
//!
//! A definition keeps the names that relations had when it was written, with their schemas unless
//! that is `public`. The caller resolves them to the relations that bore them then, and shows of
//! each only the columns that the query used. So neither a renamed relation or schema, nor a new
//! column, nor a search path changes the meaning of a view.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column as PlanColumn, TableReference};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use weir_common::catalog::{Column, Definition, Plan, Reads, Relation, RelationName};

use super::{Described, columns, prepared};
use crate::error::Error;
use crate::execution::QueryThreads;
use crate::parser::{self, Parsed, Statement};
use crate::planner::{self, Planner};

/// Describes a plain view. `names` are the relations that its query names; of some it reads no
/// columns, but their dead letters.
///
/// # Errors
/// The user's.
pub async fn define(
    planner: &Planner,
    threads: &QueryThreads,
    state: SessionState,
    (parsed, query): (&Parsed, Box<sqlparser::ast::Statement>),
    names: Vec<Arc<Relation>>,
) -> Result<Described, Error> {
    let prepared = prepared(planner, parsed, query)?;
    let described = async move {
        let plan = planner::plan(&state, &prepared).await?;
        let used = used(&plan)?;
        let fields: Vec<String> = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
        let columns = columns(&plan, prepared.column_names(&fields))?;
        let read = |relation: &Arc<Relation>| {
            let read = relation.columns.iter().filter(|column| used.contains(&column.name));
            Reads::of(relation, read.cloned().collect())
        };
        let plan = Plan::Definition(Definition { names: names.iter().map(read).collect() });
        Ok(Described { columns, hidden: Vec::new(), primary_key: Vec::new(), plan })
    };
    threads.compute(described).await
}

/// The names of all columns that a plan mentions, of whichever relation.
fn used(plan: &LogicalPlan) -> Result<HashSet<String>, Error> {
    let mut used: HashSet<String> = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Union(_) | LogicalPlan::Distinct(_) | LogicalPlan::RecursiveQuery(_) = node {
            // They match columns by their places.
            let inputs = node.inputs().into_iter().flat_map(|input| input.schema().fields().iter());
            used.extend(inputs.map(|field| field.name().clone()));
        }
        for expr in node.expressions() {
            expr.apply(|part| {
                if let Expr::Column(column) | Expr::OuterReferenceColumn(_, column) = part {
                    used.insert(column.name.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(used)
}

/// Plans the query of a plain view. In `state`, the names of the query are those of the relations
/// that it was written with.
///
/// # Errors
/// The user's, if an input is not what it was.
pub async fn expand(planner: &Planner, state: &SessionState, view: &Relation) -> Result<Arc<dyn TableProvider>, Error> {
    let not_a_view = || Error::internal(format!("the stored statement of \"{}\" is not a view", view.name));
    let parsed = parser::parse(&view.sql)?.pop().ok_or_else(not_a_view)?;
    let Statement::CreateView(create) = &parsed.statement else { return Err(not_a_view()) };
    planned(planner, state, view, (&parsed, create.query.clone())).await
}

/// Plans a query whose rows are those of a view.
///
/// # Errors
/// The user's, if an input is not what it was.
pub async fn planned(
    planner: &Planner,
    state: &SessionState,
    view: &Relation,
    (parsed, query): (&Parsed, Box<sqlparser::ast::Statement>),
) -> Result<Arc<dyn TableProvider>, Error> {
    let prepared = prepared(planner, parsed, query)?;
    // Positions in the view's statement mean nothing to the author of another one.
    let plan = planner::plan(state, &prepared).await.map_err(|error| Error { position: None, ..error })?;
    let fields: Vec<PlanColumn> = plan.schema().columns();
    if fields.len() != view.columns.len() {
        return Err(Error::internal(format!("the columns of \"{}\" have changed since it was created", view.name)));
    }
    let named = fields.into_iter().zip(&view.columns).map(|(field, column)| Expr::Column(field).alias(&column.name));
    let plan = LogicalPlanBuilder::from(plan).project(named).and_then(LogicalPlanBuilder::build)?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// A relation that shows only some of its columns.
///
/// # Errors
/// If it does not have them.
pub fn narrowed(
    name: &RelationName,
    relation: Arc<dyn TableProvider>,
    columns: &[Column],
) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    if relation.schema().fields().len() == columns.len() {
        return Ok(relation);
    }
    let name = TableReference::partial(name.schema.as_str(), name.name.as_str());
    let scan = LogicalPlanBuilder::scan(name.clone(), provider_as_source(relation), None)?;
    let columns = columns.iter().map(|column| Expr::Column(PlanColumn::new(Some(name.clone()), &column.name)));
    Ok(Arc::new(ViewTable::new(scan.project(columns.collect::<Vec<_>>())?.build()?, None)))
}
