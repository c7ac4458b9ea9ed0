//! The kinds of failure. Every error at a boundary answers `kind()`. The retry policy reads the
//! kind, never the text.

use serde::{Deserialize, Serialize};

/// The meaning of a failure for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The user has to change something; a retry as it stands is pointless.
    User,
    /// Something is out of reach for now; retry.
    Unavailable,
    /// The caller belongs to an old term; it must stop its work and learn the new term.
    Fenced,
    /// Stored data is damaged; a person has to look.
    Corrupt,
    /// A fault of Weir's own.
    Internal,
}

/// Prints an error with all its causes, outermost first, joined by `: `.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
