//! Gives a text literal beside a boolean the boolean's type.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Case, Cast, Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use super::equality::compares;

/// Casts text literals beside booleans to boolean: `is_active = 'true'`, `is_active IN ('t', 'f')`,
/// `CASE is_active WHEN 't' …`. Runs before types are coerced, because the coercion refuses a text
/// beside a boolean.
#[derive(Debug)]
pub(crate) struct Booleans;

/// Handles comparisons while they are planned, because a function asks for the types of its
/// arguments at that time.
impl ExprPlanner for Booleans {
    fn plan_binary_op(&self, mut raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use sqlparser::ast::BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        let is_boolean = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| ty == DataType::Boolean);
        if matches!(raw.op, Eq | NotEq | Lt | LtEq | Gt | GtEq) {
            if is_text(&raw.right) && is_boolean(&raw.left) {
                raw.right = *as_boolean(Box::new(raw.right));
            } else if is_text(&raw.left) && is_boolean(&raw.right) {
                raw.left = *as_boolean(Box::new(raw.left));
            }
        }
        Ok(PlannerResult::Original(raw))
    }
}

impl AnalyzerRule for Booleans {
    fn name(&self) -> &str {
        "booleans"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let changed = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let changed = expr.transform_up(|expr| Ok(beside_boolean(expr, &schema)))?;
                Ok(changed.update_data(|expr| name.restore(expr)))
            })
        })?;
        Ok(changed.data)
    }
}

fn beside_boolean(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_boolean = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| ty == DataType::Boolean);
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if compares(op) && (is_text(&left) || is_text(&right)) && (is_boolean(&left) || is_boolean(&right)) =>
        {
            let (left, right) = (as_boolean(left), as_boolean(right));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::InList(mut list) if list.list.iter().any(is_text) && is_boolean(&list.expr) => {
            list.list = list.list.into_iter().map(|value| *as_boolean(Box::new(value))).collect();
            Transformed::yes(Expr::InList(list))
        }
        Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr })
            if when_then_expr.iter().any(|(when, _)| is_text(when)) && is_boolean(&expr) =>
        {
            let branches = when_then_expr.into_iter().map(|(when, then)| (as_boolean(when), then)).collect();
            Transformed::yes(Expr::Case(Case { expr: Some(expr), when_then_expr: branches, else_expr }))
        }
        expr => Transformed::no(expr),
    }
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// The cast reads the text as PostgreSQL does, and refuses a text that is not a boolean.
fn as_boolean(expr: Box<Expr>) -> Box<Expr> {
    if is_text(&expr) { Box::new(Expr::Cast(Cast::new(expr, DataType::Boolean))) } else { expr }
}
