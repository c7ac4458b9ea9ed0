//! Entries of a slot's database.

use bytes::Bytes;

/// Changes of a slot's database, in the order in which they are written: a key and its new value,
/// or `None` to delete it.
pub(crate) type Entries = Vec<(Bytes, Option<Bytes>)>;
