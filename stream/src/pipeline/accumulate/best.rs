//! `first_value` where nothing is deleted: the value that comes first so far. Kept: a byte, 1 if
//! there is one, and then its place in the order and the value, both as bytes
//! ([`sorted`](crate::pipeline::sorted), [`payload`](crate::pipeline::payload)).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::datatypes::SchemaRef;
use weir_common::plan::{AggregateCall, SortKey, StreamColumn};
use weir_common::types::SqlType;

use super::{Accumulate, Keep, Rows, mistyped};
use crate::pipeline::Failure;
use crate::pipeline::cell::{put_bytes, take_byte, take_bytes};
use crate::pipeline::evict::{bytes_of, retain};
use crate::pipeline::groups::Group;
use crate::pipeline::linear::{batch, schema};
use crate::pipeline::payload::{Reader, Writer};
use crate::pipeline::sorted::SortedKeys;

#[derive(Debug)]
pub(super) struct Best {
    ty: SqlType,
    /// The columns of the order, if the input is not partial results, and how they sort.
    columns: Option<SchemaRef>,
    order: Vec<SortKey>,
    bests: Vec<Option<Placed>>,
}

/// A place in the order, and the value there.
type Placed = (Box<[u8]>, Box<[u8]>);

impl Best {
    pub(super) fn new(call: &AggregateCall, input: &[StreamColumn]) -> Best {
        // The places of partial results have another meaning.
        let columns: Option<Vec<StreamColumn>> = call.order.iter().map(|key| input.get(key.column).cloned()).collect();
        let order = call.order.iter().enumerate().map(|(column, key)| SortKey { column, ..*key }).collect();
        Best { ty: call.ty.clone(), columns: columns.as_deref().map(schema), order, bests: Vec::new() }
    }

    fn is_before(&self, key: &[u8], group: usize) -> bool {
        self.bests[group].as_ref().is_none_or(|(best, _)| *key < **best)
    }
}

impl Keep for Best {
    fn resize(&mut self, groups: usize) {
        self.bests.resize(groups, None);
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        let mut reader = Reader::new(&self.ty);
        for group in groups {
            match &self.bests[*group as usize] {
                Some((_, value)) => reader.push(&mut &**value)?,
                None => reader.push_null(),
            }
        }
        reader.finish()
    }

    fn put(&self, group: Group, out: &mut Vec<u8>) {
        let best = &self.bests[group as usize];
        out.push(best.is_some().into());
        if let Some((key, value)) = best {
            put_bytes(key, out);
            put_bytes(value, out);
        }
    }

    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        if take_byte(input)? == 1 {
            let (key, value) = (take_bytes(input)?, take_bytes(input)?);
            self.bests[group as usize] = Some((key.into(), value.into()));
        }
        Ok(())
    }

    fn retain(&mut self, kept: &[Group]) {
        retain(&mut self.bests, kept);
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.bests) + self.bests.iter().flatten().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    }
}

impl Accumulate for Best {
    fn update(&mut self, rows: Rows<'_>, arguments: &[&ArrayRef]) -> Result<(), Failure> {
        assert!(rows.deletes.is_none(), "nothing is deleted");
        let (argument, order) = arguments.split_first().expect("an argument");
        let writer = Writer::new(argument)?;
        let schema = self.columns.as_ref().expect("rows, not partial results");
        let order = batch(schema, order.iter().map(|column| Arc::clone(column)).collect(), argument.len())?;
        let keys = SortedKeys::new(&order, &self.order);
        let mut key = Vec::new();
        rows.each(|row, group, _| {
            key.clear();
            keys.write(row, &mut key);
            if self.is_before(&key, group) {
                let mut value = Vec::new();
                writer.write(row, &mut value);
                self.bests[group] = Some((key.as_slice().into(), value.into()));
            }
        });
        Ok(())
    }

    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure> {
        let binary = |column: usize| partial[column].as_binary_opt::<i32>().ok_or_else(|| mistyped(&partial[column]));
        let (keys, values) = (binary(0)?, binary(1)?);
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| keys.is_valid(*row)) {
            if self.is_before(keys.value(row), *group as usize) {
                self.bests[*group as usize] = Some((keys.value(row).into(), values.value(row).into()));
            }
        }
        Ok(())
    }

    fn take_partial(&mut self, groups: &[Group], _rest: &mut [bool]) -> Vec<ArrayRef> {
        let bests: Vec<_> = groups.iter().map(|group| self.bests[*group as usize].take()).collect();
        let keys: BinaryArray = bests.iter().map(|best| best.as_ref().map(|(key, _)| key)).collect();
        let values: BinaryArray = bests.iter().map(|best| best.as_ref().map(|(_, value)| value)).collect();
        vec![Arc::new(keys), Arc::new(values)]
    }
}
