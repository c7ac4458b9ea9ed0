//! Arrays and structs as PostgreSQL prints and sends them. A struct is a record: a composite
//! without a name.
//!
//! PostgreSQL has one array type for all numbers of dimensions, and its arrays are rectangular;
//! ours are arrays of arrays. Both look the same in text, except for an empty array inside an
//! array, which PostgreSQL does not have. The binary form cannot represent an array that is not
//! rectangular.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{Array, ListArray, StructArray};
use datafusion::arrow::datatypes::Field;
use postgres_types::Kind;
use postgres_types::Type;

use super::Form;
use super::column::Column;
use crate::error::{Error, sqlstate};
use crate::types::pg_type;

/// PostgreSQL's `MAXDIM`.
const DIMENSIONS_MAX: usize = 6;
/// The index of the first element, which the binary form states for each dimension.
const FIRST: i32 = 1;

/// A column of arrays, or of vectors, which are `1 2` in text and indexed from 0.
pub(super) struct Lists {
    array: ListArray,
    elements: Column,
    is_vector: bool,
    /// The oid of the innermost elements, which are not arrays.
    element_oid: u32,
}

impl Lists {
    /// `marked` is the type of the arrays, where their elements do not determine it.
    pub(super) fn new(array: ListArray, element: &Arc<Field>, marked: Option<&Type>) -> Result<Lists, Error> {
        let elements = Column::new(array.values(), element)?;
        let element_oid = match (&elements, marked.map(Type::kind)) {
            (_, Some(Kind::Array(element))) => element.oid(),
            (Column::List(inner), _) => inner.element_oid,
            _ => pg_type(element)?.oid(),
        };
        Ok(Lists { array, elements, is_vector: false, element_oid })
    }

    pub(super) fn vectors(array: ListArray, element: &Arc<Field>) -> Result<Lists, Error> {
        Ok(Lists { is_vector: true, ..Lists::new(array, element, None)? })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.array.is_null(row)
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let bound = |offset: i32| usize::try_from(offset).unwrap_or_default();
        let offsets = self.array.value_offsets();
        bound(offsets[row])..bound(offsets[row + 1])
    }

    /// Writes `{1,NULL,"a b"}`.
    pub(super) fn write_text(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        if self.is_vector {
            for (index, place) in self.range(row).enumerate() {
                if index > 0 {
                    out.put_u8(b' ');
                }
                self.elements.write_text(place, out)?;
            }
            return Ok(());
        }
        out.put_u8(b'{');
        for (index, place) in self.range(row).enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            if self.elements.is_null(place) {
                out.put_slice(b"NULL");
                continue;
            }
            let start = out.len();
            self.elements.write_text(place, out)?;
            let value = &out[start..];
            let quoted = value.is_empty()
                || value.eq_ignore_ascii_case(b"NULL")
                || value.iter().any(|byte| matches!(byte, b'"' | b'\\' | b'{' | b'}' | b',') || is_space(*byte));
            if quoted && !matches!(self.elements, Column::List(_)) {
                quote(out, start, |byte| byte == b'"' || byte == b'\\', |_| b'\\');
            }
        }
        out.put_u8(b'}');
        Ok(())
    }

    /// Writes the number of dimensions, whether there are NULLs, and the elements' type; then the
    /// length and first index of each dimension; then the elements.
    pub(super) fn write_binary(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        let (lengths, dimensions) = self.shape(row)?;
        let lengths = &lengths[..dimensions];
        // An empty vector has one dimension nevertheless.
        let empty = lengths.contains(&0) && !self.is_vector;
        out.put_i32(if empty { 0 } else { i32::try_from(dimensions).unwrap_or_default() });
        let nulls_at = out.len();
        out.put_i32(0);
        out.put_u32(self.element_oid);
        if !empty {
            for length in lengths {
                out.put_i32(i32::try_from(*length).map_err(|_| Error::unsupported("an array of so many elements"))?);
                out.put_i32(if self.is_vector { 0 } else { FIRST });
            }
        }
        if self.write_elements(row, lengths, out)? {
            out[nulls_at..nulls_at + size_of::<i32>()].copy_from_slice(&1_i32.to_be_bytes());
        }
        Ok(())
    }

    /// The lengths of an array, of the first array in it, and so on, and the number of these
    /// lengths.
    fn shape(&self, row: usize) -> Result<([usize; DIMENSIONS_MAX], usize), Error> {
        let mut lengths = [0; DIMENSIONS_MAX];
        let (mut lists, mut row) = (self, row);
        for dimension in 0..DIMENSIONS_MAX {
            let range = lists.range(row);
            lengths[dimension] = range.len();
            match &lists.elements {
                Column::List(inner) if !range.is_empty() => (lists, row) = (inner, range.start),
                _ => return Ok((lengths, dimension + 1)),
            }
        }
        let message = format!("number of array dimensions exceeds the maximum allowed ({DIMENSIONS_MAX})");
        Err(Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).with_hint("ask for it in text format"))
    }

    /// Writes the elements. An array is written as its own elements. Returns true if one is NULL.
    fn write_elements(&self, row: usize, lengths: &[usize], out: &mut BytesMut) -> Result<bool, Error> {
        let range = self.range(row);
        let Some((length, inner_lengths)) = lengths.split_first().filter(|(length, _)| **length == range.len()) else {
            return Err(not_rectangular());
        };
        let Column::List(inner) = &self.elements else {
            let mut nulls = false;
            for place in range {
                nulls |= !self.elements.write_sized(place, Form::Binary, out)?;
            }
            return Ok(nulls);
        };
        let mut nulls = false;
        for place in range.take(*length) {
            if inner.is_null(place) {
                return Err(not_rectangular());
            }
            nulls |= inner.write_elements(place, inner_lengths, out)?;
        }
        Ok(nulls)
    }
}

