//! Variances and standard deviations: they add up. Kept: the sum of the values and that of their
//! squares as bytes, the number of values, and that of values that are not finite, as counts.
//!
//! Both sums are exact, so the result does not depend on the order of rows, and nothing remains of
//! those that are deleted. Results of whole numbers and decimals are rounded where PostgreSQL
//! rounds them; those of floating-point numbers once, to the nearest double.
//!
//! The bytes of a sum: the number of zero bytes that are left out as a length, and the other bytes
//! of its two's complement, lowest first; none for 0. Floating-point numbers are multiples of
//! 2^-1074, others of 10^-28, as a `numeric` is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Decimal256Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal256Type, Float64Type, Int64Type, i256};
use num_bigint::{BigInt, Sign};
use weir_common::types::{NUMERIC_PRECISION, NUMERIC_SCALE, SqlType};
use weir_common::view::Error;

use super::{Accumulate, Keep, Rows, mistyped, negative};
use crate::pipeline::Failure;
use crate::pipeline::cell::{damaged, put_bytes, put_count, put_length, take_bytes, take_count, take_length};
use crate::pipeline::evict::{bytes_of, retain};
use crate::pipeline::groups::Group;

/// The exponent of the least double.
const LEAST: i64 = 1_074;
/// The decimal digits in one of PostgreSQL's digits, and the least digits of its quotients.
const GROUP: i64 = 4;
const QUOTIENT_DIGITS_MIN: i64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    is_sample: bool,
    is_root: bool,
}

impl Kind {
    /// `None` for other functions.
    pub(super) fn of(function: &str) -> Option<Kind> {
        let (is_sample, is_root) = match function {
            "var_pop" => (false, false),
            "var_samp" => (true, false),
            "stddev_pop" => (false, true),
            "stddev_samp" => (true, true),
            _ => return None,
        };
        Some(Kind { is_sample, is_root })
    }
}

#[derive(Debug)]
pub(super) struct Moments {
    kind: Kind,
    /// False for floating-point numbers.
    is_exact: bool,
    groups: Vec<Sums>,
}

#[derive(Clone, Debug, Default)]
struct Sums {
    values: BigInt,
    squares: BigInt,
    count: i64,
    /// The number of values that are not finite.
    special: i64,
}

impl Sums {
    fn add(&mut self, value: &BigInt, is_delete: bool) {
        if is_delete {
            self.values -= value;
            self.squares -= value * value;
        } else {
            self.values += value;
            self.squares += value * value;
        }
    }

    /// The dividend and the divisor of the variance; `None` if there are too few values.
    fn quotient(&self, is_sample: bool) -> Option<(BigInt, BigInt)> {
        let count = BigInt::from(self.count);
        let dividend = &count * &self.squares - &self.values * &self.values;
        let divisor = if is_sample { &count * (self.count - 1) } else { &count * &count };
        (self.count > i64::from(is_sample)).then_some((dividend, divisor))
    }

    fn bytes(&self) -> usize {
        ((self.values.bits() + self.squares.bits()) / 8) as usize
    }
}

impl Moments {
    pub(super) fn new(kind: Kind, result: &SqlType) -> Moments {
        Moments { kind, is_exact: *result == SqlType::Numeric, groups: Vec::new() }
    }

    fn double(&self, sums: &Sums) -> Result<Option<f64>, Failure> {
        let Some((dividend, divisor)) = sums.quotient(self.kind.is_sample) else { return Ok(None) };
        if sums.special > 0 {
            return Ok(Some(f64::NAN));
        }
        let variance = ratio(&dividend, &divisor, -2 * LEAST);
        if variance.is_infinite() {
            return Err(Error::out_of_range("value out of range: overflow").into());
        }
        Ok(Some(if self.kind.is_root { variance.sqrt() } else { variance }))
    }

