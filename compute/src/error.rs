//! Failures that end a compute node.

use weir_common::error::Kind;

use crate::storage::state;

/// A failure of the compute node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state URL cannot be used.
    #[error("state store cannot be used")]
    State(#[from] state::Error),
    /// The gRPC listener failed.
    #[error("gRPC listener failed")]
    Listen(#[from] tonic::transport::Error),
    /// Meta refused the node for good.
    #[error("meta refused this node: {0}")]
    Refused(#[source] weir_common::rpc::Error),
}

impl Error {
    /// The kind of failure, for the caller that started the node.
    pub fn kind(&self) -> Kind {
        match self {
            Error::State(error) => error.kind(),
            Error::Listen(_) => Kind::Internal,
            Error::Refused(error) => error.kind,
        }
    }
}
