//! `CREATE { TABLE | SOURCE } … [INCLUDE …] WITH (…) FORMAT PLAIN ENCODE …`: the statement that
//! starts a job. Without WITH it creates a table that statements write to:
//! `CREATE TABLE … [APPEND ONLY] [ON CONFLICT …]`, `CREATE TABLE … AS query`.
//!
//! Owns its grammar, not its meaning: `bind` checks the names and reads the options. `definition`
//! parses what stands in the parentheses.

use sqlparser::ast;
use sqlparser::tokenizer::{Location, Span, Token};
use weir_common::catalog::{Origin, RelationKind};
use weir_common::plan::Conflict;
use weir_common::types::SqlType;

use super::cursor::Cursor;
use super::definition::Definition;
use super::{Statement, TableName};
use crate::error::{Error, sqlstate};

/// A parsed `CREATE TABLE`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    /// A table or a source.
    pub kind: RelationKind,
    /// Its name.
    pub name: TableName,
    /// True if an existing relation is left unchanged.
    pub if_not_exists: bool,
    /// Declared columns, then INCLUDE columns, each in the order they were written.
    pub columns: Vec<ColumnDef>,
    /// The columns of the primary key, in the order they were written.
    pub primary_key: Vec<ColumnRef>,
    /// The end of the last column or constraint in the parentheses, if there is one.
    pub definition_end: Option<Location>,
    /// The location of `*`, which stands for all columns of the payload.
    pub wildcard: Option<Location>,
    /// The options of WITH in the order they were written; a key may occur more than once.
    pub options: Vec<WithOption>,
    /// The format that decodes its messages; `None` for a table that statements write to.
    pub format: Option<Format>,
    /// The location of APPEND ONLY, if it is written.
    pub append_only: Option<Location>,
    /// The rule for a row whose key is there already, if it is written.
    pub on_conflict: Option<Conflict>,
}

/// `CREATE TABLE name [(columns)] AS query [WITH [NO] DATA]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTableAs {
    /// Its name.
    pub name: TableName,
    /// True if an existing relation is left unchanged.
    pub if_not_exists: bool,
    /// The names of its first columns, if they are written before the query.
    pub columns: Vec<ColumnRef>,
    /// The query whose rows it has.
    pub query: Box<ast::Statement>,
    /// False if it stays empty.
    pub with_data: bool,
}

/// `FORMAT PLAIN ENCODE encoding [(option = value, …)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Format {
    /// The encoding of payloads.
    pub encoding: Encoding,
    /// The location of FORMAT.
    pub start: Location,
    /// The location of the encoding's name.
    pub location: Location,
    /// The options in parentheses after ENCODE.
    pub options: Vec<WithOption>,
}

/// The encoding of payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `ENCODE JSON`.
    Json,
    /// `ENCODE BYTES`.
    Bytes,
    /// `ENCODE PROTOBUF`.
    Protobuf,
}

/// A column with its location.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDef {
    /// Folded to lower case, unless it was quoted.
    pub name: String,
    /// Its type.
    pub ty: SqlType,
    /// The part of a message that its values come from.
    pub origin: Origin,
    /// The location of its name in the script.
    pub location: Location,
    /// The span of its type, if the type is written.
    pub ty_span: Option<Span>,
    /// The location of NOT NULL, if it is written.
    pub not_null: Option<Location>,
    /// The expression after DEFAULT.
    pub default: Option<Computed>,
    /// The expression of a generated column.
    pub generated: Option<Computed>,
}

/// An expression that computes the values of a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Computed {
    /// As it is written.
    pub text: String,
    /// The location of the clause.
    pub location: Location,
}

/// The name of a column, and its location.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnRef {
    /// Folded to lower case, unless it was quoted.
    pub name: String,
    /// Its location in the script.
    pub location: Location,
}

impl ColumnDef {
    /// A column without constraints.
    pub fn new(name: String, ty: SqlType, origin: Origin, location: Location) -> ColumnDef {
        ColumnDef { name, ty, origin, location, ty_span: None, not_null: None, default: None, generated: None }
    }
}

/// `key = value`: the key in lower case, the value without its quotes.
#[derive(Clone, Debug, PartialEq)]
pub struct WithOption {
    /// Its name.
    pub key: String,
    /// Its value, without quotes.
    pub value: String,
    /// The location of its name.
    pub key_location: Location,
    /// The span of its value.
    pub value_span: Span,
}

/// The words that can follow INCLUDE.
const INCLUDED: &str = "partition, offset, subject, timestamp, header or payload";

