//! Fractions of seconds and of other units → microseconds, rounded as PostgreSQL 15 rounds them.
//!
//! PostgreSQL computes with doubles, and so does this module: exact decimals would differ from it
//! at a few halves.

/// The largest power of ten that a double holds exactly has this exponent.
const POWER_EXACT_MAX: usize = 22;
/// A double holds integers of this many digits exactly.
const DIGITS_EXACT_MAX: usize = 15;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Converts the digits after the point of a clock's seconds (of a time, a timestamp, or an
/// interval's `hh:mm:ss`) to microseconds. A half goes to the even neighbour.
///
/// # Panics
/// If the text contains anything but digits.
pub fn micros_of_digits(digits: &str) -> i64 {
    if digits.len() <= 6 {
        return digits
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(6)
            .fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    }
    let fraction = if digits.len() <= DIGITS_EXACT_MAX {
        // The quotient of two exact doubles is the double that is nearest to the decimal.
        to_f64(digits.parse().expect("digits")) / power_of_ten(digits.len())
    } else {
        format!("0.{digits}").parse().expect("digits")
    };
    nearest(fraction * 1e6)
}

/// Converts nanoseconds since any full second, negative or not, to microseconds, rounded like the
/// digits on a clock.
pub fn micros_of_nanos(nanos: i64) -> i64 {
    let (seconds, fraction) = (nanos.div_euclid(NANOS_PER_SECOND), nanos.rem_euclid(NANOS_PER_SECOND));
    seconds * 1_000_000 + nearest(to_f64(fraction) / 1e9 * 1e6)
}

/// Rounds an amount of microseconds that belongs to an interval's unit, as in `1.5 us`. A half goes
/// towards zero.
#[expect(clippy::cast_possible_truncation, reason = "the callers' amounts are far below 2⁶³")]
pub fn micros_of_amount(micros: f64) -> i64 {
    let whole = micros.trunc();
    let rest = micros - whole;
    whole as i64 + i64::from(rest > 0.5) - i64::from(rest < -0.5)
}

/// Rounds a small number to the nearest integer. A half goes to the even neighbour.
#[expect(clippy::cast_possible_truncation, reason = "the callers' numbers are far below 2⁶³")]
pub fn nearest(number: f64) -> i64 {
    number.round_ties_even() as i64
}

fn power_of_ten(exponent: usize) -> f64 {
    assert!(exponent <= POWER_EXACT_MAX, "the power is exact");
    (0..exponent).fold(1.0, |power, _| power * 10.0)
}

#[expect(clippy::cast_precision_loss, reason = "below 2⁵³")]
fn to_f64(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The expected results are PostgreSQL 15's output for `('00:00:00.' || digits)::time`.
    #[test]
    fn digits_on_a_clock_are_rounded_as_by_postgresql() {
        for (digits, micros) in [
            ("5", 500_000),
            ("123456", 123_456),
            ("0000005", 0),
            ("0000015", 2),
            ("0000025", 2),
            ("1234565", 123_456),
            ("1234575", 123_458),
            ("9999985", 999_998),
            ("9999995", 1_000_000),
            ("00000051", 1),
            ("00000049999", 0),
            ("1234564999999999999999999", 123_456),
        ] {
            assert_eq!(micros_of_digits(digits), micros, "{digits}");
        }
    }

    #[test]
    fn amounts_are_rounded_as_by_postgresql() {
        for (amount, micros) in [(1.5, 1), (2.5, 2), (-1.5, -1), (0.5, 0), (1.9, 2), (-1.6, -2), (1.1, 1), (7.0, 7)] {
            assert_eq!(micros_of_amount(amount), micros, "{amount}");
        }
    }

    proptest! {
        #[test]
        fn nanoseconds_are_rounded_as_their_digits_are(second in -3_i64..3, nanos in 0..NANOS_PER_SECOND) {
            let digits = micros_of_digits(&format!("{nanos:09}"));
            prop_assert_eq!(micros_of_nanos(second * NANOS_PER_SECOND + nanos), second * 1_000_000 + digits);
        }

        #[test]
        fn what_is_exact_is_read_as_the_text_is(digits in "[0-9]{7,15}") {
            let fraction: f64 = format!("0.{digits}").parse().expect("a number");
            prop_assert_eq!(micros_of_digits(&digits), nearest(fraction * 1e6));
        }
    }
}
