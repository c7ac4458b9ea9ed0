//! Values as PostgreSQL prints them, and as it sends them in binary.
//!
//! Owns the output of every type that a table can have or an expression can yield. A column is cast
//! once for each batch, so that a value costs a match and no allocation of its own.

mod column;
mod datetime;
mod float;
mod nested;
mod numeric;

use std::sync::Arc;

use bytes::BytesMut;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field};

use column::Column;

use crate::error::Error;

/// The form in which a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As psql shows it.
    Text,
    /// As PostgreSQL's send functions write it.
    Binary,
}

/// The values of a column, ready to be written.
pub struct Output(Column);

impl Output {
    /// Prepares a column of any type.
    ///
    /// # Errors
    /// `0A000` for a type that has no counterpart, `22003` for a timestamp that does not fit its
    /// type.
    pub fn new(array: &ArrayRef, field: &Arc<Field>) -> Result<Output, Error> {
        Ok(Output(Column::new(array, field)?))
    }

    /// Appends a value; returns false for NULL.
    ///
    /// # Errors
    /// If the value does not have that form.
    pub fn write(&self, row: usize, form: Form, out: &mut BytesMut) -> Result<bool, Error> {
        self.0.write(row, form, out)
    }

    /// Appends a value after its length, which is -1 for NULL; returns false for NULL.
    ///
    /// # Errors
    /// As [`Output::write`], and `53200` for a value beyond 2 GiB.
    pub fn write_sized(&self, row: usize, form: Form, out: &mut BytesMut) -> Result<bool, Error> {
        self.0.write_sized(row, form, out)
    }
}

/// Casts each value of a column to text. The result is the printed form, except for booleans, which
/// become words.
///
/// # Errors
/// As [`Output::new`].
pub fn texts(array: &ArrayRef, field: &Arc<Field>) -> Result<ArrayRef, Error> {
    if *array.data_type() == DataType::Boolean {
        let words = array.as_boolean().iter().map(|value| value.map(|value| if value { "true" } else { "false" }));
        return Ok(Arc::new(words.collect::<StringArray>()));
    }
    printed(array, field)
}

/// Prints each value of a column.
///
/// # Errors
/// As [`Output::new`].
pub(crate) fn printed(array: &ArrayRef, field: &Arc<Field>) -> Result<ArrayRef, Error> {
    let column = Column::new(array, field)?;
    let mut texts = StringBuilder::with_capacity(array.len(), 0);
    let mut buffer = BytesMut::new();
    for row in 0..array.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        buffer.clear();
        column.write_text(row, &mut buffer)?;
        let text = std::str::from_utf8(&buffer).map_err(|_| Error::internal("a value is not printed as text"))?;
        texts.append_value(text);
    }
    Ok(Arc::new(texts.finish()))
}

#[cfg(test)]
mod tests;
