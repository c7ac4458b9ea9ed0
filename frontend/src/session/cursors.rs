//! The cursors and portals of a session.
//!
//! This module owns the cursors made by DECLARE, and the names of the portals made by the protocol,
//! which the connection keeps. As in PostgreSQL, both share one set of names. Each may keep an
//! epoch pinned, so their number is bounded. Invariant: all fetches from a cursor read one
//! committed epoch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use futures::{StreamExt, stream};
use tokio::sync::Mutex;
use weir_sql::error::{Error, sqlstate};

use crate::results::{Batches, Columns};

/// The maximum number of cursors and portals in a session. Each holds scans of every slot, and a
/// pin on the epoch that they read.
pub(crate) const CURSORS_MAX: usize = 256;

/// The cursors and portals of a session, by name.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    declared: HashMap<String, Declared>,
    portals: HashSet<String>,
}

#[derive(Debug)]
struct Declared {
    cursor: Arc<SqlCursor>,
    /// True if it outlives its transaction.
    holds: bool,
    /// True if its transaction was committed.
    is_committed: bool,
}

impl Cursors {
    /// Adds a cursor. Outside of a transaction, `is_committed` is true.
    ///
    /// # Errors
    /// The errors of [`Cursors::check_free`].
    pub(crate) fn declare(
        &mut self,
        name: &str,
        cursor: SqlCursor,
        holds: bool,
        is_committed: bool,
    ) -> Result<(), Error> {
        self.check_free(name)?;
        self.declared.insert(name.to_owned(), Declared { cursor: Arc::new(cursor), holds, is_committed });
        Ok(())
    }

    /// # Errors
    /// `34000` if there is no such cursor.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<SqlCursor>, Error> {
        self.declared.get(name).map(|declared| Arc::clone(&declared.cursor)).ok_or_else(|| missing(name))
    }

    /// Returns the names of cursors and portals, and whether each outlives its transaction.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        let declared = self.declared.iter().map(|(name, declared)| (name.as_str(), declared.holds));
        declared.chain(self.portals.iter().map(|name| (name.as_str(), false)))
    }

    /// Adds a portal made by the protocol. The unnamed portal can be opened again at any time.
    ///
    /// # Errors
    /// The errors of [`Cursors::check_free`].
    pub(crate) fn add_portal(&mut self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Ok(());
        }
        self.check_free(name)?;
        self.portals.insert(name.to_owned());
        Ok(())
    }

    /// Checks that a cursor can be added under a name.
    ///
    /// # Errors
    /// `42P03` if the name is taken, `54000` if there are too many.
    pub(crate) fn check_free(&self, name: &str) -> Result<(), Error> {
        if self.declared.contains_key(name) || self.portals.contains(name) {
            return Err(Error::user(sqlstate::DUPLICATE_CURSOR, format!("cursor \"{name}\" already exists")));
        }
        if self.declared.len() + self.portals.len() >= CURSORS_MAX {
            let message = format!("a session can have at most {CURSORS_MAX} cursors and portals");
            return Err(Error::user(sqlstate::PROGRAM_LIMIT_EXCEEDED, message)
                .with_hint("close those that are not needed any more"));
        }
        Ok(())
    }

    /// Removes a cursor or portal; returns false if there is none.
    pub(crate) fn close(&mut self, name: &str) -> bool {
        self.declared.remove(name).is_some() | self.portals.remove(name)
    }

    /// Removes all portals.
    pub(crate) fn close_portals(&mut self) {
        self.portals.clear();
    }

    /// Removes all cursors and portals.
    pub(crate) fn close_all(&mut self) {
        self.declared.clear();
        self.portals.clear();
    }

    /// Ends a transaction, and with it the portals and cursors that it opened. A held cursor stays
    /// if the transaction was committed.
    pub(crate) fn end_transaction(&mut self, committed: bool) {
        self.portals.clear();
        self.declared.retain(|_, declared| {
            declared.is_committed |= committed && declared.holds;
            declared.is_committed
        });
    }
}

fn missing(name: &str) -> Error {
    Error::user(sqlstate::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}

/// A query whose rows are fetched in portions.
pub(crate) struct SqlCursor {
    pub(crate) columns: Columns,
    rows: Arc<Mutex<Rest>>,
}

/// The rows that have not been fetched yet.
struct Rest {
    batches: Batches,
    /// The unread rows of the last batch.
    begun: Option<RecordBatch>,
}

impl std::fmt::Debug for SqlCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlCursor").finish_non_exhaustive()
    }
}

impl SqlCursor {
    pub(crate) fn new(columns: Columns, batches: Batches) -> SqlCursor {
        SqlCursor { columns, rows: Arc::new(Mutex::new(Rest { batches, begun: None })) }
    }

    /// Returns the next `count` rows as they arrive, or all remaining rows if there is no count.
    pub(crate) fn fetch(&self, count: Option<u64>) -> Batches {
        let start = (Arc::clone(&self.rows), count.unwrap_or(u64::MAX));
        Box::pin(stream::try_unfold(start, |(rows, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let mut rest = rows.lock().await;
            let Some(batch) = rest.next().await? else {
                return Ok(None);
            };
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(batch.num_rows());
            if taken < batch.num_rows() {
                rest.begun = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            drop(rest);
            Ok(Some((batch.slice(0, taken), (rows, left - taken as u64))))
        }))
    }
}

impl Rest {
    async fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        match self.begun.take() {
            Some(batch) => Ok(Some(batch)),
            None => {
                let next = self.batches.next().await.transpose();
                if next.is_err() {
                    // A failed query has no more rows.
                    self.batches = Box::pin(stream::empty());
                }
                next
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Schema;

    use super::*;

    fn cursor() -> SqlCursor {
        SqlCursor::new(Columns::of(Arc::new(Schema::empty())), Box::pin(stream::empty()))
    }

    #[test]
    fn a_transaction_takes_its_cursors_with_it_unless_they_are_held() {
        let mut cursors = Cursors::default();
        for (name, holds) in [("plain", false), ("held", true)] {
            cursors.declare(name, cursor(), holds, false).expect("a free name");
        }
        cursors.add_portal("portal").expect("a free name");
        cursors.end_transaction(true);
        assert_eq!(cursors.names().collect::<Vec<_>>(), [("held", true)]);
        cursors.declare("late", cursor(), true, false).expect("a free name");
        cursors.end_transaction(false);
        assert_eq!(cursors.names().collect::<Vec<_>>(), [("held", true)], "what was rolled back is gone");
    }

    #[test]
    fn names_are_shared_and_their_number_is_bounded() {
        let mut cursors = Cursors::default();
        cursors.add_portal("c").expect("a free name");
        assert_eq!(cursors.declare("c", cursor(), false, false).expect_err("taken").sqlstate, "42P03");
        for number in 1..CURSORS_MAX {
            cursors.add_portal(&number.to_string()).expect("a free name");
        }
        assert_eq!(cursors.add_portal("x").expect_err("too many").sqlstate, "54000");
        assert!(cursors.close("c"));
        cursors.add_portal("x").expect("there is room again");
    }
}
