//! Literals that get their type from what stands beside them, where DataFusion does not do as PostgreSQL does: a text beside
//! a boolean, and in LIMIT. LIKE with another escape character than the backslash.

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Case, Cast, Expr as LogicalExpr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;
use sqlparser::ast::{ArrayElemTypeDef, DataType, Expr, LimitClause, Query, Statement, Value, VisitMut, VisitorMut};

use super::equality::compares;
use super::rewrite::{call, cast};
use crate::functions::LIKE_ESCAPE;

/// Rewrites what the text of a query tells already.
pub(super) fn in_statement(statement: &mut Statement) {
    let _finished = VisitMut::visit(statement, &mut Written);
}

struct Written;

impl VisitorMut for Written {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } = expr
            && let Some(escape) = escape_char.take()
        {
            let written = std::mem::replace(pattern.as_mut(), Expr::Value(Value::Null.with_empty_span()));
            **pattern = call(LIKE_ESCAPE, vec![written, Expr::Value(escape)]);
        }
        if let Expr::Cast { expr: operand, data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(ty, _)), .. } =
            expr
            && without_length(ty).is_some()
            && let Some(elements) = elements(operand)
        {
            // Each is cut by itself.
            for element in elements {
                let whole = std::mem::replace(element, Expr::Value(Value::Null.with_empty_span()));
                *element = cast(whole, (**ty).clone());
            }
            if let Some(whole) = without_length(ty) {
                **ty = whole;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            for count in limit.iter_mut().chain(offset.iter_mut().map(|offset| &mut offset.value)) {
                if matches!(count, Expr::Value(text) if matches!(text.value, Value::SingleQuotedString(_))) {
                    let text = std::mem::replace(count, Expr::Value(Value::Null.with_empty_span()));
                    *count = cast(text, DataType::BigInt(None));
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The elements of an array that is written out.
fn elements(expr: &mut Expr) -> Option<&mut Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(array) => Some(&mut array.elem),
        _ => None,
    }
}

/// The type of texts of any length, in the place of one of a limited length.
fn without_length(ty: &DataType) -> Option<DataType> {
    match ty {
        DataType::Varchar(Some(_))
        | DataType::CharacterVarying(Some(_))
        | DataType::CharVarying(Some(_))
        | DataType::Char(_)
        | DataType::Character(_) => Some(DataType::Varchar(None)),
        _ => None,
    }
}

/// A text literal beside a boolean is one: `is_active = 'true'`, `is_active IN ('t', 'f')`, `CASE is_active WHEN 't' …`.
/// Runs before types are coerced, which refuses the two.
#[derive(Debug)]
pub(super) struct Booleans;

/// Where a comparison stands in the arguments of a function, its type is asked for when it is
/// planned.
impl ExprPlanner for Booleans {
    fn plan_binary_op(&self, mut raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use sqlparser::ast::BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        let is_boolean = |expr: &LogicalExpr| expr.get_type(schema).is_ok_and(|ty| ty == ArrowType::Boolean);
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

fn beside_boolean(expr: LogicalExpr, schema: &DFSchema) -> Transformed<LogicalExpr> {
    let is_boolean = |expr: &LogicalExpr| expr.get_type(schema).is_ok_and(|ty| ty == ArrowType::Boolean);
    match expr {
        LogicalExpr::BinaryExpr(BinaryExpr { left, op, right })
            if compares(op) && (is_text(&left) || is_text(&right)) && (is_boolean(&left) || is_boolean(&right)) =>
        {
            let (left, right) = (as_boolean(left), as_boolean(right));
            Transformed::yes(LogicalExpr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        LogicalExpr::InList(mut list) if list.list.iter().any(is_text) && is_boolean(&list.expr) => {
            list.list = list.list.into_iter().map(|value| *as_boolean(Box::new(value))).collect();
            Transformed::yes(LogicalExpr::InList(list))
        }
        LogicalExpr::Case(Case { expr: Some(expr), when_then_expr, else_expr })
            if when_then_expr.iter().any(|(when, _)| is_text(when)) && is_boolean(&expr) =>
        {
            let branches = when_then_expr.into_iter().map(|(when, then)| (as_boolean(when), then)).collect();
            Transformed::yes(LogicalExpr::Case(Case { expr: Some(expr), when_then_expr: branches, else_expr }))
        }
        expr => Transformed::no(expr),
    }
}

fn is_text(expr: &LogicalExpr) -> bool {
    matches!(expr, LogicalExpr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// A cast reads the text as PostgreSQL does, and refuses what is no boolean.
fn as_boolean(expr: Box<LogicalExpr>) -> Box<LogicalExpr> {
    if is_text(&expr) { Box::new(LogicalExpr::Cast(Cast::new(expr, ArrowType::Boolean))) } else { expr }
}
