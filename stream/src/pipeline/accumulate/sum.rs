//! `sum` of exact numbers: adds up. Kept: the sum, and the number of values as a count.
//!
//! Whole numbers are summed in 128 bits, decimals in 320, so that no number of rows overflows.

use std::fmt::Debug;
use std::ops::{AddAssign, Neg};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Decimal256Array, Int64Array, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Decimal256Type, Int16Type, Int32Type, Int64Type, i256,
};
use weir_common::types::SqlType;
use weir_common::view::Error;

use super::{Accumulate, Keep, Rows, mistyped, negative};
use crate::pipeline::Failure;
use crate::pipeline::cell::{put_count, put_sum, take_count, take_sum};
use crate::pipeline::evict::{bytes_of, retain};
use crate::pipeline::groups::Group;

/// A sum that is wider than the type of its result.
pub(super) trait Total: Copy + Debug + Default + Ord + AddAssign + Neg<Output = Self> + Send + Sync {
    /// PostgreSQL's words for a result that is too large.
    const OVERFLOW: &str;

    /// The least and the greatest value of a type.
    fn range(ty: &DataType) -> (Self, Self);
    /// Adds the values of a column.
    fn update(sum: &mut Sum<Self>, rows: Rows<'_>, column: &ArrayRef) -> Result<(), Failure>;
    /// A column of values within the range of its type.
    fn column(ty: &DataType, values: impl Iterator<Item = Option<Self>>) -> ArrayRef;
    /// The values of a column.
    fn values(column: &ArrayRef) -> Result<Vec<Self>, Failure>;
    /// Writes it.
    fn put(self, out: &mut Vec<u8>);
    /// Reads it.
    fn take(input: &mut &[u8]) -> Result<Self, Failure>;
}

#[derive(Debug)]
pub(super) struct Sum<T> {
    ty: DataType,
    /// The least and the greatest result.
    range: (T, T),
    totals: Vec<T>,
    /// The number of values.
    counts: Vec<i64>,
}

impl<T: Total> Sum<T> {
    pub(super) fn new(ty: &SqlType) -> Sum<T> {
        let ty = ty.arrow();
        Sum { range: T::range(&ty), ty, totals: Vec::new(), counts: Vec::new() }
    }

    fn add<A: ArrowPrimitiveType>(&mut self, rows: Rows<'_>, column: &PrimitiveArray<A>)
    where
        T: From<A::Native>,
    {
        let values = column.values();
        rows.each(|row, group, is_delete| {
            let value = T::from(values[row]);
            self.totals[group] += if is_delete { -value } else { value };
            self.counts[group] += if is_delete { -1 } else { 1 };
        });
    }
}

impl<T: Total> Keep for Sum<T> {
    fn resize(&mut self, groups: usize) {
        self.totals.resize(groups, T::default());
        self.counts.resize(groups, 0);
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        let (least, greatest) = self.range;
        for group in groups {
            let total = self.totals[*group as usize];
            if self.counts[*group as usize] < 0 {
                return Err(negative());
            }
            if total < least || total > greatest {
                return Err(Error::out_of_range(T::OVERFLOW).into());
            }
        }
        let result = |group: &Group| (self.counts[*group as usize] > 0).then(|| self.totals[*group as usize]);
        Ok(T::column(&self.ty, groups.iter().map(result)))
    }

    fn put(&self, group: Group, out: &mut Vec<u8>) {
        self.totals[group as usize].put(out);
        put_count(self.counts[group as usize], out);
    }

    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        self.totals[group as usize] = T::take(input)?;
        self.counts[group as usize] = take_count(input)?;
        Ok(())
    }

    fn retain(&mut self, kept: &[Group]) {
        retain(&mut self.totals, kept);
        retain(&mut self.counts, kept);
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.totals) + bytes_of(&self.counts)
    }
}

impl<T: Total> Accumulate for Sum<T> {
    fn update(&mut self, rows: Rows<'_>, arguments: &[&ArrayRef]) -> Result<(), Failure> {
        T::update(self, rows, arguments[0])
    }

    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure> {
        let totals = T::values(&partial[0])?;
        let counts = partial[1].as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(&partial[1]))?;
        for ((group, total), count) in groups.iter().zip(totals).zip(counts.values()) {
            self.totals[*group as usize] += total;
            self.counts[*group as usize] += count;
        }
        Ok(())
    }

    fn take_partial(&mut self, groups: &[Group], rest: &mut [bool]) -> Vec<ArrayRef> {
        let (least, greatest) = self.range;
        let parts: Vec<Option<T>> = groups
            .iter()
            .zip(rest.iter_mut())
            .map(|(group, rest)| {
                let total = &mut self.totals[*group as usize];
                let part = (*total).clamp(least, greatest);
                *total += -part;
                *rest |= *total != T::default();
                Some(part)
            })
            .collect();
        let counts = groups.iter().map(|group| std::mem::take(&mut self.counts[*group as usize]));
        vec![T::column(&self.ty, parts.into_iter()), Arc::new(counts.collect::<Int64Array>())]
    }
}

impl Total for i128 {
    const OVERFLOW: &str = "bigint out of range";

    fn range(_ty: &DataType) -> (i128, i128) {
        (i64::MIN.into(), i64::MAX.into())
    }

    fn update(sum: &mut Sum<i128>, rows: Rows<'_>, column: &ArrayRef) -> Result<(), Failure> {
        match column.data_type() {
            DataType::Int16 => sum.add(rows, column.as_primitive::<Int16Type>()),
            DataType::Int32 => sum.add(rows, column.as_primitive::<Int32Type>()),
            DataType::Int64 => sum.add(rows, column.as_primitive::<Int64Type>()),
            _ => return Err(mistyped(column)),
        }
        Ok(())
    }

