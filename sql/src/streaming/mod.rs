//! A query → the plan of a job that keeps its answer up to date.
//!
//! `lower` cuts the logical plan into fragments, derives stream keys, and adds hidden columns
//! where a key or a shuffle needs them; `aggregates` knows which of these are kept up to date, and
//! the state that they need; `expression` stores expressions as trees of Weir's own, and
//! `build` makes evaluators of them.
//!
//! Only those of DataFusion's logical rules run that `typed` lists: others prune or move
//! columns that an incremental plan needs, or trust keys that a source does not keep. The rules
//! that put Weir's own functions in the place of operators run when a node builds the job, so the
//! stored plan names operators, not their present implementation.

mod aggregates;
mod lower;

mod build;
mod expression;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerRule};
use weir_common::plan::JobPlan;

pub(crate) use build::build;

use crate::error::Error;

/// Rules that run when a job is built from its plan, not when it is planned.
const LATER: [&str; 4] = ["apply_function_rewrites", "aggregated", "equality", "sent"];

/// The rule that coerces types. It also runs when a job is built, because a function may take or
/// return other types than those that are stored.
const COERCION: &str = "type_coercion";

/// Plans a job that keeps the answer of a query up to date. `plan` has its names resolved and is
/// not analyzed yet.
///
/// # Errors
/// `0A000` for queries that cannot be kept up to date.
pub fn plan(state: &SessionState, plan: LogicalPlan) -> Result<JobPlan, Error> {
    let job = lower::lower(state, &typed(state, plan)?)?;
    job.check();
    Ok(job)
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported yet in a materialized view"))
}

/// The plan with all types known, and without columns that nothing needs.
fn typed(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan, Error> {
    let rules = state.analyzer().rules.iter().filter(|rule| !LATER.contains(&rule.name()));
    let analyzer = Analyzer::with_rules(rules.cloned().collect());
    let plan = analyzer.execute_and_check(plan, state.config_options(), |_, _| {})?;
    let rules: [Arc<dyn OptimizerRule + Send + Sync>; 1] = [Arc::new(OptimizeProjections::new())];
    Ok(Optimizer::with_rules(rules.into()).optimize(plan, state, |_, _| {})?)
}
