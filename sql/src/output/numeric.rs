//! Numerics as PostgreSQL prints them, and as it sends them in binary, where their digits have the
//! base 10,000.
//!
//! Both forms are computed from the decimal digits on the stack, without an allocation.

use std::io::Write as _;

use bytes::{BufMut, BytesMut};
use datafusion::arrow::datatypes::i256;
use weir_common::decimal::power_of_ten;
use weir_common::types::NUMERIC_PRECISION;

use crate::error::Error;

/// Decimal digits in one digit of the wire.
const GROUP: i32 = 4;
const NEGATIVE: u16 = 0x4000;
/// A number of 256 bits has at most 77 digits. `HALF` is half of the 76 that a type can have.
const DIGITS_MAX: usize = 80;
const HALF: u8 = 38;
/// The groups of that many digits, and one more, because a group does not span the point.
const GROUPS_MAX: usize = DIGITS_MAX / 4 + 2;

/// The format of a column's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    /// Digits after the point.
    places: usize,
    /// True if trailing zeros after the point are left out: the type has no scale of its own.
    trimmed: bool,
}

impl Scale {
    /// # Errors
    /// `0A000` for a negative scale, which no type of a table has.
    pub(super) fn of(precision: u8, scale: i8) -> Result<Scale, Error> {
        let places = usize::try_from(scale).map_err(|_| Error::unsupported("a numeric with a negative scale"))?;
        Ok(Scale { places, trimmed: precision == NUMERIC_PRECISION })
    }
}

/// A number as its decimal digits.
pub(super) struct Number {
    negative: bool,
    /// Without leading zeros.
    digits: [u8; DIGITS_MAX],
    length: usize,
    /// The number of digits after the point, which may exceed the number of digits.
    places: usize,
}

impl Number {
    pub(super) fn new(unscaled: i128, scale: Scale) -> Number {
        let mut number = Number { negative: unscaled < 0, digits: [0; DIGITS_MAX], length: 0, places: scale.places };
        if unscaled != 0 {
            number.fill(format_args!("{}", unscaled.unsigned_abs()));
        }
        if scale.trimmed { number.trimmed() } else { number }
    }

    pub(super) fn wide(unscaled: i256, scale: Scale) -> Number {
        if let Some(narrow) = unscaled.to_i128() {
            return Number::new(narrow, scale);
        }
        let negative = unscaled.is_negative();
        let mut number = Number { negative, digits: [0; DIGITS_MAX], length: 0, places: scale.places };
        // Halves of at most 38 digits. The first has 39 for numbers that are beyond every type.
        let (high, low) = (unscaled.wrapping_div(power_of_ten(HALF)), unscaled.wrapping_rem(power_of_ten(HALF)));
        let (high, low) = (high.wrapping_abs().to_parts().0, low.wrapping_abs().to_parts().0);
        if high == 0 {
            number.fill(format_args!("{low}"));
        } else {
            number.fill(format_args!("{high}{low:038}"));
        }
        if scale.trimmed { number.trimmed() } else { number }
    }

    fn fill(&mut self, written: std::fmt::Arguments<'_>) {
        let mut rest = self.digits.as_mut_slice();
        rest.write_fmt(written).expect("80 bytes hold every number of 256 bits");
        self.length = DIGITS_MAX - rest.len();
    }

    fn trimmed(mut self) -> Number {
        while self.places > 0 && self.length > 0 && self.digits[self.length - 1] == b'0' {
            self.length -= 1;
            self.places -= 1;
        }
        if self.length == 0 {
            self.places = 0;
        }
        self
    }

    pub(super) fn write_text(&self, out: &mut BytesMut) {
        if self.negative {
            out.put_u8(b'-');
        }
        let digits = &self.digits[..self.length];
        let whole = self.length.saturating_sub(self.places);
        out.put_slice(if whole == 0 { b"0" } else { &digits[..whole] });
        if self.places > 0 {
            out.put_u8(b'.');
            out.put_bytes(b'0', self.places - (self.length - whole));
            out.put_slice(&digits[whole..]);
        }
    }

