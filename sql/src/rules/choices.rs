//! Turns CASE, which was planned as a function ([`crate::functions`]), back into CASE. Runs before
//! every other rule.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::as_case;

/// See the module.
#[derive(Debug)]
pub(crate) struct Choices;

impl AnalyzerRule for Choices {
    fn name(&self) -> &str {
        "choices"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let restored = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let changed = expr.transform_up(|expr| match expr {
                    Expr::ScalarFunction(call) => Ok(match as_case(call, &schema)? {
                        Ok(case) => Transformed::yes(case),
                        Err(call) => Transformed::no(Expr::ScalarFunction(call)),
                    }),
                    expr => Ok(Transformed::no(expr)),
                })?;
                Ok(changed.update_data(|expr| name.restore(expr)))
            })
        });
        Ok(restored?.data)
    }
}
