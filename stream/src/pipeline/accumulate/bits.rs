//! `bit_and`, `bit_or` and `bit_xor`: for each bit, how many values have it. Kept: the counts of
//! bits up to the highest that is set, as bytes, and the number of values as a count.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use weir_common::types::SqlType;

use super::{Accumulate, Keep, Rows, mistyped, negative};
use crate::pipeline::Failure;
use crate::pipeline::cell::{damaged, put_bytes, put_count, take_bytes, take_count};
use crate::pipeline::evict::{bytes_of, retain};
use crate::pipeline::groups::Group;

const BITS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    And,
    Or,
    Xor,
}

#[derive(Debug)]
pub(super) struct Bits {
    kind: Kind,
    ty: DataType,
    counts: Vec<Counts>,
}

#[derive(Clone, Debug)]
struct Counts {
    values: i64,
    bits: Box<[i64; BITS]>,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts { values: 0, bits: Box::new([0; BITS]) }
    }
}

impl Counts {
    fn add(&mut self, value: i64, count: i64) {
        self.values += count;
        let mut rest = value as u64;
        while rest != 0 {
            self.bits[rest.trailing_zeros() as usize] += count;
            rest &= rest - 1;
        }
    }

    fn put_bits(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let end = self.bits.iter().rposition(|count| *count != 0).map_or(0, |last| last + 1);
        self.bits[..end].iter().for_each(|count| put_count(*count, &mut out));
        out
    }

    fn add_bits(&mut self, mut input: &[u8]) -> Result<(), Failure> {
        let mut bits = self.bits.iter_mut();
        while !input.is_empty() {
            *bits.next().ok_or_else(damaged)? += take_count(&mut input)?;
        }
        Ok(())
    }

    fn result(&self, kind: Kind) -> i64 {
        let is_set = |count: i64| match kind {
            Kind::And => count == self.values,
            Kind::Or => count > 0,
            Kind::Xor => count % 2 != 0,
        };
        let bits = self.bits.iter().enumerate().filter(|(_, count)| is_set(**count));
        bits.fold(0_u64, |result, (bit, _)| result | 1 << bit) as i64
    }
}

impl Bits {
    /// `None` for other functions and types.
    pub(super) fn new(function: &str, ty: &SqlType) -> Option<Bits> {
        let kind = match function {
            "bit_and" => Kind::And,
            "bit_or" => Kind::Or,
            "bit_xor" => Kind::Xor,
            _ => return None,
        };
        let is_whole = matches!(ty, SqlType::SmallInt | SqlType::Integer | SqlType::BigInt);
        is_whole.then(|| Bits { kind, ty: ty.arrow(), counts: Vec::new() })
    }
}

impl Keep for Bits {
    fn resize(&mut self, groups: usize) {
        self.counts.resize_with(groups, Counts::default);
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        let counts = || groups.iter().map(|group| &self.counts[*group as usize]);
        if counts().any(|counts| counts.values < 0 || counts.bits.iter().any(|count| *count < 0)) {
            return Err(negative());
        }
        let results: Int64Array =
            counts().map(|counts| (counts.values > 0).then(|| counts.result(self.kind))).collect();
        // A negative number has all high bits set, so it fits into the narrower type.
        cast(&results, &self.ty).map_err(|error| Failure::Broken(error.to_string()))
    }

    fn put(&self, group: Group, out: &mut Vec<u8>) {
        let counts = &self.counts[group as usize];
        put_bytes(&counts.put_bits(), out);
        put_count(counts.values, out);
    }

    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        let counts = &mut self.counts[group as usize];
        counts.add_bits(take_bytes(input)?)?;
        counts.values = take_count(input)?;
        Ok(())
    }

    fn retain(&mut self, kept: &[Group]) {
        retain(&mut self.counts, kept);
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.counts) + self.counts.len() * BITS * size_of::<i64>()
    }
}

impl Accumulate for Bits {
    fn update(&mut self, rows: Rows<'_>, arguments: &[&ArrayRef]) -> Result<(), Failure> {
        let values = cast(arguments[0], &DataType::Int64).map_err(|_| mistyped(arguments[0]))?;
        let values = values.as_primitive::<Int64Type>().values();
        rows.each(|row, group, is_delete| self.counts[group].add(values[row], if is_delete { -1 } else { 1 }));
        Ok(())
    }

    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure> {
        let bits = partial[0].as_binary_opt::<i32>().ok_or_else(|| mistyped(&partial[0]))?;
        let values = partial[1].as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(&partial[1]))?;
        for (row, group) in groups.iter().enumerate() {
            let counts = &mut self.counts[*group as usize];
            counts.add_bits(bits.value(row))?;
            counts.values += values.value(row);
        }
        Ok(())
    }

    fn take_partial(&mut self, groups: &[Group], _rest: &mut [bool]) -> Vec<ArrayRef> {
        let counts: Vec<Counts> =
            groups.iter().map(|group| std::mem::take(&mut self.counts[*group as usize])).collect();
        let bits: BinaryArray = counts.iter().map(|counts| Some(counts.put_bits())).collect();
        vec![Arc::new(bits), Arc::new(counts.iter().map(|counts| Some(counts.values)).collect::<Int64Array>())]
    }
}
