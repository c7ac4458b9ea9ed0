//! Layouts: the lists of columns that a table has had. Stored data keeps the layout that it was
//! written in, and is converted to the present columns when it is read.
//!
//! The hidden columns of a view follow those of its layout in every stored row. A column of the
//! present is found among the stored ones by its name, a hidden one by its place, since its name
//! may be that of another column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use weir_common::catalog::{Column, Relation, schema};
use weir_common::error::Kind;

use super::{block, row};

/// The reason why stored data cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("it is of layout {layout}, which the table does not have")]
    Unknown { layout: u16 },
    #[error("it does not become what its columns are now")]
    Widen(#[from] ArrowError),
    #[error("cannot read a block")]
    Block(#[from] block::Error),
    #[error("cannot read a row")]
    Row(#[from] row::Error),
}

impl Error {
    /// The kind of failure, for the reader.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Error::Unknown { .. } | Error::Widen(_) => Kind::Corrupt,
            Error::Block(error) => error.kind(),
            Error::Row(error) => error.kind(),
        }
    }
}

/// The wanted columns of a relation, in whichever layout they are stored.
pub(crate) struct Wanted {
    relation: Arc<Relation>,
    /// Their places among the relation's columns and the hidden ones behind them.
    projection: Vec<usize>,
    schema: SchemaRef,
    /// The layouts that were met so far, by their numbers.
    layouts: Vec<Option<Arc<Layout>>>,
}

/// The wanted columns of one layout.
pub(crate) struct Layout {
    /// The stored columns, hidden ones last.
    rows: SchemaRef,
    /// The schema of blocks of this layout.
    blocks: SchemaRef,
    /// The places of the wanted ones among them.
    projection: Vec<usize>,
    /// The place in `projection` that each wanted column is made of; `None` for a column that was
    /// added later.
    made_of: Vec<Option<usize>>,
    /// The wanted columns.
    schema: SchemaRef,
}

impl Wanted {
    /// The columns at these places among those that users see and the hidden ones.
    ///
    /// # Panics
    /// If the projection names a column that the relation does not have.
    pub(crate) fn new(relation: Arc<Relation>, projection: &[usize]) -> Wanted {
        let columns: Vec<Column> = projection.iter().map(|place| relation.column(*place).clone()).collect();
        let layouts = vec![None; relation.layouts.len() + 1];
        Wanted { schema: schema(&columns), projection: projection.to_vec(), relation, layouts }
    }

    /// # Errors
    /// If the relation never had this layout.
    pub(crate) fn of(&mut self, layout: u16) -> Result<Arc<Layout>, Error> {
        let columns = self.relation.columns_of(layout).ok_or(Error::Unknown { layout })?;
        let known = &mut self.layouts[usize::from(layout)];
        let (relation, projection) = (&self.relation, &self.projection);
        let made = || Arc::new(Layout::new(columns, relation, projection, &self.schema));
        Ok(Arc::clone(known.get_or_insert_with(made)))
    }
}

impl Wanted {
    /// The wanted columns of stored rows, of whichever layouts, in their order. Groups that have no
    /// row are left out.
    ///
    /// # Errors
    /// If a row is damaged, or of a layout that the relation never had.
    pub(crate) fn read_rows(&mut self, rows: &[Bytes]) -> Result<RecordBatch, Error> {
        let rows = rows.iter().filter_map(|row| row::Stored::parse(row).transpose()).collect::<Result<Vec<_>, _>>()?;
        let mut batches = Vec::new();
        // Most often all are of the present layout.
        for alike in rows.chunk_by(|a, b| a.layout == b.layout) {
            let layout = self.of(alike[0].layout)?;
            let mut reader = layout.row_reader()?;
            alike.iter().try_for_each(|row| reader.append(row))?;
            batches.push(layout.widen(&reader.finish()?)?);
        }
        match batches.len() {
            1 => Ok(batches.remove(0)),
            _ => Ok(concat_batches(&self.schema, &batches)?),
        }
    }
}

impl Layout {
    /// `stored` are the columns of this layout, without hidden ones.
    fn new(stored: &[Column], relation: &Relation, wanted: &[usize], schema: &SchemaRef) -> Layout {
        let mut projection = Vec::new();
        let made_of = wanted.iter().map(|wanted| {
            let place = match wanted.checked_sub(relation.columns.len()) {
                Some(hidden) => stored.len() + hidden,
                None => stored.iter().position(|column| column.name == relation.columns[*wanted].name)?,
            };
            projection.push(place);
            Some(projection.len() - 1)
        });
        let made_of = made_of.collect();
        let rows: Vec<Column> = stored.iter().chain(&relation.hidden).cloned().collect();
        let (rows, blocks) = (weir_common::catalog::schema(&rows), block::schema(stored));
        Layout { rows, blocks, projection, made_of, schema: SchemaRef::clone(schema) }
    }

