//! `CREATE MATERIALIZED VIEW name [(columns)] AS query`.

use sqlparser::ast;

use super::create_table::ColumnRef;
use super::cursor::Cursor;
use super::{Statement, TableName};
use crate::error::Error;

/// A parsed `CREATE MATERIALIZED VIEW`.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// Its name.
    pub name: TableName,
    /// True if an existing relation is left unchanged.
    pub if_not_exists: bool,
    /// The names of its first columns, if they are written before the query.
    pub columns: Vec<ColumnRef>,
    /// The query that defines its rows.
    pub query: Box<ast::Statement>,
}

impl Cursor<'_> {
    /// Parses the statement after `CREATE MATERIALIZED VIEW`.
    pub(super) fn create_view(&mut self) -> Result<CreateView, Error> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.table_name()?;
        let columns = self.column_names()?;
        if let Some(word @ ("WITH" | "USING" | "TABLESPACE")) = self.peek_word().as_deref() {
            return Err(self.unsupported(&format!("CREATE MATERIALIZED VIEW … {word}")));
        }
        self.expect_words(&["AS"])?;
        if !matches!(self.peek_word().as_deref(), None | Some("SELECT" | "WITH" | "VALUES")) {
            return Err(self.expected("a query"));
        }
        match self.query()? {
            Statement::Query(query) => Ok(CreateView { name, if_not_exists, columns, query }),
            _ => Err(self.expected("a query")),
        }
    }
}
