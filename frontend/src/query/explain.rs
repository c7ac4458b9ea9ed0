//! EXPLAIN: the physical plan as text, under PostgreSQL's heading.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use futures::TryStreamExt;
use sqlparser::ast::{Expr, Statement};

use crate::error::Error;

/// The columns of a plan.
pub(super) static SCHEMA: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8, false)])));

/// What EXPLAIN was asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Explain {
    analyze: bool,
    verbose: bool,
}

impl Explain {
    /// `None` if the statement is no EXPLAIN.
    pub(super) fn of(statement: &Statement) -> Option<Explain> {
        let Statement::Explain { analyze, verbose, options, .. } = statement else {
            return None;
        };
        let mut explain = Explain { analyze: *analyze, verbose: *verbose };
        for option in options.iter().flatten() {
            let on = option.arg.as_ref().is_none_or(is_on);
            match option.name.value.to_ascii_lowercase().as_str() {
                "analyze" => explain.analyze = on,
                "verbose" => explain.verbose = on,
                _ => {}
            }
        }
        Some(explain)
    }

    /// The plan, a line a row; for ANALYZE it is run first, and its rows are thrown away.
    pub(super) async fn run(
        self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<RecordBatch, Error> {
        let text = if self.analyze {
            let rows = execute_stream(Arc::clone(&plan), context)?;
            rows.try_for_each(|_| std::future::ready(Ok(()))).await?;
            DisplayableExecutionPlan::with_metrics(plan.as_ref()).indent(self.verbose).to_string()
        } else {
            displayable(plan.as_ref()).indent(self.verbose).to_string()
        };
        let lines = StringArray::from(text.lines().collect::<Vec<_>>());
        Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), vec![Arc::new(lines)])
            .map_err(datafusion::error::DataFusionError::from)?)
    }
}

fn is_on(argument: &Expr) -> bool {
    !matches!(argument.to_string().to_ascii_lowercase().as_str(), "false" | "off" | "0" | "'false'" | "'off'" | "'0'")
}
