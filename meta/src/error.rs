//! What can end a meta node.

use weir_common::error::Kind;

use crate::coordinator::positions::CorruptChunk;
use crate::store;

/// A failure of the meta node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The metadata store failed in a way that does not pass by itself.
    #[error("metadata store failed")]
    Store(#[from] store::Error),
    /// A stored record is not what this version writes.
    #[error("metadata under key \"{key}\" is not readable")]
    Unreadable {
        /// Where.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A chunk of positions is not readable.
    #[error("committed positions are not readable")]
    Positions(#[from] CorruptChunk),
    /// The head names a chunk that is not there.
    #[error("position chunk \"{0}\" is missing")]
    MissingChunk(String),
    /// The gRPC listener failed.
    #[error("gRPC listener failed")]
    Listen(#[from] tonic::transport::Error),
}

impl Error {
    /// What it means for whoever started the node.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Store(error) => error.kind(),
            Error::Unreadable { .. } | Error::Positions(_) | Error::MissingChunk(_) => Kind::Corrupt,
            Error::Listen(_) => Kind::Internal,
        }
    }
}
