//! LIMIT and OFFSET with expressions: they are evaluated before the query, whose plan then has
//! numbers in their places. DataFusion takes only what it can reduce to a number by itself, and no
//! sub-queries.

use std::collections::HashMap;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Cast, Expr, Limit, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::collect;

use crate::error::{Error, sqlstate};

/// Puts the values of counts in their places.
///
/// # Errors
/// The user's: a count that is negative, or that depends on rows around it.
pub async fn counted(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan, Error> {
    let counts = counts(&plan)?;
    let mut known = HashMap::with_capacity(counts.len());
    for (count, what) in counts {
        if known.contains_key(&count) {
            continue;
        }
        let value = Box::pin(value(count.clone(), state)).await?;
        if value.is_some_and(|value| value < 0) {
            let code = match what {
                LIMIT => sqlstate::INVALID_ROW_COUNT_IN_LIMIT_CLAUSE,
                _ => sqlstate::INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE,
            };
            return Err(Error::user(code, format!("{what} must not be negative")));
        }
        known.insert(count, value);
    }
    replaced(plan, &|count| known.get(count).copied().flatten())
}

/// Leaves counts out that are not known before the query runs: they do not concern its columns.
///
/// # Errors
/// As [`counted`].
pub fn uncounted(plan: LogicalPlan) -> Result<LogicalPlan, Error> {
    replaced(plan, &|_| None)
}

const LIMIT: &str = "LIMIT";
const OFFSET: &str = "OFFSET";

/// True for a count that DataFusion cannot be left alone with.
fn is_open(count: &Expr) -> bool {
    !matches!(count, Expr::Literal(..) | Expr::Placeholder(_))
}

fn open(limit: &Limit) -> impl Iterator<Item = (&Expr, &'static str)> {
    let counts = [(&limit.fetch, LIMIT), (&limit.skip, OFFSET)];
    counts.into_iter().filter_map(|(count, what)| Some((count.as_deref()?, what))).filter(|(count, _)| is_open(count))
}

/// The counts of a plan that are expressions.
fn counts(plan: &LogicalPlan) -> Result<Vec<(Expr, &'static str)>, Error> {
    let (mut counts, mut refers) = (Vec::new(), false);
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for (count, what) in open(limit) {
                refers |= count.contains_outer();
                counts.push((count.clone(), what));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if refers {
        return Err(Error::unsupported("LIMIT and OFFSET cannot refer to rows around the sub-query"));
    }
    Ok(counts)
}

async fn value(count: Expr, state: &SessionState) -> Result<Option<i64>, Error> {
    let number = Expr::Cast(Cast::new(Box::new(count), DataType::Int64)).alias("count");
    let plan = LogicalPlanBuilder::empty(true).project([number])?.build()?;
    let plan = counted(plan, state).await?;
    let rows = collect(state.create_physical_plan(&plan).await?, state.task_ctx()).await?;
    let first = rows.iter().find(|batch| batch.num_rows() > 0);
    Ok(first.and_then(|batch| batch.column(0).as_primitive::<Int64Type>().iter().next()).flatten())
}

/// A plan with other counts.
fn replaced(plan: LogicalPlan, value: &dyn Fn(&Expr) -> Option<i64>) -> Result<LogicalPlan, Error> {
    let number = |count: Option<Box<Expr>>| match count {
        Some(count) if is_open(&count) => {
            value(&count).map(|value| Box::new(Expr::Literal(ScalarValue::Int64(Some(value)), None)))
        }
        count => count,
    };
    let replaced = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::Limit(limit) if open(&limit).next().is_some() => {
            let Limit { skip, fetch, input } = limit;
            Ok(Transformed::yes(LogicalPlan::Limit(Limit { skip: number(skip), fetch: number(fetch), input })))
        }
        node => Ok(Transformed::no(node)),
    });
    Ok(replaced?.data)
}
