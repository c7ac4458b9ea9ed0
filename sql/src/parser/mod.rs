//! Parses text into statements.
//!
//! sqlparser parses queries; this module parses the statements that sqlparser lacks or reads
//! differently, on its tokens. Owns grammar and positions. Knows no catalog: a later step checks
//! that tables exist.

mod alter;
mod comment;
mod copy;
mod create_table;
mod create_view;
mod cursor;
mod declare;
mod definition;
mod depth;
mod edit;
mod lex;
mod prepare;
mod schema;
mod set;
mod transaction;
mod types;
mod write;

use std::fmt;
use std::sync::Arc;

use sqlparser::ast;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};
use weir_common::catalog::{RelationKind, RelationName};

pub use alter::{Alter, Change, ColumnEdit};
pub use comment::Comment;
pub use copy::{CopyFormat, CopyFrom};
pub use create_table::{ColumnDef, ColumnRef, Computed, CreateTable, CreateTableAs, Encoding, Format, WithOption};
pub use create_view::CreateView;
use cursor::Cursor;
pub use cursor::{DATABASE, PG_CATALOG, SCHEMA, fold, identifiers};
pub use declare::{Declare, Fetch};
pub use edit::{add_column, amend, redact, reformat, renamed, retype, stored, with_columns, with_schemas};
pub(crate) use lex::Text;
pub use prepare::{Execute, Prepare};
pub use schema::{SchemaCommand, SchemaName};
pub use transaction::TransactionModes;
pub(crate) use types::{known_type, named_type};
pub use write::{Command, ConflictKey, Delete, Insert, OnConflict, Update, Write};

use crate::error::{Error, sqlstate};

/// One statement of a client's text.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The parsed statement.
    pub statement: Statement,
    /// The whole text, which the locations in `statement` refer to.
    pub script: Arc<str>,
    /// The statement's bytes in `script`.
    range: std::ops::Range<usize>,
    /// Notices for the client.
    pub notices: Vec<String>,
}

impl Parsed {
    /// The statement as it was written, without the semicolon.
    pub fn sql(&self) -> &str {
        &self.script[self.range.clone()]
    }

    /// True if a failed transaction may run the statement.
    pub fn ends_transaction(&self) -> bool {
        matches!(self.statement, Statement::Commit | Statement::Rollback | Statement::RollbackTo(_))
    }

    /// The position of a location in the client's text.
    pub fn position(&self, location: Location) -> usize {
        Text(&self.script).position(location)
    }
}

