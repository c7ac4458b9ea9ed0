//! `COMMENT ON { TABLE | SOURCE | VIEW | MATERIALIZED VIEW | COLUMN } name IS text`.

use sqlparser::tokenizer::Token;
use weir_common::catalog::RelationKind;

use super::create_table::ColumnRef;
use super::cursor::Cursor;
use super::{Statement, TableName};
use crate::error::Error;

/// A parsed `COMMENT ON`.
#[derive(Clone, Debug)]
pub struct Comment {
    /// The kind of relation that the statement names; `None` if it names a column.
    pub kind: Option<RelationKind>,
    /// The relation.
    pub name: TableName,
    /// The column.
    pub column: Option<ColumnRef>,
    /// The text; `None` removes the comment.
    pub text: Option<String>,
}

impl Cursor<'_> {
    pub(super) fn comment(&mut self) -> Result<Statement, Error> {
        self.parser.advance_token();
        self.expect_words(&["ON"])?;
        if self.words(&["SCHEMA"]) {
            return self.comment_on_schema();
        }
        let (kind, name, column) = match self.words(&["COLUMN"]) {
            true => {
                let (name, column) = self.column_of_table()?;
                (None, name, Some(column))
            }
            false => (Some(self.kind_of_relation("COMMENT ON")?), self.table_name()?, None),
        };
        let text = self.comment_text()?;
        Ok(Statement::Comment(Box::new(Comment { kind, name, column, text })))
    }

    /// Parses the end of a `COMMENT ON`: `IS` and the text.
    pub(super) fn comment_text(&mut self) -> Result<Option<String>, Error> {
        self.expect_words(&["IS"])?;
        let text = match self.parser.peek_token().token {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => {
                self.parser.advance_token();
                // As in PostgreSQL, an empty comment is none.
                Some(text).filter(|text| !text.is_empty())
            }
            _ if self.words(&["NULL"]) => None,
            _ => return Err(self.expected("a text or NULL")),
        };
        self.expect_end()?;
        Ok(text)
    }
}
