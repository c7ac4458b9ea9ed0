//! A chunk: rows in columns, and for each row whether it is inserted or deleted.
//!
//! An update is a delete and an insert of one stream key, the delete first. Both carry all columns.

use std::sync::OnceLock;

use arrow::array::{Array, RecordBatch};
use arrow::buffer::BooleanBuffer;

use crate::edge::Weight;

/// Changes of rows, in order.
#[derive(Clone, Debug)]
pub struct Chunk {
    rows: RecordBatch,
    deletes: Option<BooleanBuffer>,
    /// Worked out once, since an edge asks for it several times; or the sender's, if that is on
    /// another node.
    weight: OnceLock<u64>,
}

/// Chunks are equal if they are the same changes.
impl PartialEq for Chunk {
    fn eq(&self, other: &Chunk) -> bool {
        (&self.rows, &self.deletes) == (&other.rows, &other.deletes)
    }
}

impl Chunk {
    /// Rows that are inserted.
    pub fn inserts(rows: RecordBatch) -> Chunk {
        Chunk { rows, deletes: None, weight: OnceLock::new() }
    }

    /// Rows of which those with a set bit are deleted.
    ///
    /// # Panics
    /// If there is not a bit for each row.
    pub fn new(rows: RecordBatch, deletes: BooleanBuffer) -> Chunk {
        assert_eq!(rows.num_rows(), deletes.len(), "a bit for each row");
        let deletes = (deletes.count_set_bits() > 0).then_some(deletes);
        Chunk { rows, deletes, weight: OnceLock::new() }
    }

    /// The chunk with the weight that its sender took credit for. In another process the same rows
    /// may occupy another number of bytes.
    #[must_use]
    pub fn weighing(self, bytes: u64) -> Chunk {
        Chunk { weight: OnceLock::from(bytes), ..self }
    }

    /// The rows.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// A set bit for each row that is deleted; `None` if none is.
    pub fn deletes(&self) -> Option<&BooleanBuffer> {
        self.deletes.as_ref()
    }

    /// Returns true if the row is deleted.
    pub fn is_delete(&self, row: usize) -> bool {
        self.deletes.as_ref().is_some_and(|deletes| deletes.value(row))
    }

    /// The same changes with other columns.
    ///
    /// # Panics
    /// If the number of rows differs.
    #[must_use]
    pub fn with_rows(&self, rows: RecordBatch) -> Chunk {
        assert_eq!(rows.num_rows(), self.rows.num_rows(), "the same rows");
        Chunk { rows, deletes: self.deletes.clone(), weight: OnceLock::new() }
    }
}

impl Weight for Chunk {
    fn bytes(&self) -> u64 {
        *self.weight.get_or_init(|| {
            let size = |column: &dyn Array| column.to_data().get_slice_memory_size().unwrap_or(0);
            let bytes: usize = self.rows.columns().iter().map(|column| size(column)).sum();
            (bytes + self.rows.num_rows().div_ceil(8)).max(1) as u64
        })
    }
}
