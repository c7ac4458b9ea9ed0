//! Text → tokens, and locations of tokens → positions in text.
//!
//! Owns the lexical rules: PostgreSQL's, plus values in backquotes, which RisingWave's
//! documentation uses. Knows no statements. Positions are counted in characters from 1, as in
//! PostgreSQL.

use std::any::TypeId;

use sqlparser::dialect::{Dialect, PostgreSqlDialect};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, sqlstate};

/// A text from a client, which converts locations to positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl<'a> Text<'a> {
    /// The position of a line and column, counted in characters from 1. For an unknown location,
    /// the end of the text.
    pub(crate) fn position(self, location: Location) -> usize {
        self.0[..self.offset(location)].chars().count() + 1
    }

    /// The byte offset of a line and column. For an unknown location, the end of the text.
    pub(crate) fn offset(self, location: Location) -> usize {
        if location.line == 0 {
            return self.0.trim_end().len();
        }
        let mut line_start = 0;
        for _ in 1..location.line {
            match self.0[line_start..].find('\n') {
                Some(newline) => line_start += newline + 1,
                None => return self.0.len(),
            }
        }
        let column = usize::try_from(location.column.saturating_sub(1)).unwrap_or(usize::MAX);
        let rest = &self.0[line_start..];
        line_start + rest.char_indices().nth(column).map_or(rest.len(), |(offset, _)| offset)
    }

    /// The part of the text that a span covers.
    pub(crate) fn slice(self, span: Span) -> &'a str {
        &self.0[self.offset(span.start)..self.offset(span.end)]
    }

    /// The tokens of the text, including white space and comments.
    ///
    /// # Errors
    /// `42601` if a literal, an identifier or a comment does not end.
    pub(crate) fn tokens(self) -> Result<Vec<TokenWithSpan>, Error> {
        Tokenizer::new(&Lexical(PostgreSqlDialect {}), self.0).tokenize_with_location().map_err(|error| {
            Error::user(sqlstate::SYNTAX_ERROR, lower(&error.message)).at(self.position(error.location))
        })
    }
}

/// Computes byte offsets of locations that are in the order of the text, in one pass over it.
pub(super) struct Walk<'a> {
    text: Text<'a>,
    here: Location,
    offset: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(text: Text<'a>) -> Walk<'a> {
        Walk { text, here: Location::new(1, 1), offset: 0 }
    }

    /// The byte offset of a location that does not precede the last one; see [`Text::offset`].
    pub(super) fn offset(&mut self, location: Location) -> usize {
        if location.line == 0 {
            return self.text.offset(location);
        }
        let mut characters = self.text.0[self.offset..].chars();
        while self.here < location
            && let Some(character) = characters.next()
        {
            self.offset += character.len_utf8();
            self.here = match character {
                '\n' => Location::new(self.here.line + 1, 1),
                _ => Location::new(self.here.line, self.here.column + 1),
            };
        }
        self.offset
    }
}

/// Splits a script at its semicolons. Pieces of white space only are left out.
pub(crate) fn statements(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    tokens
        .split(|token| token.token == Token::SemiColon)
        .filter(|piece| piece.iter().any(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)))
        .map(<[TokenWithSpan]>::to_vec)
        .collect()
}

/// The maximal length of names. Longer names are cut, as in PostgreSQL.
const NAME_BYTES_MAX: usize = 63;

/// A name that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) location: Location,
    pub(super) written: String,
    pub(super) kept: String,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "identifier \"{}\" will be truncated to \"{}\"", self.written, self.kept)
    }
}

/// Cuts names that are too long, and returns them. Values in backquotes are not names.
pub(super) fn truncate_names(tokens: &mut [TokenWithSpan]) -> Vec<Cut> {
    let mut cut = Vec::new();
    for TokenWithSpan { token, span } in tokens {
        if let Token::Word(word) = token
            && word.quote_style != Some('`')
            && word.value.len() > NAME_BYTES_MAX
        {
            let kept = word.value[..word.value.floor_char_boundary(NAME_BYTES_MAX)].to_owned();
            let written = std::mem::replace(&mut word.value, kept.clone());
            cut.push(Cut { location: span.start, written, kept });
        }
    }
    cut
}

fn lower(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// PostgreSQL's lexical rules, with one more way to delimit a word. Only the tokenizer uses it: the
/// parser's dialect is PostgreSQL's.
#[derive(Debug)]
struct Lexical(PostgreSqlDialect);

impl Dialect for Lexical {
    fn dialect(&self) -> TypeId {
        self.0.dialect()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '`' || self.0.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        self.0.is_custom_operator_part(ch)
    }

    fn supports_unicode_string_literal(&self) -> bool {
        self.0.supports_unicode_string_literal()
    }

    fn supports_nested_comments(&self) -> bool {
        self.0.supports_nested_comments()
    }

    fn supports_string_escape_constant(&self) -> bool {
        self.0.supports_string_escape_constant()
    }

    fn supports_numeric_literal_underscores(&self) -> bool {
        self.0.supports_numeric_literal_underscores()
    }

    fn supports_geometric_types(&self) -> bool {
        self.0.supports_geometric_types()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_not_bytes() {
        let text = Text("SELECT 'äöü',\n  ß");
        let tokens = text.tokens().expect("a valid text");
        let last = tokens.last().expect("there are tokens");
        assert_eq!(text.position(last.span.start), 17);
        assert_eq!(text.slice(last.span), "ß");
    }

    #[test]
    fn an_unknown_location_is_the_end_of_the_text() {
        assert_eq!(Text("SELECT  \n").position(Location::empty()), 7);
    }

    #[test]
    fn an_open_literal_is_an_error_with_its_position() {
        let error = Text("SELECT 'abc").tokens().expect_err("the literal does not end");
        assert_eq!((error.sqlstate.as_ref(), error.position), ("42601", Some(8)));
    }

    #[test]
    fn a_semicolon_in_a_literal_does_not_end_a_statement() {
        let tokens = Text("SELECT ';' ;; -- nothing\n; SELECT 2").tokens().expect("a valid text");
        assert_eq!(statements(tokens).len(), 2);
    }

    #[test]
    fn names_are_cut_between_characters() {
        let long = "ä".repeat(40);
        let mut tokens = Text(&format!("SELECT {long}, `{long}`, '{long}'")).tokens().expect("a valid text");
        let cut = truncate_names(&mut tokens);
        assert_eq!(cut.len(), 1);
        assert_eq!((cut[0].location.column, cut[0].kept.as_str()), (8, &*"ä".repeat(31)));
        assert!(tokens.iter().any(|token| matches!(&token.token, Token::Word(word) if word.value == "ä".repeat(31))));
    }

    #[test]
    fn texts_without_backquotes_are_cut_as_postgresql_cuts_them() {
        for sql in [
            r#"SELECT E'a\n', U&'\0441', $$x$$, $1, 1_000, x'ff' FROM "T" /* a /* b */ c */ WHERE a @> b -- end"#,
            "SELECT a::int, b[1], point '(1,2)' <-> c, 'x' || 'y' ~* 'z', 1e-3",
        ] {
            let ours = Text(sql).tokens().expect("a valid text");
            let theirs = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location().expect("a valid text");
            assert_eq!(ours, theirs);
        }
    }
}
