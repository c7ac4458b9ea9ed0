//! Carries errors across process boundaries: a gRPC status for any client, and a binary trailer for
//! the parts that a status cannot hold: the kind, the SQLSTATE, the detail, the hint.

use serde::{Deserialize, Serialize};
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::{Code, Status};

use crate::error::Kind;

const TRAILER: &str = "weir-error-bin";

/// An error as the other side of an RPC receives it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Error {
    /// Its meaning for the caller.
    pub kind: Kind,
    /// The message, with its causes; lower case, no full stop.
    pub message: String,
    /// Further facts.
    #[serde(default)]
    pub detail: Option<String>,
    /// Advice on how to react.
    pub hint: Option<String>,
    /// The SQLSTATE for SQL clients; if absent, the kind determines it.
    pub sqlstate: Option<String>,
    /// True if the call was accepted, but it is not known whether it was carried out.
    #[serde(default)]
    pub outcome_unknown: bool,
}

impl Error {
    /// Creates an error without hint and SQLSTATE.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), detail: None, hint: None, sqlstate: None, outcome_unknown: false }
    }

    /// Adds further facts.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Error {
        self.detail = Some(detail.into());
        self
    }

    /// Adds advice on how to react.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Records that the call was accepted, and that it is not known whether it was carried out.
    pub fn with_outcome_unknown(mut self) -> Error {
        self.outcome_unknown = true;
        self
    }

    /// Adds the SQLSTATE for SQL clients.
    pub fn with_sqlstate(mut self, sqlstate: &str) -> Error {
        self.sqlstate = Some(sqlstate.to_owned());
        self
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let code = match error.kind {
            Kind::User => Code::InvalidArgument,
            Kind::Unavailable => Code::Unavailable,
            Kind::Fenced => Code::FailedPrecondition,
            Kind::Corrupt => Code::DataLoss,
            Kind::Internal => Code::Internal,
        };
        let bytes = serde_json::to_vec(&error).expect("strings and enums serialise");
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(TRAILER, BinaryMetadataValue::from_bytes(&bytes));
        Status::with_metadata(code, error.message, metadata)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        let carried = status.metadata().get_bin(TRAILER).and_then(|value| value.to_bytes().ok());
        if let Some(error) = carried.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return error;
        }
        let kind = match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => Kind::Unavailable,
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists => Kind::User,
            _ => Kind::Internal,
        };
        Error::new(kind, status.message().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = Error::new(Kind::User, "stream \"a\" does not exist").with_hint("créez-le").with_sqlstate("42704");
        let error = error.with_outcome_unknown();
        assert_eq!(Error::from(Status::from(error.clone())), error);
    }

    #[test]
    fn a_transport_failure_is_unavailable() {
        assert_eq!(Error::from(Status::unavailable("connection refused")).kind, Kind::Unavailable);
    }
}
