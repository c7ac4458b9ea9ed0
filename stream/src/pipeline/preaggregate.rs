//! Aggregates the rows that an actor has by key, before they are shuffled.
//!
//! Groups are gathered over chunks, up to a limit or the end of the epoch, and leave as
//! partial results: the key, the number of rows, and what each aggregate keeps. Deletes count as
//! negative, so partial results only ever add up: their stream consists of inserts. A group has
//! several of them where one column does not hold the sum.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{Int64Type, SchemaRef};
use weir_common::plan::{AggregateCall, StreamColumn};
use weir_common::types::SqlType;
use weir_common::view::Error;

use super::accumulate::{Calls, Places, is_append_only};
use super::evict::bytes_of;
use super::groups::{Group, Groups, key_types};
use super::linear::{batch, schema};
use super::{Failure, Operate, Outcome};
use crate::chunk::Chunk;

/// Groups that are gathered before they leave, and the bytes of their keys.
const GROUPS: usize = 65_536;
const BYTES: usize = 16 << 20;
/// Rows of an emitted chunk.
const ROWS: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct PreAggregate {
    keys: Vec<usize>,
    types: Vec<SqlType>,
    columns: Vec<StreamColumn>,
    schema: SchemaRef,
    groups: Groups,
    /// The number of rows of each group, those deleted as negative.
    rows: Vec<i64>,
    calls: Calls,
}

impl PreAggregate {
    /// `output`: the columns that leave the fragment, whose last operator it is.
    pub(super) fn new(
        input: &[StreamColumn],
        (keys, calls): (&[usize], &[AggregateCall]),
        output: &[StreamColumn],
    ) -> Result<PreAggregate, Error> {
        let types = key_types(input, keys)?;
        let append_only = is_append_only(calls, output[keys.len()..].iter().map(|column| &column.ty));
        let kept = calls.iter().flat_map(|call| call.kept(append_only)).enumerate();
        let partial = kept.map(|(number, ty)| StreamColumn { name: format!("partial {number}"), ty });
        let rows = StreamColumn { name: "rows".to_owned(), ty: SqlType::BigInt };
        let own = keys.iter().map(|key| input[*key].clone());
        let columns: Vec<StreamColumn> = own.chain(std::iter::once(rows)).chain(partial).collect();
        Ok(PreAggregate {
            keys: keys.to_vec(),
            types,
            schema: schema(&columns),
            columns,
            groups: Groups::default(),
            rows: Vec::new(),
            calls: Calls::new(calls, input, append_only)?,
        })
    }

    pub(super) fn columns(&self) -> &[StreamColumn] {
        &self.columns
    }

    fn emit(&mut self) -> Result<Outcome, Failure> {
        let mut emitted = Vec::new();
        let count = Group::try_from(self.groups.len()).expect("groups are counted so");
        let mut groups: Vec<Group> = (0..count).collect();
        while !groups.is_empty() {
            let mut left = Vec::new();
            for part in groups.chunks(ROWS) {
                let mut columns = self.groups.columns(part, &self.types)?;
                let rows = part.iter().map(|group| std::mem::take(&mut self.rows[*group as usize]));
                columns.push(Arc::new(rows.collect::<Int64Array>()) as ArrayRef);
                let mut rest = vec![false; part.len()];
                columns.extend(self.calls.take_partial(part, &mut rest));
                emitted.push(Chunk::inserts(batch(&self.schema, columns, part.len())?));
                left.extend(part.iter().zip(rest).filter_map(|(group, is_left)| is_left.then_some(*group)));
            }
            groups = left;
        }
        self.groups.clear();
        self.rows.clear();
        self.calls.resize(0);
        Ok(Outcome::done(emitted))
    }
}

impl Operate for PreAggregate {
    fn apply(&mut self, chunk: Chunk) -> Result<Outcome, Failure> {
        let groups = self.groups.assign(chunk.rows(), &self.keys);
        self.rows.resize(self.groups.len(), 0);
        self.calls.resize(self.groups.len());
        count_rows(&mut self.rows, &chunk, &groups);
        self.calls.update(chunk.rows(), chunk.deletes(), &groups, &Places::new(), 0)?;
        let is_full = self.groups.len() >= GROUPS || self.groups.bytes() >= BYTES;
        if is_full { self.emit() } else { Ok(Outcome::done(Vec::new())) }
    }

    fn flush(&mut self) -> Result<Outcome, Failure> {
        self.emit()
    }

    fn bytes(&self) -> usize {
        self.groups.bytes() + bytes_of(&self.rows) + self.calls.bytes()
    }
}

/// Adds the rows of a chunk to the numbers of rows of their groups.
pub(super) fn count_rows(rows: &mut [i64], chunk: &Chunk, groups: &[Group]) {
    match chunk.deletes() {
        None => groups.iter().for_each(|group| rows[*group as usize] += 1),
        Some(deletes) => {
            for (group, is_delete) in groups.iter().zip(deletes) {
                rows[*group as usize] += if is_delete { -1 } else { 1 };
            }
        }
    }
}

/// Adds the numbers of rows of partial results.
pub(super) fn add_rows(rows: &mut [i64], partial: &ArrayRef, groups: &[Group]) -> Result<(), Failure> {
    let counts = partial.as_primitive_opt::<Int64Type>();
    let counts = counts.ok_or_else(|| Failure::Broken("partial results have no number of rows".to_owned()))?;
    groups.iter().zip(counts.values()).for_each(|(group, count)| rows[*group as usize] += count);
    Ok(())
}
