//! The reasons why bytes are not a row.

use arrow::error::ArrowError;
use weir_common::error::Kind;

pub(super) const VERSION: u8 = 2;
pub(super) const VERSION_WITH_GROUP: u8 = 3;
/// Still read, but no longer written.
pub(super) const VERSION_WITHOUT_SEQUENCE: u8 = 1;

/// The reason why bytes are not a row of the schema.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This version does not know the format.
    #[error("row has format version {version}, known are {VERSION_WITHOUT_SEQUENCE} to {VERSION_WITH_GROUP}")]
    Version {
        /// The first byte.
        version: u8,
    },
    /// Bytes are missing or left over.
    #[error("row is damaged: {reason}")]
    Damaged {
        /// The evidence.
        reason: &'static str,
    },
    /// The values do not have the columns' types.
    #[error("row does not fit its schema")]
    Schema(#[from] ArrowError),
}

impl Error {
    /// Always [`Kind::Corrupt`].
    pub fn kind(&self) -> Kind {
        Kind::Corrupt
    }
}
