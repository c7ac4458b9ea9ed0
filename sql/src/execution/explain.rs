//! EXPLAIN: the physical plan as text, under PostgreSQL's heading.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use futures::TryStreamExt;
use sqlparser::ast::{Statement, UtilityOption};

use crate::error::{Error, sqlstate};
use crate::parser::Parsed;

/// The schema of EXPLAIN's result.
pub static SCHEMA: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8, false)])));

/// The options of EXPLAIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explain {
    analyze: bool,
    verbose: bool,
}

impl Explain {
    /// Reads the options; `None` if the statement is not EXPLAIN.
    ///
    /// # Errors
    /// The user's, if an option is unknown or not supported.
    pub(crate) fn of(statement: &Statement, parsed: &Parsed) -> Result<Option<Explain>, Error> {
        let Statement::Explain { analyze, verbose, options, format, query_plan, estimate, .. } = statement else {
            return Ok(None);
        };
        if format.is_some() || *query_plan || *estimate {
            return Err(Error::user(sqlstate::SYNTAX_ERROR, "options of EXPLAIN stand in parentheses"));
        }
        let mut explain = Explain { analyze: *analyze, verbose: *verbose };
        for option in options.iter().flatten() {
            let refused = explain.take(option);
            refused.map_err(|error| error.at(parsed.position(option.name.span.start)))?;
        }
        Ok(Some(explain))
    }

    fn take(&mut self, option: &UtilityOption) -> Result<(), Error> {
        let value = option.arg.as_ref().map(|value| value.to_string().trim_matches('\'').to_lowercase());
        let value = value.as_deref();
        let on = !matches!(value, Some("false" | "off" | "0"));
        match option.name.value.to_lowercase().as_str() {
            "analyze" => self.analyze = on,
            "verbose" => self.verbose = on,
            // Accepted without effect: a plan has no costs, and only ANALYZE shows times.
            "costs" | "timing" | "summary" => {}
            "format" if value == Some("text") => {}
            name @ ("buffers" | "settings" | "wal" | "generic_plan" | "memory" | "serialize") if on => {
                return Err(Error::unsupported(format!("EXPLAIN ({}) is not supported", name.to_uppercase())));
            }
            "buffers" | "settings" | "wal" | "generic_plan" | "memory" => {}
            "format" if matches!(value, Some("json" | "xml" | "yaml")) => {
                let format = value.unwrap_or_default().to_uppercase();
                return Err(Error::unsupported(format!("EXPLAIN (FORMAT {format}) is not supported"))
                    .with_hint("plans are shown as text"));
            }
            "format" => {
                let message =
                    format!("unrecognized value for EXPLAIN option \"format\": \"{}\"", value.unwrap_or_default());
                return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message));
            }
            name => {
                let message = format!("unrecognized EXPLAIN option \"{name}\"");
                return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
            }
        }
        Ok(())
    }

    /// Shows the plan, one row for each line. ANALYZE runs it first and discards its rows.
    ///
    /// # Errors
    /// The query's, if it is run.
    pub async fn run(self, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<RecordBatch, Error> {
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