    fn numeric(&self, sums: &Sums) -> Result<Option<i256>, Failure> {
        let Some((dividend, divisor)) = sums.quotient(self.kind.is_sample) else { return Ok(None) };
        let result = Decimal { unscaled: dividend, scale: 2 * i64::from(NUMERIC_SCALE) }
            .trimmed()
            .over(&divisor, self.kind.is_root);
        let overflow = || Failure::from(Error::out_of_range("value overflows numeric format"));
        let value = narrow(&result).filter(|value| value.wrapping_abs() < weir_common::decimal::power_of_ten(76));
        value.map(Some).ok_or_else(overflow)
    }
}

/// `unscaled × 10^-scale`.
struct Decimal {
    unscaled: BigInt,
    scale: i64,
}

impl Decimal {
    /// The same number without zeros at the end.
    fn trimmed(mut self) -> Decimal {
        while self.scale > 0 && &self.unscaled % 10_u8 == BigInt::ZERO {
            self.unscaled /= 10_u8;
            self.scale -= 1;
        }
        self
    }

    /// The quotient, or its square root, with the digits of a `numeric`; rounded where PostgreSQL
    /// rounds it (`select_div_scale`).
    fn over(&self, divisor: &BigInt, is_root: bool) -> BigInt {
        let ((weight, first), (other_weight, other_first)) = (weight(&self.unscaled, self.scale), weight(divisor, 0));
        let quotient_weight = weight - other_weight - i64::from(first <= other_first);
        let places = (QUOTIENT_DIGITS_MIN - quotient_weight * GROUP).max(self.scale).clamp(0, NUMERIC_SCALE.into());
        let shift = places - self.scale;
        let dividend = if shift > 0 { &self.unscaled * ten(shift) } else { self.unscaled.clone() };
        let divisor = if shift < 0 { divisor * ten(-shift) } else { divisor.clone() };
        let quotient = (2 * dividend + &divisor) / (2 * divisor);
        let result = match is_root {
            // One digit more, which is rounded.
            true => (BigInt::sqrt(&(quotient * ten(places + 2))) + 5) / 10,
            false => quotient,
        };
        result * ten(i64::from(NUMERIC_SCALE) - places)
    }
}

fn ten(exponent: i64) -> BigInt {
    BigInt::from(10).pow(u32::try_from(exponent).expect("a power is not negative"))
}

/// The exponent and the value of the first digit to the base of 10,000. The number is not negative.
fn weight(unscaled: &BigInt, scale: i64) -> (i64, BigInt) {
    if *unscaled == BigInt::ZERO {
        return (0, BigInt::ZERO);
    }
    let digits = unscaled.to_string().len() as i64;
    let weight = (digits - 1 - scale).div_euclid(GROUP);
    let below = weight * GROUP + scale;
    let first = if below >= 0 { unscaled / ten(below) } else { unscaled * ten(-below) };
    (weight, first)
}

fn narrow(number: &BigInt) -> Option<i256> {
    let bytes = number.to_signed_bytes_le();
    let mut wide = [if number.sign() == Sign::Minus { u8::MAX } else { 0 }; 32];
    wide.get_mut(..bytes.len())?.copy_from_slice(&bytes);
    Some(i256::from_le_bytes(wide))
}

/// The double that is nearest to a quotient, which is not negative, times a power of two.
fn ratio(dividend: &BigInt, divisor: &BigInt, exponent: i64) -> f64 {
    // The quotient gets 64 bits, of which the lowest says whether there is a rest.
    let shift = 64 + divisor.bits() as i64 - dividend.bits() as i64;
    let (dividend, divisor) = match shift {
        0.. => (dividend << shift.unsigned_abs(), divisor.clone()),
        _ => (dividend.clone(), divisor << shift.unsigned_abs()),
    };
    let (mut quotient, rest) = (&dividend / &divisor, &dividend % &divisor);
    let mut exponent = exponent - shift;
    let mut is_exact = rest == BigInt::ZERO;
    while quotient.bits() > 64 {
        is_exact &= !quotient.bit(0);
        quotient >>= 1;
        exponent += 1;
    }
    let bits = quotient.iter_u64_digits().next().unwrap_or(0) | u64::from(!is_exact);
    let half = i32::try_from(exponent / 2).expect("a small exponent");
    let rest = i32::try_from(exponent).expect("a small exponent") - half;
    bits as f64 * 2_f64.powi(half) * 2_f64.powi(rest)
}

