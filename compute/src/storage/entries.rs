//! Entries of a slot's database, and the frame in which they travel.
//!
//! A framed entry is the key's length and the value's, u32 each in little-endian, then key and
//! value. A slot slices its entries out of a message without copying. Deletes stay on their node,
//! so no frame carries one.

use bytes::{Buf, Bytes};

const LENGTHS: usize = 2 * size_of::<u32>();

/// Changes of a slot's database, in the order in which they are written: a key and its new value,
/// or `None` to delete it.
pub(crate) type Entries = Vec<(Bytes, Option<Bytes>)>;

/// Appends a framed entry: `key` and `value` each append their own bytes.
///
/// # Panics
/// If the key or the value is larger than 4 GiB; rows and blocks are far smaller.
pub(crate) fn frame(out: &mut Vec<u8>, key: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + LENGTHS, 0);
    key(out);
    let middle = out.len();
    value(out);
    let lengths = [middle - start - LENGTHS, out.len() - middle];
    for (place, length) in lengths.into_iter().enumerate() {
        let length = u32::try_from(length).expect("a row is smaller than 4 GiB");
        out[start + 4 * place..start + 4 * (place + 1)].copy_from_slice(&length.to_le_bytes());
    }
}

/// The entries of framed bytes; `None` if the frames are damaged.
pub(crate) fn unframe(mut framed: Bytes) -> Option<Entries> {
    let mut entries = Vec::new();
    while !framed.is_empty() {
        if framed.len() < LENGTHS {
            return None;
        }
        let key = framed.get_u32_le() as usize;
        let value = framed.get_u32_le() as usize;
        if framed.len() < key.checked_add(value)? {
            return None;
        }
        entries.push((framed.split_to(key), Some(framed.split_to(value))));
    }
    Some(entries)
}
