//! Arithmetic of PostgreSQL's `numeric`.
//!
//! DataFusion's result types grow with every multiplication until nothing fits, and its quotients
//! have only four digits more than the dividend. Here, sums, differences, products and remainders
//! of declared types are exact and have PostgreSQL's scale. Every quotient, and every result with a
//! `numeric` without a scale as operand, is a `numeric` without a scale: a product keeps at most
//! [`NUMERIC_SCALE`] digits after the point, and a quotient is rounded at the same digit as in
//! PostgreSQL.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal256Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal256Type, i256};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use num_bigint::{BigInt, Sign};
use weir_common::decimal::power_of_ten;
use weir_common::types::{DECIMAL_PRECISION_MAX, NUMERIC_PRECISION, NUMERIC_SCALE};

use crate::error::Error;

/// The largest power of ten that fits in 256 bits.
const POWER_MAX: u32 = 76;
/// The decimal digits in one of PostgreSQL's digits, whose base is 10,000, and the least digits of
/// its quotients.
const GROUP: i32 = 4;
const QUOTIENT_DIGITS_MIN: i32 = 16;

/// The call of an operator, if both operands are decimals, or one is a decimal and the other an
/// integer.
pub(crate) fn decimal_operation(op: Operator, left: &DataType, right: &DataType) -> Option<ScalarUDF> {
    let exact = |ty: &DataType| ty.is_decimal() || ty.is_integer();
    let operation =
        Operation::of(op).filter(|_| (left.is_decimal() || right.is_decimal()) && exact(left) && exact(right))?;
    Some(operation.udf())
}

/// A quotient. Both operands may be integers.
pub(crate) fn quotient(dividend: Expr, divisor: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(Operation::Divide.udf()), vec![dividend, divisor]))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A type of exact numbers: its digits, and the digits after the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    precision: u8,
    scale: u8,
}

impl Shape {
    /// # Errors
    /// If it is not a type of exact numbers.
    fn of(ty: &DataType) -> Result<Shape, Error> {
        let (precision, scale) = match ty {
            DataType::Null => (1, 0),
            DataType::Int8 | DataType::UInt8 => (3, 0),
            DataType::Int16 | DataType::UInt16 => (5, 0),
            DataType::Int32 | DataType::UInt32 => (10, 0),
            DataType::Int64 => (19, 0),
            DataType::UInt64 => (20, 0),
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => (*precision, *scale),
            _ => return Err(Error::internal("an operand of a numeric operation is not a number")),
        };
        match u8::try_from(scale) {
            Ok(scale) => Ok(Shape { precision, scale }),
            Err(_) => Err(Error::unsupported("a numeric with a negative scale is not supported yet")),
        }
    }

    fn is_wide(self) -> bool {
        self.precision == NUMERIC_PRECISION
    }

    fn whole(self) -> u8 {
        self.precision.saturating_sub(self.scale)
    }

    fn arrow(self) -> DataType {
        let scale = i8::try_from(self.scale).unwrap_or(i8::MAX);
        if self.precision <= DECIMAL128_MAX_PRECISION {
            DataType::Decimal128(self.precision, scale)
        } else {
            DataType::Decimal256(self.precision, scale)
        }
    }

    fn operand(self) -> DataType {
        DataType::Decimal256(self.precision, i8::try_from(self.scale).unwrap_or(i8::MAX))
    }
}

impl Operation {
    fn of(op: Operator) -> Option<Operation> {
        Some(match op {
            Operator::Plus => Operation::Add,
            Operator::Minus => Operation::Subtract,
            Operator::Multiply => Operation::Multiply,
            Operator::Divide => Operation::Divide,
            Operator::Modulo => Operation::Remainder,
            _ => return None,
        })
    }

    fn udf(self) -> ScalarUDF {
        ScalarUDF::from(Numeric { operation: self, signature: Signature::user_defined(Volatility::Immutable) })
    }