fn not_rectangular() -> Error {
    let message = "multidimensional arrays must have sub-arrays with matching dimensions";
    Error::user(sqlstate::ARRAY_SUBSCRIPT_ERROR, message)
        .with_hint("the binary format has no other arrays; ask for it in text format, or for its elements")
}

/// A column of structs.
pub(super) struct Records {
    array: StructArray,
    /// The fields, each with the oid of its type.
    fields: Vec<(u32, Column)>,
}

impl Records {
    pub(super) fn new(array: StructArray) -> Result<Records, Error> {
        let fields = array.fields().iter().zip(array.columns()).map(|(field, column)| {
            let column = Column::new(column, field)?;
            Ok((pg_type(field)?.oid(), column))
        });
        let fields = fields.collect::<Result<_, Error>>()?;
        Ok(Records { array, fields })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.array.is_null(row)
    }

    /// Writes `(1,,"a b")`.
    pub(super) fn write_text(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        out.put_u8(b'(');
        for (index, (_, column)) in self.fields.iter().enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            if column.is_null(row) {
                continue;
            }
            let start = out.len();
            column.write_text(row, out)?;
            let value = &out[start..];
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | b'(' | b')' | b',') || is_space(*byte);
            if value.is_empty() || value.iter().any(special) {
                quote(out, start, |byte| byte == b'"' || byte == b'\\', |byte| byte);
            }
        }
        out.put_u8(b')');
        Ok(())
    }

    /// Writes the number of fields, then the type and the value of each.
    pub(super) fn write_binary(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        out.put_i32(i32::try_from(self.fields.len()).unwrap_or_default());
        for (oid, column) in &self.fields {
            out.put_u32(*oid);
            column.write_sized(row, Form::Binary, out)?;
        }
        Ok(())
    }
}

/// True for the bytes that PostgreSQL treats as spaces between elements and fields.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Quotes the output from `start` on. Each byte that needs an escape gets one.
fn quote(out: &mut BytesMut, start: usize, needs: impl Fn(u8) -> bool, escape: impl Fn(u8) -> u8) {
    let value = out.split_off(start);
    out.reserve(value.len() + 2);
    out.put_u8(b'"');
    for byte in &value {
        if needs(*byte) {
            out.put_u8(escape(*byte));
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}
