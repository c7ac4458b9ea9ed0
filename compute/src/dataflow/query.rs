//! A view's query over the columns of its source.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use weir_common::catalog::{Entry, Reads, Relation};
use weir_common::ids::SplitId;
use weir_common::view::{Compile, Error, Evaluate};
use weir_stream::pipeline::{FailedRow, Failing};

use super::leaf::Origin;

/// Computes the rows of a view from the rows of its source.
pub(crate) struct Query {
    reads: Reads,
    failing: Failing,
    /// The places of the columns that it reads among the source's columns, and last that of the
    /// hidden column of every block, which follows them.
    columns: Vec<usize>,
    compiled: Box<dyn Evaluate>,
}

/// The rows that a query makes of others.
pub(crate) struct Evaluated {
    /// The rows, unless there are none.
    pub(crate) rows: Option<RecordBatch>,
    /// The rows that are left out.
    pub(crate) failed: Vec<FailedRow>,
}

impl Query {
    /// Compiles the query of `view`, which reads `reads` of `source`.
    ///
    /// # Errors
    /// If it cannot be compiled, although it could when the view was created.
    pub(crate) async fn of(
        view: &Entry,
        reads: &Reads,
        source: &Relation,
        compiler: &dyn Compile,
    ) -> Result<Query, Error> {
        let mut columns = reads.places(source)?;
        columns.push(source.columns.len());
        let read = reads.with_origin();
        let key = (reads.columns.len()..read.len()).collect();
        let failing = Failing { operator: "Query".to_owned(), columns: read, key, divided: None };
        let compiled = compiler.compile(view.declaration()).await?;
        Ok(Query { reads: reads.clone(), failing, columns, compiled })
    }

    /// The origin of the rows of a split, which tells failing ones apart.
    pub(crate) fn origin(&self, split: &SplitId) -> Origin {
        Origin::new(&self.reads, split)
    }

    /// The rows that it leaves out if an expression fails for them.
    pub(crate) fn failing(&self) -> &Failing {
        &self.failing
    }

    /// Computes the rows of the view. Both batches have the hidden column of every block behind
    /// their own columns. A row for which an expression fails is left out; halving the batch finds
    /// it.
    pub(crate) fn evaluate(&self, rows: &RecordBatch, origin: &mut Origin) -> Evaluated {
        let rows = rows.project(&self.columns).expect("columns of the source");
        let (mut parts, mut failed, mut left) = (Vec::new(), Vec::new(), vec![rows]);
        while let Some(part) = left.pop() {
            let (count, half) = (part.num_rows(), part.num_rows() / 2);
            match self.compiled.evaluate(part.clone()) {
                Ok(rows) => parts.push(rows),
                Err(error) if half == 0 => {
                    let row = origin.add(&part);
                    failed.push(FailedRow { operator: 0, row, error, is_delete: false });
                }
                // The last one comes next.
                Err(_) => left.extend([part.slice(half, count - half), part.slice(0, half)]),
            }
        }
        parts.retain(|part| part.num_rows() > 0);
        let rows = match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(concat_batches(&parts[0].schema(), &parts).expect("rows of one schema fit together")),
        };
        Evaluated { rows, failed }
    }
}
