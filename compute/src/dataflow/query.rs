//! The query of a view over the columns that its source has.

use arrow::array::RecordBatch;
use weir_common::catalog::{Column, Reads, Table};
use weir_common::view::{Compile, Error, Evaluate};

/// What a view makes of the rows of its source.
pub(crate) struct Query {
    /// Where the columns that it reads stand among the source's; last the hidden one of every block, which is behind them.
    columns: Vec<usize>,
    compiled: Box<dyn Evaluate>,
}

impl Query {
    /// Compiles the query of `view`, which reads `reads` of `source`.
    ///
    /// # Errors
    /// If it cannot be compiled, although it could when the view was created.
    pub(crate) async fn of(
        view: &Table,
        reads: &Reads,
        source: &Table,
        compiler: &dyn Compile,
    ) -> Result<Query, Error> {
        let mut columns = places(reads, source)?;
        columns.push(source.declared.columns.len());
        Ok(Query { columns, compiled: compiler.compile(view.declared.clone()).await? })
    }

    /// The rows of the view that are made of these, both with the hidden column of every block behind their own.
    ///
    /// # Errors
    /// If an expression fails.
    pub(crate) fn evaluate(&self, rows: &RecordBatch) -> Result<RecordBatch, Error> {
        self.compiled.evaluate(rows.project(&self.columns).expect("columns of the source"))
    }
}

/// Where the columns that a view reads stand among those of its source.
fn places(reads: &Reads, source: &Table) -> Result<Vec<usize>, Error> {
    let columns = &source.declared.columns;
    let place = |read: &Column| {
        let place = columns.iter().position(|column| column.name == read.name && column.ty == read.ty);
        place.ok_or_else(|| {
            let source = &source.declared.name;
            Error(format!("source \"{source}\" has no column \"{}\" of type {} any more", read.name, read.ty))
        })
    };
    reads.columns.iter().map(place).collect()
}