impl Cursor<'_> {
    /// Parses the statement after `CREATE`.
    pub(super) fn create(&mut self) -> Result<Statement, Error> {
        if self.peek_word().as_deref() == Some("OR") {
            return Err(self.unsupported("CREATE OR REPLACE"));
        }
        if self.words(&["TABLE"]) {
            return self.create_table(RelationKind::Table);
        }
        if self.words(&["SOURCE"]) {
            return self.create_table(RelationKind::Source);
        }
        const LATER: [&str; 11] = [
            "SINK",
            "VIEW",
            "INDEX",
            "FUNCTION",
            "DATABASE",
            "USER",
            "ROLE",
            "CONNECTION",
            "SECRET",
            "TYPE",
            "SEQUENCE",
        ];
        match self.peek_word().as_deref() {
            Some("TEMP" | "TEMPORARY") => Err(self.unsupported("CREATE TEMPORARY TABLE")),
            Some(word) if LATER.contains(&word) => Err(self.unsupported(&format!("CREATE {word}"))),
            _ => Err(self.expected("TABLE")),
        }
    }

    fn create_table(&mut self, kind: RelationKind) -> Result<Statement, Error> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.table_name()?;
        if kind == RelationKind::Table && self.is_as_query() {
            return Ok(Statement::CreateTableAs(Box::new(self.create_table_as(name, if_not_exists)?)));
        }
        let Definition { mut columns, primary_key, end: definition_end, wildcard } =
            match self.parser.consume_token(&Token::LParen) {
                true => self.definition()?,
                false => Definition::default(),
            };
        let append_only = self.append_only();
        let on_conflict = self.on_conflict()?;
        self.refuse_clauses()?;
        self.include_columns(&mut columns)?;
        let is_written = kind == RelationKind::Table && definition_end.is_some() && self.at_end();
        let (options, format) = if is_written {
            if let Some(included) = columns.iter().find(|column| column.origin != Origin::Payload) {
                let message = "a table without a connector has no messages to INCLUDE parts of";
                return Err(
                    Error::user(sqlstate::INVALID_TABLE_DEFINITION, message).at(self.text.position(included.location))
                );
            }
            (Vec::new(), None)
        } else {
            let options = self.connector_options(kind, &name)?;
            if let Some(location) = append_only {
                return Err(Error::unsupported("APPEND ONLY of a table with a connector is not supported yet")
                    .at(self.text.position(location)));
            }
            self.include_columns(&mut columns)?;
            (options, Some(self.format()?))
        };
        self.expect_end()?;
        Ok(Statement::CreateTable(Box::new(CreateTable {
            kind,
            name,
            if_not_exists,
            columns,
            primary_key,
            definition_end,
            wildcard,
            options,
            format,
            append_only,
            on_conflict,
        })))
    }

    /// Parses `WITH (…)`, which says where rows come from.
    fn connector_options(&mut self, kind: RelationKind, name: &TableName) -> Result<Vec<WithOption>, Error> {
        if self.words(&["WITH"]) {
            return self.with_options();
        }
        if !self.at_end() {
            return Err(self.expected("INCLUDE or WITH"));
        }
        let place = self.text.position(name.location);
        Err(match kind {
            RelationKind::Table => Error::user(sqlstate::INVALID_TABLE_DEFINITION, "a table needs columns")
                .with_hint("name them: CREATE TABLE t (a integer, …); or say where its rows come from: … WITH (…)"),
            _ => Error::unsupported("a source without a connector is not supported yet")
                .with_hint("say where its rows come from: … WITH (connector = 'nats', …) FORMAT PLAIN ENCODE JSON"),
        }
        .at(place))
    }

    /// Parses `APPEND ONLY`.
    fn append_only(&mut self) -> Option<Location> {
        let location = self.here();
        self.words(&["APPEND", "ONLY"]).then_some(location)
    }

    /// Parses `ON CONFLICT …`, the rule for a row whose key is there already.
    fn on_conflict(&mut self) -> Result<Option<Conflict>, Error> {
        if !self.words(&["ON", "CONFLICT"]) {
            return Ok(None);
        }
        let rules: [(&[&str], Conflict); 5] = [
            (&["DO", "NOTHING"], Conflict::DoNothing),
            (&["OVERWRITE"], Conflict::Overwrite),
            (&["DO", "UPDATE", "FULL"], Conflict::Overwrite),
            (&["DO", "UPDATE", "OVERWRITE"], Conflict::Overwrite),
            (&["DO", "UPDATE", "IF", "NOT", "NULL"], Conflict::UpdateIfNotNull),
        ];
        for (words, rule) in rules {
            if self.words(words) {
                if self.peek_word().as_deref() == Some("WITH") && self.peek_nth_word(1).as_deref() == Some("VERSION") {
                    return Err(self.unsupported("WITH VERSION COLUMN"));
                }
                return Ok(Some(rule));
            }
        }
        Err(self.expected("DO NOTHING, OVERWRITE or DO UPDATE IF NOT NULL"))
    }

    /// Returns true if `AS query` comes next, with names of columns ahead of it or without them.
    fn is_as_query(&self) -> bool {
        if self.peek_word().as_deref() == Some("AS") {
            return true;
        }
        let is_name = matches!(self.parser.peek_nth_token_ref(1).token, Token::Word(_));
        self.parser.peek_token_ref().token == Token::LParen
            && is_name
            && matches!(self.parser.peek_nth_token_ref(2).token, Token::Comma | Token::RParen)
    }

    fn create_table_as(&mut self, name: TableName, if_not_exists: bool) -> Result<CreateTableAs, Error> {
        let columns = self.column_names()?;
        self.expect_words(&["AS"])?;
        if !matches!(self.peek_word().as_deref(), None | Some("SELECT" | "WITH" | "VALUES" | "TABLE")) {
            return Err(self.expected("a query"));
        }
        let query = self.parser.parse_query().map_err(|error| self.lift(error))?;
        let with_data = !self.words(&["WITH", "NO", "DATA"]);
        let _default = self.words(&["WITH", "DATA"]);
        self.expect_end()?;
        Ok(CreateTableAs { name, if_not_exists, columns, query: Box::new(ast::Statement::Query(query)), with_data })
    }

    /// Refuses clauses that RisingWave has between the columns and WITH.
    fn refuse_clauses(&self) -> Result<(), Error> {
        match self.peek_word().as_deref() {
            Some("AS") => Err(self.unsupported("CREATE … AS")),
            Some("FROM") => Err(self.unsupported("CREATE TABLE FROM")),
            _ => Ok(()),
        }
    }

    fn include_columns(&mut self, columns: &mut Vec<ColumnDef>) -> Result<(), Error> {
        while self.words(&["INCLUDE"]) {
            columns.push(self.include_column()?);
        }
        Ok(())
    }

    fn include_column(&mut self) -> Result<ColumnDef, Error> {
        let location = self.here();
        let word = self.peek_word().unwrap_or_default();
        let (origin, ty) = match word.as_str() {
            "OFFSET" => (Origin::Offset, SqlType::Varchar),
            "SUBJECT" => (Origin::Subject, SqlType::Varchar),
            "PARTITION" => (Origin::Partition, SqlType::Varchar),
            "TIMESTAMP" => (Origin::Timestamp, SqlType::Timestamptz),
            "PAYLOAD" => (Origin::WholePayload, SqlType::Jsonb),
            "HEADER" => (Origin::Headers, Origin::headers_type()),
            "KEY" | "FILE" | "DATABASE_NAME" | "SCHEMA_NAME" | "TABLE_NAME" | "COLLECTION_NAME" => {
                let message = format!("messages of NATS have no {}", word.to_lowercase());
                return Err(Error::user(sqlstate::FEATURE_NOT_SUPPORTED, message)
                    .with_hint(format!("the columns that can be included are {INCLUDED}"))
                    .at(self.text.position(location)));
            }
            _ => return Err(self.expected(INCLUDED)),
        };
        self.parser.advance_token();
        let name = format!("_rw_nats_{}", word.to_lowercase());
        let mut column = ColumnDef::new(name, ty, origin, location);
        if column.origin == Origin::Headers {
            self.one_header(&mut column)?;
        }
        if self.words(&["AS"]) {
            (column.name, column.location) = self.name("the name of a column")?;
        }
        Ok(column)
    }

    /// Parses `'name' [bytea | varchar]` after INCLUDE header: one header instead of all of them.
    fn one_header(&mut self, column: &mut ColumnDef) -> Result<(), Error> {
        let Token::SingleQuotedString(header) = self.parser.peek_token().token else { return Ok(()) };
        if header.is_empty() {
            return Err(self.expected("the name of a header"));
        }
        self.parser.advance_token();
        column.name = format!("{}_{header}", column.name);
        column.ty = SqlType::Bytea;
        if !matches!(self.peek_word().as_deref(), None | Some("AS" | "INCLUDE" | "WITH" | "FORMAT")) {
            let here = self.here();
            column.ty = self.column_type()?;
            if !matches!(column.ty, SqlType::Bytea | SqlType::Varchar) {
                let message = format!("a header cannot be of type {}", column.ty);
                return Err(Error::user(sqlstate::DATATYPE_MISMATCH, message)
                    .with_hint("it is bytea or varchar; cast it in queries")
                    .at(self.text.position(here)));
            }
            let ty = if column.ty == SqlType::Bytea { "bytea" } else { "varchar" };
            column.name = format!("{}_{ty}", column.name);
        }
        column.origin = Origin::Header { name: header };
        Ok(())
    }

    /// Parses `(key = value, …)`. The parentheses may be empty.
    pub(super) fn with_options(&mut self) -> Result<Vec<WithOption>, Error> {
        self.expect(&Token::LParen)?;
        let mut options = Vec::new();
        while !self.parser.consume_token(&Token::RParen) {
            options.push(self.with_option()?);
            if !self.parser.consume_token(&Token::Comma) {
                self.expect(&Token::RParen)?;
                break;
            }
        }
        Ok(options)
    }

    fn with_option(&mut self) -> Result<WithOption, Error> {
        let key_location = self.here();
        let mut key = self.option_word()?;
        while self.parser.consume_token(&Token::Period) {
            key.push('.');
            key.push_str(&self.option_word()?);
        }
        self.expect(&Token::Eq)?;
        let (value, value_span) = self.option_value(&key)?;
        Ok(WithOption { key, value, key_location, value_span })
    }

    fn option_word(&mut self) -> Result<String, Error> {
        match self.parser.peek_token().token {
            Token::Word(word) if matches!(word.quote_style, None | Some('"')) => {
                self.parser.advance_token();
                Ok(word.value.to_lowercase())
            }
            _ => Err(self.expected("the name of an option")),
        }
    }

    /// Parses a quoted text, a text in backquotes, a number, or a bare word such as `true`.
    fn option_value(&mut self, key: &str) -> Result<(String, Span), Error> {
        let first = self.parser.peek_token();
        let negative = first.token == Token::Minus;
        if negative {
            self.parser.advance_token();
        }
        let token = self.parser.peek_token();
        let value = match token.token {
            Token::Number(number, _) if negative => format!("-{number}"),
            Token::Number(number, _) => number,
            _ if negative => return Err(self.expected("a number")),
            Token::SingleQuotedString(value) | Token::EscapedStringLiteral(value) => value,
            Token::DollarQuotedString(value) => value.value,
            Token::Word(word) if word.value.eq_ignore_ascii_case("secret") && word.quote_style.is_none() => {
                return Err(self.unsupported("a value from a SECRET"));
            }
            Token::Word(word) if matches!(word.quote_style, None | Some('`')) => word.value,
            _ => return Err(self.expected(&format!("a value for the option \"{key}\""))),
        };
        self.parser.advance_token();
        Ok((value, Span::new(first.span.start, token.span.end)))
    }

    /// Parses `FORMAT PLAIN ENCODE encoding [(option = value, …)]`.
    pub(super) fn format(&mut self) -> Result<Format, Error> {
        if self.at_end() {
            return Err(self.expected("FORMAT PLAIN ENCODE JSON, BYTES or PROTOBUF"));
        }
        let start = self.here();
        self.expect_words(&["FORMAT"])?;
        match self.peek_word().as_deref() {
            Some("PLAIN") => self.parser.advance_token(),
            Some(word @ ("UPSERT" | "DEBEZIUM" | "DEBEZIUM_MONGO" | "MAXWELL" | "CANAL" | "NATIVE" | "NONE")) => {
                return Err(self.unsupported(&format!("FORMAT {word}")).with_hint("use FORMAT PLAIN"));
            }
            _ => return Err(self.expected("PLAIN")),
        }
        if self.peek_word().as_deref() == Some("KEY") {
            return Err(self.unsupported("KEY ENCODE"));
        }
        self.expect_words(&["ENCODE"])?;
        let location = self.here();
        let encoding = match self.peek_word().as_deref() {
            Some("JSON") => Encoding::Json,
            Some("BYTES") => Encoding::Bytes,
            Some("PROTOBUF") => Encoding::Protobuf,
            Some(word @ ("AVRO" | "CSV" | "PARQUET" | "TEXT" | "NATIVE" | "NONE")) => {
                return Err(self
                    .unsupported(&format!("ENCODE {word}"))
                    .with_hint("use ENCODE JSON, ENCODE PROTOBUF or ENCODE BYTES"));
            }
            _ => return Err(self.expected("JSON, BYTES or PROTOBUF")),
        };
        self.parser.advance_token();
        let options = match self.parser.peek_token_ref().token {
            Token::LParen => self.with_options()?,
            _ => Vec::new(),
        };
        if let (Encoding::Json | Encoding::Bytes, Some(option)) = (encoding, options.first()) {
            let name = if encoding == Encoding::Json { "JSON" } else { "BYTES" };
            let message = format!("the option \"{}\" of ENCODE {name} is not supported yet", option.key);
            return Err(
                Error::user(sqlstate::FEATURE_NOT_SUPPORTED, message).at(self.text.position(option.key_location))
            );
        }
        Ok(Format { encoding, start, location, options })
    }
}
