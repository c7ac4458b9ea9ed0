//! Divides changes over the actors that receive them.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use weir_common::ids::{EdgeId, VnodeRange};
use weir_common::key::Division;
use weir_common::plan::Dispatch;
use weir_stream::chunk::Chunk;

/// An output of a fragment, as one of its actors sees it.
#[derive(Debug)]
pub(crate) struct Divide {
    /// The edges, in the order of the receivers' vnodes.
    edges: Vec<EdgeId>,
    by: By,
}

#[derive(Debug)]
enum By {
    /// All changes go over the only edge.
    Nothing,
    /// A change goes over the edge of the part that its vnode belongs to.
    Hash(Division),
    /// All changes go over this edge, though there are others.
    Beside(usize),
}

impl Divide {
    /// An output with these edges, one to each of `slots` unless there is only one.
    pub(crate) fn new(dispatch: &Dispatch, edges: Vec<EdgeId>, slots: impl Iterator<Item = VnodeRange>) -> Divide {
        let by = match dispatch {
            Dispatch::Hash(columns) if edges.len() > 1 => By::Hash(Division::new(columns.clone(), slots)),
            Dispatch::Hash(_) | Dispatch::Forward | Dispatch::Single => By::Nothing,
        };
        Divide { edges, by }
    }

    /// An output that sends everything over one of its edges, to the actor beside the sender.
    pub(crate) fn beside((edges, beside): (Vec<EdgeId>, usize)) -> Divide {
        Divide { edges, by: By::Beside(beside) }
    }

    /// The edges.
    pub(crate) fn edges(&self) -> &[EdgeId] {
        &self.edges
    }

    /// The changes that each edge carries, in order.
    pub(crate) fn divide(&self, chunk: &Chunk) -> Vec<(EdgeId, Chunk)> {
        match &self.by {
            By::Nothing => self.edges.iter().map(|edge| (*edge, chunk.clone())).collect(),
            By::Beside(beside) => vec![(self.edges[*beside], chunk.clone())],
            By::Hash(division) => {
                let parts = divide(division, chunk);
                parts.into_iter().map(|(part, chunk)| (self.edges[part], chunk)).collect()
            }
        }
    }
}

/// The changes of each part that has some, in order.
pub(crate) fn divide(division: &Division, chunk: &Chunk) -> Vec<(usize, Chunk)> {
    let parts = division.rows(chunk.rows()).into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
    parts.map(|(number, rows)| (number, part(chunk, rows))).collect()
}

fn part(chunk: &Chunk, rows: Vec<u32>) -> Chunk {
    if rows.len() == chunk.rows().num_rows() {
        return chunk.clone();
    }
    let deletes = chunk.deletes().map(|deletes| rows.iter().map(|row| deletes.value(*row as usize)).collect());
    let taken: RecordBatch = take_record_batch(chunk.rows(), &UInt32Array::from(rows)).expect("rows of the chunk");
    match deletes {
        Some(deletes) => Chunk::new(taken, deletes),
        None => Chunk::inserts(taken),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;
    use weir_common::ids::{ActorId, FragmentId, TableId};
    use weir_common::key::{Keys, vnode_of};

    use super::*;

    fn edge(to: u32) -> EdgeId {
        let actor = |index, instance| ActorId { fragment: FragmentId { job: TableId(1), index }, instance };
        EdgeId { from: actor(0, 0), to: actor(1, to), input: 0 }
    }

    proptest! {
        #[test]
        fn all_changes_of_a_key_take_one_edge_in_order(
            rows in prop::collection::vec((0_i64..20, any::<bool>()), 1..60),
            slots in 1_usize..5,
        ) {
            let ranges = VnodeRange::divide(slots);
            let edges = (0..u32::try_from(slots)?).map(edge).collect();
            let divide = Divide::new(&Dispatch::Hash(vec![0]), edges, ranges.iter().copied());
            let column: Int64Array = rows.iter().map(|row| Some(row.0)).collect();
            let number = Int64Array::from_iter_values(0..i64::try_from(rows.len())?);
            let batch = RecordBatch::try_from_iter([("k", Arc::new(column) as _), ("n", Arc::new(number) as _)])?;
            let chunk = Chunk::new(batch, rows.iter().map(|row| row.1).collect());
            let mut found = vec![None; rows.len()];
            for (edge, part) in divide.divide(&chunk) {
                let keys = Keys::new(part.rows(), &[0]);
                let numbers = part.rows().column(1).as_primitive::<Int64Type>().values();
                prop_assert!(numbers.is_sorted());
                for (row, number) in numbers.iter().enumerate() {
                    let mut key = Vec::new();
                    keys.write(row, &mut key);
                    let owner = ranges[edge.to.instance as usize];
                    prop_assert!((owner.start..owner.end).contains(&vnode_of(&key)));
                    let key = part.rows().column(0).as_primitive::<Int64Type>().value(row);
                    let before = found[usize::try_from(*number)?].replace((key, part.is_delete(row)));
                    prop_assert_eq!(before, None);
                }
            }
            let all: Vec<_> = found.into_iter().map(|row| row.expect("every row")).collect();
            prop_assert_eq!(all, rows);
        }
    }
}
