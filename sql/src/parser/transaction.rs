//! `BEGIN`, `START TRANSACTION`, `SET TRANSACTION`, `SET SESSION CHARACTERISTICS`: the modes of
//! transactions.

use sqlparser::tokenizer::Token;

use super::Statement;
use super::cursor::Cursor;
use crate::error::Error;

/// The transaction modes that a statement sets. The others stay unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionModes {
    isolation: Option<&'static str>,
    read_only: Option<bool>,
    deferrable: Option<bool>,
}

impl TransactionModes {
    /// The equivalent variables of a transaction, with their values. The session's have the prefix
    /// `default_`.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let on_off = |is_on: bool| if is_on { "on" } else { "off" };
        let settings = [
            ("transaction_isolation", self.isolation),
            ("transaction_read_only", self.read_only.map(on_off)),
            ("transaction_deferrable", self.deferrable.map(on_off)),
        ];
        settings.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Isolation levels, with the words that name them.
const LEVELS: [(&[&str], &str); 4] = [
    (&["SERIALIZABLE"], "serializable"),
    (&["REPEATABLE", "READ"], "repeatable read"),
    (&["READ", "COMMITTED"], "read committed"),
    (&["READ", "UNCOMMITTED"], "read uncommitted"),
];

impl Cursor<'_> {
    pub(super) fn begin(&mut self) -> Result<Statement, Error> {
        if self.words(&["BEGIN"]) {
            let _noise = self.words(&["WORK"]) || self.words(&["TRANSACTION"]);
        } else {
            self.expect_words(&["START", "TRANSACTION"])?;
        }
        Ok(Statement::Begin(self.transaction_modes()?))
    }

    /// Parses the statement after `SET TRANSACTION`.
    pub(super) fn set_transaction(&mut self) -> Result<Statement, Error> {
        if self.words(&["SNAPSHOT"]) {
            return Err(self.unsupported("SET TRANSACTION SNAPSHOT"));
        }
        self.set_modes(false)
    }

    /// Parses the statement after `SET SESSION CHARACTERISTICS`.
    pub(super) fn set_characteristics(&mut self) -> Result<Statement, Error> {
        self.expect_words(&["AS", "TRANSACTION"])?;
        self.set_modes(true)
    }

    fn set_modes(&mut self, of_session: bool) -> Result<Statement, Error> {
        if self.at_end() {
            return Err(self.expected("a mode of transactions"));
        }
        Ok(Statement::SetTransaction { modes: self.transaction_modes()?, of_session })
    }

    /// Parses modes up to the end of the statement. The commas between them are optional.
    fn transaction_modes(&mut self) -> Result<TransactionModes, Error> {
        let mut modes = TransactionModes::default();
        while !self.at_end() {
            if self.words(&["ISOLATION", "LEVEL"]) {
                let level = LEVELS.into_iter().find(|(words, _)| self.words(words));
                let (_, level) = level.ok_or_else(|| self.expected("an isolation level"))?;
                modes.isolation = Some(level);
            } else if self.words(&["READ", "ONLY"]) {
                modes.read_only = Some(true);
            } else if self.words(&["READ", "WRITE"]) {
                modes.read_only = Some(false);
            } else if self.words(&["DEFERRABLE"]) {
                modes.deferrable = Some(true);
            } else if self.words(&["NOT", "DEFERRABLE"]) {
                modes.deferrable = Some(false);
            } else {
                return Err(self.expected("ISOLATION LEVEL, READ ONLY, READ WRITE or DEFERRABLE"));
            }
            if self.parser.consume_token(&Token::Comma) && self.at_end() {
                return Err(self.expected("a mode of transactions"));
            }
        }
        Ok(modes)
    }
}
