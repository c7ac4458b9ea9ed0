//! INTERSECT ALL and EXCEPT ALL, which count how often a row occurs.
//!
//! DataFusion plans both as a semi or anti join of whole rows, for which a row that occurs once on the right stands for
//! all equal ones on the left. Here equal rows are numbered on both sides, and the join compares the numbers too: of `n`
//! rows on the left and `m` on the right INTERSECT ALL keeps the lesser number, and EXCEPT ALL what `n` has more.
//!
//! Such joins come from nothing else before the optimizer: sub-queries are still expressions, and SEMI and ANTI JOIN are
//! refused. Without ALL the left side is DISTINCT, so that its rows need no numbers.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::{Distinct, Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion::optimizer::AnalyzerRule;

/// The columns of the numbers, which nobody can name.
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

/// A plan with the number of each row among those that are equal to it.
fn numbered(plan: &Arc<LogicalPlan>, keys: Vec<Expr>, name: &str) -> Result<LogicalPlan> {
    let number = row_number().partition_by(keys).build()?;
    let numbered = LogicalPlanBuilder::from(Arc::clone(plan)).window(vec![number])?.build()?;
    let mut columns: Vec<Expr> = numbered.schema().iter().map(|field| Expr::Column(Column::from(field))).collect();
    if let Some(last) = columns.pop() {
        columns.push(last.alias(name));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(numbered))?))
}
