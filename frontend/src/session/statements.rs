//! The prepared statements of a session.
//!
//! Owns those that were made with PREPARE, and the names of those that were made by the protocol, which the connection
//! keeps. Both share their names, as in PostgreSQL. They end with the session.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::Parsed;

/// Prepared statements of a session at a time. Drivers keep a few hundred at most.
pub(crate) const STATEMENTS_MAX: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct PreparedStatements {
    /// Each a `Statement::Prepare`.
    by_sql: HashMap<String, Arc<Parsed>>,
    by_protocol: HashSet<String>,
}

impl PreparedStatements {
    /// Keeps a PREPARE.
    ///
    /// # Errors
    /// `42P05` if the name is taken, `54000` if there are too many.
    pub(crate) fn add(&mut self, name: &str, prepare: Parsed) -> Result<(), Error> {
        self.check_free(name)?;
        self.by_sql.insert(name.to_owned(), Arc::new(prepare));
        Ok(())
    }

    /// # Errors
    /// `26000` if there is none that was made with PREPARE.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Parsed>, Error> {
        self.by_sql.get(name).cloned().ok_or_else(|| missing(name))
    }

    /// The names of all, with the text of those that were made with PREPARE.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let by_sql = self.by_sql.iter().map(|(name, parsed)| (name.as_str(), Some(parsed.sql())));
        by_sql.chain(self.by_protocol.iter().map(|name| (name.as_str(), None)))
    }

    /// Notes the name of a statement of the protocol's. The empty name can be given again and again.
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

    /// Forgets a statement, if there is one: the protocol lets clients close what is not there.
    pub(crate) fn close(&mut self, name: &str) {
        self.by_protocol.remove(name);
        self.by_sql.remove(name);
    }

    /// Forgets a statement.
    ///
    /// # Errors
    /// `26000` if there is none.
    pub(crate) fn deallocate(&mut self, name: &str) -> Result<(), Error> {
        if self.by_sql.remove(name).is_some() || self.by_protocol.remove(name) { Ok(()) } else { Err(missing(name)) }
    }

    /// Forgets all statements; returns the names of the protocol's.
    pub(crate) fn deallocate_all(&mut self) -> HashSet<String> {
        self.by_sql.clear();
        std::mem::take(&mut self.by_protocol)
    }

    /// Whether a name can be given to another statement. The empty one always can.
    ///
    /// # Errors
    /// `42P05` if it is taken, `54000` if there are too many.
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
