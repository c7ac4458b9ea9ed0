//! `ALTER { TABLE | SOURCE | VIEW | MATERIALIZED VIEW } …`: changes what a job reads, how it
//! decodes it, or names.

use sqlparser::tokenizer::{Span, Token};
use weir_common::catalog::RelationKind;

use super::create_table::{ColumnRef, Format, WithOption};
use super::cursor::Cursor;
use super::{SchemaName, Statement, TableName};
use crate::error::Error;

/// A parsed `ALTER`.
#[derive(Clone, Debug, PartialEq)]
pub struct Alter {
    /// The kind of relation that the statement names.
    pub kind: RelationKind,
    /// The relation.
    pub name: TableName,
    /// True if a missing relation is skipped.
    pub if_exists: bool,
    /// The requested change.
    pub change: Change,
}

/// A change that ALTER can make.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// `CONNECTOR WITH (option = value, …)`, in the order they were written.
    Options(Vec<WithOption>),
    /// `ADD COLUMN …, ALTER COLUMN …, …`, in the order they were written.
    Columns(Vec<ColumnEdit>),
    /// `FORMAT PLAIN ENCODE … (…)`, and its text.
    Format(Format, String),
    /// `REFRESH SCHEMA`.
    RefreshSchema,
    /// `REPLAY DEAD LETTERS`.
    Replay,
    /// `RENAME TO name`.
    Rename(ColumnRef),
    /// `RENAME [COLUMN] name TO name`.
    RenameColumn(ColumnRef, ColumnRef),
    /// `SWAP WITH name`.
    Swap(TableName),
    /// `SET SCHEMA name`.
    SetSchema(SchemaName),
}

/// A change of one column.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnEdit {
    /// `ADD [COLUMN] [IF NOT EXISTS] name type`.
    Add {
        /// The column, with its location.
        column: ColumnRef,
        /// True if an existing column is skipped.
        if_not_exists: bool,
        /// The name and the type as they are written.
        written: String,
    },
    /// `ALTER [COLUMN] name [SET DATA] TYPE type`.
    Type {
        /// The column, with its location.
        column: ColumnRef,
        /// The type as it is written.
        written: String,
    },
}

