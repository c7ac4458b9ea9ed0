//! What can go wrong with the metadata store, and what that means for the caller.

use std::path::PathBuf;

use weir_common::error::Kind;

use super::{LeaseId, TXN_BYTES_MAX, TXN_OPERATIONS_MAX, VALUE_BYTES_MAX};

/// What lies beneath an error.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A call to the metadata store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read failed, or a write that has not been and will not be applied: it may be tried again.
    #[error("metadata store could not {call}")]
    Unavailable {
        /// What was asked for.
        call: &'static str,
        /// Why not.
        source: Cause,
    },
    /// A transaction may have been applied, or may be applied later. Nobody can tell now: a leader has to claim a new
    /// term before it goes on.
    #[error("outcome of a metadata transaction is unknown")]
    UnknownOutcome {
        /// What happened instead of an answer.
        source: Cause,
    },
    /// A key was to be put under a lease that has ended; nothing was written.
    #[error("lease {lease} has ended")]
    LeaseEnded {
        /// The lease.
        lease: LeaseId,
    },
    /// The store understood and declined, for a reason that will not pass by itself. Nothing was written.
    #[error("metadata store refused to {call}")]
    Refused {
        /// What was asked for.
        call: &'static str,
        /// Why.
        source: Cause,
    },
    /// The store cannot be opened as it was configured.
    #[error("cannot open metadata store \"{store}\"")]
    Open {
        /// The endpoint or file.
        store: String,
        /// Why not.
        source: Cause,
    },
    /// The embedded store's file is damaged.
    #[error("metadata store \"{}\" is damaged", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        source: Cause,
    },
    /// A value above [`VALUE_BYTES_MAX`].
    #[error("value of metadata key \"{key}\" has {bytes} bytes, more than the {VALUE_BYTES_MAX} that fit")]
    ValueTooLarge {
        /// The key.
        key: String,
        /// The size of the value.
        bytes: usize,
    },
    /// Keys and values above [`TXN_BYTES_MAX`].
    #[error("metadata transaction has {bytes} bytes, more than the {TXN_BYTES_MAX} that fit")]
    TxnTooLarge {
        /// The sum of all sizes.
        bytes: usize,
    },
    /// More than [`TXN_OPERATIONS_MAX`] compares, puts and deletes.
    #[error("metadata transaction has {operations} operations, more than the {TXN_OPERATIONS_MAX} that fit")]
    TooManyOperations {
        /// How many.
        operations: usize,
    },
    /// One transaction writes one key twice.
    #[error("metadata transaction writes the key \"{key}\" twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A key without a name.
    #[error("metadata transaction names an empty key")]
    EmptyKey,
}

impl Error {
    /// What the failure means. An unknown outcome is of kind Fenced: as after the loss of leadership, the caller may
    /// assume nothing of what it knew and starts with a new claim.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Unavailable { .. } => Kind::Unavailable,
            Error::UnknownOutcome { .. } | Error::LeaseEnded { .. } => Kind::Fenced,
            Error::Refused { .. } | Error::Open { .. } | Error::ValueTooLarge { .. } | Error::TxnTooLarge { .. } => {
                Kind::User
            }
            Error::Corrupt { .. } => Kind::Corrupt,
            Error::TooManyOperations { .. } | Error::DuplicateKey { .. } | Error::EmptyKey => Kind::Internal,
        }
    }
}