    pub(super) fn write_binary(&self, out: &mut BytesMut) {
        let signed = |number: usize| i32::try_from(number).unwrap_or_default();
        let (length, places) = (signed(self.length), signed(self.places));
        // The digit at 10^place.
        let digit = |place: i32| {
            let at = usize::try_from(length - places - 1 - place).ok();
            at.and_then(|at| self.digits[..self.length].get(at)).map_or(0, |digit| u16::from(digit - b'0'))
        };
        let highest = (length - places + GROUP - 1).div_euclid(GROUP) - 1;
        let lowest = (-places).div_euclid(GROUP);
        let mut groups = [0_u16; GROUPS_MAX];
        let (mut count, mut weight) = (0, 0);
        for group in (lowest..=highest).rev() {
            let value = (0..GROUP).rev().fold(0, |value, place| value * 10 + digit(group * GROUP + place));
            if count == 0 && value == 0 {
                continue;
            }
            if count == 0 {
                weight = group;
            }
            groups[count] = value;
            count += 1;
        }
        while count > 0 && groups[count - 1] == 0 {
            count -= 1;
        }
        out.put_i16(i16::try_from(count).unwrap_or_default());
        out.put_i16(i16::try_from(weight).unwrap_or_default());
        out.put_u16(if self.negative { NEGATIVE } else { 0 });
        out.put_u16(u16::try_from(self.places).unwrap_or_default());
        for group in &groups[..count] {
            out.put_u16(*group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(unscaled: i128, scale: i8) -> Number {
        Number::new(unscaled, Scale::of(38, scale).expect("a scale"))
    }

    fn wide(unscaled: &str) -> Number {
        let unscaled = i256::from_string(unscaled).expect("a number");
        Number::wide(unscaled, Scale::of(NUMERIC_PRECISION, 28).expect("a scale"))
    }

    fn text(number: &Number) -> String {
        let mut out = BytesMut::new();
        number.write_text(&mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    fn wire(number: &Number) -> Vec<i32> {
        let mut out = BytesMut::new();
        number.write_binary(&mut out);
        out.chunks(2).map(|pair| i32::from(i16::from_be_bytes([pair[0], pair[1]]))).collect()
    }

    /// Count, weight, sign and scale, then digits, as PostgreSQL's `numeric_send` returns them.
    #[test]
    fn digits_are_aligned_with_the_point() {
        assert_eq!(wire(&of(0, 0)), [0, 0, 0, 0]);
        assert_eq!(wire(&of(0, 2)), [0, 0, 0, 2]);
        assert_eq!(wire(&of(1, 0)), [1, 0, 0, 0, 1]);
        assert_eq!(wire(&of(1234, 2)), [2, 0, 0, 2, 12, 3400]);
        assert_eq!(wire(&of(-1234, 2)), [2, 0, 0x4000, 2, 12, 3400]);
        assert_eq!(wire(&of(10_000, 0)), [1, 1, 0, 0, 1]);
        assert_eq!(wire(&of(12_345_678, 0)), [2, 1, 0, 0, 1234, 5678]);
        assert_eq!(wire(&of(1, 5)), [1, -2, 0, 5, 1000]);
        assert_eq!(wire(&of(5, 1)), [1, -1, 0, 1, 5000]);
        assert_eq!(wire(&of(-1_234_567_000_089, 6)), [4, 1, 0x4000, 6, 123, 4567, 0, 8900]);
        assert_eq!(wire(&of(18_446_744_073_709_551_616, 0)), [5, 4, 0, 0, 1844, 6744, 737, 955, 1616]);
        assert_eq!(wire(&of(i128::MAX, 38)).len(), 4 + 11);
        assert_eq!(wire(&of(i128::MIN, 37)).len(), 4 + 11);
    }

    #[test]
    fn a_declared_scale_is_printed_in_full() {
        assert_eq!(text(&of(0, 0)), "0");
        assert_eq!(text(&of(0, 2)), "0.00");
        assert_eq!(text(&of(-5, 2)), "-0.05");
        assert_eq!(text(&of(1250, 2)), "12.50");
        assert_eq!(text(&of(1, 38)), format!("0.{}1", "0".repeat(37)));
        assert_eq!(text(&of(i128::MIN, 0)), i128::MIN.to_string());
    }

    #[test]
    fn without_one_there_are_no_trailing_zeros() {
        let digits = "1234567890123456789012345678901234567890123456781234567890123456789012345678";
        let number = wide(digits);
        assert_eq!(text(&number), format!("{}.{}", &digits[..48], &digits[48..]));
        let groups = [1234, 5678, 9012, 3456, 7890];
        let group = |at: usize| if at < 12 { groups[at % 5] } else { groups[(at - 12) % 5] };
        let expected: Vec<i32> = [19, 11, 0, 28].into_iter().chain((0..19).map(group)).collect();
        assert_eq!(wire(&number), expected);
        let one_and_a_half = wide(&format!("-15{}", "0".repeat(27)));
        assert_eq!((text(&one_and_a_half).as_str(), wire(&one_and_a_half)), ("-1.5", vec![2, 0, 0x4000, 1, 1, 5000]));
        let large = wide(&format!("3{}", "0".repeat(68)));
        assert_eq!((text(&large), wire(&large)), (format!("3{}", "0".repeat(40)), vec![1, 10, 0, 0, 3]));
        assert_eq!((text(&wide("0")).as_str(), wire(&wide("0"))), ("0", vec![0, 0, 0, 0]));
        assert_eq!(text(&wide("1")), format!("0.{}1", "0".repeat(27)));
    }
}
