//! The prepared statements of a session.
//!
//! This module owns the statements made by PREPARE, and the names of the statements made by the
//! protocol, which the connection keeps. As in PostgreSQL, both share one set of names. They end
//! with the session.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::Parsed;

/// The maximum number of prepared statements in a session. Drivers keep a few hundred at most.
pub(crate) const STATEMENTS_MAX: usize = 4_096;

/// The prepared statements of a session, by name.
#[derive(Debug, Default)]
pub(crate) struct PreparedStatements {
    /// Each value is a `Statement::Prepare`.
    by_sql: HashMap<String, Arc<Parsed>>,
    by_protocol: HashSet<String>,
}

impl PreparedStatements {
    /// Adds a statement made by PREPARE.
    ///
    /// # Errors
    /// `42P05` if the name is taken, `54000` if there are too many.
    pub(crate) fn add(&mut self, name: &str, prepare: Parsed) -> Result<(), Error> {
        self.check_free(name)?;
        self.by_sql.insert(name.to_owned(), Arc::new(prepare));
        Ok(())
    }

    /// # Errors
    /// `26000` if no PREPARE made such a statement.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Parsed>, Error> {
        self.by_sql.get(name).cloned().ok_or_else(|| missing(name))
    }

    /// Returns the names of all statements, with the text of those made by PREPARE.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let by_sql = self.by_sql.iter().map(|(name, parsed)| (name.as_str(), Some(parsed.sql())));
        by_sql.chain(self.by_protocol.iter().map(|name| (name.as_str(), None)))
    }

    /// Adds the name of a statement made by the protocol. The empty name can be reused at any time.
    ///
    /// # Errors
    /// `42P05` if the name is taken, `54000` if there are too many.
    pub(crate) fn add_protocol(&mut self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Ok(());
        }
        self.check_free(name)?;
        self.by_protocol.insert(name.to_owned());
        Ok(())
    }

    /// Removes a statement. It need not exist, because the protocol lets clients close unknown
    /// names.
    pub(crate) fn close(&mut self, name: &str) {
        self.by_protocol.remove(name);
        self.by_sql.remove(name);
    }

    /// Removes a statement.
    ///
    /// # Errors
    /// `26000` if there is no such statement.
    pub(crate) fn deallocate(&mut self, name: &str) -> Result<(), Error> {
        if self.by_sql.remove(name).is_some() || self.by_protocol.remove(name) { Ok(()) } else { Err(missing(name)) }
    }

    /// Removes all statements; returns the names of those made by the protocol.
    pub(crate) fn deallocate_all(&mut self) -> HashSet<String> {
        self.by_sql.clear();
        std::mem::take(&mut self.by_protocol)
    }

    /// Checks that a statement can be added under a name. The empty name is always free.
    ///
    /// # Errors
    /// `42P05` if the name is taken, `54000` if there are too many.
    pub(crate) fn check_free(&self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Ok(());
        }
        if self.by_sql.contains_key(name) || self.by_protocol.contains(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Error::user(sqlstate::DUPLICATE_PREPARED_STATEMENT, message));
        }
        if self.by_sql.len() + self.by_protocol.len() >= STATEMENTS_MAX {
            let message = format!("a session can have at most {STATEMENTS_MAX} prepared statements");
            return Err(Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, message)
                .with_hint("close or deallocate those that are not needed any more"));
        }
        Ok(())
    }
}

fn missing(name: &str) -> Error {
    Error::user(sqlstate::INVALID_SQL_STATEMENT_NAME, format!("prepared statement \"{name}\" does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_number_is_bounded() {
        let mut statements = PreparedStatements::default();
        for number in 0..STATEMENTS_MAX {
            statements.add_protocol(&number.to_string()).expect("a free name");
        }
        let error = statements.add_protocol("x").expect_err("too many");
        assert_eq!((error.sqlstate.as_ref(), error.hint.is_some()), ("54000", true));
        statements.add_protocol("").expect("the one without a name is always free");
        statements.close("7");
        statements.add_protocol("x").expect("there is room again");
    }
}
