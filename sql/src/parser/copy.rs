//! `COPY (query) TO STDOUT`, `COPY table [(columns)] TO STDOUT` and `COPY table [(columns)] FROM
//! STDIN`, with options in both of PostgreSQL's notations.

use sqlparser::ast::{
    self, CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource, CopyTarget, Expr, SelectItem, SetExpr,
    TableFactor,
};

use sqlparser::tokenizer::{Span, Token};

use super::create_table::ColumnRef;
use super::cursor::{Cursor, fold};
use super::{Statement, TableName};
use crate::error::{Error, sqlstate};

/// The format of the rows. Characters are single bytes, as PostgreSQL requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// `FORMAT text`.
    Text {
        /// The byte between two values.
        delimiter: u8,
        /// The text that stands for NULL.
        null: String,
        /// True if the first row holds the names of the columns.
        header: bool,
    },
    /// `FORMAT csv`.
    Csv {
        /// The byte between two values.
        delimiter: u8,
        /// The text that stands for NULL.
        null: String,
        /// True if the first row holds the names of the columns.
        header: bool,
        /// The byte around a quoted value.
        quote: u8,
        /// The byte before a quote in a value.
        escape: u8,
        /// Columns that are quoted even where they need not be.
        force_quote: Vec<String>,
    },
    /// `FORMAT binary`.
    Binary,
}

/// `COPY table [(columns)] FROM STDIN`.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyFrom {
    /// The table.
    pub table: TableName,
    /// The columns that the rows have; none: the table's, in their order.
    pub columns: Vec<ColumnRef>,
    /// The format of the rows.
    pub format: CopyFormat,
}

impl Cursor<'_> {
    pub(super) fn copy(&mut self) -> Result<Statement, Error> {
        let position = self.position();
        if let Some(target) = self.copy_target() {
            return self.copy_from(target);
        }
        let statement = self.parser.parse_statement().map_err(|error| self.lift(error))?;
        self.expect_end()?;
        let ast::Statement::Copy { source, to, target, options, legacy_options, .. } = statement else {
            return Err(self.expected("COPY … TO STDOUT"));
        };
        if !to {
            return Err(self.expected("COPY … TO STDOUT"));
        }
        // As in PostgreSQL, either word means the client, whatever the direction; PHP sends STDIN.
        if !matches!(target, CopyTarget::Stdout | CopyTarget::Stdin) {
            return Err(Error::unsupported("COPY to a file or a program of the server is not supported")
                .with_hint("use COPY … TO STDOUT, or \\copy of psql")
                .at(position));
        }
        let format =
            Options::of(&options, &legacy_options).and_then(Options::format).map_err(|error| error.at(position))?;
        let query = match source {
            CopySource::Query(query) => query,
            CopySource::Table { table_name, columns } => whole_table(table_name, columns)?,
        };
        Ok(Statement::Copy { query: Box::new(ast::Statement::Query(query)), format })
    }
}

impl Cursor<'_> {
    /// Consumes `COPY table [(columns)] FROM`; consumes nothing of any other COPY.
    fn copy_target(&mut self) -> Option<(TableName, Vec<ColumnRef>)> {
        let begin = self.parser.index();
        self.parser.advance_token();
        if self.parser.peek_token_ref().token != Token::LParen
            && let Ok(table) = self.table_name()
            && let Ok(columns) = self.column_names()
            && self.words(&["FROM"])
        {
            return Some((table, columns));
        }
        while self.parser.index() > begin {
            self.parser.prev_token();
        }
        None
    }

    /// Parses what follows `COPY table [(columns)] FROM`. sqlparser would take the rest of the text
    /// for rows, so it is given a COPY TO with the same options.
    fn copy_from(&mut self, (table, columns): (TableName, Vec<ColumnRef>)) -> Result<Statement, Error> {
        let position = self.position();
        if !self.words(&["STDIN"]) && !self.words(&["STDOUT"]) {
            return Err(Error::unsupported("COPY from a file or a program of the server is not supported")
                .with_hint("use COPY … FROM STDIN, or \\copy of psql")
                .at(position));
        }
        let (start, has_options) = (self.here(), !self.at_end());
        self.skip_rest();
        let options = if has_options { self.text.slice(Span::new(start, self.behind())) } else { "" };
        let script = format!("COPY t TO STDOUT {options}");
        match super::parse(&script).map(|mut parsed| parsed.pop().map(|parsed| parsed.statement)) {
            Ok(Some(Statement::Copy { format, .. })) => {
                Ok(Statement::CopyFrom(Box::new(CopyFrom { table, columns, format })))
            }
            Ok(_) => Err(Error::user(sqlstate::SYNTAX_ERROR, "the options of COPY cannot be read").at(position)),
            Err(error) => Err(Error { position: None, ..error }.at(position)),
        }
    }
}

/// `SELECT columns FROM table`, with locations in the client's text.
fn whole_table(table: ast::ObjectName, columns: Vec<ast::Ident>) -> Result<Box<ast::Query>, Error> {
    let pattern = super::parse("SELECT * FROM t")?.pop().map(|parsed| parsed.statement);
    let Some(Statement::Query(pattern)) = pattern else {
        return Err(Error::internal("a SELECT is not a query"));
    };
    let ast::Statement::Query(mut query) = *pattern else {
        return Err(Error::internal("a SELECT is not a query"));
    };
    if let SetExpr::Select(select) = query.body.as_mut() {
        if !columns.is_empty() {
            select.projection =
                columns.into_iter().map(|column| SelectItem::UnnamedExpr(Expr::Identifier(column))).collect();
        }
        if let Some(TableFactor::Table { name, .. }) = select.from.first_mut().map(|from| &mut from.relation) {
            *name = table;
        }
    }
    Ok(query)
}

