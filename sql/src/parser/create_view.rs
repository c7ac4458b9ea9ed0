//! `CREATE [OR REPLACE] VIEW name [(columns)] AS query`, and
//! `CREATE MATERIALIZED VIEW name [(columns)] [WITH (options)] AS query`.

use sqlparser::ast;
use weir_common::catalog::{OnError, RelationKind};

use super::create_table::{ColumnRef, WithOption};
use super::cursor::Cursor;
use super::{Statement, TableName};
use crate::error::{Error, sqlstate};

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
    /// The treatment of rows for which an expression fails.
    pub on_error: OnError,
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
        let on_error = match kind == RelationKind::MaterializedView && self.words(&["WITH"]) {
            true => self.view_options()?,
            false => OnError::default(),
        };
        if let Some(word @ ("WITH" | "USING" | "TABLESPACE")) = self.peek_word().as_deref() {
            return Err(self.unsupported(&format!("CREATE {} … {word}", kind.as_str().to_uppercase())));
        }
        self.expect_words(&["AS"])?;
        if !matches!(self.peek_word().as_deref(), None | Some("SELECT" | "WITH" | "VALUES")) {
            return Err(self.expected("a query"));
        }
        match self.query()? {
            Statement::Query(query) => {
                Ok(CreateView { kind, name, if_not_exists, or_replace, columns, on_error, query })
            }
            _ => Err(self.expected("a query")),
        }
    }

    /// Parses `(on_error = '…')`, the options of a materialized view.
    fn view_options(&mut self) -> Result<OnError, Error> {
        let options = self.with_options()?;
        if let Some(other) = options.iter().find(|option| option.key != "on_error") {
            return Err(Error::unsupported(format!("option \"{}\" of a materialized view is not known", other.key))
                .with_hint("the one option of a materialized view is on_error")
                .at(self.text.position(other.key_location)));
        }
        let parse = |WithOption { key, value, value_span, .. }: &WithOption| {
            OnError::parse(value).ok_or_else(|| {
                let words = OnError::WORDS.join(", ");
                let message = format!("option \"{key}\": \"{value}\" is not one of {words}");
                Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).at(self.text.position(value_span.start))
            })
        };
        match options.as_slice() {
            [] => Ok(OnError::default()),
            [one] => parse(one),
            [_, again, ..] => {
                let message = "option \"on_error\" is given more than once";
                Err(Error::user(sqlstate::SYNTAX_ERROR, message).at(self.text.position(again.key_location)))
            }
        }
    }
}
