//! A view's query over the columns of its source.

use arrow::array::RecordBatch;
use weir_common::catalog::{Column, Entry, Reads, Relation};
use weir_common::view::{Compile, Error, Evaluate};

/// Computes the rows of a view from the rows of its source.
pub(crate) struct Query {
    /// The places of the columns that it reads among the source's columns, and last that of the
    /// hidden column of every block, which follows them.
    columns: Vec<usize>,
    compiled: Box<dyn Evaluate>,
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
        let mut columns = places(reads, source)?;
        columns.push(source.columns.len());
        Ok(Query { columns, compiled: compiler.compile(view.declaration()).await? })
    }

    /// Computes the rows of the view. Both batches have the hidden column of every block behind
    /// their own columns.
    ///
    /// # Errors
    /// If an expression fails.
    pub(crate) fn evaluate(&self, rows: &RecordBatch) -> Result<RecordBatch, Error> {
        self.compiled.evaluate(rows.project(&self.columns).expect("columns of the source"))
    }
}

/// The places of the columns that a view reads among those of its input, and the hidden ones
/// behind them.
pub(super) fn places(reads: &Reads, input: &Relation) -> Result<Vec<usize>, Error> {
    let place = |read: &Column| {
        let mut columns = input.columns.iter().chain(&input.hidden);
        let place = columns.position(|column| column.name == read.name && column.ty == read.ty);
        place.ok_or_else(|| {
            let (kind, input) = (input.kind.as_str(), &input.name);
            Error(format!("{kind} \"{input}\" has no column \"{}\" of type {} any more", read.name, read.ty))
        })
    };
    reads.columns.iter().map(place).collect()
}