    fn column(_ty: &DataType, values: impl Iterator<Item = Option<i128>>) -> ArrayRef {
        Arc::new(values.map(|value| value.map(|value| value as i64)).collect::<Int64Array>())
    }

    fn values(column: &ArrayRef) -> Result<Vec<i128>, Failure> {
        let column = column.as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(column))?;
        Ok(column.values().iter().map(|value| i128::from(*value)).collect())
    }

    fn put(self, out: &mut Vec<u8>) {
        put_sum(&self.to_le_bytes(), out);
    }

    fn take(input: &mut &[u8]) -> Result<i128, Failure> {
        Ok(i128::from_le_bytes(take_sum(input)?))
    }
}

/// A number of 320 bits in two's complement. The order is that of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wide {
    high: i64,
    middle: u128,
    low: u128,
}

impl Wide {
    /// The value in 256 bits, which it has to fit into.
    fn narrow(self) -> i256 {
        i256::from_parts(self.low, self.middle as i128)
    }
}

impl From<i256> for Wide {
    fn from(value: i256) -> Wide {
        let (low, high) = value.to_parts();
        Wide { high: (high >> 127) as i64, middle: high as u128, low }
    }
}

impl From<i128> for Wide {
    fn from(value: i128) -> Wide {
        let sign = value >> 127;
        Wide { high: sign as i64, middle: sign as u128, low: value as u128 }
    }
}

impl AddAssign for Wide {
    fn add_assign(&mut self, other: Wide) {
        let (low, carry) = self.low.overflowing_add(other.low);
        let (middle, first) = self.middle.overflowing_add(other.middle);
        let (middle, second) = middle.overflowing_add(u128::from(carry));
        let high = self.high.wrapping_add(other.high).wrapping_add(i64::from(first) + i64::from(second));
        *self = Wide { high, middle, low };
    }
}

impl Neg for Wide {
    type Output = Wide;

    fn neg(self) -> Wide {
        let mut negated = Wide { high: !self.high, middle: !self.middle, low: !self.low };
        negated += Wide { high: 0, middle: 0, low: 1 };
        negated
    }
}

impl Total for Wide {
    const OVERFLOW: &str = "numeric field overflow";

    fn range(ty: &DataType) -> (Wide, Wide) {
        let digits = match ty {
            DataType::Decimal128(digits, _) | DataType::Decimal256(digits, _) => *digits,
            other => panic!("{other} is not a decimal"),
        };
        let limit = i256::from_i128(10).wrapping_pow(digits.into()).wrapping_sub(i256::ONE);
        (Wide::from(limit.wrapping_neg()), Wide::from(limit))
    }

    fn update(sum: &mut Sum<Wide>, rows: Rows<'_>, column: &ArrayRef) -> Result<(), Failure> {
        match column.data_type() {
            DataType::Decimal128(..) => sum.add(rows, column.as_primitive::<Decimal128Type>()),
            DataType::Decimal256(..) => sum.add(rows, column.as_primitive::<Decimal256Type>()),
            _ => return Err(mistyped(column)),
        }
        Ok(())
    }

    fn column(ty: &DataType, values: impl Iterator<Item = Option<Wide>>) -> ArrayRef {
        let values = values.map(|value| value.map(Wide::narrow));
        match ty {
            DataType::Decimal128(..) => {
                let values = values.map(|value| value.map(|value| value.as_i128()));
                Arc::new(values.collect::<Decimal128Array>().with_data_type(ty.clone()))
            }
            _ => Arc::new(values.collect::<Decimal256Array>().with_data_type(ty.clone())),
        }
    }

    fn values(column: &ArrayRef) -> Result<Vec<Wide>, Failure> {
        Ok(match column.data_type() {
            DataType::Decimal128(..) => {
                column.as_primitive::<Decimal128Type>().values().iter().map(|value| Wide::from(*value)).collect()
            }
            DataType::Decimal256(..) => {
                column.as_primitive::<Decimal256Type>().values().iter().map(|value| Wide::from(*value)).collect()
            }
            _ => return Err(mistyped(column)),
        })
    }

    fn put(self, out: &mut Vec<u8>) {
        let mut bytes = [0; 40];
        bytes[..16].copy_from_slice(&self.low.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.middle.to_le_bytes());
        bytes[32..].copy_from_slice(&self.high.to_le_bytes());
        put_sum(&bytes, out);
    }

    fn take(input: &mut &[u8]) -> Result<Wide, Failure> {
        let bytes: [u8; 40] = take_sum(input)?;
        let part = |range: std::ops::Range<usize>| u128::from_le_bytes(bytes[range].try_into().expect("16 bytes"));
        let high = i64::from_le_bytes(bytes[32..].try_into().expect("8 bytes"));
        Ok(Wide { high, middle: part(16..32), low: part(0..16) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_numbers_add_up_and_come_back() {
        let large = Wide::from(i256::MAX);
        let mut sum = large;
        sum += large;
        sum += Wide::from(-5_i128);
        assert!(sum > large && -sum < Wide::from(i256::MIN));
        let mut out = Vec::new();
        sum.put(&mut out);
        (-sum).put(&mut out);
        let input = &mut out.as_slice();
        assert_eq!((Wide::take(input), Wide::take(input)), (Ok(sum), Ok(-sum)));
        sum += -large;
        sum += -large;
        assert_eq!(sum, Wide::from(-5_i128));
        assert_eq!(sum.narrow(), i256::from_i128(-5));
        assert!(Wide::from(-1_i128) < Wide::default() && Wide::default() < Wide::from(1_i128));
    }
}
