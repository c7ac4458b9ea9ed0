//! INTERSECT ALL and EXCEPT ALL, which count how often a row occurs.
//!
//! DataFusion plans both as a semi or anti join of whole rows, in which a row that occurs once on
//! the right matches all equal rows on the left. This rule numbers equal rows on both sides and
//! compares the numbers too: of `n` rows on the left and `m` on the right, INTERSECT ALL keeps
//! `min(n, m)` and EXCEPT ALL keeps `max(n - m, 0)`.
//!
//! Before the optimizer, such joins come from nothing else: sub-queries are still expressions, and
//! SEMI and ANTI JOIN are refused. Without ALL the left side is DISTINCT, so its rows need no
//! numbers.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::{Distinct, Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion::optimizer::AnalyzerRule;

/// The columns of the numbers. A user cannot write these names.
const NUMBERS: [&str; 2] = ["\u{2063}left", "\u{2063}right"];

/// See the module.
#[derive(Debug)]
pub(crate) struct Multisets;

impl AnalyzerRule for Multisets {
    fn name(&self) -> &str {
        "multisets"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan
            .transform_up_with_subqueries(|plan| match plan {
                LogicalPlan::Join(join) if counts(&join) => Ok(Transformed::yes(counted(join)?)),
                plan => Ok(Transformed::no(plan)),
            })?
            .data)
    }
}

fn counts(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_)))
}

fn counted(join: Join) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = join.left.schema().iter().map(|field| Expr::Column(Column::from(field))).collect();
    let keys = |left: bool| {
        let keys = join.on.iter().map(|(one, other)| if left { one.clone() } else { other.clone() });
        keys.collect::<Vec<Expr>>()
    };
    let (left, right) =
        (numbered(&join.left, keys(true), NUMBERS[0])?, numbered(&join.right, keys(false), NUMBERS[1])?);
    let numbers = NUMBERS.map(|name| Expr::Column(Column::from_name(name)));
    let [left_number, right_number] = numbers;
    let mut on = join.on;
    on.push((left_number, right_number));
    let joined = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        join.filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(LogicalPlan::Join(joined)))?))
}

/// Numbers each row among its equal rows.
fn numbered(plan: &Arc<LogicalPlan>, keys: Vec<Expr>, name: &str) -> Result<LogicalPlan> {
    let number = row_number().partition_by(keys).build()?;
    let numbered = LogicalPlanBuilder::from(Arc::clone(plan)).window(vec![number])?.build()?;
    let mut columns: Vec<Expr> = numbered.schema().iter().map(|field| Expr::Column(Column::from(field))).collect();
    if let Some(last) = columns.pop() {
        columns.push(last.alias(name));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(numbered))?))
}