/// The options as given; the defaults depend on the format.
#[derive(Default)]
struct Options {
    format: Option<String>,
    delimiter: Option<char>,
    null: Option<String>,
    header: bool,
    quote: Option<char>,
    escape: Option<char>,
    force_quote: Vec<String>,
}

impl Options {
    fn of(options: &[CopyOption], legacy: &[CopyLegacyOption]) -> Result<Options, Error> {
        let mut given = Options::default();
        for option in options {
            given.take(option)?;
        }
        for option in legacy {
            match option {
                CopyLegacyOption::Binary => given.format = Some("binary".to_owned()),
                CopyLegacyOption::Csv(options) => {
                    given.format = Some("csv".to_owned());
                    options.iter().for_each(|option| given.take_csv(option));
                }
                CopyLegacyOption::Delimiter(delimiter) => given.delimiter = Some(*delimiter),
                CopyLegacyOption::Null(null) => given.null = Some(null.clone()),
                CopyLegacyOption::Header => given.header = true,
                other => return Err(unsupported(other)),
            }
        }
        Ok(given)
    }

    fn take(&mut self, option: &CopyOption) -> Result<(), Error> {
        match option {
            CopyOption::Format(format) => self.format = Some(fold(format)),
            CopyOption::Delimiter(delimiter) => self.delimiter = Some(*delimiter),
            CopyOption::Null(null) => self.null = Some(null.clone()),
            CopyOption::Header(header) => self.header = *header,
            CopyOption::Quote(quote) => self.quote = Some(*quote),
            CopyOption::Escape(escape) => self.escape = Some(*escape),
            CopyOption::ForceQuote(columns) => self.force_quote = columns.iter().map(fold).collect(),
            CopyOption::Encoding(name) if ["utf8", "utf-8"].contains(&name.to_lowercase().as_str()) => {}
            other => return Err(unsupported(other)),
        }
        Ok(())
    }

    fn take_csv(&mut self, option: &CopyLegacyCsvOption) {
        match option {
            CopyLegacyCsvOption::Header => self.header = true,
            CopyLegacyCsvOption::Quote(quote) => self.quote = Some(*quote),
            CopyLegacyCsvOption::Escape(escape) => self.escape = Some(*escape),
            CopyLegacyCsvOption::ForceQuote(columns) => self.force_quote = columns.iter().map(fold).collect(),
            // Only COPY FROM uses this option.
            CopyLegacyCsvOption::ForceNotNull(_) => {}
        }
    }

    fn format(self) -> Result<CopyFormat, Error> {
        let format = self.format.as_deref().unwrap_or("text");
        if format != "csv" && (self.quote.is_some() || self.escape.is_some() || !self.force_quote.is_empty()) {
            return Err(Error::unsupported("COPY QUOTE, ESCAPE and FORCE_QUOTE are available only in CSV mode"));
        }
        match format {
            "text" => {
                let delimiter = one_byte("delimiter", self.delimiter, b'\t')?;
                // After a backslash these bytes have another meaning.
                if matches!(delimiter, b'\\' | b'.' | b'a'..=b'z' | b'0'..=b'9') {
                    return Err(invalid(&format!("COPY delimiter cannot be \"{}\"", char::from(delimiter))));
                }
                let null = self.null.unwrap_or_else(|| "\\N".to_owned());
                check_null(&null, delimiter, None)?;
                Ok(CopyFormat::Text { delimiter, null, header: self.header })
            }
            "csv" => {
                let quote = one_byte("quote", self.quote, b'"')?;
                let delimiter = one_byte("delimiter", self.delimiter, b',')?;
                if delimiter == quote {
                    return Err(invalid("COPY delimiter and quote must be different"));
                }
                let null = self.null.unwrap_or_default();
                check_null(&null, delimiter, Some(quote))?;
                let escape = one_byte("escape", self.escape, quote)?;
                Ok(CopyFormat::Csv {
                    delimiter,
                    null,
                    header: self.header,
                    quote,
                    escape,
                    force_quote: self.force_quote,
                })
            }
            "binary" if self.delimiter.is_some() || self.null.is_some() || self.header => {
                Err(invalid("cannot specify DELIMITER, NULL or HEADER in BINARY mode"))
            }
            "binary" => Ok(CopyFormat::Binary),
            other => Err(invalid(&format!("COPY format \"{other}\" not recognized"))
                .with_hint("the formats are text, csv and binary")),
        }
    }
}

fn one_byte(what: &str, given: Option<char>, default: u8) -> Result<u8, Error> {
    match given {
        None => Ok(default),
        Some('\n' | '\r') if what == "delimiter" => Err(invalid("COPY delimiter cannot be newline or carriage return")),
        Some(character) => u8::try_from(character)
            .ok()
            .filter(u8::is_ascii)
            .ok_or_else(|| invalid(&format!("COPY {what} must be a single one-byte character"))),
    }
}

/// Checks that NULL cannot be mistaken for several values or for a value's quote.
fn check_null(null: &str, delimiter: u8, quote: Option<u8>) -> Result<(), Error> {
    if null.contains(['\n', '\r']) {
        return Err(invalid("COPY null representation cannot use newline or carriage return"));
    }
    if null.contains(char::from(delimiter)) {
        return Err(invalid("COPY delimiter must not appear in the NULL specification"));
    }
    match quote {
        Some(quote) if null.contains(char::from(quote)) => {
            Err(invalid("CSV quote character must not appear in the NULL specification"))
        }
        _ => Ok(()),
    }
}

fn invalid(message: &str) -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
}

fn unsupported(option: &impl std::fmt::Display) -> Error {
    Error::unsupported(format!("the option {option} of COPY is not supported"))
}
