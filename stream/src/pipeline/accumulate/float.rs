//! `sum` of floating-point numbers: an [`Exact`] sum, rounded once. Kept: the sum as bytes, and the
//! number of values as a count.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float32Array, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use weir_common::view::Error;

use super::{Accumulate, Keep, Rows, mistyped, negative};
use crate::pipeline::Failure;
use crate::pipeline::cell::{put_bytes, put_count, take_bytes, take_count};
use crate::pipeline::evict::{bytes_of, retain};
use crate::pipeline::groups::Group;

mod exact;

use exact::Exact;

/// The type of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Single,
    Double,
}

#[derive(Debug)]
pub(super) struct FloatSum {
    width: Width,
    totals: Vec<Exact>,
    /// The number of values.
    counts: Vec<i64>,
}

impl FloatSum {
    pub(super) fn new(width: Width) -> FloatSum {
        FloatSum { width, totals: Vec::new(), counts: Vec::new() }
    }

    fn add(&mut self, rows: Rows<'_>, value: impl Fn(usize) -> f64) {
        rows.each(|row, group, is_delete| {
            self.totals[group].add(value(row), is_delete);
            self.counts[group] += if is_delete { -1 } else { 1 };
        });
    }
}

fn overflow() -> Failure {
    Error::out_of_range("value out of range: overflow").into()
}

impl Keep for FloatSum {
    fn resize(&mut self, groups: usize) {
        self.totals.resize_with(groups, Exact::default);
        self.counts.resize(groups, 0);
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        if groups.iter().any(|group| self.counts[*group as usize] < 0) {
            return Err(negative());
        }
        let total = |group: &Group| (self.counts[*group as usize] > 0).then(|| &self.totals[*group as usize]);
        match self.width {
            Width::Single => {
                let result = |total: &Exact| total.single().ok_or_else(overflow);
                let results = groups.iter().map(|group| total(group).map(result).transpose());
                Ok(Arc::new(results.collect::<Result<Float32Array, Failure>>()?))
            }
            Width::Double => {
                let result = |total: &Exact| total.double().ok_or_else(overflow);
                let results = groups.iter().map(|group| total(group).map(result).transpose());
                Ok(Arc::new(results.collect::<Result<Float64Array, Failure>>()?))
            }
        }
    }

    fn put(&self, group: Group, out: &mut Vec<u8>) {
        let mut total = Vec::new();
        self.totals[group as usize].clone().put(&mut total);
        put_bytes(&total, out);
        put_count(self.counts[group as usize], out);
    }

    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        self.totals[group as usize].merge(&mut take_bytes(input)?)?;
        self.counts[group as usize] = take_count(input)?;
        Ok(())
    }

    fn retain(&mut self, kept: &[Group]) {
        retain(&mut self.totals, kept);
        retain(&mut self.counts, kept);
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.totals) + bytes_of(&self.counts) + self.totals.iter().map(Exact::bytes).sum::<usize>()
    }
}

impl Accumulate for FloatSum {
    fn update(&mut self, rows: Rows<'_>, arguments: &[&ArrayRef]) -> Result<(), Failure> {
        let column = arguments[0];
        match column.data_type() {
            DataType::Float32 => {
                let values = column.as_primitive::<Float32Type>().values();
                self.add(rows, |row| values[row].into());
            }
            DataType::Float64 => {
                let values = column.as_primitive::<Float64Type>().values();
                self.add(rows, |row| values[row]);
            }
            _ => return Err(mistyped(column)),
        }
        Ok(())
    }

    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure> {
        let totals = partial[0].as_binary_opt::<i32>().ok_or_else(|| mistyped(&partial[0]))?;
        let counts = partial[1].as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(&partial[1]))?;
        for (row, group) in groups.iter().enumerate() {
            self.totals[*group as usize].merge(&mut totals.value(row))?;
            self.counts[*group as usize] += counts.value(row);
        }
        Ok(())
    }

    fn take_partial(&mut self, groups: &[Group], _rest: &mut [bool]) -> Vec<ArrayRef> {
        let totals = groups.iter().map(|group| {
            let mut total = Vec::new();
            std::mem::take(&mut self.totals[*group as usize]).put(&mut total);
            Some(total)
        });
        let totals: ArrayRef = Arc::new(totals.collect::<BinaryArray>());
        let counts = groups.iter().map(|group| std::mem::take(&mut self.counts[*group as usize]));
        vec![totals, Arc::new(counts.collect::<Int64Array>())]
    }
}
