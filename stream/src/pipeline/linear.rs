//! Operators of single rows: the changes of the output are the changes of the input, row by row.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{Schema, SchemaRef};
use weir_common::plan::{Expr, StreamColumn};
use weir_common::view::{Error, Expression, Functions};

use super::{Failure, Operate, Outcome};
use crate::chunk::Chunk;

/// The schema of a stream.
pub(super) fn schema(columns: &[StreamColumn]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|column| column.ty.field(&column.name)).collect::<Vec<_>>()))
}

/// Rows of a schema.
pub(super) fn batch(
    schema: &SchemaRef,
    columns: Vec<arrow::array::ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, Failure> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Failure::Broken(format!("columns do not have the types of the plan: {error}")))
}

/// Computes other columns.
pub(super) struct Project {
    columns: Vec<Computed>,
    schema: SchemaRef,
}

#[derive(Debug)]
enum Computed {
    /// A column of the input.
    Column(usize),
    Expression(Box<dyn Expression>),
}

impl Project {
    pub(super) fn new(
        exprs: &[Expr],
        input: &[StreamColumn],
        output: &[StreamColumn],
        functions: &dyn Functions,
    ) -> Result<Project, Error> {
        let compute = |expr: &Expr| match expr {
            Expr::Column(column) => Ok(Computed::Column(*column)),
            expr => functions.build(expr, input).map(Computed::Expression),
        };
        Ok(Project { columns: exprs.iter().map(compute).collect::<Result<_, _>>()?, schema: schema(output) })
    }
}

impl fmt::Debug for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Project").field("columns", &self.columns).finish()
    }
}

impl Operate for Project {
    fn apply(&mut self, chunk: Chunk) -> Result<Outcome, Failure> {
        let rows = chunk.rows();
        let compute = |computed: &Computed| match computed {
            Computed::Column(column) => Ok(Arc::clone(rows.column(*column))),
            Computed::Expression(expression) => expression.evaluate(rows),
        };
        let columns = self.columns.iter().map(compute).collect::<Result<Vec<_>, _>>()?;
        let computed = batch(&self.schema, columns, rows.num_rows())?;
        Ok(Outcome::done(vec![chunk.with_rows(computed)]))
    }
}

/// Keeps the rows of which a condition is true. Both changes of an update are judged alone: one may
/// pass without the other.
#[derive(Debug)]
pub(super) struct Filter {
    condition: Box<dyn Expression>,
}

impl Filter {
    pub(super) fn new(condition: Box<dyn Expression>) -> Filter {
        Filter { condition }
    }
}

impl Operate for Filter {
    fn apply(&mut self, chunk: Chunk) -> Result<Outcome, Failure> {
        let kept = self.condition.evaluate(chunk.rows())?;
        let kept = kept.as_boolean_opt().ok_or_else(|| Failure::Broken("a condition is not boolean".to_owned()))?;
        let kept = if kept.null_count() > 0 { prep_null_mask_filter(kept) } else { kept.clone() };
        let passed = match kept.true_count() {
            0 => Vec::new(),
            count if count == chunk.rows().num_rows() => vec![chunk],
            _ => vec![filter(&chunk, &kept)],
        };
        Ok(Outcome::done(passed))
    }
}

fn filter(chunk: &Chunk, kept: &BooleanArray) -> Chunk {
    let rows = filter_record_batch(chunk.rows(), kept).expect("a value for each row");
    match chunk.deletes() {
        None => Chunk::inserts(rows),
        Some(deletes) => {
            let deletes: BooleanBuffer = kept.values().set_indices().map(|row| deletes.value(row)).collect();
            Chunk::new(rows, deletes)
        }
    }
}
