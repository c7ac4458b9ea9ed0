//! The rows that a statement's query gives, and what is sent of them.

use std::collections::HashSet;
use std::mem;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{cast, concat_batches, filter_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use weir_common::catalog::Relation;
use weir_common::key::Keys;
use weir_sql::error::{Error, sqlstate};
use weir_sql::output::texts;
use weir_sql::writes::Again;

use super::holding::Holding;
use super::statement::Planned;

/// Takes the batches of a statement's query.
pub(super) struct Taking<'a> {
    planned: &'a Planned,
    /// The keys of rows that were found already.
    seen: HashSet<Vec<u8>>,
    /// New rows that wait until all old ones are deleted.
    waiting: Vec<Vec<ArrayRef>>,
    /// The answer of RETURNING.
    returned: Vec<RecordBatch>,
    /// The memory of the two.
    memory: MemoryReservation,
    rows: usize,
}

/// The end of a statement's rows.
pub(super) struct Taken {
    pub(super) rows: usize,
    pub(super) returned: Vec<RecordBatch>,
}

impl<'a> Taking<'a> {
    pub(super) fn new(planned: &'a Planned, memory: MemoryReservation) -> Taking<'a> {
        let (seen, waiting, returned) = (HashSet::new(), Vec::new(), Vec::new());
        Taking { planned, seen, waiting, returned, memory, rows: 0 }
    }

    /// Sends the rows of a batch, as far as they do not have to wait.
    pub(super) async fn take(&mut self, holding: &mut Holding, batch: RecordBatch) -> Result<(), Error> {
        let batch = if self.planned.shape.again == Again::Kept { batch } else { self.first(&batch)? };
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let shape = self.planned.shape;
        self.rows += batch.num_rows();
        let (keys, rest) = batch.columns().split_at(shape.deleted);
        if shape.inserted > 0 {
            let rows = visible(&self.planned.relation, &rest[..shape.inserted], batch.num_rows())?;
            if shape.deleted == 0 {
                holding.insert(&rows).await?;
            } else {
                self.memory.try_grow(rows.get_array_memory_size())?;
                self.waiting.push(self.stored(rows, keys));
            }
        }
        if shape.deleted > 0 {
            holding.delete(keys, batch.num_rows()).await?;
        }
        if shape.returns {
            let from = shape.deleted + shape.inserted;
            let returned = batch.project(&(from..batch.num_columns()).collect::<Vec<_>>());
            let returned = returned.map_err(DataFusionError::from)?;
            self.memory.try_grow(returned.get_array_memory_size())?;
            self.returned.push(returned);
        }
        Ok(())
    }

    /// Sends the rows that have waited.
    pub(super) async fn end(mut self, holding: &mut Holding) -> Result<Taken, Error> {
        for columns in mem::take(&mut self.waiting) {
            let rows = columns.first().map_or(0, |column| column.len());
            holding.insert_stored(columns, rows).await?;
        }
        Ok(Taken { rows: self.rows, returned: self.returned })
    }

    /// The stored columns of updated rows. Hidden ones, which are part of the key, stay.
    fn stored(&self, rows: RecordBatch, keys: &[ArrayRef]) -> Vec<ArrayRef> {
        let relation = &self.planned.relation;
        let seen = relation.columns.len();
        let hidden = (seen..seen + relation.hidden.len()).filter_map(|place| {
            let at = relation.primary_key.iter().position(|part| *part == place)?;
            Some(ArrayRef::clone(&keys[at]))
        });
        rows.columns().iter().cloned().chain(hidden).collect()
    }

    /// The rows of a batch whose keys come for the first time.
    fn first(&mut self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let columns: Vec<usize> = (0..self.planned.shape.deleted).collect();
        let keys = Keys::new(batch, &columns);
        let is_new = (0..batch.num_rows()).map(|row| {
            let mut key = Vec::new();
            keys.write(row, &mut key);
            let bytes = key.len();
            let is_new = self.seen.insert(key);
            if is_new {
                self.memory.try_grow(bytes + mem::size_of::<Vec<u8>>())?;
            } else if self.planned.shape.again == Again::Refused {
                let message = "ON CONFLICT DO UPDATE command cannot affect row a second time";
                let hint = "no two rows of one statement may have the same key";
                return Err(Error::user(sqlstate::CARDINALITY_VIOLATION, message).with_hint(hint));
            }
            Ok(Some(is_new))
        });
        let is_new = is_new.collect::<Result<BooleanArray, Error>>()?;
        Ok(filter_record_batch(batch, &is_new).map_err(DataFusionError::from)?)
    }
}

/// Rows of a table from the columns of a query, which have its types.
///
/// # Errors
/// `23502` for a NULL where the table has none.
pub(super) fn visible(relation: &Relation, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch, Error> {
    let schema = relation.schema();
    let typed = columns.iter().zip(schema.fields()).map(|(column, field)| match column.data_type() {
        ty if ty == field.data_type() => Ok(ArrayRef::clone(column)),
        _ => cast(column, field.data_type()),
    });
    let typed = typed.collect::<Result<Vec<_>, _>>().map_err(DataFusionError::from)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(schema, typed, &options).map_err(DataFusionError::from)?;
    check_nulls(relation, &batch)?;
    Ok(batch)
}

/// Checks that columns that are NOT NULL have no NULLs.
///
/// # Errors
/// `23502`.
pub(super) fn check_nulls(relation: &Relation, batch: &RecordBatch) -> Result<(), Error> {
    for (place, column) in relation.columns.iter().enumerate() {
        let array = batch.column(place);
        let is_not_null = column.constraints().is_some_and(|constraints| constraints.not_null)
            || relation.primary_key.contains(&place);
        if !is_not_null || array.null_count() == 0 {
            continue;
        }
        let row = (0..array.len()).find(|row| array.is_null(*row)).unwrap_or_default();
        let message = format!(
            "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
            column.name, relation.name
        );
        let detail = format!("failing row contains ({})", printed(batch, row)?);
        return Err(Error::user(sqlstate::NOT_NULL_VIOLATION, message).with_detail(detail));
    }
    Ok(())
}

fn printed(batch: &RecordBatch, row: usize) -> Result<String, Error> {
    let batch = batch.slice(row, 1);
    let schema = batch.schema();
    let cells = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        let text = texts(column, field)?;
        let text = text.as_string::<i32>();
        Ok(if text.is_null(0) { "null".to_owned() } else { text.value(0).to_owned() })
    });
    Ok(cells.collect::<Result<Vec<_>, Error>>()?.join(", "))
}

/// All rows of some batches as one.
pub(super) fn joined(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch, Error> {
    Ok(concat_batches(schema, batches).map_err(DataFusionError::from)?)
}
