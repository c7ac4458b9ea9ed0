//! Parses numbers with a decimal point. This module fits a text into a fixed number of digits; the
//! caller decides what happens to further digits after the point.

use arrow::datatypes::i256;

/// The treatment of digits behind the last one that fits, unless they are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// The number is refused.
    Refuse,
    /// The number is rounded, halves away from zero, as PostgreSQL does for a declared scale.
    Round,
}

/// The number of decimal digits that a `u128` always holds.
const HALF_DIGITS: usize = 38;
/// Larger exponents, positive or negative, leave no digits of any number that can be written.
const EXPONENT_MAX: i64 = 1 << 32;

/// Parses a number with an optional point, sign and exponent; returns it as a multiple of
/// 10^-`scale`. Returns `None` if the text is not a number, or has more than `precision` digits.
/// There is no NaN and no infinity.
pub fn parse(text: &str, precision: u8, scale: u8, excess: Excess) -> Option<i256> {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i64>().ok()?.clamp(-EXPONENT_MAX, EXPONENT_MAX)),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let length = i64::try_from(whole.len() + fraction.len()).ok().filter(|length| *length > 0)?;
    // In the sequence of all digits, those before this place are kept.
    let kept = i64::try_from(whole.len()).ok()? + exponent + i64::from(scale);
    let mut number = Digits { limit: precision.into(), ..Digits::default() };
    let (mut next, mut inexact) = (0, false);
    for (place, byte) in (0..).zip(whole.bytes().chain(fraction.bytes())) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        if place < kept {
            number.push(digit)?;
        } else {
            inexact |= digit != 0;
            if place == kept {
                next = digit;
            }
        }
    }
    if !number.is_zero() {
        for _ in length..kept {
            number.push(0)?;
        }
    }
    if inexact && excess == Excess::Refuse {
        return None;
    }
    let mut value = number.value();
    if next >= 5 {
        value = value.wrapping_add(i256::ONE);
        if value >= power_of_ten(precision) {
            return None;
        }
    }
    Some(if negative { value.wrapping_neg() } else { value })
}

/// Returns 10 to the power of at most 76.
pub fn power_of_ten(exponent: u8) -> i256 {
    let half = |exponent: u8| i256::from_parts(10_u128.pow(exponent.into()), 0);
    match exponent.checked_sub(38) {
        Some(rest) => half(38).wrapping_mul(half(rest.min(38))),
        None => half(exponent),
    }
}

/// A number without its sign, digit by digit: the first 38 digits and the others.
#[derive(Default)]
struct Digits {
    limit: usize,
    count: usize,
    high: u128,
    low: u128,
}

impl Digits {
    /// Returns `None` if there are too many digits. Leading zeros do not count.
    #[inline]
    fn push(&mut self, digit: u8) -> Option<()> {
        if self.count == 0 && digit == 0 {
            return Some(());
        }
        if self.count == self.limit {
            return None;
        }
        let half = if self.count < HALF_DIGITS { &mut self.high } else { &mut self.low };
        *half = *half * 10 + u128::from(digit);
        self.count += 1;
        Some(())
    }

    fn is_zero(&self) -> bool {
        self.count == 0
    }

    fn value(&self) -> i256 {
        let high = i256::from_parts(self.high, 0);
        match u8::try_from(self.count.saturating_sub(HALF_DIGITS)) {
            Ok(rest @ 1..) => high.wrapping_mul(power_of_ten(rest)).wrapping_add(i256::from_parts(self.low, 0)),
            _ => high,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str, precision: u8, scale: u8, excess: Excess) -> Option<String> {
        parse(text, precision, scale, excess).map(|value| value.to_string())
    }

    #[test]
    fn numbers_that_fit() {
        for (text, precision, scale, value) in [
            ("0", 1, 0, "0"),
            ("-0", 1, 0, "0"),
            ("12.5", 10, 2, "1250"),
            ("-12.50", 10, 2, "-1250"),
            ("12.5000000", 10, 2, "1250"),
            ("+.5", 10, 2, "50"),
            ("5.", 10, 2, "500"),
            ("1e3", 10, 2, "100000"),
            ("1.25E-1", 10, 3, "125"),
            ("0.1e1", 2, 1, "10"),
            ("000000000000000123", 3, 0, "123"),
            ("0e999999999999", 3, 0, "0"),
            ("0e-999999999999", 3, 0, "0"),
            ("99999999.99", 10, 2, "9999999999"),
            (
                "123456789012345678901234567890123456789012345678.1234567890123456789012345678",
                76,
                28,
                "1234567890123456789012345678901234567890123456781234567890123456789012345678",
            ),
        ] {
            assert_eq!(parsed(text, precision, scale, Excess::Refuse).as_deref(), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_large_is_refused() {
        for text in
            ["", "-", ".", "e5", "1e", "1e+", "1e1.5", "NaN", "Infinity", " 1", "1_000", "0x1", "--1", "1.2.3", "١"]
        {
            assert_eq!(parsed(text, 38, 10, Excess::Round), None, "{text}");
        }
        for text in ["100000000", "1e8", "99999999.995", "1e99999999999999999999", "1e4294967296"] {
            assert_eq!(parsed(text, 10, 2, Excess::Round), None, "{text}");
        }
    }

    /// The expected results are those of PostgreSQL 15 for `'…'::numeric(10, 1)`.
    #[test]
    fn digits_that_do_not_fit_are_rounded_only_if_that_was_asked_for() {
        for (text, rounded) in [("1.25", "13"), ("-1.25", "-13"), ("1.24999", "12"), ("0.04", "0"), ("1e-30", "0")] {
            assert_eq!(parsed(text, 10, 1, Excess::Round).as_deref(), Some(rounded), "{text}");
            assert_eq!(parsed(text, 10, 1, Excess::Refuse), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_read_as_it_was_written(unscaled: i128, scale in 0_u8..28, exponent in -5_i64..6) {
            let digits = format!("{:040}", unscaled.unsigned_abs());
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            let sign = if unscaled < 0 { "-" } else { "" };
            let plain = format!("{sign}{whole}.{fraction}");
            let expected = i256::from_i128(unscaled).checked_mul(power_of_ten(28 - scale));
            prop_assert_eq!(parse(&plain, 76, 28, Excess::Refuse), expected);
            // Moving the point back by an exponent changes nothing.
            let moved = format!("{sign}{}.{}e{}", &digits[..20], &digits[20..], 20 - i64::from(scale) + exponent);
            let scaled = parse(&format!("{plain}e{exponent}"), 76, 28, Excess::Refuse);
            prop_assert_eq!(parse(&moved, 76, 28, Excess::Refuse), scaled);
        }
    }
}