    /// The wanted columns of a block of this layout.
    pub(crate) fn read_block(&self, block: &Bytes) -> Result<RecordBatch, Error> {
        self.widen(&block::decode(block, &self.blocks, Some(&self.projection))?)
    }

    /// The same, with the sequences of the rows as the last column.
    pub(crate) fn read_block_with_sequences(&self, block: &Bytes) -> Result<RecordBatch, Error> {
        let places: Vec<usize> = self.projection.iter().copied().chain([self.blocks.fields().len() - 1]).collect();
        let stored = block::decode(block, &self.blocks, Some(&places))?;
        let last = self.projection.len();
        let (field, sequences) = (stored.schema_ref().fields()[last].clone(), Arc::clone(stored.column(last)));
        let wanted = self.widen(&stored.project(&(0..last).collect::<Vec<_>>())?)?;
        let fields = wanted.schema_ref().fields().iter().cloned().chain([field]).collect::<Vec<_>>();
        let columns = wanted.columns().iter().cloned().chain([sequences]).collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// A reader of rows of this layout. [`Layout::widen`] converts its batches.
    pub(crate) fn row_reader(&self) -> Result<row::Reader, Error> {
        Ok(row::Reader::new(&self.rows, &self.projection)?)
    }

    /// Converts stored columns to the wanted ones.
    pub(crate) fn widen(&self, stored: &RecordBatch) -> Result<RecordBatch, Error> {
        let columns = self.schema.fields().iter().zip(&self.made_of).map(|(wanted, made_of)| match made_of {
            Some(place) => widen(stored.column(*place), wanted.data_type()),
            None => Ok(new_null_array(wanted.data_type(), stored.num_rows())),
        });
        let columns = columns.collect::<Result<_, _>>()?;
        let rows = RecordBatchOptions::new().with_row_count(Some(stored.num_rows()));
        Ok(RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &rows)?)
    }
}