/// A finite double as a multiple of the least one.
fn multiple(value: f64) -> BigInt {
    let bits = value.to_bits();
    let exponent = (bits >> 52) as usize & 0x7ff;
    let fraction = bits & ((1 << 52) - 1);
    let magnitude = match exponent {
        0 => BigInt::from(fraction),
        _ => BigInt::from(fraction | 1 << 52) << (exponent - 1),
    };
    if value.is_sign_negative() { -magnitude } else { magnitude }
}

fn put_sum(sum: &BigInt, out: &mut Vec<u8>) {
    let bytes = sum.to_signed_bytes_le();
    if let Some(zeros) = bytes.iter().position(|byte| *byte != 0) {
        put_length(zeros as u64, out);
        out.extend_from_slice(&bytes[zeros..]);
    }
}

fn take_sum(mut input: &[u8]) -> Result<BigInt, Failure> {
    if input.is_empty() {
        return Ok(BigInt::ZERO);
    }
    let zeros = take_length(&mut input)?;
    if zeros > 1 << 12 {
        return Err(damaged());
    }
    Ok(BigInt::from_signed_bytes_le(input) << (8 * zeros))
}

fn bytes(sum: &BigInt) -> Vec<u8> {
    let mut out = Vec::new();
    put_sum(sum, &mut out);
    out
}

impl Keep for Moments {
    fn resize(&mut self, groups: usize) {
        self.groups.resize_with(groups, Sums::default);
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        let sums = || groups.iter().map(|group| &self.groups[*group as usize]);
        if sums().any(|sums| sums.count < 0 || sums.special < 0) {
            return Err(negative());
        }
        if !self.is_exact {
            return Ok(Arc::new(sums().map(|sums| self.double(sums)).collect::<Result<Float64Array, Failure>>()?));
        }
        let results = sums().map(|sums| self.numeric(sums)).collect::<Result<Decimal256Array, Failure>>()?;
        Ok(Arc::new(results.with_data_type(SqlType::Numeric.arrow())))
    }

    fn put(&self, group: Group, out: &mut Vec<u8>) {
        let sums = &self.groups[group as usize];
        put_bytes(&bytes(&sums.values), out);
        put_bytes(&bytes(&sums.squares), out);
        put_count(sums.count, out);
        put_count(sums.special, out);
    }

    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        let (values, squares) = (take_sum(take_bytes(input)?)?, take_sum(take_bytes(input)?)?);
        let (count, special) = (take_count(input)?, take_count(input)?);
        self.groups[group as usize] = Sums { values, squares, count, special };
        Ok(())
    }

    fn retain(&mut self, kept: &[Group]) {
        retain(&mut self.groups, kept);
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.groups) + self.groups.iter().map(Sums::bytes).sum::<usize>()
    }
}

