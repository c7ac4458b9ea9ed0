//! Makes a row of each element of arrays: several arrays advance in step, and NULLs fill up the
//! shorter ones. Behind the other columns stands the place of the element, from 0, so that the rows
//! of one row differ in their keys. A row whose arrays are all empty or NULL has none.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use weir_common::plan::StreamColumn;
use weir_common::types::SqlType;
use weir_common::view::Error;

use super::linear::{batch, schema};
use super::{Failure, Operate, Outcome};
use crate::chunk::Chunk;

/// Rows of an emitted chunk, unless one row has more.
const ROWS: usize = 8_192;

/// See the module.
#[derive(Debug)]
pub(super) struct Unnest {
    /// The columns of arrays.
    lists: Vec<usize>,
    columns: Vec<StreamColumn>,
    schema: SchemaRef,
}

/// The rows of a chunk that are made so far.
#[derive(Default)]
struct Made {
    /// For each of them, the row that it comes from.
    rows: Vec<u32>,
    places: Vec<i32>,
}

impl Unnest {
    pub(super) fn new(input: &[StreamColumn], lists: &[usize]) -> Result<Unnest, Error> {
        let mut columns = input.to_vec();
        for list in lists {
            let StreamColumn { name, ty } = &mut columns[*list];
            let SqlType::Array(element) = ty else { return Err(Error::new(format!("\"{name}\" is not an array"))) };
            *ty = element.as_ref().clone();
        }
        columns.push(StreamColumn { name: "_place".to_owned(), ty: SqlType::Integer });
        Ok(Unnest { lists: lists.to_vec(), schema: schema(&columns), columns })
    }

    pub(super) fn columns(&self) -> &[StreamColumn] {
        &self.columns
    }

    fn emit(&self, chunk: &Chunk, Made { rows, places }: Made) -> Result<Chunk, Failure> {
        let failed = |error: arrow::error::ArrowError| Failure::Broken(error.to_string());
        let count = rows.len();
        let deletes: BooleanBuffer = rows.iter().map(|row| chunk.is_delete(*row as usize)).collect();
        let taken = UInt32Array::from(rows);
        let columns = chunk.rows().columns().iter().enumerate().map(|(number, column)| {
            if !self.lists.contains(&number) {
                return take(column, &taken, None).map_err(failed);
            }
            let list: &ListArray = column.as_list();
            let element = |(row, place): (&u32, &i32)| {
                let (row, place) = (*row as usize, *place);
                let offsets = &list.value_offsets()[row..=row + 1];
                let is_there = list.is_valid(row) && place < offsets[1] - offsets[0];
                is_there.then_some((offsets[0] + place) as u32)
            };
            let elements: UInt32Array = taken.values().iter().zip(&places).map(element).collect();
            take(list.values(), &elements, None).map_err(failed)
        });
        let mut columns = columns.collect::<Result<Vec<ArrayRef>, Failure>>()?;
        columns.push(Arc::new(Int32Array::from(places)));
        Ok(Chunk::new(batch(&self.schema, columns, count)?, deletes))
    }
}

impl Operate for Unnest {
    fn apply(&mut self, chunk: Chunk) -> Result<Outcome, Failure> {
        let lists: Vec<&ListArray> = self.lists.iter().map(|list| chunk.rows().column(*list).as_list()).collect();
        let (mut made, mut emitted) = (Made::default(), Vec::new());
        for row in 0..chunk.rows().num_rows() {
            let elements = |list: &&ListArray| if list.is_valid(row) { list.value_length(row) } else { 0 };
            let count = lists.iter().map(elements).max().unwrap_or(0);
            made.rows.extend(std::iter::repeat_n(row as u32, count as usize));
            made.places.extend(0..count);
            if made.rows.len() >= ROWS {
                emitted.push(self.emit(&chunk, std::mem::take(&mut made))?);
            }
        }
        if !made.rows.is_empty() {
            emitted.push(self.emit(&chunk, made)?);
        }
        Ok(Outcome::done(emitted))
    }
}
