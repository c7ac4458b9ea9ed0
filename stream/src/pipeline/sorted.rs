//! Keys of rows that sort as ORDER BY sorts them: the columns' keys ([`weir_common::key`]), their
//! bits flipped where the greatest value comes first. Part of stored state.
//!
//! A key begins with 1 for a value and 2 for NULL. Where NULL is on the other side than usual, it
//! is 0 before ascending values, and 255 behind descending ones.

use arrow::array::RecordBatch;
use weir_common::key::{Keys, NULL};
use weir_common::plan::SortKey;

/// Writes the keys of one batch.
pub(super) struct SortedKeys {
    columns: Vec<(Keys, SortKey)>,
}

impl SortedKeys {
    pub(super) fn new(rows: &RecordBatch, columns: &[SortKey]) -> SortedKeys {
        SortedKeys { columns: columns.iter().map(|key| (Keys::new(rows, &[key.column]), *key)).collect() }
    }

    /// Appends the key of a row.
    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) {
        for (keys, SortKey { descending, nulls_first, .. }) in &self.columns {
            let first = out.len();
            keys.write(row, out);
            let is_null = out[first] == NULL;
            if *descending {
                flip(&mut out[first..]);
            }
            if is_null && descending != nulls_first {
                out[first] = if *descending { u8::MAX } else { 0 };
            }
        }
    }
}

/// Turns the key of a value into one of the opposite order, and back.
pub(super) fn flip(key: &mut [u8]) {
    key.iter_mut().for_each(|byte| *byte = !*byte);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array};

    use super::*;

    #[test]
    fn keys_sort_as_order_by_does() {
        let values = [None, Some(3), Some(-1), Some(2)];
        let column: ArrayRef = Arc::new(Int32Array::from(values.to_vec()));
        let rows = RecordBatch::try_from_iter_with_nullable([("value", column, true)]).expect("a batch");
        for (descending, nulls_first, expected) in [
            (false, false, [Some(-1), Some(2), Some(3), None]),
            (false, true, [None, Some(-1), Some(2), Some(3)]),
            (true, true, [None, Some(3), Some(2), Some(-1)]),
            (true, false, [Some(3), Some(2), Some(-1), None]),
        ] {
            let keys = SortedKeys::new(&rows, &[SortKey { column: 0, descending, nulls_first }]);
            let key = |row| {
                let mut key = Vec::new();
                keys.write(row, &mut key);
                key
            };
            let mut sorted: Vec<usize> = (0..values.len()).collect();
            sorted.sort_by_key(|row| key(*row));
            assert_eq!(sorted.into_iter().map(|row| values[row]).collect::<Vec<_>>(), expected);
        }
    }
}
