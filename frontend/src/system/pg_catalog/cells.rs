//! Converts rows of system catalogs, which are values by column name, to batches.
//!
//! A row names only the columns that have a meaning in Weir. The others are NULL or, if PostgreSQL
//! has no NULL there, zero, false or empty.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Int16Array, Int32Array, Int64Array, LargeListBuilder, ListBuilder, PrimitiveBuilder,
    RecordBatch, StringArray, StringBuilder, UInt32Array, new_null_array,
};
use datafusion::arrow::datatypes::{ArrowPrimitiveType, DataType, Int16Type, Int32Type, Int64Type, UInt32Type};
use datafusion::error::Result;
use weir_sql::error::Error;

use super::relations::{Column, Relation};

/// A value of a system catalog.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    /// A number of any width, or an oid.
    Int(i64),
    Text(String),
    /// An array of numbers, an `int2vector` or an `oidvector`.
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Bool(value)
    }
}

impl From<u32> for Cell {
    fn from(value: u32) -> Cell {
        Cell::Int(value.into())
    }
}

impl From<i32> for Cell {
    fn from(value: i32) -> Cell {
        Cell::Int(value.into())
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Cell {
        Cell::Int(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Cell {
        Cell::Text(value.to_owned())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Cell {
        Cell::Text(value)
    }
}

impl From<Vec<i64>> for Cell {
    fn from(value: Vec<i64>) -> Cell {
        Cell::Ints(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

/// Values by the names of their columns.
pub(super) type Row = Vec<(&'static str, Cell)>;

/// A row, written as `row! { column: value, … }`.
macro_rules! row {
    ($($column:ident: $value:expr),* $(,)?) => {
        vec![$((stringify!($column), $crate::system::pg_catalog::cells::Cell::from($value))),*]
    };
}
pub(super) use row;

/// Converts the rows of a relation to a batch.
///
/// # Errors
/// Internal: a row names a column that the relation lacks, or has a value of another type for it.
pub(super) fn batch(relation: &Relation, rows: &[Row]) -> Result<RecordBatch> {
    for (column, _) in rows.iter().flatten() {
        if !relation.columns.iter().any(|known| known.name == *column) {
            return Err(Error::internal(format!("{} has no column {column}", relation.name)).into());
        }
    }
    let columns = relation.columns.iter().map(|column| {
        let cells: Vec<Cell> = rows.iter().map(|row| cell(row, column)).collect();
        array(column, &cells)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(&relation.schema), columns, &options)?)
}

fn cell(row: &Row, column: &Column) -> Cell {
    match row.iter().find(|(name, _)| *name == column.name) {
        Some((_, cell)) => cell.clone(),
        None if column.is_nullable => Cell::Null,
        None => match column.arrow() {
            DataType::Boolean => Cell::Bool(false),
            DataType::Utf8 => Cell::Text(String::new()),
            DataType::List(element) if *element.data_type() == DataType::Utf8 => Cell::Texts(Vec::new()),
            DataType::List(_) | DataType::LargeList(_) => Cell::Ints(Vec::new()),
            _ => Cell::Int(0),
        },
    }
}

/// Converts values to a column.
///
/// # Errors
/// Internal: a value is of another type.
pub(super) fn array(column: &Column, cells: &[Cell]) -> Result<ArrayRef> {
    let wrong = || Error::internal(format!("column {} has a value of another type", column.name));
    let int = |cell: &Cell| match cell {
        Cell::Null => Ok(None),
        Cell::Int(value) => Ok(Some(*value)),
        _ => Err(wrong()),
    };
    let ints = || cells.iter().map(int).collect::<Result<Vec<Option<i64>>, Error>>();
    let ty = column.arrow();
    Ok(match &ty {
        DataType::Boolean => {
            let values = cells.iter().map(|cell| match cell {
                Cell::Null => Ok(None),
                Cell::Bool(value) => Ok(Some(*value)),
                _ => Err(wrong()),
            });
            Arc::new(values.collect::<Result<BooleanArray, Error>>()?)
        }
        DataType::Utf8 => {
            let values = cells.iter().map(|cell| match cell {
                Cell::Null => Ok(None),
                Cell::Text(value) => Ok(Some(value.as_str())),
                _ => Err(wrong()),
            });
            Arc::new(values.collect::<Result<Vec<_>, Error>>().map(StringArray::from)?)
        }
        DataType::Int16 => Arc::new(ints()?.into_iter().map(narrow::<i16>).collect::<Result<Int16Array>>()?),
        DataType::Int32 => Arc::new(ints()?.into_iter().map(narrow::<i32>).collect::<Result<Int32Array>>()?),
        DataType::Int64 => Arc::new(Int64Array::from(ints()?)),
        DataType::UInt32 => Arc::new(ints()?.into_iter().map(narrow::<u32>).collect::<Result<UInt32Array>>()?),
        // The numbers are microseconds, as Arrow stores them.
        DataType::Float32 | DataType::Float64 | DataType::Timestamp(..) => {
            datafusion::arrow::compute::cast(&Int64Array::from(ints()?), &ty)?
        }
        DataType::List(element) if *element.data_type() == DataType::Utf8 => {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for cell in cells {
                match cell {
                    Cell::Null => lists.append_null(),
                    Cell::Texts(values) => lists.append_value(values.iter().map(Some)),
                    _ => return Err(wrong().into()),
                }
            }
            Arc::new(lists.finish())
        }
        DataType::List(element) | DataType::LargeList(element) if cells.iter().any(|cell| *cell != Cell::Null) => {
            let is_vector = matches!(ty, DataType::LargeList(_));
            match element.data_type() {
                DataType::Int16 => numbers::<Int16Type>(cells, is_vector)?,
                DataType::Int32 => numbers::<Int32Type>(cells, is_vector)?,
                DataType::Int64 => numbers::<Int64Type>(cells, is_vector)?,
                DataType::UInt32 => numbers::<UInt32Type>(cells, is_vector)?,
                _ => return Err(wrong().into()),
            }
        }
        // Columns of other types are always NULL.
        ty if cells.iter().all(|cell| *cell == Cell::Null) => new_null_array(ty, cells.len()),
        _ => return Err(wrong().into()),
    })
}

fn narrow<T: TryFrom<i64>>(value: Option<i64>) -> Result<Option<T>> {
    let out_of_range = |_| Error::internal("a system catalog has a number that is out of range");
    Ok(value.map(|value| T::try_from(value).map_err(out_of_range)).transpose()?)
}

/// Makes arrays of numbers, or vectors.
fn numbers<T>(cells: &[Cell], is_vector: bool) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i64>,
{
    let values = |cell: &Cell| match cell {
        Cell::Null => Ok(None),
        Cell::Ints(values) => {
            values.iter().map(|value| narrow::<T::Native>(Some(*value))).collect::<Result<Vec<_>>>().map(Some)
        }
        _ => Err(Error::internal("an array of a system catalog has values of another type").into()),
    };
    let elements = PrimitiveBuilder::<T>::new();
    if is_vector {
        let mut lists = LargeListBuilder::new(elements);
        for cell in cells {
            lists.append_option(values(cell)?);
        }
        return Ok(Arc::new(lists.finish()));
    }
    let mut lists = ListBuilder::new(elements);
    for cell in cells {
        lists.append_option(values(cell)?);
    }
    Ok(Arc::new(lists.finish()))
}

/// Parses the rows of a relation from the format of `COPY … TO` with a header: the first line names
/// the columns.
///
/// # Errors
/// The errors of [`batch`], and an error for a value that is not of its column's type.
pub(super) fn read(relation: &Relation, text: &'static str) -> Result<Vec<Row>> {
    let mut lines = text.lines();
    let header: Vec<&'static str> = lines.next().unwrap_or_default().split('\t').collect();
    let rows = lines.map(|line| {
        let values = header.iter().zip(line.split('\t')).map(|(name, value)| {
            let column = relation.columns.iter().find(|column| column.name == *name);
            let wrong = || Error::internal(format!("{}.{name} cannot be {value}", relation.name));
            let cell = column.and_then(|column| read_cell(&column.arrow(), value)).ok_or_else(wrong)?;
            Ok((*name, cell))
        });
        values.collect::<Result<Row>>()
    });
    rows.collect()
}

fn read_cell(ty: &DataType, text: &str) -> Option<Cell> {
    if text == "\\N" {
        return Some(Cell::Null);
    }
    Some(match ty {
        DataType::Boolean => Cell::Bool(text == "t"),
        DataType::Utf8 => Cell::Text(text.to_owned()),
        DataType::LargeList(_) => {
            Cell::Ints(text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?)
        }
        _ => Cell::Int(text.parse().ok()?),
    })
}
