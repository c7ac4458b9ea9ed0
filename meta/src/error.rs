//! What can end a meta node.

use weir_common::error::Kind;

use crate::coordinator::positions::CorruptPage;
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
    /// A page of positions is not readable.
    #[error("committed positions are not readable")]
    Positions(#[from] CorruptPage),
    /// The head names a page that is not there.
    #[error("position page \"{0}\" is missing")]
    MissingPage(String),
    /// The gRPC listener failed.
    #[error("gRPC listener failed")]
    Listen(#[from] tonic::transport::Error),
}

impl Error {
    /// What it means for whoever started the node.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Store(error) => error.kind(),
            Error::Unreadable { .. } | Error::Positions(_) | Error::MissingPage(_) => Kind::Corrupt,
            Error::Listen(_) => Kind::Internal,
        }
    }
}
