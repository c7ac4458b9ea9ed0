//! Errors of state.

use weir_common::error::Kind;

/// A failure of the state store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state URL names no store.
    #[error("state url \"{url}\" is not usable: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// The fault, and a form that would be right.
        reason: String,
    },
    /// A request to the object store failed.
    #[error("cannot {action} \"{path}\" in the object store")]
    Objects {
        /// The request.
        action: &'static str,
        /// The path, relative to the state URL.
        path: String,
        /// The cause.
        #[source]
        source: object_store::Error,
    },
    /// The object store does not answer.
    #[error("the object store has not answered for {seconds} s")]
    Silent {
        /// The time it was waited for.
        seconds: u64,
    },
    /// A database could not be opened in time.
    #[error("database \"{path}\" could not be opened within {seconds} s: {}", failure(last))]
    Late {
        /// The path, relative to the state URL.
        path: String,
        /// The time it was tried for.
        seconds: u64,
        /// The last failure of the object store.
        last: Option<String>,
    },
    /// The path of a new database already holds something.
    #[error("database path \"{path}\" was used before")]
    PathUsed {
        /// The path, relative to the state URL.
        path: String,
    },
    /// A request to the database failed.
    #[error("cannot {action} database \"{path}\"")]
    Database {
        /// The request.
        action: &'static str,
        /// The path, relative to the state URL.
        path: String,
        /// The cause.
        #[source]
        source: Box<slatedb::Error>,
    },
    /// The database takes no more work: its owner's term has to end.
    #[error("database \"{path}\" is closed: {reason}")]
    Closed {
        /// The path, relative to the state URL.
        path: String,
        /// The reason.
        reason: Closed,
    },
    /// Data that the head names is missing.
    #[error("database \"{path}\" of the head has lost {what}, so that nothing can be told to be garbage")]
    Lost {
        /// The path, relative to the state URL.
        path: String,
        /// The missing part.
        what: String,
    },
    /// Data that the head named was there a moment ago.
    #[error("database \"{path}\" has lost {what} since it was listed: a newer term has gone on from it")]
    Superseded {
        /// The path, relative to the state URL.
        path: String,
        /// The missing part.
        what: String,
    },
    /// A stored key does not have the shape of a block's key.
    #[error("key {key} is not a block key")]
    Key {
        /// In hexadecimal.
        key: String,
    },
}

/// The reason why a database is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Its owner closed it.
    #[error("closed by its owner")]
    Owner,
    /// Another process opened it for writing.
    #[error("fenced by another writer")]
    Fenced,
    /// One of its background tasks failed.
    #[error("a background task failed")]
    Failed,
}

impl From<slatedb::CloseReason> for Closed {
    fn from(reason: slatedb::CloseReason) -> Closed {
        match reason {
            slatedb::CloseReason::Clean => Closed::Owner,
            slatedb::CloseReason::Fenced => Closed::Fenced,
            _ => Closed::Failed,
        }
    }
}

/// The last failure of a request that was repeated, in words.
fn failure(last: &Option<String>) -> &str {
    last.as_deref().unwrap_or("the object store does not answer")
}

impl Error {
    pub(super) fn objects(action: &'static str, path: impl ToString) -> impl FnOnce(object_store::Error) -> Error {
        let path = path.to_string();
        move |source| Error::Objects { action, path, source }
    }

    pub(super) fn database(action: &'static str, path: &str) -> impl FnOnce(slatedb::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.kind() {
            slatedb::ErrorKind::Closed(reason) => Error::Closed { path, reason: reason.into() },
            _ => Error::Database { action, path, source: Box::new(source) },
        }
    }

    /// The kind of failure, for the caller.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Url { .. } => Kind::User,
            Error::Objects { source, .. } => match source {
                object_store::Error::NotFound { .. } => Kind::Corrupt,
                _ => Kind::Unavailable,
            },
            Error::Silent { .. } | Error::Late { .. } => Kind::Unavailable,
            Error::PathUsed { .. } => Kind::Internal,
            Error::Database { source, .. } => match source.kind() {
                slatedb::ErrorKind::Unavailable => Kind::Unavailable,
                slatedb::ErrorKind::Data => Kind::Corrupt,
                _ => Kind::Internal,
            },
            Error::Closed { reason: Closed::Fenced, .. } | Error::Superseded { .. } => Kind::Fenced,
            Error::Closed { .. } => Kind::Unavailable,
            Error::Key { .. } | Error::Lost { .. } => Kind::Corrupt,
        }
    }
}
