//! `CREATE [OR REPLACE] VIEW name [(columns)] AS query`, and `CREATE MATERIALIZED VIEW`.

use sqlparser::ast;
use weir_common::catalog::RelationKind;

use super::create_table::ColumnRef;
use super::cursor::Cursor;
use super::{Statement, TableName};
use crate::error::Error;

/// A parsed `CREATE VIEW` or `CREATE MATERIALIZED VIEW`.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// A view or a materialized view.
    pub kind: RelationKind,
    /// Its name.
    pub name: TableName,
    /// True if an existing relation is left unchanged.
    pub if_not_exists: bool,
    /// True if an existing view is replaced.
    pub or_replace: bool,
    /// The names of its first columns, if they are written before the query.
    pub columns: Vec<ColumnRef>,
    /// The query that defines its rows.
    pub query: Box<ast::Statement>,
}

impl Cursor<'_> {
    /// Consumes the words that begin a statement about a new view, and parses the rest; `None` if
    /// others come next.
    pub(super) fn new_view(&mut self) -> Result<Option<CreateView>, Error> {
        if self.words(&["CREATE", "OR", "REPLACE"]) {
            return match self.words(&["VIEW"]) {
                true => self.create_view(RelationKind::View, true).map(Some),
                false => Err(self.unsupported("CREATE OR REPLACE of anything but a view")),
            };
        }
        if self.words(&["CREATE", "VIEW"]) {
            return self.create_view(RelationKind::View, false).map(Some);
        }
        if self.words(&["CREATE", "MATERIALIZED", "VIEW"]) {
            return self.create_view(RelationKind::MaterializedView, false).map(Some);
        }
        Ok(None)
    }

    /// Parses the statement after the words that tell the kind.
    pub(super) fn create_view(&mut self, kind: RelationKind, or_replace: bool) -> Result<CreateView, Error> {
        let if_not_exists = !or_replace && self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.table_name()?;
        let columns = self.column_names()?;
        if let Some(word @ ("WITH" | "USING" | "TABLESPACE")) = self.peek_word().as_deref() {
            return Err(self.unsupported(&format!("CREATE {} … {word}", kind.as_str().to_uppercase())));
        }
        self.expect_words(&["AS"])?;
        if !matches!(self.peek_word().as_deref(), None | Some("SELECT" | "WITH" | "VALUES")) {
            return Err(self.expected("a query"));
        }
        match self.query()? {
            Statement::Query(query) => Ok(CreateView { kind, name, if_not_exists, or_replace, columns, query }),
            _ => Err(self.expected("a query")),
        }
    }
}