/// The statements that a client can send.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `CREATE { TABLE | SOURCE }`.
    CreateTable(Box<CreateTable>),
    /// `CREATE TABLE … AS query`.
    CreateTableAs(Box<CreateTableAs>),
    /// `INSERT`, `UPDATE`, `DELETE`.
    Write(Box<Write>),
    /// `COPY table FROM STDIN`.
    CopyFrom(Box<CopyFrom>),
    /// `CREATE [OR REPLACE] VIEW`, `CREATE MATERIALIZED VIEW`.
    CreateView(Box<CreateView>),
    /// `EXPLAIN CREATE { TABLE | SOURCE }`.
    ExplainCreate(Box<CreateTable>),
    /// `EXPLAIN CREATE MATERIALIZED VIEW`.
    ExplainView(Box<CreateView>),
    /// `ALTER { TABLE | SOURCE | VIEW | MATERIALIZED VIEW }`.
    Alter(Box<Alter>),
    /// `COMMENT ON`.
    Comment(Box<Comment>),
    /// `DROP { TABLE | SOURCE | VIEW | MATERIALIZED VIEW }`.
    Drop {
        /// The kind of relation that the statement names.
        kind: RelationKind,
        /// The relations, in the order of the text.
        names: Vec<TableName>,
        /// True if missing relations are skipped.
        if_exists: bool,
        /// True if dependent relations are dropped too.
        cascade: bool,
    },
    /// `CREATE SCHEMA` and the like.
    Schema(SchemaCommand),
    /// `SHOW { TABLES | SOURCES | VIEWS | MATERIALIZED VIEWS } [FROM schema]`.
    ShowRelations(RelationKind, Option<SchemaName>),
    /// `SHOW SCHEMAS`.
    ShowSchemas,
    /// `SHOW DATABASES`.
    ShowDatabases,
    /// `SHOW CREATE { TABLE | SOURCE | VIEW | MATERIALIZED VIEW }`.
    ShowCreate(RelationKind, TableName),
    /// `SHOW CLUSTER`.
    ShowCluster,
    /// `SHOW JOBS`.
    ShowJobs,
    /// `CANCEL { JOB | JOBS } id, …`.
    CancelJobs(Vec<u32>),
    /// `VERIFY MATERIALIZED VIEW name`.
    Verify(TableName),
    /// `DESCRIBE name`.
    Describe(TableName),
    /// `FLUSH`.
    Flush,
    /// `SHOW name`.
    ShowVariable(String),
    /// `SHOW ALL`.
    ShowAll,
    /// `SET name TO value`, `RESET name`; `None` sets the default.
    Set {
        /// The variable.
        name: String,
        /// The new value.
        value: Option<String>,
        /// True if the value holds until the transaction ends.
        is_local: bool,
        /// The location of its name.
        location: Location,
    },
    /// `RESET ALL`.
    ResetAll,
    /// `BEGIN`.
    Begin(TransactionModes),
    /// `SET TRANSACTION`, `SET SESSION CHARACTERISTICS AS TRANSACTION`.
    SetTransaction {
        /// The modes that it sets.
        modes: TransactionModes,
        /// True if the modes hold for all later transactions of the session.
        of_session: bool,
    },
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SAVEPOINT name`.
    Savepoint(String),
    /// `RELEASE name`.
    Release(String),
    /// `ROLLBACK TO name`.
    RollbackTo(String),
    /// `DEALLOCATE name`; `None` for all.
    Deallocate(Option<String>),
    /// `DISCARD ALL`.
    DiscardAll,
    /// Accepted because drivers send it, and answered with its tag only.
    Nothing(&'static str),
    /// A query, or EXPLAIN of one, which DataFusion plans.
    Query(Box<ast::Statement>),
    /// `COPY … TO STDOUT` of a query, or of a table as a query.
    Copy {
        /// The query.
        query: Box<ast::Statement>,
        /// The format in which its rows are sent.
        format: CopyFormat,
    },
    /// `PREPARE name AS query`.
    Prepare(Box<Prepare>),
    /// `EXECUTE name (arguments)`.
    Execute(Box<Execute>),
    /// `DECLARE name CURSOR FOR query`.
    Declare(Box<Declare>),
    /// `FETCH`.
    Fetch(Fetch),
    /// `MOVE`: like FETCH, but returns only the number of rows.
    Move(Fetch),
    /// `CLOSE name`; `None` for every cursor.
    Close(Option<String>),
}

/// A table's name as a statement has it, and its location.
#[derive(Clone, Debug, PartialEq)]
pub struct TableName {
    /// The schema, if the statement names it.
    pub schema: Option<String>,
    /// Folded to lower case, unless it was quoted.
    pub name: String,
    /// Its location in the script.
    pub location: Location,
    /// The location behind it.
    pub end: Location,
}

impl TableName {
    /// The name of a relation, whose schema is `public` unless the statement names another one.
    pub fn relation(&self) -> RelationName {
        RelationName::new(self.schema.as_deref().unwrap_or(SCHEMA), &self.name)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Larger texts are refused, because a syntax tree is many times as large as its text.
const SCRIPT_BYTES_MAX: usize = 16 << 20;

/// Parses the statements of a text, which semicolons separate.
///
/// # Errors
/// The user's, with SQLSTATE and position. One statement that cannot be parsed fails the whole
/// text, as in PostgreSQL.
pub fn parse(sql: &str) -> Result<Vec<Parsed>, Error> {
    if sql.len() > SCRIPT_BYTES_MAX {
        let message = format!("a text of {} bytes is larger than the limit of {SCRIPT_BYTES_MAX}", sql.len());
        return Err(Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).with_hint("send its statements one by one"));
    }
    let text = Text(sql);
    let script: Arc<str> = Arc::from(sql);
    let pieces = lex::statements(text.tokens()?);
    let mut walk = lex::Walk::new(text);
    pieces
        .into_iter()
        .map(|mut tokens| {
            let span = extent(&tokens);
            let cut = lex::truncate_names(&mut tokens);
            let range = walk.offset(span.start)..walk.offset(span.end);
            let bound = depth::bound(&tokens);
            let statement = depth::within(bound, || Cursor::new(tokens, text, &cut).statement())?;
            let notices = cut.iter().map(lex::Cut::to_string).collect();
            Ok(Parsed { statement, script: Arc::clone(&script), range, notices })
        })
        .collect()
}

/// The span from the first token that is not white space to the last one.
fn extent(tokens: &[TokenWithSpan]) -> Span {
    let mut solid = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let first = solid.next().map_or(Span::empty(), |token| token.span);
    let last = solid.next_back().map_or(first, |token| token.span);
    Span::new(first.start, last.end)
}

impl Cursor<'_> {
    fn statement(&mut self) -> Result<Statement, Error> {
        let Some(word) = self.peek_word() else {
            return self.query();
        };
        match word.as_str() {
            "EXPLAIN" if self.words(&["EXPLAIN", "CREATE", "MATERIALIZED", "VIEW"]) => {
                let view = self.create_view(RelationKind::MaterializedView, false)?;
                Ok(Statement::ExplainView(Box::new(view)))
            }
            "EXPLAIN" if self.words(&["EXPLAIN", "CREATE"]) => match self.create()? {
                Statement::CreateTable(create) => Ok(Statement::ExplainCreate(create)),
                _ => Err(self.unsupported("EXPLAIN CREATE TABLE … AS")),
            },
            "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE" => self.write(),
            "SELECT" | "WITH" | "VALUES" | "EXPLAIN" => self.query(),
            "COPY" => self.copy(),
            "PREPARE" => self.prepare(),
            "EXECUTE" => self.execute(),
            "CREATE" => {
                if let Some(view) = self.new_view()? {
                    return Ok(Statement::CreateView(Box::new(view)));
                }
                self.parser.advance_token();
                if self.words(&["SCHEMA"]) { self.create_schema() } else { self.create() }
            }
            "ALTER" if self.words(&["ALTER", "SCHEMA"]) => self.alter_schema(),
            "ALTER" => self.alter(),
            "COMMENT" => self.comment(),
            "DROP" if self.words(&["DROP", "SCHEMA"]) => self.drop_schemas(),
            "DROP" => self.drop_relations(),
            "SHOW" => self.show(),
            "DESCRIBE" | "DESC" => {
                self.parser.advance_token();
                let _kind = self.words(&["TABLE"])
                    || self.words(&["SOURCE"])
                    || self.words(&["VIEW"])
                    || self.words(&["MATERIALIZED", "VIEW"]);
                let name = self.table_name()?;
                self.expect_end()?;
                Ok(Statement::Describe(name))
            }
            "CANCEL" => self.cancel_jobs(),
            "VERIFY" => {
                self.expect_words(&["VERIFY", "MATERIALIZED", "VIEW"])?;
                let name = self.table_name()?;
                self.expect_end()?;
                Ok(Statement::Verify(name))
            }
            "FLUSH" => self.bare(&["FLUSH"], Statement::Flush),
            "SET" => self.set(),
            "RESET" => self.reset(),
            "BEGIN" | "START" => self.begin(),
            "COMMIT" | "END" => self.end_transaction(Statement::Commit),
            "ROLLBACK" | "ABORT" => self.end_transaction(Statement::Rollback),
            "SAVEPOINT" => {
                self.parser.advance_token();
                Ok(Statement::Savepoint(self.savepoint()?))
            }
            "RELEASE" => {
                self.parser.advance_token();
                let _noise = self.words(&["SAVEPOINT"]);
                Ok(Statement::Release(self.savepoint()?))
            }
            "UNLISTEN" => Ok(self.nothing("UNLISTEN")),
            "DECLARE" => self.declare(),
            "FETCH" => Ok(Statement::Fetch(self.fetch()?)),
            "MOVE" => Ok(Statement::Move(self.fetch()?)),
            "CLOSE" => self.close(),
            "DISCARD" => self.bare(&["DISCARD", "ALL"], Statement::DiscardAll),
            "DEALLOCATE" => self.deallocate(),
            _ => Err(self.refuse(&word)),
        }
    }

    /// Refuses statements that PostgreSQL or RisingWave have and this version lacks.
    fn refuse(&self, word: &str) -> Error {
        const LATER: [&str; 12] = [
            "ANALYZE",
            "CALL",
            "CHECKPOINT",
            "CLUSTER",
            "DO",
            "GRANT",
            "KILL",
            "LISTEN",
            "LOCK",
            "MERGE",
            "NOTIFY",
            "REVOKE",
        ];
        if LATER.contains(&word) { self.unsupported(word) } else { self.expected("a statement") }
    }

    fn query(&mut self) -> Result<Statement, Error> {
        let statement = self.parser.parse_statement().map_err(|error| self.lift(error))?;
        self.expect_end()?;
        match statement {
            ast::Statement::Query(mut query) => match self.write_behind(&mut query) {
                Some(write) => Ok(Statement::Write(Box::new(write?))),
                None => Ok(Statement::Query(Box::new(ast::Statement::Query(query)))),
            },
            ast::Statement::Explain { statement: ref inner, .. } if matches!(**inner, ast::Statement::Query(_)) => {
                Ok(Statement::Query(Box::new(statement)))
            }
            _ => Err(Error::unsupported("EXPLAIN is for queries only")),
        }
    }

    fn cancel_jobs(&mut self) -> Result<Statement, Error> {
        self.parser.advance_token();
        if !self.words(&["JOB"]) && !self.words(&["JOBS"]) {
            return Err(self.expected("JOB or JOBS"));
        }
        let mut jobs = Vec::new();
        loop {
            let id = self.parser.parse_literal_uint().ok().and_then(|id| u32::try_from(id).ok());
            jobs.push(id.ok_or_else(|| self.expected("the id of a job"))?);
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_end()?;
        Ok(Statement::CancelJobs(jobs))
    }

    /// Consumes the word that begins a statement, and parses the kind of relation after it.
    pub(super) fn relation_kind(&mut self, verb: &str) -> Result<RelationKind, Error> {
        self.parser.advance_token();
        self.kind_of_relation(verb)
    }

    /// Parses the kind of relation that a statement names.
    pub(super) fn kind_of_relation(&mut self, verb: &str) -> Result<RelationKind, Error> {
        let kind = match self.peek_word().as_deref() {
            Some("TABLE") => RelationKind::Table,
            Some("SOURCE") => RelationKind::Source,
            Some("VIEW") => RelationKind::View,
            Some("MATERIALIZED") => {
                self.expect_words(&["MATERIALIZED", "VIEW"])?;
                return Ok(RelationKind::MaterializedView);
            }
            Some(word @ ("SINK" | "INDEX" | "FUNCTION" | "DATABASE" | "USER")) => {
                return Err(self.unsupported(&format!("{verb} {word}")));
            }
            _ => return Err(self.expected("TABLE, SOURCE, VIEW or MATERIALIZED VIEW")),
        };
        self.parser.advance_token();
        Ok(kind)
    }

    fn drop_relations(&mut self) -> Result<Statement, Error> {
        let kind = self.relation_kind("DROP")?;
        let if_exists = self.words(&["IF", "EXISTS"]);
        let mut names = vec![self.table_name()?];
        while self.parser.consume_token(&sqlparser::tokenizer::Token::Comma) {
            names.push(self.table_name()?);
        }
        let cascade = self.drop_behavior()?;
        Ok(Statement::Drop { kind, names, if_exists, cascade })
    }

    fn bare(&mut self, words: &[&str], statement: Statement) -> Result<Statement, Error> {
        self.expect_words(words)?;
        self.expect_end()?;
        Ok(statement)
    }

    pub(super) fn nothing(&mut self, tag: &'static str) -> Statement {
        self.skip_rest();
        Statement::Nothing(tag)
    }

    fn end_transaction(&mut self, statement: Statement) -> Result<Statement, Error> {
        self.parser.advance_token();
        let _noise = self.words(&["WORK"]) || self.words(&["TRANSACTION"]);
        if matches!(statement, Statement::Rollback) && self.words(&["TO"]) {
            let _noise = self.words(&["SAVEPOINT"]);
            return Ok(Statement::RollbackTo(self.savepoint()?));
        }
        if self.words(&["AND", "CHAIN"]) {
            return Err(self.unsupported("AND CHAIN"));
        }
        let _default = self.words(&["AND", "NO", "CHAIN"]);
        self.expect_end()?;
        Ok(statement)
    }

    fn savepoint(&mut self) -> Result<String, Error> {
        let (name, _) = self.name("the name of a savepoint")?;
        self.expect_end()?;
        Ok(name)
    }

    fn deallocate(&mut self) -> Result<Statement, Error> {
        self.parser.advance_token();
        let _noise = self.words(&["PREPARE"]);
        if self.words(&["ALL"]) {
            self.expect_end()?;
            return Ok(Statement::Deallocate(None));
        }
        let (name, _) = self.name("the name of a prepared statement")?;
        self.expect_end()?;
        Ok(Statement::Deallocate(Some(name)))
    }
}

#[cfg(test)]
mod tests;