/// Converts values to a type that can hold all of them, see
/// [`weir_common::types::SqlType::widens_to`].
fn widen(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    match (values.data_type(), to) {
        (from, to) if from == to => Ok(Arc::clone(values)),
        (DataType::List(_), DataType::List(element)) => {
            let list = values.as_list::<i32>();
            let elements = widen(list.values(), element.data_type())?;
            let list = ListArray::try_new(Arc::clone(element), list.offsets().clone(), elements, list.nulls().cloned());
            Ok(Arc::new(list?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => Ok(Arc::new(widen_struct(values.as_struct(), fields)?)),
        _ => cast_with_options(values, to, &CastOptions { safe: false, ..CastOptions::default() }),
    }
}

/// Fields that were added later follow the stored ones, and are NULL.
fn widen_struct(values: &StructArray, fields: &Fields) -> Result<StructArray, ArrowError> {
    let field = |(place, field): (usize, &arrow::datatypes::FieldRef)| match values.columns().get(place) {
        Some(values) => widen(values, field.data_type()),
        None => Ok(new_null_array(field.data_type(), values.len())),
    };
    let columns = fields.iter().enumerate().map(field).collect::<Result<Vec<_>, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, values.nulls().cloned(), values.len())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal256Array, Float64Array, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int32Type, i256};
    use weir_common::catalog::{RelationKind, RelationName};
    use weir_common::ids::TableId;
    use weir_common::types::{NUMERIC_SCALE, SqlType, StructField};

    use super::*;

    fn column(name: &str, ty: SqlType) -> Column {
        Column { name: name.to_owned(), ty, origin: weir_common::catalog::Origin::Payload }
    }

    fn row(fields: &[(&str, SqlType)]) -> SqlType {
        let field = |(name, ty): &(&str, SqlType)| StructField { name: (*name).to_owned(), ty: ty.clone() };
        SqlType::Struct(fields.iter().map(field).collect())
    }

    fn relation(columns: &[Column], hidden: &[Column], layouts: Vec<Vec<Column>>) -> Arc<Relation> {
        let (name, sql) = (RelationName::public("r"), String::new());
        let (columns, hidden, primary_key) = (columns.to_vec(), hidden.to_vec(), vec![0]);
        let kind = RelationKind::MaterializedView;
        Arc::new(Relation { id: TableId(1), kind, name, columns, hidden, primary_key, layouts, sql })
    }

    #[test]
    fn columns_are_found_by_name_widened_and_added() {
        let stored = [
            column("a", SqlType::Integer),
            column("b", SqlType::BigInt),
            column("s", SqlType::Array(Box::new(row(&[("x", SqlType::Real)])))),
        ];
        let wanted = [
            column("s", SqlType::Array(Box::new(row(&[("x", SqlType::Double), ("y", SqlType::Varchar)])))),
            column("new", SqlType::Varchar),
            column("b", SqlType::Numeric),
            column("a", SqlType::BigInt),
        ];
        let mut wanted = Wanted::new(relation(&wanted, &[], vec![stored.to_vec()]), &[0, 1, 2, 3]);
        let (layout, schema) = (wanted.of(0).expect("a layout"), SchemaRef::clone(&wanted.schema));
        assert_eq!(layout.projection, [2, 1, 0]);

        let mut decoder = crate::ingest::decode::Decoder::new(&stored, "split");
        for payload in [r#"{"a": -1, "b": 9223372036854775807, "s": [{"x": 0.5}, null, {}]}"#, r#"{"s": []}"#, "{}"] {
            decoder.append(&weir_connector_nats::Message::new(1, "subject", payload)).expect("a good record");
        }
        let found = layout.read_block(&block::encode(&decoder.finish(), 0)).expect("a block");
        assert_eq!(found.schema(), schema);
        let list = found.column(0).as_list::<i32>();
        assert_eq!((list.value_length(0), list.value_length(1), list.is_null(2)), (3, 0, true));
        let structs = list.values().as_struct();
        assert!(structs.is_null(1));
        assert_eq!(structs.column(0).as_ref(), &Float64Array::from(vec![Some(0.5), None, None]) as &dyn Array);
        assert_eq!(structs.column(1).null_count(), 3);
        assert_eq!(found.column(1).as_ref(), &StringArray::new_null(3) as &dyn Array);
        let numeric = i256::from_i128(i64::MAX.into()) * i256::from_i128(10_i128.pow(NUMERIC_SCALE.into()));
        let numbers = Decimal256Array::from(vec![Some(numeric), None, None]).with_data_type(SqlType::Numeric.arrow());
        assert_eq!(found.column(2).as_ref(), &numbers as &dyn Array);
        assert_eq!(found.column(3).as_ref(), &Int64Array::from(vec![Some(-1), None, None]) as &dyn Array);
    }

    #[test]
    fn rows_of_columns_that_came_later_are_counted_still() {
        let (stored, wanted) = ([column("a", SqlType::Integer)], [column("b", SqlType::Integer)]);
        let layout = Wanted::new(relation(&wanted, &[], vec![stored.to_vec()]), &[0]).of(0).expect("a layout");
        let batch = RecordBatch::try_new(schema(&stored), vec![Arc::new(Int32Array::from(vec![1]))]).expect("a batch");
        let mut written = Vec::new();
        row::Writer::new(&batch, 1, 0).write(0, 1, &mut written);
        let mut reader = layout.row_reader().expect("columns that exist");
        reader.append(&row::Stored::parse(&written).expect("an entry").expect("a row")).expect("of the layout");
        let found = layout.widen(&reader.finish().expect("a batch")).expect("it is widened");
        assert_eq!((found.num_rows(), found.column(0).null_count()), (1, 1));
    }

    #[test]
    fn hidden_columns_lie_behind_those_of_any_layout() {
        let before: Vec<Column> = (0..7).map(|n| column(&format!("c{n}"), SqlType::Integer)).collect();
        let now: Vec<Column> = before.iter().cloned().chain([column("c7", SqlType::Integer)]).collect();
        // With them a row has one column more than a byte of its bits for NULL.
        let hidden = [column("c0", SqlType::Integer), column("_row", SqlType::Integer)];
        let relation = relation(&now, &hidden, vec![before.clone()]);
        let reads = |layout: u16, projection: &[usize]| {
            let width = if layout == 0 { 9 } else { 10 };
            let fields: Vec<Field> = (0..width).map(|n| Field::new(n.to_string(), DataType::Int32, true)).collect();
            // Column n is n, but the hidden ones are 100 and NULL.
            let value = |n: i32| Some(n).filter(|n| *n < width - 1).map(|n| if n == width - 2 { 100 } else { n });
            let columns = (0..width).map(|n| -> ArrayRef { Arc::new(Int32Array::from(vec![value(n)])) }).collect();
            let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch");
            let mut stored = Vec::new();
            row::Writer::new(&batch, batch.num_columns(), layout).write(0, 0, &mut stored);
            let layout = Wanted::new(Arc::clone(&relation), projection).of(layout).expect("a layout");
            let mut reader = layout.row_reader().expect("columns that exist");
            reader.append(&row::Stored::parse(&stored).expect("an entry").expect("a row")).expect("of the layout");
            let found = layout.widen(&reader.finish().expect("a batch")).expect("it is widened");
            let value = |column: &ArrayRef| column.as_primitive::<Int32Type>().iter().next().flatten();
            found.columns().iter().map(value).collect::<Vec<Option<i32>>>()
        };
        for layout in [0, 1] {
            assert_eq!(reads(layout, &[]), []);
            assert_eq!(reads(layout, &[6, 0]), [Some(6), Some(0)]);
            assert_eq!(reads(layout, &[8, 9, 0]), [Some(100), None, Some(0)]);
        }
        assert_eq!(reads(0, &[7]), [None]);
        assert_eq!(reads(1, &[7]), [Some(7)]);
    }
}
