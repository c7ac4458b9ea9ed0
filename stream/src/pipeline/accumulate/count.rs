//! `count`: adds up. Kept: a count.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;

use super::{Accumulate, Keep, Rows, counts, mistyped};
use crate::pipeline::Failure;
use crate::pipeline::cell::{put_count, take_count};
use crate::pipeline::evict::{bytes_of, retain};
use crate::pipeline::groups::Group;

#[derive(Debug, Default)]
pub(super) struct Count {
    counts: Vec<i64>,
}

impl Keep for Count {
    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        counts(groups.iter().map(|group| self.counts[*group as usize]))
    }

    fn put(&self, group: Group, out: &mut Vec<u8>) {
        put_count(self.counts[group as usize], out);
    }

    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        self.counts[group as usize] = take_count(input)?;
        Ok(())
    }

    fn retain(&mut self, kept: &[Group]) {
        retain(&mut self.counts, kept);
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.counts)
    }
}

impl Accumulate for Count {
    fn update(&mut self, rows: Rows<'_>, _arguments: &[&ArrayRef]) -> Result<(), Failure> {
        rows.each(|_, group, is_delete| self.counts[group] += if is_delete { -1 } else { 1 });
        Ok(())
    }

    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure> {
        let counts = partial[0].as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(&partial[0]))?;
        groups.iter().zip(counts.values()).for_each(|(group, count)| self.counts[*group as usize] += count);
        Ok(())
    }

    fn take_partial(&mut self, groups: &[Group], _rest: &mut [bool]) -> Vec<ArrayRef> {
        let counts = groups.iter().map(|group| std::mem::take(&mut self.counts[*group as usize]));
        vec![Arc::new(counts.collect::<Int64Array>())]
    }
}