impl Cursor<'_> {
    pub(super) fn alter(&mut self) -> Result<Statement, Error> {
        let kind = self.relation_kind("ALTER")?;
        let if_exists = self.words(&["IF", "EXISTS"]);
        let name = self.table_name()?;
        let verb = format!("ALTER {}", kind.as_str().to_uppercase());
        let of_view = matches!(kind, RelationKind::View | RelationKind::MaterializedView);
        let change = match self.peek_word().as_deref() {
            Some("RENAME") => self.rename()?,
            Some("SET") if self.words(&["SET", "SCHEMA"]) => Change::SetSchema(self.schema_name()?),
            Some("SWAP") if kind == RelationKind::MaterializedView || kind == RelationKind::View => {
                self.expect_words(&["SWAP", "WITH"])?;
                Change::Swap(self.table_name()?)
            }
            Some(word) if of_view => return Err(self.unsupported(&format!("{verb} … {word}"))),
            None if of_view => return Err(self.expected("RENAME, SET SCHEMA or SWAP WITH")),
            Some("ADD" | "ALTER") => Change::Columns(self.column_edits(&verb)?),
            Some("FORMAT") => {
                let format = self.format()?;
                let written = self.text.slice(Span::new(format.start, self.behind())).to_owned();
                Change::Format(format, written)
            }
            Some("REFRESH") => {
                self.expect_words(&["REFRESH", "SCHEMA"])?;
                Change::RefreshSchema
            }
            Some(word @ ("DROP" | "OWNER" | "SET" | "SWAP")) => {
                return Err(self.unsupported(&format!("{verb} … {word}")));
            }
            _ if self.words(&["CONNECTOR", "WITH"]) => Change::Options(self.with_options()?),
            _ if self.words(&["REPLAY", "DEAD", "LETTERS"]) => Change::Replay,
            _ => {
                const CHANGES: &str = "CONNECTOR WITH, ADD COLUMN, ALTER COLUMN, RENAME, SET SCHEMA, FORMAT, REFRESH SCHEMA or REPLAY DEAD LETTERS";
                return Err(self.expected(CHANGES));
            }
        };
        self.expect_end()?;
        Ok(Statement::Alter(Box::new(Alter { kind, name, if_exists, change })))
    }

    fn rename(&mut self) -> Result<Change, Error> {
        self.expect_words(&["RENAME"])?;
        if self.words(&["TO"]) {
            let (name, location) = self.name("the new name")?;
            return Ok(Change::Rename(ColumnRef { name, location }));
        }
        if let Some(word @ "CONSTRAINT") = self.peek_word().as_deref() {
            return Err(self.unsupported(&format!("RENAME {word}")));
        }
        let _noise = self.words(&["COLUMN"]);
        let (name, location) = self.exact_name("the name of a column")?;
        let column = ColumnRef { name, location };
        self.expect_words(&["TO"])?;
        let (name, location) = self.exact_name("the new name")?;
        Ok(Change::RenameColumn(column, ColumnRef { name, location }))
    }

    fn column_edits(&mut self, verb: &str) -> Result<Vec<ColumnEdit>, Error> {
        let mut edits = Vec::new();
        loop {
            edits.push(match self.peek_word().as_deref() {
                Some("ADD") => self.add_column()?,
                Some("ALTER") => self.alter_column()?,
                Some(word @ ("DROP" | "RENAME")) => return Err(self.unsupported(&format!("{verb} … {word}"))),
                _ => return Err(self.expected("ADD COLUMN or ALTER COLUMN")),
            });
            if !self.parser.consume_token(&Token::Comma) {
                return Ok(edits);
            }
        }
    }

    fn add_column(&mut self) -> Result<ColumnEdit, Error> {
        self.expect_words(&["ADD"])?;
        if let Some(word @ ("CONSTRAINT" | "PRIMARY" | "UNIQUE" | "CHECK" | "FOREIGN")) = self.peek_word().as_deref() {
            return Err(self.unsupported(&format!("ADD {word}")));
        }
        let _noise = self.words(&["COLUMN"]);
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let (name, location) = self.exact_name("the name of a column")?;
        self.spanned_type()?;
        let written = self.text.slice(Span::new(location, self.behind())).to_owned();
        if let Some(
            word @ ("NOT" | "NULL" | "PRIMARY" | "DEFAULT" | "UNIQUE" | "CHECK" | "REFERENCES" | "AS" | "GENERATED"),
        ) = self.peek_word().as_deref()
        {
            return Err(self.unsupported(&format!("ADD COLUMN … {word}")));
        }
        Ok(ColumnEdit::Add { column: ColumnRef { name, location }, if_not_exists, written })
    }

    fn alter_column(&mut self) -> Result<ColumnEdit, Error> {
        self.expect_words(&["ALTER"])?;
        let _noise = self.words(&["COLUMN"]);
        let (name, location) = self.exact_name("the name of a column")?;
        if !self.words(&["SET", "DATA", "TYPE"]) && !self.words(&["TYPE"]) {
            return Err(match self.peek_word().as_deref() {
                Some(word @ ("SET" | "DROP" | "ADD" | "RESET" | "RESTART")) => {
                    self.unsupported(&format!("ALTER COLUMN … {word}"))
                }
                _ => self.expected("TYPE"),
            });
        }
        let (_, span) = self.spanned_type()?;
        if let Some(word @ ("USING" | "COLLATE")) = self.peek_word().as_deref() {
            return Err(self.unsupported(&format!("ALTER COLUMN … TYPE … {word}")));
        }
        Ok(ColumnEdit::Type { column: ColumnRef { name, location }, written: self.text.slice(span).to_owned() })
    }
}
