//! The types that PostgreSQL gives to whole numbers, where DataFusion has others.
//!
//! * A literal that fits is an `integer`; DataFusion's are all `bigint`.
//! * `sum` of a `bigint` is `numeric`, so that it cannot overflow; DataFusion's is a `bigint` that wraps around.
//!
//! Runs before types are coerced, which also brings the schemas of the plan up to date. Plans whose types are fixed when
//! they are made, VALUES and recursive ones, keep DataFusion's.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, WindowFunctionDefinition};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

/// What a `bigint` is summed up as: 20 digits hold it, and a sum has ten more.
const SUMMED: DataType = DataType::Decimal128(20, 0);

/// See the module.
#[derive(Debug)]
pub(super) struct WholeNumbers;

impl AnalyzerRule for WholeNumbers {
    fn name(&self) -> &str {
        "whole_numbers"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if plan.exists(|node| Ok(matches!(node, LogicalPlan::RecursiveQuery(_))))? {
            return Ok(plan);
        }
        Ok(plan.transform_up_with_subqueries(in_plan)?.data)
    }
}

fn in_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if matches!(plan, LogicalPlan::Values(_) | LogicalPlan::Limit(_)) {
        return Ok(Transformed::no(plan));
    }
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let changed = plan.map_expressions(|expr| {
        // What groups in several ways at once is referred to by the names of its parts, which would change.
        if matches!(expr, Expr::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let changed = expr.transform_up(|expr| in_expression(expr, &schema))?;
        Ok(changed.update_data(|expr| name.restore(expr)))
    })?;
    // Those above look up the types of this one's columns.
    changed.map_data(LogicalPlan::recompute_schema)
}

fn in_expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => match i32::try_from(value) {
            Ok(value) => Transformed::yes(Expr::Literal(ScalarValue::Int32(Some(value)), metadata)),
            Err(_) => Transformed::no(Expr::Literal(ScalarValue::Int64(Some(value)), metadata)),
        },
        Expr::AggregateFunction(mut call) if call.func.name() == "sum" && sums_bigint(&call.params.args, schema) => {
            call.params.args = widened(call.params.args);
            Transformed::yes(Expr::AggregateFunction(call))
        }
        Expr::WindowFunction(mut call)
            if matches!(&call.fun, WindowFunctionDefinition::AggregateUDF(sum) if sum.name() == "sum")
                && sums_bigint(&call.params.args, schema) =>
        {
            call.params.args = widened(call.params.args);
            Transformed::yes(Expr::WindowFunction(call))
        }
        expr => Transformed::no(expr),
    })
}

fn sums_bigint(arguments: &[Expr], schema: &DFSchema) -> bool {
    // What has no type yet is an error that others report better.
    matches!(arguments, [argument] if matches!(argument.get_type(schema), Ok(DataType::Int64 | DataType::UInt64)))
}

fn widened(arguments: Vec<Expr>) -> Vec<Expr> {
    arguments.into_iter().map(|argument| Expr::Cast(Cast::new(Box::new(argument), SUMMED))).collect()
}
