//! Why bytes are no row.

use arrow::error::ArrowError;
use weir_common::error::Kind;

pub(super) const VERSION: u8 = 2;
/// Read, but not written any more.
pub(super) const VERSION_WITHOUT_SEQUENCE: u8 = 1;

/// Why bytes are no row of the schema.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The format is one that this version does not know.
    #[error("row has format version {version}, known are {VERSION_WITHOUT_SEQUENCE} and {VERSION}")]
    Version {
        /// The first byte.
        version: u8,
    },
    /// Bytes are missing or left over.
    #[error("row is damaged: {reason}")]
    Damaged {
        /// How it shows.
        reason: &'static str,
    },
    /// The values are none of the columns' types.
    #[error("row does not fit its schema")]
    Schema(#[from] ArrowError),
}

impl Error {
    /// Always [`Kind::Corrupt`].
    pub fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}
