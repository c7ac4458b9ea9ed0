//! The parentheses of `CREATE TABLE`: columns with their constraints, and the primary key.

use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::tokenizer::{Location, Span, Token};
use weir_common::catalog::Origin;
use weir_common::types::SqlType;

use super::create_table::{ColumnDef, ColumnRef, Computed};
use super::cursor::Cursor;
use crate::error::{Error, sqlstate};

/// The contents of the parentheses.
#[derive(Default)]
pub(super) struct Definition {
    pub(super) columns: Vec<ColumnDef>,
    pub(super) primary_key: Vec<ColumnRef>,
    /// The end of the last column or constraint.
    pub(super) end: Option<Location>,
    /// The location of `*`.
    pub(super) wildcard: Option<Location>,
}

impl Cursor<'_> {
    /// Parses `(a, b)`, if a parenthesis comes next.
    pub(super) fn column_names(&mut self) -> Result<Vec<ColumnRef>, Error> {
        let mut columns = Vec::new();
        if self.parser.consume_token(&Token::LParen) {
            loop {
                let (name, location) = self.exact_name("the name of a column")?;
                columns.push(ColumnRef { name, location });
                if !self.parser.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        }
        Ok(columns)
    }

    /// Parses columns and constraints, up to and including the closing parenthesis. A trailing
    /// comma is allowed.
    pub(super) fn definition(&mut self) -> Result<Definition, Error> {
        let mut definition = Definition::default();
        while !self.parser.consume_token(&Token::RParen) {
            match self.peek_word().as_deref() {
                Some("PRIMARY") => {
                    let location = self.here();
                    let key = self.table_primary_key()?;
                    self.set_primary_key(&mut definition, key, location)?;
                }
                Some("WATERMARK") => return Err(self.unsupported("WATERMARK")),
                Some(word @ ("CONSTRAINT" | "UNIQUE" | "CHECK" | "FOREIGN")) => return Err(self.unsupported(word)),
                _ if self.parser.peek_token_ref().token == Token::Mul => {
                    if definition.wildcard.is_some() {
                        return Err(self.expected("the name of a column"));
                    }
                    definition.wildcard = Some(self.here());
                    self.parser.advance_token();
                }
                _ => self.column(&mut definition)?,
            }
            definition.end = Some(self.behind());
            if !self.parser.consume_token(&Token::Comma) {
                self.expect(&Token::RParen)?;
                break;
            }
        }
        Ok(definition)
    }

    fn set_primary_key(
        &self,
        definition: &mut Definition,
        key: Vec<ColumnRef>,
        location: Location,
    ) -> Result<(), Error> {
        if !definition.primary_key.is_empty() {
            let message = "multiple primary keys are not allowed";
            return Err(Error::user(sqlstate::INVALID_TABLE_DEFINITION, message)
                .with_hint("a key of several columns is one: PRIMARY KEY (a, b)")
                .at(self.text.position(location)));
        }
        definition.primary_key = key;
        Ok(())
    }

    /// Parses `PRIMARY KEY (a, b)`.
    fn table_primary_key(&mut self) -> Result<Vec<ColumnRef>, Error> {
        self.expect_words(&["PRIMARY", "KEY"])?;
        self.expect(&Token::LParen)?;
        let mut key = Vec::new();
        loop {
            let (name, location) = self.exact_name("the name of a column")?;
            key.push(ColumnRef { name, location });
            if !self.parser.consume_token(&Token::Comma) {
                self.expect(&Token::RParen)?;
                return Ok(key);
            }
        }
    }

    fn column(&mut self, definition: &mut Definition) -> Result<(), Error> {
        let (name, location) = self.exact_name("the name of a column")?;
        let (ty, span) = self.spanned_type()?;
        let mut column = ColumnDef { ty_span: Some(span), ..ColumnDef::new(name, ty, Origin::Payload, location) };
        self.constraints(&mut column, definition)?;
        if !matches!(self.parser.peek_token_ref().token, Token::Comma | Token::RParen) {
            return Err(self.expected("\",\" or \")\""));
        }
        definition.columns.push(column);
        Ok(())
    }

    /// Parses what may follow the type of a column.
    fn constraints(&mut self, column: &mut ColumnDef, definition: &mut Definition) -> Result<(), Error> {
        loop {
            let here = self.here();
            match self.peek_word().as_deref() {
                Some("NULL") => self.parser.advance_token(),
                Some("NOT") => {
                    column.not_null = Some(here);
                    self.expect_words(&["NOT", "NULL"])?;
                }
                Some("PRIMARY") => {
                    self.expect_words(&["PRIMARY", "KEY"])?;
                    let key = ColumnRef { name: column.name.clone(), location: column.location };
                    self.set_primary_key(definition, vec![key], here)?;
                }
                Some("DEFAULT") if column.default.is_none() => {
                    self.parser.advance_token();
                    // Without parentheses NOT belongs to the next constraint.
                    let least = PostgreSqlDialect {}.prec_value(Precedence::Between);
                    column.default = Some(self.computed(here, least)?);
                }
                Some("AS") if column.generated.is_none() => {
                    self.parser.advance_token();
                    column.generated = Some(self.computed(here, 0)?);
                }
                Some("GENERATED") if column.generated.is_none() => {
                    if !self.words(&["GENERATED", "ALWAYS", "AS"]) || self.peek_word().as_deref() == Some("IDENTITY") {
                        return Err(self.unsupported("GENERATED … AS IDENTITY"));
                    }
                    column.generated = Some(self.computed(here, 0)?);
                    if self.peek_word().as_deref() == Some("VIRTUAL") {
                        return Err(self.unsupported("a virtual generated column"));
                    }
                    let _stored = self.words(&["STORED"]);
                }
                Some(word @ ("UNIQUE" | "CHECK" | "REFERENCES" | "CONSTRAINT" | "COLLATE")) => {
                    return Err(self.unsupported(word));
                }
                _ => return Ok(()),
            }
        }
    }

    /// Parses an expression whose operators bind more closely than `least`.
    fn computed(&mut self, location: Location, least: u8) -> Result<Computed, Error> {
        let start = self.here();
        self.parser.parse_subexpr(least).map_err(|error| self.lift(error))?;
        Ok(Computed { text: self.text.slice(Span::new(start, self.behind())).to_owned(), location })
    }

    /// Parses a type, and returns its span.
    pub(super) fn spanned_type(&mut self) -> Result<(SqlType, Span), Error> {
        let start = self.here();
        let ty = self.column_type()?;
        Ok((ty, Span::new(start, self.behind())))
    }
}
