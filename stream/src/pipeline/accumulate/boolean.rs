//! `bool_and` and `bool_or`. Kept: the number of true values and that of false ones as counts; or,
//! where nothing is deleted, the result: a byte, 0 for NULL, 1 for false, 2 for true.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::Int64Type;

use super::{Accumulate, Keep, Rows, mistyped, negative};
use crate::pipeline::Failure;
use crate::pipeline::cell::{damaged, put_count, take_byte, take_count};
use crate::pipeline::evict::{bytes_of, retain};
use crate::pipeline::groups::Group;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    And,
    Or,
}

#[derive(Debug)]
pub(super) struct Boolean {
    kind: Kind,
    append_only: bool,
    /// The number of true values and of false ones.
    counts: Vec<(i64, i64)>,
}

impl Boolean {
    pub(super) fn new(kind: Kind, append_only: bool) -> Boolean {
        Boolean { kind, append_only, counts: Vec::new() }
    }

    fn add(&mut self, group: usize, value: bool, count: i64) {
        let (trues, falses) = &mut self.counts[group];
        *(if value { trues } else { falses }) += count;
    }

    fn result(&self, group: Group) -> Option<bool> {
        match (self.counts[group as usize], self.kind) {
            ((0, 0), _) => None,
            ((_, falses), Kind::And) => Some(falses == 0),
            ((trues, _), Kind::Or) => Some(trues > 0),
        }
    }
}

impl Keep for Boolean {
    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, (0, 0));
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        let is_negative = |group: &Group| {
            let (trues, falses) = self.counts[*group as usize];
            trues < 0 || falses < 0
        };
        if groups.iter().any(is_negative) {
            return Err(negative());
        }
        Ok(Arc::new(groups.iter().map(|group| self.result(*group)).collect::<BooleanArray>()))
    }

    fn put(&self, group: Group, out: &mut Vec<u8>) {
        if self.append_only {
            out.push(self.result(group).map_or(0, |value| 1 + u8::from(value)));
            return;
        }
        let (trues, falses) = self.counts[group as usize];
        put_count(trues, out);
        put_count(falses, out);
    }

    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        self.counts[group as usize] = match self.append_only {
            false => (take_count(input)?, take_count(input)?),
            true => match take_byte(input)? {
                0 => (0, 0),
                1 => (0, 1),
                2 => (1, 0),
                _ => return Err(damaged()),
            },
        };
        Ok(())
    }

    fn retain(&mut self, kept: &[Group]) {
        retain(&mut self.counts, kept);
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.counts)
    }
}

impl Accumulate for Boolean {
    fn update(&mut self, rows: Rows<'_>, arguments: &[&ArrayRef]) -> Result<(), Failure> {
        let values = arguments[0].as_boolean_opt().ok_or_else(|| mistyped(arguments[0]))?.values();
        rows.each(|row, group, is_delete| self.add(group, values.value(row), if is_delete { -1 } else { 1 }));
        Ok(())
    }

    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure> {
        if self.append_only {
            let values = partial[0].as_boolean_opt().ok_or_else(|| mistyped(&partial[0]))?;
            for (group, value) in groups.iter().zip(values) {
                value.into_iter().for_each(|value| self.add(*group as usize, value, 1));
            }
            return Ok(());
        }
        for (value, column) in [true, false].into_iter().zip(partial) {
            let counts = column.as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(column))?;
            groups.iter().zip(counts.values()).for_each(|(group, count)| self.add(*group as usize, value, *count));
        }
        Ok(())
    }

    fn take_partial(&mut self, groups: &[Group], _rest: &mut [bool]) -> Vec<ArrayRef> {
        let partial: Vec<ArrayRef> = if self.append_only {
            vec![Arc::new(groups.iter().map(|group| self.result(*group)).collect::<BooleanArray>())]
        } else {
            let (trues, falses): (Vec<i64>, Vec<i64>) = groups.iter().map(|group| self.counts[*group as usize]).unzip();
            vec![Arc::new(Int64Array::from(trues)), Arc::new(Int64Array::from(falses))]
        };
        groups.iter().for_each(|group| self.counts[*group as usize] = (0, 0));
        partial
    }
}
