//! The encoding of values in the state of operators, part of stored state.
//!
//! | value | bytes |
//! | --- | --- |
//! | count | the number in zigzag, 7 bits a byte, lowest first, the highest bit set if more come |
//! | sum | a byte: how many follow; the shortest two's complement, lowest byte first |
//! | bytes | their number as a count is written, without zigzag; the bytes |
//! | fixed width | the value, lowest byte first |

use arrow::datatypes::i256;

use super::Failure;

/// The failure of an entry that cannot be read.
pub(super) fn damaged() -> Failure {
    Failure::Broken("an entry of the state is damaged".to_owned())
}

/// Writes a number without a sign.
pub(super) fn put_length(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a number without a sign.
pub(super) fn take_length(input: &mut &[u8]) -> Result<u64, Failure> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = take_byte(input)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(damaged())
}

/// Writes a count.
pub(super) fn put_count(count: i64, out: &mut Vec<u8>) {
    put_length((count << 1 ^ count >> 63) as u64, out);
}

/// Reads a count.
pub(super) fn take_count(input: &mut &[u8]) -> Result<i64, Failure> {
    let zigzag = take_length(input)?;
    Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
}

/// Reads a byte.
pub(super) fn take_byte(input: &mut &[u8]) -> Result<u8, Failure> {
    let (byte, rest) = input.split_first().ok_or_else(damaged)?;
    *input = rest;
    Ok(*byte)
}

/// Writes bytes.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_length(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Reads bytes.
pub(super) fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Failure> {
    let length = usize::try_from(take_length(input)?).map_err(|_| damaged())?;
    let (bytes, rest) = input.split_at_checked(length).ok_or_else(damaged)?;
    *input = rest;
    Ok(bytes)
}

/// Writes a sum, given in two's complement, lowest byte first.
pub(super) fn put_sum(bytes: &[u8], out: &mut Vec<u8>) {
    let mut length = bytes.len();
    let sign = |end: usize| if end > 0 && bytes[end - 1] & 0x80 != 0 { u8::MAX } else { 0 };
    while length > 0 && bytes[length - 1] == sign(length - 1) {
        length -= 1;
    }
    out.push(u8::try_from(length).expect("a sum has few bytes"));
    out.extend_from_slice(&bytes[..length]);
}

/// Reads a sum.
pub(super) fn take_sum<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Failure> {
    let length = usize::from(take_byte(input)?);
    let (bytes, rest) = input.split_at_checked(length).filter(|_| length <= N).ok_or_else(damaged)?;
    *input = rest;
    let mut sum = [if bytes.last().is_some_and(|last| last & 0x80 != 0) { u8::MAX } else { 0 }; N];
    sum[..length].copy_from_slice(bytes);
    Ok(sum)
}

/// A value of a fixed width.
pub(super) trait Fixed: Copy + Default {
    /// Writes it.
    fn put(self, out: &mut Vec<u8>);
    /// Reads it.
    fn take(input: &mut &[u8]) -> Result<Self, Failure>;
}

macro_rules! fixed {
    ($($native:ty),*) => {$(
        impl Fixed for $native {
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(input: &mut &[u8]) -> Result<$native, Failure> {
                let (bytes, rest) = input.split_first_chunk().ok_or_else(damaged)?;
                *input = rest;
                Ok(<$native>::from_le_bytes(*bytes))
            }
        }
    )*};
}

fixed!(i16, i32, i64, i128, i256, f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back() {
        for count in [0, 1, -1, 63, -64, 64, 300, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_count(count, &mut out);
            assert_eq!(take_count(&mut out.as_slice()), Ok(count));
            assert!(out.len() == 1 || take_count(&mut &out[..out.len() - 1]).is_err());
        }
    }

    #[test]
    fn sums_come_back_from_few_bytes() {
        for (sum, length) in [(0_i128, 0), (1, 1), (-1, 1), (127, 1), (128, 2), (-128, 1), (-129, 2), (i128::MIN, 16)] {
            let mut out = Vec::new();
            put_sum(&sum.to_le_bytes(), &mut out);
            assert_eq!(out.len(), length + 1, "{sum}");
            assert_eq!(take_sum(&mut out.as_slice()).map(i128::from_le_bytes), Ok(sum));
        }
    }

    #[test]
    fn an_entry_that_is_cut_short_is_damaged() {
        assert_eq!(take_bytes(&mut &[3, 1, 2][..]), Err(damaged()));
        assert_eq!(take_sum::<16>(&mut &[17][..]), Err(damaged()));
        assert_eq!(i64::take(&mut &[0; 7][..]), Err(damaged()));
    }
}
