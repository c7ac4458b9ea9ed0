//! Numbers with a decimal point as PostgreSQL sends them in binary: digits to the base of 10,000.

use bytes::{BufMut, BytesMut};

/// Decimal digits in one of the wire's.
const DIGITS: u32 = 4;
const BASE: u128 = 10_u128.pow(DIGITS);
const NEGATIVE: u16 = 0x4000;
/// Of an `i128`: 39 decimal digits, and three that align them with the point.
const WIRE_DIGITS_MAX: usize = 11;

/// Appends `unscaled × 10^-scale`.
pub(super) fn write_binary(unscaled: i128, scale: i8, out: &mut BytesMut) {
    debug_assert!(scale >= 0, "no type has a negative scale");
    let places = u32::from(scale.max(0).unsigned_abs());
    // A wire digit does not span the point.
    let padding = (DIGITS - places % DIGITS) % DIGITS;
    let mut digits = [0_u16; WIRE_DIGITS_MAX];
    let mut count = 0;
    let mut rest = unscaled.unsigned_abs();
    let mut put = |digit: u128| {
        digits[count] = u16::try_from(digit).unwrap_or(0);
        count += 1;
    };
    // The lowest digit first. What lies below the point is padded so that it fills whole wire digits, which the number
    // itself need not have room for.
    if padding > 0 {
        let low = 10_u128.pow(DIGITS - padding);
        put(rest % low * 10_u128.pow(padding));
        rest /= low;
    }
    while rest > 0 {
        put(rest % BASE);
        rest /= BASE;
    }
    let below_point = i32::try_from(places.div_ceil(DIGITS)).unwrap_or(0);
    let mut first = count;
    while first > 0 && digits[first - 1] == 0 {
        first -= 1;
    }
    let last = digits[..first].iter().position(|digit| *digit != 0).unwrap_or(0);
    let weight = i32::try_from(first).unwrap_or(0) - 1 - below_point;
    out.put_i16(i16::try_from(first - last).unwrap_or(0));
    out.put_i16(if first == 0 { 0 } else { i16::try_from(weight).unwrap_or(0) });
    out.put_u16(if unscaled < 0 { NEGATIVE } else { 0 });
    out.put_u16(u16::try_from(places).unwrap_or(0));
    for digit in digits[last..first].iter().rev() {
        out.put_u16(*digit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(unscaled: i128, scale: i8) -> Vec<i32> {
        let mut out = BytesMut::new();
        write_binary(unscaled, scale, &mut out);
        out.chunks(2).map(|pair| i32::from(i16::from_be_bytes([pair[0], pair[1]]))).collect()
    }

    /// Count, weight, sign and scale, then digits: what `numeric_send` of PostgreSQL answers.
    #[test]
    fn digits_are_aligned_with_the_point() {
        assert_eq!(wire(0, 0), [0, 0, 0, 0]);
        assert_eq!(wire(0, 2), [0, 0, 0, 2]);
        assert_eq!(wire(1, 0), [1, 0, 0, 0, 1]);
        assert_eq!(wire(1234, 2), [2, 0, 0, 2, 12, 3400]);
        assert_eq!(wire(-1234, 2), [2, 0, 0x4000, 2, 12, 3400]);
        assert_eq!(wire(10_000, 0), [1, 1, 0, 0, 1]);
        assert_eq!(wire(12_345_678, 0), [2, 1, 0, 0, 1234, 5678]);
        assert_eq!(wire(1, 5), [1, -2, 0, 5, 1000]);
        assert_eq!(wire(5, 1), [1, -1, 0, 1, 5000]);
        assert_eq!(wire(18_446_744_073_709_551_616, 0), [5, 4, 0, 0, 1844, 6744, 737, 955, 1616]);
        assert_eq!(wire(i128::MAX, 38).len(), 4 + 11);
    }
}
