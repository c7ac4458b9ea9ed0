//! Notices: messages to the client about a statement that succeeds.

use weir_sql::error::sqlstate;

/// A message to the client about a statement that succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) severity: Severity,
    pub(crate) sqlstate: &'static str,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<&'static str>,
}

/// The severity of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Notice,
    Warning,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Severity::Notice => "NOTICE",
            Severity::Warning => "WARNING",
        }
    }
}

impl Notice {
    pub(crate) fn new(message: impl Into<String>) -> Notice {
        Notice::with_sqlstate(sqlstate::SUCCESSFUL_COMPLETION, message)
    }

    pub(crate) fn with_sqlstate(sqlstate: &'static str, message: impl Into<String>) -> Notice {
        Notice { severity: Severity::Notice, sqlstate, message: message.into(), detail: None, hint: None }
    }

    pub(crate) fn warning(sqlstate: &'static str, message: impl Into<String>) -> Notice {
        Notice { severity: Severity::Warning, sqlstate, message: message.into(), detail: None, hint: None }
    }

    /// Adds further facts.
    pub(crate) fn with_detail(self, detail: String) -> Notice {
        Notice { detail: Some(detail), ..self }
    }

    /// Adds advice on how to react.
    pub(crate) fn with_hint(self, hint: &'static str) -> Notice {
        Notice { hint: Some(hint), ..self }
    }
}
