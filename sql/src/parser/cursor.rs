//! A position in a statement's tokens, with the moves that hand-written parsing needs and errors in
//! PostgreSQL's words.
//!
//! Wraps sqlparser's `Parser`, which parses expressions, queries and types. Weir's own keywords are
//! matched by their text, because sqlparser's list of keywords is closed.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::create_table::ColumnRef;
use super::lex::{Cut, Text};
use super::{TableName, depth};
use crate::error::{Error, sqlstate};

/// Deeper nesting is refused, so that a statement cannot exhaust the stack.
const RECURSION_LIMIT: usize = 128;

/// The only database.
pub const DATABASE: &str = "dev";
/// The schema that is always there. In stored statements, names without a schema mean it.
pub const SCHEMA: &str = weir_common::catalog::PUBLIC;
/// The schema of PostgreSQL's own types, functions and relations.
pub const PG_CATALOG: &str = "pg_catalog";

pub(super) struct Cursor<'a> {
    pub(super) parser: Parser<'static>,
    pub(super) text: Text<'a>,
    /// Names in the tokens that were cut.
    cut: &'a [Cut],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(tokens: Vec<TokenWithSpan>, text: Text<'a>, cut: &'a [Cut]) -> Cursor<'a> {
        let parser =
            Parser::new(&PostgreSqlDialect {}).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens);
        Cursor { parser, text, cut }
    }

    /// The location where the next token starts.
    pub(super) fn here(&self) -> Location {
        self.parser.peek_token_ref().span.start
    }

    /// The location where the last consumed token ends.
    pub(super) fn behind(&self) -> Location {
        self.parser.get_current_token().span.end
    }

    /// The next token's word in upper case, if it is an unquoted word. Does not consume it.
    pub(super) fn peek_word(&self) -> Option<String> {
        self.peek_nth_word(0)
    }

    pub(super) fn peek_nth_word(&self, n: usize) -> Option<String> {
        match &self.parser.peek_nth_token_ref(n).token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
            _ => None,
        }
    }

    /// Consumes the words if all of them come next; otherwise none.
    pub(super) fn words(&mut self, expected: &[&str]) -> bool {
        let matches = expected.iter().enumerate().all(|(n, word)| self.peek_nth_word(n).as_deref() == Some(*word));
        if matches {
            for _ in expected {
                self.parser.advance_token();
            }
        }
        matches
    }

    /// Consumes the words, which must come next.
    pub(super) fn expect_words(&mut self, expected: &[&str]) -> Result<(), Error> {
        if self.words(expected) { Ok(()) } else { Err(self.expected(&expected.join(" "))) }
    }

    /// Consumes a token, which must come next.
    pub(super) fn expect(&mut self, token: &Token) -> Result<(), Error> {
        if self.parser.consume_token(token) { Ok(()) } else { Err(self.expected(&format!("\"{token}\""))) }
    }

    /// Checks that the statement ends here.
    pub(super) fn expect_end(&self) -> Result<(), Error> {
        if self.at_end() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    pub(super) fn at_end(&self) -> bool {
        self.parser.peek_token_ref().token == Token::EOF
    }

    /// Skips the rest of a statement that has no effect.
    pub(super) fn skip_rest(&mut self) {
        while !self.at_end() {
            self.parser.advance_token();
        }
    }

    /// A syntax error: the grammar does not allow the next token.
    pub(super) fn expected(&self, what: &str) -> Error {
        let found = self.parser.peek_token_ref();
        let message = match found.token {
            Token::EOF => "syntax error at end of input".to_owned(),
            _ => format!("syntax error at or near \"{}\"", self.text.slice(found.span)),
        };
        Error::user(sqlstate::SYNTAX_ERROR, message).with_detail(format!("expected {what}")).at(self.position())
    }

    /// An error for syntax at the next token that this version does not support.
    pub(super) fn unsupported(&self, what: &str) -> Error {
        Error::unsupported(format!("{what} is not supported yet")).at(self.position())
    }

    pub(super) fn position(&self) -> usize {
        self.text.position(self.here())
    }

    /// Parses an identifier in its stored form: in lower case, unless it is quoted.
    pub(super) fn name(&mut self, what: &str) -> Result<(String, Location), Error> {
        let location = self.here();
        match self.parser.peek_token().token {
            Token::Word(word) if matches!(word.quote_style, None | Some('"')) => {
                self.parser.advance_token();
                let name = if word.quote_style.is_some() { word.value } else { word.value.to_lowercase() };
                self.check_name(&name, location)?;
                Ok((name, location))
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Parses a name that also has a meaning outside Weir, such as a field's. It is refused if it
    /// is too long, because the cut name would silently mean something else.
    pub(super) fn exact_name(&mut self, what: &str) -> Result<(String, Location), Error> {
        let (name, location) = self.name(what)?;
        match self.cut.iter().find(|cut| cut.location == location) {
            Some(cut) => Err(Error::user(sqlstate::NAME_TOO_LONG, format!("the name \"{}\" is too long", cut.written))
                .with_hint("names have at most 63 bytes")
                .at(self.text.position(location))),
            None => Ok((name, location)),
        }
    }

    fn check_name(&self, name: &str, location: Location) -> Result<(), Error> {
        let position = self.text.position(location);
        if name.is_empty() {
            return Err(Error::user(sqlstate::SYNTAX_ERROR, "a name cannot be empty").at(position));
        }
        Ok(())
    }

    /// Parses a table's name: `t`, `s.t` or `dev.s.t`.
    pub(super) fn table_name(&mut self) -> Result<TableName, Error> {
        let location = self.here();
        let name = self.parser.parse_object_name(false).map_err(|error| self.lift(error))?;
        let parts = identifiers(&name).ok_or_else(|| self.expected("the name of a table"))?;
        let folded: Vec<String> = parts.iter().map(|part| fold(part)).collect();
        self.named_table(&folded, (location, self.behind()))
    }

    /// Parses a column's name with that of its table: `t.c`, `s.t.c` or `dev.s.t.c`.
    pub(super) fn column_of_table(&mut self) -> Result<(TableName, ColumnRef), Error> {
        let location = self.here();
        let name = self.parser.parse_object_name(false).map_err(|error| self.lift(error))?;
        let parts = identifiers(&name).ok_or_else(|| self.expected("the name of a column"))?;
        let folded: Vec<String> = parts.iter().map(|part| fold(part)).collect();
        let [table @ .., column] = folded.as_slice() else { return Err(self.expected("the name of a column")) };
        if table.is_empty() {
            return Err(
                Error::user(sqlstate::SYNTAX_ERROR, "column name must be qualified").at(self.text.position(location))
            );
        }
        let place = parts.last().map_or(location, |last| last.span.start);
        Ok((self.named_table(table, (location, self.behind()))?, ColumnRef { name: column.clone(), location: place }))
    }

    /// The table of a name's parts, which begins and ends at these locations.
    pub(super) fn named_table(
        &self,
        folded: &[String],
        (location, end): (Location, Location),
    ) -> Result<TableName, Error> {
        let position = self.text.position(location);
        let (database, schema, table) = match folded {
            [table] => (DATABASE, None, table),
            [schema, table] => (DATABASE, Some(schema), table),
            [database, schema, table] => (database.as_str(), Some(schema), table),
            _ => {
                let name = folded.join(".");
                let message = format!("improper relation name (too many dotted names): {name}");
                return Err(Error::user(sqlstate::SYNTAX_ERROR, message).at(position));
            }
        };
        if database != DATABASE {
            let name = folded.join(".");
            return Err(Error::unsupported(format!("cross-database references are not implemented: {name}"))
                .with_hint(format!("the only database is \"{DATABASE}\""))
                .at(position));
        }
        self.check_name(table, location)?;
        Ok(TableName { schema: schema.cloned(), name: table.clone(), location, end })
    }

    /// Converts an error of sqlparser's to our words, with the location that its text names.
    pub(super) fn lift(&self, error: ParserError) -> Error {
        let text = match error {
            ParserError::RecursionLimitExceeded => return depth::too_deep(),
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        };
        let (message, location) = split_location(&text);
        let position = self.text.position(location);
        let Some(expected) = message.strip_prefix("Expected: ") else {
            return Error::user(sqlstate::SYNTAX_ERROR, lower_first(message)).at(position);
        };
        let (expected, found) = expected.rsplit_once(", found: ").unwrap_or((expected, ""));
        let message = if location.line == 0 || found == "EOF" {
            "syntax error at end of input".to_owned()
        } else {
            format!("syntax error at or near \"{found}\"")
        };
        Error::user(sqlstate::SYNTAX_ERROR, message).with_detail(format!("expected {expected}")).at(position)
    }
}

/// The identifiers of a dotted name; `None` if a part of it is not an identifier.
pub fn identifiers(name: &ObjectName) -> Option<Vec<&Ident>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Some(ident),
            ObjectNamePart::Function(_) => None,
        })
        .collect()
}

/// An identifier in its stored form: in lower case, unless it is quoted.
pub fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Splits off ` at Line: 1, Column: 5`, which sqlparser appends to its messages.
fn split_location(text: &str) -> (&str, Location) {
    let parsed = text.rsplit_once(" at Line: ").and_then(|(message, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((message, Location::new(line.parse().ok()?, column.parse().ok()?)))
    });
    parsed.unwrap_or((text, Location::empty()))
}

fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
