//! Bounds the batches of functions that return sets.
//!
//! DataFusion's operator makes all rows of an input batch at once, with the other columns repeated:
//! a batch of 8,192 rows whose lists have 10,000 elements each would become one of 82 million rows.
//! The node of this module stands in front of it, and cuts batches, and lists that are long, so
//! that none makes more rows than a batch has.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

/// Puts the node in front of every operator that makes rows of lists.
#[derive(Debug)]
pub(crate) struct CutSets;

impl PhysicalOptimizerRule for CutSets {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let cut = plan.transform_up(|node| {
            let Some(unnest) = node.downcast_ref::<UnnestExec>() else { return Ok(Transformed::no(node)) };
            let lists = unnest.list_column_indices();
            let is_flat = lists.iter().all(|list| list.depth == 1);
            let lists: Vec<usize> = lists.iter().map(|list| list.index_in_input_schema).collect();
            let schema = unnest.input().schema();
            let is_cut = |list: &usize| matches!(schema.field(*list).data_type(), DataType::List(_));
            if !is_flat || lists.is_empty() || !lists.iter().all(is_cut) {
                return Ok(Transformed::no(node));
            }
            let pieces = Arc::new(Pieces { input: Arc::clone(unnest.input()), lists: lists.into() });
            let same = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
            Ok(Transformed::yes(node.replace_children(vec![pieces], same)?))
        });
        Ok(cut?.data)
    }

    fn name(&self) -> &str {
        "cut_sets"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The input of an operator that makes rows of lists, in pieces.
#[derive(Debug)]
struct Pieces {
    input: Arc<dyn ExecutionPlan>,
    /// The columns of lists.
    lists: Arc<[usize]>,
}

impl DisplayAs for Pieces {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces")
    }
}

impl ExecutionPlan for Pieces {
    fn name(&self) -> &str {
        "Pieces"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Pieces { input, lists: Arc::clone(&self.lists) }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (lists, rows) = (Arc::clone(&self.lists), context.session_config().batch_size());
        let batches = self.input.execute(partition, context)?;
        let schema = batches.schema();
        let cut = batches.map_ok(move |batch| {
            let pieces = Cut { batch, lists: Arc::clone(&lists), rows, row: 0, element: 0 };
            stream::iter(pieces).map(|piece| piece.map_err(DataFusionError::from))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, cut.try_flatten())))
    }
}

/// The pieces of a batch.
struct Cut {
    batch: RecordBatch,
    lists: Arc<[usize]>,
    /// The most rows that a piece makes.
    rows: usize,
    /// The row at which the next piece begins, and the element of its lists.
    row: usize,
    element: usize,
}

impl Iterator for Cut {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let all = self.batch.num_rows();
        if self.row == all {
            return None;
        }
        if self.length(self.row) > self.rows {
            let piece = self.part_of_row();
            self.element += self.rows;
            if self.element >= self.length(self.row) {
                (self.row, self.element) = (self.row + 1, 0);
            }
            return Some(piece);
        }
        let (start, mut made) = (self.row, 0);
        // A row without elements may make one.
        while self.row < all && made + self.length(self.row).max(1) <= self.rows {
            made += self.length(self.row).max(1);
            self.row += 1;
        }
        Some(Ok(self.batch.slice(start, self.row - start)))
    }
}

impl Cut {
    /// The number of rows that a row makes, which is at least 0.
    fn length(&self, row: usize) -> usize {
        let lists = self.lists.iter().map(|list| self.batch.column(*list).as_list::<i32>());
        let length = |list: &ListArray| if list.is_valid(row) { list.value_length(row) } else { 0 };
        lists.map(length).max().and_then(|length| usize::try_from(length).ok()).unwrap_or_default()
    }

    /// The row, with the next elements of its lists.
    fn part_of_row(&self) -> Result<RecordBatch, ArrowError> {
        let row = self.batch.slice(self.row, 1);
        let column = |(place, column): (usize, &ArrayRef)| {
            if !self.lists.contains(&place) || column.is_null(0) {
                return Ok(Arc::clone(column));
            }
            let list = column.as_list::<i32>();
            let DataType::List(element) = list.data_type() else { return Ok(Arc::clone(column)) };
            let values = list.value(0);
            let from = self.element.min(values.len());
            let values = values.slice(from, self.rows.min(values.len() - from));
            let offsets = OffsetBuffer::from_lengths([values.len()]);
            Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, None)?) as ArrayRef)
        };
        let columns = row.columns().iter().enumerate().map(column).collect::<Result<_, ArrowError>>()?;
        RecordBatch::try_new(row.schema(), columns)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int32Array, StringArray};
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn pieces_make_all_rows_and_no_piece_too_many() {
        let lists = |lengths: [Option<usize>; 6]| -> ArrayRef {
            let list = |length: Option<usize>| length.map(|length| (0..length as i32).map(Some).collect::<Vec<_>>());
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lengths.map(list)))
        };
        let batch = RecordBatch::try_from_iter([
            ("name", Arc::new(StringArray::from_iter_values(["a", "b", "c", "d", "e", "f"])) as ArrayRef),
            ("one", lists([Some(2), Some(11), None, Some(0), Some(4), Some(3)])),
            ("other", lists([Some(1), Some(5), Some(3), None, None, Some(3)])),
        ]);
        let batch = batch.expect("columns of one length");
        let cut = Cut { batch, lists: [1, 2].into(), rows: 4, row: 0, element: 0 };
        let told = cut.map(|piece| {
            let piece = piece.expect("a piece");
            let lists = |place: usize, row: usize| {
                let list = piece.column(place).as_list::<i32>();
                let values = || list.value(row).as_primitive::<Int32Type>().values().to_vec();
                list.is_valid(row).then(values).map_or("-".to_owned(), |values| format!("{values:?}"))
            };
            let row =
                |row| format!("{} {} {}", piece.column(0).as_string::<i32>().value(row), lists(1, row), lists(2, row));
            (0..piece.num_rows()).map(row).collect::<Vec<_>>().join("; ")
        });
        let expected = [
            "a [0, 1] [0]",
            "b [0, 1, 2, 3] [0, 1, 2, 3]",
            "b [4, 5, 6, 7] [4]",
            "b [8, 9, 10] []",
            "c - [0, 1, 2]; d [] -",
            "e [0, 1, 2, 3] -",
            "f [0, 1, 2] [0, 1, 2]",
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        let empty = RecordBatch::try_from_iter([("n", Arc::new(Int32Array::from(Vec::<i32>::new())) as ArrayRef)]);
        let batch = empty.expect("a column");
        assert!(Cut { batch, lists: [].into(), rows: 4, row: 0, element: 0 }.next().is_none());
    }
}
