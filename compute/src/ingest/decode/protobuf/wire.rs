//! The wire format: keys, numbers, lengths. It knows the bounds of values, and not their meaning.

pub(super) use prost::encoding::WireType;
use prost::encoding::decode_varint;

use super::super::span::Span;

/// The greatest depth of nested groups that are skipped.
const GROUPS_MAX: usize = 100;

/// The reason why bytes are not a message, and the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) reason: &'static str,
    /// Counted from 0, in the whole payload.
    pub(super) at: usize,
}

/// The rest of a message.
#[derive(Clone, Debug)]
pub(super) struct Wire<'a> {
    /// The payload, up to the end of the message.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Wire<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Wire<'a> {
        Wire { bytes: payload, at: 0 }
    }

    #[inline]
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The bytes that spans refer to.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The rest, as a part of the payload.
    pub(super) fn span(&self) -> Span {
        Span::new(self.at, self.bytes.len())
    }

    fn malformed(&self, reason: &'static str) -> Malformed {
        Malformed { reason, at: self.at }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut rest = &self.bytes[self.at..];
        let value = decode_varint(&mut rest).map_err(|_| self.malformed("invalid varint"))?;
        self.at = self.bytes.len() - rest.len();
        Ok(value)
    }

    /// The number of a field and the wire type of its value.
    #[inline]
    pub(super) fn key(&mut self) -> Result<(u32, WireType), Malformed> {
        let start = self.at;
        let key = self.varint()?;
        let number = u32::try_from(key).map(|key| key >> 3).unwrap_or(0);
        match WireType::try_from(key & 7) {
            Ok(wire_type) if number > 0 => Ok((number, wire_type)),
            Ok(_) => Err(Malformed { reason: "invalid field number", at: start }),
            Err(_) => Err(Malformed { reason: "invalid wire type", at: start }),
        }
    }

    /// Four or eight bytes.
    #[inline]
    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.bytes[self.at..].first_chunk::<N>().ok_or_else(|| self.malformed("unexpected end"))?;
        self.at += N;
        Ok(*bytes)
    }

    /// A value with its length before it.
    #[inline]
    pub(super) fn nested(&mut self) -> Result<Wire<'a>, Malformed> {
        let length = self.varint()?;
        let rest = self.bytes.len() - self.at;
        let length = usize::try_from(length).ok().filter(|length| *length <= rest);
        let end = self.at + length.ok_or_else(|| self.malformed("length beyond the end"))?;
        let nested = Wire { bytes: &self.bytes[..end], at: self.at };
        self.at = end;
        Ok(nested)
    }

    /// The contents of the group that has begun. Passes over its end.
    pub(super) fn group(&mut self, number: u32) -> Result<Wire<'a>, Malformed> {
        let start = self.at;
        let end = self.skip_group(number, 0)?;
        Ok(Wire { bytes: &self.bytes[..end], at: start })
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self, number: u32, wire_type: WireType) -> Result<(), Malformed> {
        self.skip_within(number, wire_type, 0)
    }

    fn skip_within(&mut self, number: u32, wire_type: WireType, depth: usize) -> Result<(), Malformed> {
        match wire_type {
            WireType::Varint => self.varint().map(|_| ()),
            WireType::SixtyFourBit => self.fixed::<8>().map(|_| ()),
            WireType::ThirtyTwoBit => self.fixed::<4>().map(|_| ()),
            WireType::LengthDelimited => self.nested().map(|_| ()),
            WireType::StartGroup => self.skip_group(number, depth).map(|_| ()),
            WireType::EndGroup => Err(self.malformed("end of a group that was not begun")),
        }
    }

    /// Passes over a group and its end. Returns the end of its contents.
    fn skip_group(&mut self, number: u32, depth: usize) -> Result<usize, Malformed> {
        if depth >= GROUPS_MAX {
            return Err(self.malformed("nested too deeply"));
        }
        loop {
            let end = self.at;
            if self.is_at_end() {
                return Err(self.malformed("unexpected end"));
            }
            match self.key()? {
                (inner, WireType::EndGroup) if inner == number => return Ok(end),
                (inner, wire_type) => self.skip_within(inner, wire_type, depth + 1)?,
            }
        }
    }
}

/// An `int32` or an enum: the lower half of the written number.
#[expect(clippy::cast_possible_truncation, reason = "Protobuf wants it cut")]
pub(super) fn narrow(number: u64) -> i32 {
    number as i32
}
