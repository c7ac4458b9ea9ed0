//! Floating-point numbers as PostgreSQL prints them: the fewest digits that read back as the same
//! number, in fixed notation where C's `%g` would use it.

use std::fmt::{Display, LowerExp, Write as _};

use bytes::{BufMut, BytesMut};

/// C's `%g` writes numbers with an exponent from this one on: `FLT_DIG` and `DBL_DIG`.
const FIXED_DIGITS_F32: i32 = 6;
const FIXED_DIGITS_F64: i32 = 15;
/// Numbers below this exponent are also written with an exponent.
const FIXED_EXPONENT_MIN: i32 = -4;

pub(super) fn write_f32(value: f32, out: &mut BytesMut) {
    write(value, f64::from(value), FIXED_DIGITS_F32, out);
}

pub(super) fn write_f64(value: f64, out: &mut BytesMut) {
    write(value, value, FIXED_DIGITS_F64, out);
}

fn write(value: impl LowerExp + Display, wide: f64, fixed_digits: i32, out: &mut BytesMut) {
    if wide.is_nan() {
        return out.put_slice(b"NaN");
    }
    if wide.is_infinite() {
        return out.put_slice(if wide > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    // Rust's exponent notation has the fewest digits and the position of the point.
    let start = out.len();
    write!(out, "{value:e}").expect("the buffer grows");
    let exponent_at = start + out[start..].iter().position(|byte| *byte == b'e').unwrap_or(0);
    let exponent = std::str::from_utf8(&out[exponent_at + 1..]).ok().and_then(|text| text.parse::<i32>().ok());
    let exponent = exponent.unwrap_or(0);
    out.truncate(exponent_at);
    if exponent >= FIXED_EXPONENT_MIN && exponent < fixed_digits {
        out.truncate(start);
        write!(out, "{value}").expect("the buffer grows");
    } else {
        write!(out, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()).expect("the buffer grows");
    }
}
