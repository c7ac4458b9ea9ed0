//! Byte strings that are written one behind the other, so that many of them take one allocation.

use bytes::Bytes;

/// Many byte strings in one buffer.
#[derive(Debug, Default)]
pub struct Slices {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Slices {
    /// Adds a string: `write` appends its bytes.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// The strings, in order. They share the buffer.
    pub fn finish(self) -> impl Iterator<Item = Bytes> {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        self.ends.into_iter().map(move |end| bytes.slice(std::mem::replace(&mut start, end)..end))
    }
}