    fn sign(self) -> &'static str {
        match self {
            Operation::Add => "+",
            Operation::Subtract => "-",
            Operation::Multiply => "*",
            Operation::Divide => "/",
            Operation::Remainder => "%",
        }
    }

    fn result(self, left: Shape, right: Shape) -> Shape {
        let scale = left.scale.max(right.scale);
        let wide = Shape { precision: NUMERIC_PRECISION, scale: scale.max(NUMERIC_SCALE) };
        let whole = left.whole().max(right.whole());
        let declared = match self {
            Operation::Add | Operation::Subtract => Shape { precision: whole + 1 + scale, scale },
            Operation::Multiply => {
                Shape { precision: left.precision + right.precision, scale: left.scale + right.scale }
            }
            Operation::Remainder => Shape { precision: whole + scale, scale },
            Operation::Divide => return wide,
        };
        let fits = !left.is_wide() && !right.is_wide() && declared.precision <= DECIMAL_PRECISION_MAX;
        if fits { declared } else { wide }
    }
}

/// An operator. It is named by its sign, so that plans read as they were written.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Numeric {
    operation: Operation,
    signature: Signature,
}

impl ScalarUDFImpl for Numeric {
    fn name(&self) -> &str {
        self.operation.sign()
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [left, right] => format!("{left} {} {right}", self.name()),
            _ => self.name().to_owned(),
        })
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [left, right] => format!("{} {} {}", left.schema_name(), self.name(), right.schema_name()),
            _ => self.name().to_owned(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let operand = |ty: &DataType| Ok::<_, Error>(Shape::of(ty)?.operand());
        Ok(given.iter().map(operand).collect::<Result<_, Error>>()?)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let [left, right] = arguments else {
            return Err(Error::internal("a numeric operation has two operands").into());
        };
        Ok(self.operation.result(Shape::of(left)?, Shape::of(right)?).arrow())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalars = args.args.iter().all(|operand| matches!(operand, ColumnarValue::Scalar(_)));
        let rows = if all_scalars { 1 } else { args.number_rows };
        let [left, right] = args.args.as_slice() else {
            return Err(Error::internal("a numeric operation has two operands").into());
        };
        let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
        let result = self.apply(&left, &right, args.return_type())?;
        if all_scalars {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl Numeric {
    fn apply(&self, left: &ArrayRef, right: &ArrayRef, ty: &DataType) -> Result<ArrayRef> {
        let (left_shape, right_shape, shape) =
            (Shape::of(left.data_type())?, Shape::of(right.data_type())?, Shape::of(ty)?);
        let (left, right) = (left.as_primitive::<Decimal256Type>(), right.as_primitive::<Decimal256Type>());
        let limit = power_of_ten(shape.precision);
        let rows = left.iter().zip(right).map(|pair| {
            let (Some(left), Some(right)) = pair else { return Ok(None) };
            let left = Decimal::new(left, left_shape);
            let right = Decimal::new(right, right_shape);
            let value = match self.operation {
                Operation::Divide | Operation::Remainder if right.unscaled == i256::ZERO => {
                    return Err(Error::division_by_zero());
                }
                Operation::Add => left.at(shape.scale).zip(right.at(shape.scale)).and_then(|(a, b)| a.checked_add(b)),
                Operation::Subtract => {
                    left.at(shape.scale).zip(right.at(shape.scale)).and_then(|(a, b)| a.checked_sub(b))
                }
                Operation::Remainder => {
                    left.at(shape.scale).zip(right.at(shape.scale)).and_then(|(a, b)| a.checked_rem(b))
                }
                Operation::Multiply => left.times(right, shape.scale),
                Operation::Divide => left.over(right, shape.scale),
            };
            let fits = value.filter(|value| value.wrapping_abs() < limit);
            fits.map(Some).ok_or_else(|| Error::out_of_range("value overflows numeric format"))
        });
        let values: Decimal256Array = rows.collect::<Result<_, Error>>()?;
        let values = values.with_data_type(shape.operand());
        Ok(cast(&values, ty)?)
    }
}

/// A number: `unscaled × 10^-scale`.
#[derive(Clone, Copy, Debug)]
struct Decimal {
    unscaled: i256,
    scale: i32,
    /// The digits after the point that PostgreSQL would show.
    shown: i32,
}

impl Decimal {
    /// Removes the trailing zeros of a wide number, which take space without a meaning.
    fn new(unscaled: i256, shape: Shape) -> Decimal {
        let scale = i32::from(shape.scale);
        if !shape.is_wide() {
            return Decimal { unscaled, scale, shown: scale };
        }
        let mut number = Decimal { unscaled, scale, shown: 0 };
        for step in [16, 8, 4, 2, 1] {
            let power = power_of_ten(step);
            let step = i32::from(step);
            while number.scale >= step && number.unscaled.wrapping_rem(power) == i256::ZERO {
                number.unscaled = number.unscaled.wrapping_div(power);
                number.scale -= step;
            }
        }
        number.shown = number.scale;
        number
    }

    /// The same number with another scale, which must not be less than its own.
    fn at(self, scale: u8) -> Option<i256> {
        self.unscaled.checked_mul(power(i32::from(scale) - self.scale)?)
    }

    fn times(self, other: Decimal, scale: u8) -> Option<i256> {
        let shift = i32::from(scale) - self.scale - other.scale;
        match self.unscaled.checked_mul(other.unscaled) {
            Some(product) if shift >= 0 => product.checked_mul(power(shift)?),
            Some(product) => match power(-shift) {
                Some(divisor) => Some(rounded_quotient(product, divisor)),
                None => Some(i256::ZERO),
            },
            None => narrow(&scaled(big(self.unscaled) * big(other.unscaled), shift)),
        }
    }

    /// The quotient, rounded where PostgreSQL rounds, which depends on the size of the quotient.
    fn over(self, other: Decimal, scale: u8) -> Option<i256> {
        let places = self.quotient_places(other).min(i32::from(scale));
        let shift = places + other.scale - self.scale;
        let exact = power(shift).and_then(|power| self.unscaled.checked_mul(power));
        let quotient = match exact {
            Some(dividend) => rounded_quotient(dividend, other.unscaled),
            None => {
                let (mut dividend, mut divisor) = (big(self.unscaled), big(other.unscaled));
                let factor = BigInt::from(10).pow(shift.unsigned_abs());
                if shift >= 0 {
                    dividend *= factor
                } else {
                    divisor *= factor
                }
                narrow(&rounded_big_quotient(&dividend, &divisor))?
            }
        };
        quotient.checked_mul(power(i32::from(scale) - places)?)
    }

    /// Follows PostgreSQL's `select_div_scale`.
    fn quotient_places(self, other: Decimal) -> i32 {
        let ((weight, first), (other_weight, other_first)) = (self.weight(), other.weight());
        let quotient_weight = weight - other_weight - i32::from(first <= other_first);
        (QUOTIENT_DIGITS_MIN - quotient_weight * GROUP).max(self.shown).max(other.shown).max(0)
    }

    /// The exponent and the value of the first digit to the base of 10,000.
    fn weight(self) -> (i32, i256) {
        if self.unscaled == i256::ZERO {
            return (0, i256::ZERO);
        }
        let magnitude = self.unscaled.wrapping_abs();
        let digits =
            magnitude.checked_ilog10().and_then(|exponent| i32::try_from(exponent).ok()).unwrap_or_default() + 1;
        let weight = (digits - 1 - self.scale).div_euclid(GROUP);
        // The decimal digits after the first group.
        let below = weight * GROUP + self.scale;
        let first = match power(below) {
            Some(power) => magnitude.wrapping_div(power),
            None => magnitude.wrapping_mul(power(-below).unwrap_or(i256::ONE)),
        };
        (weight, first)
    }
}

/// A power of ten, if it fits in 256 bits.
fn power(exponent: i32) -> Option<i256> {
    u8::try_from(exponent).ok().filter(|exponent| u32::from(*exponent) <= POWER_MAX).map(power_of_ten)
}

/// The quotient, with halves rounded away from zero.
fn rounded_quotient(dividend: i256, divisor: i256) -> i256 {
    let (quotient, rest) = (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor));
    let rest = rest.wrapping_abs();
    // Doubling the rest could overflow.
    if rest >= divisor.wrapping_abs().wrapping_sub(rest) && rest != i256::ZERO {
        let away = if dividend.is_negative() == divisor.is_negative() { i256::ONE } else { i256::MINUS_ONE };
        quotient.wrapping_add(away)
    } else {
        quotient
    }
}

fn rounded_big_quotient(dividend: &BigInt, divisor: &BigInt) -> BigInt {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    if rest.magnitude() * 2_u8 < *divisor.magnitude() {
        return quotient;
    }
    if dividend.sign() == divisor.sign() { quotient + 1 } else { quotient - 1 }
}

fn scaled(number: BigInt, shift: i32) -> BigInt {
    let factor = BigInt::from(10).pow(shift.unsigned_abs());
    if shift >= 0 { number * factor } else { rounded_big_quotient(&number, &factor) }
}

fn big(number: i256) -> BigInt {
    BigInt::from_signed_bytes_le(&number.to_le_bytes())
}

fn narrow(number: &BigInt) -> Option<i256> {
    let bytes = number.to_signed_bytes_le();
    let mut wide = [if number.sign() == Sign::Minus { 0xff } else { 0 }; 32];
    wide.get_mut(..bytes.len())?.copy_from_slice(&bytes);
    Some(i256::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use weir_common::decimal::{Excess, parse};

    use super::*;

    const WIDE: Shape = Shape { precision: NUMERIC_PRECISION, scale: NUMERIC_SCALE };

    fn number(text: &str) -> Decimal {
        Decimal::new(parse(text, 76, 28, Excess::Refuse).expect(text), WIDE)
    }

    fn wide(text: &str) -> Option<i256> {
        parse(text, 76, 28, Excess::Refuse)
    }

    /// As PostgreSQL 15 prints them, except for trailing zeros.
    #[test]
    fn quotients_are_rounded_where_postgresql_rounds_them() {
        for (dividend, divisor, quotient) in [
            ("10", "3", "3.3333333333333333"),
            ("10", "4", "2.5"),
            ("1", "7", "0.14285714285714285714"),
            ("123456789.5", "3", "41152263.166666666667"),
            ("0.0001", "3", "0.000033333333333333333333"),
            ("1e20", "3", "33333333333333333333"),
            ("-10", "3", "-3.3333333333333333"),
            ("2", "-3", "-0.66666666666666666667"),
            ("1", "1e10", "0.0000000001"),
            ("0", "3", "0"),
            (
                "123456789012345678901234567890123456789012345678",
                "0.5",
                "246913578024691357802469135780246913578024691356",
            ),
        ] {
            assert_eq!(number(dividend).over(number(divisor), 28), wide(quotient), "{dividend} / {divisor}");
        }
    }

    #[test]
    fn products_are_exact_if_they_fit() {
        for (left, right, product) in [
            ("1.5", "2.5", "3.75"),
            ("1e20", "1e20", "1e40"),
            ("12345678901234567890.1234567891", "-10000000000", "-123456789012345678901234567891"),
            ("0.00000000000001", "0.00000000000001", "1e-28"),
            // An intermediate result exceeds 256 bits.
            (
                "99999999999999999999.99999999999999999999",
                "9999999999999999999.9999999999999999999999999999",
                "999999999999999999999999999999999999999.89999999",
            ),
        ] {
            let expected = parse(product, 76, 28, Excess::Round);
            assert_eq!(number(left).times(number(right), 28), expected, "{left} * {right}");
        }
        // Half of the last digit is rounded away from zero.
        assert_eq!(number("5e-28").times(number("-0.1"), 28), wide("-1e-28"));
        assert_eq!(number("1e40").times(number("1e40"), 28), None);
    }

    #[test]
    fn declared_types_keep_their_scales() {
        let shape = |precision, scale| Shape { precision, scale };
        let (price, rate) = (shape(10, 2), shape(5, 4));
        assert_eq!(Operation::Add.result(price, rate), shape(13, 4));
        assert_eq!(Operation::Multiply.result(price, rate), shape(15, 6));
        assert_eq!(Operation::Remainder.result(price, rate), shape(12, 4));
        assert_eq!(Operation::Divide.result(price, rate), WIDE);
        assert_eq!(Operation::Add.result(price, WIDE), WIDE);
        assert_eq!(Operation::Multiply.result(shape(50, 40), shape(30, 2)), shape(76, 40));
    }
}
