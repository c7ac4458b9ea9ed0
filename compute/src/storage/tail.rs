//! The tail of a split: its newest block, which stays open while it is small. Every barrier closes
//! the rows that the actor has read, so a slow source would leave one tiny block for each epoch.
//! Instead the rows after a small block are stored together with it, under the same key, which
//! replaces it.
//!
//! Invariant: the blocks written last under each key hold every closed row once, in order. A new
//! term begins without a tail, so it never replaces a block of the committed state.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bytes::Bytes;

use super::block;

/// A block below this size stays open. Each barrier of a slow source writes half of it again on
/// average, so it bounds the writes of thousands of slow sources. Blocks of this size are read a
/// few hundred times faster than single rows.
const OPEN_BYTES_MAX: usize = 16 << 10;

/// The newest block of a split.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The number of the table's layout.
    layout: u16,
    open: Option<(Bytes, RecordBatch)>,
}

impl Tail {
    /// A tail without a block, for rows of this layout.
    pub(crate) fn new(layout: u16) -> Tail {
        Tail { layout, open: None }
    }

    /// The entry that stores `rows`, which follow all earlier rows: under `key`, or under the key
    /// of the open block if there is one.
    pub(crate) fn close(&mut self, key: impl FnOnce() -> Bytes, rows: RecordBatch) -> (Bytes, Bytes) {
        let (key, rows) = match self.open.take() {
            None => (key(), rows),
            Some((key, before)) => {
                let together = concat_batches(&rows.schema(), [&before, &rows]);
                (key, together.expect("rows of one table have one schema, and small blocks fit together"))
            }
        };
        let value = block::encode(&rows, self.layout);
        if value.len() < OPEN_BYTES_MAX {
            self.open = Some((key.clone(), rows));
        }
        (key, value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;
    use proptest::prelude::*;
    use weir_common::catalog::{Column, Origin};
    use weir_common::types::SqlType;
    use weir_connector_nats::Message;

    use super::*;
    use crate::ingest::decode::Decoder;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn all_rows_are_stored_once_in_few_blocks(epochs in prop::collection::vec(1_u64..40, 1..200), width in 0_usize..400) {
            let columns = [Column { name: "a".to_owned(), ty: SqlType::Varchar, origin: Origin::Payload }];
            let payload = format!("{{\"a\":\"{}\"}}", "x".repeat(width));
            let mut decoder = Decoder::new(&columns, "split");
            let (mut tail, mut stored, mut next) = (Tail::new(0), BTreeMap::new(), 0_u64);
            for rows in &epochs {
                let first = next;
                for _ in 0..*rows {
                    decoder.append(&Message::new(next, "subject", payload.clone())).expect("a good record");
                    next += 1;
                }
                let (key, value) = tail.close(|| Bytes::copy_from_slice(&first.to_be_bytes()), decoder.finish());
                stored.insert(key, value);
            }
            let schema = block::schema(&columns);
            let mut sequences = Vec::new();
            for block in stored.values() {
                let rows = block::decode(block, &schema, None).expect("a block");
                sequences.extend_from_slice(rows.column(1).as_primitive::<UInt64Type>().values());
            }
            prop_assert_eq!(sequences, (0..next).collect::<Vec<_>>());
            let small = stored.values().filter(|block| block.len() < OPEN_BYTES_MAX).count();
            prop_assert!(small <= 1, "only the newest block is small");
        }
    }
}
