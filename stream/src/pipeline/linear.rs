//! Operators of single rows: the changes of the output are the changes of the input, row by row.
//!
//! A row for which an expression fails is left out. Expressions depend on their row alone, so a
//! delete of the row fails alike, and nothing of it reaches the next operator.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{Schema, SchemaRef};
use weir_common::plan::{Expr, StreamColumn};
use weir_common::view::{Error, Expression, Functions};

use super::{FailedRow, Failure, Operate, Outcome};
use crate::chunk::Chunk;

/// The schema of a stream.
pub(super) fn schema(columns: &[StreamColumn]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|column| column.ty.field(&column.name)).collect::<Vec<_>>()))
}

/// Rows of a schema.
pub(super) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, Failure> {
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
        let evaluate = |rows: &RecordBatch| {
            let compute = |computed: &Computed| match computed {
                Computed::Column(column) => Ok(Arc::clone(rows.column(*column))),
                Computed::Expression(expression) => expression.evaluate(rows),
            };
            self.columns.iter().map(compute).collect()
        };
        let Evaluated { chunk, columns, failed } = evaluated(chunk, &evaluate)?;
        let columns = match chunk.rows().num_rows() {
            0 => self.schema.fields().iter().map(|field| new_empty_array(field.data_type())).collect(),
            _ => columns,
        };
        let computed = batch(&self.schema, columns, chunk.rows().num_rows())?;
        Ok(Outcome { failed, ..Outcome::done(vec![chunk.with_rows(computed)]) })
    }
}

/// Makes several rows of each one: for each list of columns and constants, one.
#[derive(Debug)]
pub(super) struct Expand {
    sets: Vec<Project>,
}

impl Expand {
    pub(super) fn new(
        sets: &[Vec<Expr>],
        input: &[StreamColumn],
        output: &[StreamColumn],
        functions: &dyn Functions,
    ) -> Result<Expand, Error> {
        let set = |exprs: &Vec<Expr>| Project::new(exprs, input, output, functions);
        Ok(Expand { sets: sets.iter().map(set).collect::<Result<_, _>>()? })
    }
}

impl Operate for Expand {
    fn apply(&mut self, chunk: Chunk) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::done(Vec::new());
        for set in &mut self.sets {
            let Outcome { emitted, failed, .. } = set.apply(chunk.clone())?;
            outcome.emitted.extend(emitted);
            outcome.failed.extend(failed);
        }
        Ok(outcome)
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
        let evaluate = |rows: &RecordBatch| Ok(vec![self.condition.evaluate(rows)?]);
        let Evaluated { chunk, columns, failed } = evaluated(chunk, &evaluate)?;
        let Some(kept) = columns.first() else { return Ok(Outcome { failed, ..Outcome::done(Vec::new()) }) };
        let kept = kept.as_boolean_opt().ok_or_else(|| Failure::Broken("a condition is not boolean".to_owned()))?;
        let kept = if kept.null_count() > 0 { prep_null_mask_filter(kept) } else { kept.clone() };
        let passed = match kept.true_count() {
            0 => Vec::new(),
            count if count == chunk.rows().num_rows() => vec![chunk],
            _ => vec![filter(&chunk, &kept)],
        };
        Ok(Outcome { failed, ..Outcome::done(passed) })
    }
}

type Evaluate<'a> = dyn Fn(&RecordBatch) -> Result<Vec<ArrayRef>, Error> + 'a;

/// The rows of a chunk for which no expression fails, the values of the expressions, and the
/// others.
struct Evaluated {
    chunk: Chunk,
    columns: Vec<ArrayRef>,
    failed: Vec<FailedRow>,
}

/// Evaluates expressions over a chunk. Rows for which they fail are found by halving it.
fn evaluated(chunk: Chunk, evaluate: &Evaluate<'_>) -> Result<Evaluated, Failure> {
    if let Ok(columns) = evaluate(chunk.rows()) {
        return Ok(Evaluated { chunk, columns, failed: Vec::new() });
    }
    let rows = chunk.rows().num_rows();
    let whole = 0..rows;
    let mut halves = vec![whole];
    let (mut parts, mut kept, mut failed) = (Vec::new(), vec![true; rows], Vec::new());
    while let Some(range) = halves.pop() {
        let part = chunk.rows().slice(range.start, range.len());
        match evaluate(&part) {
            Ok(columns) => parts.push(columns),
            Err(error) if range.len() == 1 => {
                kept[range.start] = false;
                failed.push(FailedRow { operator: 0, row: part, error, is_delete: chunk.is_delete(range.start) });
            }
            Err(_) => {
                let middle = range.start + range.len() / 2;
                // The next one is last.
                halves.extend([middle..range.end, range.start..middle]);
            }
        }
    }
    let width = parts.first().map_or(0, Vec::len);
    let column = |number: usize| {
        let parts: Vec<&dyn Array> = parts.iter().map(|columns| columns[number].as_ref()).collect();
        concat(&parts).map_err(|error| Failure::Broken(error.to_string()))
    };
    let columns = (0..width).map(column).collect::<Result<Vec<_>, _>>()?;
    Ok(Evaluated { chunk: filter(&chunk, &BooleanArray::from(kept)), columns, failed })
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
