//! Emits the rows that a statement names, once: at the first barrier of the job.
//!
//! The state has one entry, under the empty key, once they were emitted: the byte 1, its version.

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::concat;
use arrow::datatypes::Schema;
use bytes::Bytes;
use std::sync::Arc;
use weir_common::plan::{Expr, StreamColumn};
use weir_common::view::{Error, Functions};

use super::linear::{batch, schema};
use super::{Failure, Operate, Outcome, StateKey, StateWrite};
use crate::chunk::Chunk;

const VERSION: &[u8] = &[1];

/// See the module.
#[derive(Debug)]
pub(super) struct Constant {
    rows: RecordBatch,
    key: StateKey,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The state knows whether the rows were emitted.
    Unknown,
    Pending,
    /// The rows were emitted in this epoch.
    Emitted,
    Done,
}

impl Constant {
    pub(super) fn new(
        rows: &[Vec<Expr>],
        columns: &[StreamColumn],
        functions: &dyn Functions,
        table: u16,
        (vnode, is_fresh): (u16, bool),
    ) -> Result<Constant, Error> {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
            .map_err(|error| Error::new(error.to_string()))?;
        let column = |place: usize| {
            let value = |row: &Vec<Expr>| functions.build(&row[place], &[])?.evaluate(&nothing);
            let values = rows.iter().map(value).collect::<Result<Vec<_>, Error>>()?;
            let values: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
            concat(&values).map_err(|error| Error::new(error.to_string()))
        };
        let values = (0..columns.len()).map(column).collect::<Result<Vec<_>, Error>>()?;
        let rows = batch(&schema(columns), values, rows.len()).map_err(|failure| Error::new(failure.to_string()))?;
        let stage = if is_fresh { Stage::Pending } else { Stage::Unknown };
        Ok(Constant { rows, key: StateKey { table, vnode, key: Bytes::new(), prefix: 0 }, stage })
    }
}

impl Operate for Constant {
    fn apply(&mut self, _chunk: Chunk) -> Result<Outcome, Failure> {
        unreachable!("constant rows have no input")
    }

    fn supply(&mut self, found: Vec<Option<Bytes>>) -> Result<Outcome, Failure> {
        self.stage = match found.as_slice() {
            [None] => Stage::Pending,
            [Some(value)] if value == VERSION => Stage::Done,
            _ => return Err(Failure::Broken("the state of constant rows has another version".to_owned())),
        };
        Ok(Outcome::done(Vec::new()))
    }

    fn flush(&mut self) -> Result<Outcome, Failure> {
        match self.stage {
            Stage::Unknown => Ok(Outcome::need(vec![self.key.clone()])),
            Stage::Pending => {
                self.stage = Stage::Emitted;
                Ok(Outcome::done(vec![Chunk::inserts(self.rows.clone())]))
            }
            Stage::Emitted | Stage::Done => Ok(Outcome::done(Vec::new())),
        }
    }

    fn take_writes(&mut self, writes: &mut Vec<StateWrite>) {
        if self.stage == Stage::Emitted {
            self.stage = Stage::Done;
            writes.push(StateWrite { key: self.key.clone(), value: Some(Bytes::from_static(VERSION)) });
        }
    }
}