impl Accumulate for Moments {
    fn update(&mut self, rows: Rows<'_>, arguments: &[&ArrayRef]) -> Result<(), Failure> {
        let (wanted, scale) = match (self.is_exact, arguments[0].data_type()) {
            (false, _) => (DataType::Float64, 0),
            (true, DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale)) => {
                (DataType::Decimal256(NUMERIC_PRECISION, *scale), i64::from(*scale))
            }
            (true, _) => (DataType::Int64, 0),
        };
        let column = cast(arguments[0], &wanted).map_err(|_| mistyped(arguments[0]))?;
        let factor = ten(i64::from(NUMERIC_SCALE) - scale);
        let value = |row: usize| match &wanted {
            DataType::Float64 => {
                let value = column.as_primitive::<Float64Type>().value(row);
                value.is_finite().then(|| multiple(value))
            }
            DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row) * &factor),
            _ => {
                let value = column.as_primitive::<Decimal256Type>().value(row);
                Some(BigInt::from_signed_bytes_le(&value.to_le_bytes()) * &factor)
            }
        };
        rows.each(|row, group, is_delete| {
            let sums = &mut self.groups[group];
            let count = if is_delete { -1 } else { 1 };
            sums.count += count;
            match value(row) {
                Some(value) => sums.add(&value, is_delete),
                None => sums.special += count,
            }
        });
        Ok(())
    }

    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure> {
        let binary = |column: usize| partial[column].as_binary_opt::<i32>().ok_or_else(|| mistyped(&partial[column]));
        let number =
            |column: usize| partial[column].as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(&partial[column]));
        let (values, squares, counts, special) = (binary(0)?, binary(1)?, number(2)?, number(3)?);
        for (row, group) in groups.iter().enumerate() {
            let sums = &mut self.groups[*group as usize];
            sums.values += take_sum(values.value(row))?;
            sums.squares += take_sum(squares.value(row))?;
            sums.count += counts.value(row);
            sums.special += special.value(row);
        }
        Ok(())
    }

    fn take_partial(&mut self, groups: &[Group], _rest: &mut [bool]) -> Vec<ArrayRef> {
        let taken: Vec<Sums> = groups.iter().map(|group| std::mem::take(&mut self.groups[*group as usize])).collect();
        vec![
            Arc::new(taken.iter().map(|sums| Some(bytes(&sums.values))).collect::<BinaryArray>()),
            Arc::new(taken.iter().map(|sums| Some(bytes(&sums.squares))).collect::<BinaryArray>()),
            Arc::new(taken.iter().map(|sums| Some(sums.count)).collect::<Int64Array>()),
            Arc::new(taken.iter().map(|sums| Some(sums.special)).collect::<Int64Array>()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(result: &SqlType, column: ArrayRef) -> [ArrayRef; 4] {
        ["var_pop", "var_samp", "stddev_pop", "stddev_samp"].map(|function| {
            let mut moments = Moments::new(Kind::of(function).expect("a function"), result);
            moments.resize(1);
            let groups = vec![0; column.len()];
            let rows = Rows { groups: &groups, deletes: None, counted: None };
            moments.update(rows, &[&column]).expect("values");
            let mut stored = Vec::new();
            moments.put(0, &mut stored);
            let mut again = Moments::new(Kind::of(function).expect("a function"), result);
            again.resize(1);
            again.take(0, &mut stored.as_slice()).expect("its own bytes");
            let partial = moments.take_partial(&[0], &mut [false]);
            moments.merge(&[0], &partial).expect("its own results");
            let found = moments.results(&[0]).expect("a result");
            assert_eq!(&again.results(&[0]).expect("a result"), &found);
            found
        })
    }

    /// As PostgreSQL 15 prints them, without trailing zeros.
    #[test]
    fn exact_numbers_are_rounded_where_postgresql_rounds_them() {
        let shown = |column: &ArrayRef| {
            let value = column.as_primitive::<Decimal256Type>().value_as_string(0);
            value.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let found = results(&SqlType::Numeric, Arc::new(Int64Array::from(vec![1, 2, 4])));
        assert_eq!(
            found.each_ref().map(shown),
            ["1.5555555555555556", "2.3333333333333333", "1.2472191289246471", "1.5275252316519467"]
        );
    }

    #[test]
    fn doubles_are_rounded_once() {
        let double = |column: &ArrayRef| column.as_primitive::<Float64Type>().value(0);
        let found = results(&SqlType::Double, Arc::new(Float64Array::from(vec![1.0, 2.0, 4.0])));
        assert_eq!(
            found.each_ref().map(double),
            [14.0 / 9.0, 7.0 / 3.0, (14.0_f64 / 9.0).sqrt(), (7.0_f64 / 3.0).sqrt()]
        );
        let large = Float64Array::from(vec![1e15, 1e15 + 1.0, 1e15 + 2.0]);
        assert_eq!(results(&SqlType::Double, Arc::new(large)).each_ref().map(double)[1], 1.0);
    }
}
