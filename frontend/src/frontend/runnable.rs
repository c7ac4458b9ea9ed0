//! A statement on its way to be run.

use std::sync::Arc;

use weir_sql::parser::{CopyFormat, Declare, Parsed, Statement};
use weir_sql::planner::Prepared;

use crate::write::Writing;

/// A statement that can run any number of times.
#[derive(Clone, Debug)]
pub(crate) enum Runnable {
    Query(Arc<Prepared>),
    /// A query whose rows are sent in the format of COPY.
    Copy(Arc<Prepared>, CopyFormat),
    /// A query whose rows are fetched by other statements.
    Declare(Arc<Prepared>, Box<Declare>),
    /// A statement that writes rows.
    Write(Box<Writing>),
    Command(Box<Parsed>),
}

impl Runnable {
    /// Returns the kind of the statement, for metrics and traces.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Runnable::Query(_) => "query",
            Runnable::Copy(..) => "copy",
            Runnable::Declare(..) => "cursor",
            Runnable::Write(writing) => match writing.write.verb() {
                "INSERT" => "insert",
                "UPDATE" => "update",
                "TRUNCATE TABLE" => "truncate",
                _ => "delete",
            },
            Runnable::Command(parsed) => match parsed.statement {
                Statement::CreateTable(_) | Statement::CreateTableAs(_) => "create_table",
                Statement::CopyFrom(_) => "copy_in",
                Statement::CreateView(_) => "create_view",
                Statement::Alter(_) | Statement::Comment(_) | Statement::Schema(_) => "alter",
                Statement::Drop { .. } => "drop_table",
                Statement::Flush => "flush",
                Statement::Set { .. } | Statement::SetTransaction { .. } | Statement::ResetAll => "set",
                Statement::Begin(_)
                | Statement::Commit
                | Statement::Rollback
                | Statement::Savepoint(_)
                | Statement::Release(_)
                | Statement::RollbackTo(_) => "transaction",
                Statement::Fetch(_) | Statement::Move(_) | Statement::Close(_) => "cursor",
                Statement::Prepare(_) | Statement::Deallocate(_) | Statement::DiscardAll | Statement::Nothing(_) => {
                    "other"
                }
                _ => "show",
            },
        }
    }

    /// Returns the statement's text.
    pub(crate) fn sql(&self) -> &str {
        match self {
            Runnable::Command(parsed) => parsed.sql(),
            Runnable::Write(writing) => writing.parsed.sql(),
            Runnable::Query(prepared) | Runnable::Copy(prepared, _) | Runnable::Declare(prepared, _) => {
                prepared.parsed.sql()
            }
        }
    }

    /// Returns the statement's query, if it has one.
    pub(crate) fn query(&self) -> Option<&Arc<Prepared>> {
        match self {
            Runnable::Query(prepared) | Runnable::Copy(prepared, _) | Runnable::Declare(prepared, _) => Some(prepared),
            Runnable::Write(writing) => writing.planned.as_ref().map(|planned| &planned.prepared),
            Runnable::Command(_) => None,
        }
    }

    /// Returns true if the statement ends a transaction. A failed transaction can run no other
    /// statement.
    pub(crate) fn ends_transaction(&self) -> bool {
        matches!(self, Runnable::Command(parsed) if parsed.ends_transaction())
    }
}
