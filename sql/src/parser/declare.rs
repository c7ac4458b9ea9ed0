//! `DECLARE name CURSOR FOR query`, `FETCH`, `MOVE` and `CLOSE`: cursors that only move forward.

use sqlparser::ast;
use sqlparser::tokenizer::{Location, Token};

use super::Statement;
use super::cursor::Cursor;
use crate::error::{Error, sqlstate};

/// A query whose rows are fetched later.
#[derive(Clone, Debug)]
pub struct Declare {
    /// The cursor.
    pub name: String,
    /// The location of its name.
    pub location: Location,
    /// The query whose rows are fetched.
    pub query: Box<ast::Statement>,
    /// True if the cursor outlives its transaction.
    pub holds: bool,
}

/// Some rows of a cursor.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// The cursor.
    pub name: String,
    /// The location of its name.
    pub location: Location,
    /// The maximal number of rows; `None` for all that are left.
    pub count: Option<u64>,
}

impl Cursor<'_> {
    pub(super) fn declare(&mut self) -> Result<Statement, Error> {
        self.parser.advance_token();
        let (name, location) = self.name("the name of a cursor")?;
        loop {
            if self.words(&["NO", "SCROLL"]) || self.words(&["INSENSITIVE"]) || self.words(&["ASENSITIVE"]) {
                continue;
            }
            match self.peek_word().as_deref() {
                Some(word @ ("SCROLL" | "BINARY")) => return Err(self.unsupported(&format!("{word} CURSOR"))),
                _ => break,
            }
        }
        self.expect_words(&["CURSOR"])?;
        let holds = self.words(&["WITH", "HOLD"]);
        let _default = !holds && self.words(&["WITHOUT", "HOLD"]);
        self.expect_words(&["FOR"])?;
        if !matches!(self.peek_word().as_deref(), None | Some("SELECT" | "WITH" | "VALUES")) {
            return Err(self.expected("a query"));
        }
        match self.query()? {
            Statement::Query(query) => Ok(Statement::Declare(Box::new(Declare { name, location, query, holds }))),
            _ => Err(self.expected("a query")),
        }
    }

    /// Parses the statement after FETCH or MOVE.
    pub(super) fn fetch(&mut self) -> Result<Fetch, Error> {
        self.parser.advance_token();
        let count = self.direction()?;
        let _noise = self.words(&["FROM"]) || self.words(&["IN"]);
        let (name, location) = self.name("the name of a cursor")?;
        self.expect_end()?;
        Ok(Fetch { name, location, count })
    }

    /// Parses the number of rows; `None` for all of them.
    fn direction(&mut self) -> Result<Option<u64>, Error> {
        if let Some(count) = self.count()? {
            return Ok(Some(count));
        }
        if self.words(&["ALL"]) {
            return Ok(None);
        }
        // A cursor may have a direction's name; then nothing follows.
        if self.parser.peek_nth_token_ref(1).token == Token::EOF {
            return Ok(Some(1));
        }
        match self.peek_word().as_deref() {
            Some("NEXT") => self.parser.advance_token(),
            Some("FORWARD") => {
                self.parser.advance_token();
                if self.words(&["ALL"]) {
                    return Ok(None);
                }
                if let Some(count) = self.count()? {
                    return Ok(Some(count));
                }
            }
            Some("PRIOR" | "FIRST" | "LAST" | "ABSOLUTE" | "RELATIVE" | "BACKWARD") => return Err(self.only_forward()),
            _ => {}
        }
        Ok(Some(1))
    }

    fn count(&mut self) -> Result<Option<u64>, Error> {
        match &self.parser.peek_token_ref().token {
            Token::Number(digits, _) => match digits.parse() {
                // FETCH 0 would return the row that was fetched last.
                Ok(0) => Err(self.only_forward()),
                Ok(count) => {
                    self.parser.advance_token();
                    Ok(Some(count))
                }
                Err(_) => Err(self.expected("a number of rows")),
            },
            Token::Minus => Err(self.only_forward()),
            _ => Ok(None),
        }
    }

    fn only_forward(&self) -> Error {
        Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, "cursor can only scan forward")
            .with_hint("fetch with NEXT, a number above 0, FORWARD or ALL")
            .at(self.position())
    }

    /// Parses `CLOSE name` or `CLOSE ALL`, which has no name.
    pub(super) fn close(&mut self) -> Result<Statement, Error> {
        self.parser.advance_token();
        let name = if self.words(&["ALL"]) { None } else { Some(self.name("the name of a cursor")?.0) };
        self.expect_end()?;
        Ok(Statement::Close(name))
    }
}
