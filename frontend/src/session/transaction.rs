//! Transaction blocks, as far as a session that only reads needs them: the open block, its
//! savepoints, and the epoch that it reads.
//!
//! Each statement of a block reads one committed epoch of its own. Under REPEATABLE READ and
//! SERIALIZABLE, all statements read the epoch of the first one, which stays pinned until the block
//! ends. SERIALIZABLE needs no more than that, because a session writes nothing.

use std::sync::Arc;

use weir_sql::error::{Error, sqlstate};

use crate::snapshot::Snapshot;

/// The maximum number of savepoints in a transaction.
const SAVEPOINTS_MAX: usize = 1_000;

/// The state of a session's transaction block.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    is_open: bool,
    savepoints: Vec<String>,
    /// True once a query has run in it. Its isolation level cannot change any more.
    has_read: bool,
    /// The snapshot that all its queries read.
    snapshot: Option<Arc<Snapshot>>,
}

impl Transaction {
    pub(crate) fn begin(&mut self) {
        self.is_open = true;
    }

    pub(crate) fn end(&mut self) {
        *self = Transaction::default();
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(crate) fn has_read(&self) -> bool {
        self.has_read
    }

    /// Returns the snapshot that every query of the transaction reads, if an earlier query has
    /// fixed it.
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// Records that a query has read a snapshot. A repeatable transaction keeps it for its other
    /// queries.
    pub(crate) fn read(&mut self, snapshot: &Arc<Snapshot>, is_repeatable: bool) {
        if self.is_open {
            self.has_read = true;
            if is_repeatable && self.snapshot.is_none() {
                self.snapshot = Some(Arc::clone(snapshot));
            }
        }
    }

    /// # Errors
    /// `25P01` outside of a transaction.
    pub(crate) fn check_open(&self, command: &str) -> Result<(), Error> {
        if self.is_open {
            return Ok(());
        }
        let message = format!("{command} can only be used in transaction blocks");
        Err(Error::user(sqlstate::NO_ACTIVE_SQL_TRANSACTION, message))
    }

    /// Runs `SAVEPOINT name`.
    ///
    /// # Errors
    /// `25P01` outside of a transaction, `54000` if there are too many savepoints.
    pub(crate) fn save(&mut self, name: &str) -> Result<(), Error> {
        self.check_open("SAVEPOINT")?;
        if self.savepoints.len() >= SAVEPOINTS_MAX {
            let message = format!("a transaction can have at most {SAVEPOINTS_MAX} savepoints");
            return Err(Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, message));
        }
        self.savepoints.push(name.to_owned());
        Ok(())
    }

    /// Runs `RELEASE name`, which removes the savepoint and all later ones.
    ///
    /// # Errors
    /// `25P01` outside of a transaction, `3B001` if there is no such savepoint.
    pub(crate) fn release(&mut self, name: &str) -> Result<(), Error> {
        self.check_open("RELEASE SAVEPOINT")?;
        let place = self.find(name)?;
        self.savepoints.truncate(place);
        Ok(())
    }

    /// Runs `ROLLBACK TO name`, which removes all later savepoints.
    ///
    /// # Errors
    /// `25P01` outside of a transaction, `3B001` if there is no such savepoint.
    pub(crate) fn return_to(&mut self, name: &str) -> Result<(), Error> {
        self.check_open("ROLLBACK TO SAVEPOINT")?;
        let place = self.find(name)?;
        self.savepoints.truncate(place + 1);
        Ok(())
    }

    /// Returns the place of the last savepoint of this name.
    fn find(&self, name: &str) -> Result<usize, Error> {
        self.savepoints
            .iter()
            .rposition(|savepoint| savepoint == name)
            .ok_or_else(|| Error::user(sqlstate::INVALID_SAVEPOINT, format!("savepoint \"{name}\" does not exist")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savepoints_stand_on_each_other() {
        let mut transaction = Transaction::default();
        assert_eq!(transaction.save("a").expect_err("no transaction").sqlstate, "25P01");
        transaction.begin();
        for name in ["a", "b", "a"] {
            transaction.save(name).expect("a transaction is open");
        }
        transaction.return_to("b").expect("it is there");
        transaction.release("a").expect("the first one is there");
        assert_eq!(transaction.return_to("b").expect_err("released with the one before").sqlstate, "3B001");
        transaction.end();
        assert!(!transaction.is_open());
    }
}
