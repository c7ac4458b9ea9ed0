//! `CREATE SCHEMA`, `DROP SCHEMA`, `ALTER SCHEMA … RENAME TO` and `COMMENT ON SCHEMA`.

use sqlparser::tokenizer::{Location, Token};

use super::Statement;
use super::create_table::ColumnRef;
use super::cursor::Cursor;
use crate::error::Error;

/// The name of a schema, with its location.
pub type SchemaName = ColumnRef;

/// A statement about schemas.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemaCommand {
    /// `CREATE SCHEMA [IF NOT EXISTS] name`.
    Create {
        /// Its name.
        name: SchemaName,
        /// True if an existing schema is left unchanged.
        if_not_exists: bool,
    },
    /// `DROP SCHEMA [IF EXISTS] name, … [CASCADE | RESTRICT]`.
    Drop {
        /// The schemas, in the order of the text.
        names: Vec<SchemaName>,
        /// True if missing schemas are skipped.
        if_exists: bool,
        /// True if what is in them is dropped too.
        cascade: bool,
    },
    /// `ALTER SCHEMA name RENAME TO name`.
    Rename {
        /// Its name.
        name: SchemaName,
        /// Its new name.
        to: SchemaName,
    },
    /// `COMMENT ON SCHEMA name IS text`.
    Comment {
        /// Its name.
        name: SchemaName,
        /// The text; `None` removes the comment.
        text: Option<String>,
    },
}

impl SchemaCommand {
    /// The statement's tag.
    pub fn tag(&self) -> &'static str {
        match self {
            SchemaCommand::Create { .. } => "CREATE SCHEMA",
            SchemaCommand::Drop { .. } => "DROP SCHEMA",
            SchemaCommand::Rename { .. } => "ALTER SCHEMA",
            SchemaCommand::Comment { .. } => "COMMENT",
        }
    }
}

impl Cursor<'_> {
    /// Parses what follows `CREATE SCHEMA`.
    pub(super) fn create_schema(&mut self) -> Result<Statement, Error> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        if self.peek_word().as_deref() == Some("AUTHORIZATION") {
            return Err(self.unsupported("AUTHORIZATION"));
        }
        let name = self.schema_name()?;
        if let Some(word @ ("AUTHORIZATION" | "CREATE" | "GRANT")) = self.peek_word().as_deref() {
            return Err(self.unsupported(&format!("CREATE SCHEMA … {word}")));
        }
        self.expect_end()?;
        Ok(Statement::Schema(SchemaCommand::Create { name, if_not_exists }))
    }

    /// Parses what follows `DROP SCHEMA`.
    pub(super) fn drop_schemas(&mut self) -> Result<Statement, Error> {
        let if_exists = self.words(&["IF", "EXISTS"]);
        let mut names = vec![self.schema_name()?];
        while self.parser.consume_token(&Token::Comma) {
            names.push(self.schema_name()?);
        }
        let cascade = self.drop_behavior()?;
        Ok(Statement::Schema(SchemaCommand::Drop { names, if_exists, cascade }))
    }

    /// Parses what follows `ALTER SCHEMA`.
    pub(super) fn alter_schema(&mut self) -> Result<Statement, Error> {
        let name = self.schema_name()?;
        if self.peek_word().as_deref() == Some("OWNER") {
            return Err(self.unsupported("ALTER SCHEMA … OWNER"));
        }
        self.expect_words(&["RENAME", "TO"])?;
        let to = self.schema_name()?;
        self.expect_end()?;
        Ok(Statement::Schema(SchemaCommand::Rename { name, to }))
    }

    /// Parses what follows `COMMENT ON SCHEMA`.
    pub(super) fn comment_on_schema(&mut self) -> Result<Statement, Error> {
        let name = self.schema_name()?;
        let text = self.comment_text()?;
        Ok(Statement::Schema(SchemaCommand::Comment { name, text }))
    }

    /// Parses the name of a schema.
    pub(super) fn schema_name(&mut self) -> Result<SchemaName, Error> {
        let (name, location): (String, Location) = self.name("the name of a schema")?;
        Ok(SchemaName { name, location })
    }

    /// Parses the end of a DROP; returns true for CASCADE.
    pub(super) fn drop_behavior(&mut self) -> Result<bool, Error> {
        let cascade = self.words(&["CASCADE"]);
        let _default = !cascade && self.words(&["RESTRICT"]);
        self.expect_end()?;
        Ok(cascade)
    }
}
