//! The cursors and portals of a session.
//!
//! Owns the cursors that were made with DECLARE, and the names of the portals that were made by the protocol, which the
//! connection keeps. Both share their names, as in PostgreSQL, and each may hold an epoch readable, so their number is
//! bounded. Invariant: a cursor reads one committed epoch, however long it is fetched from.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use futures::{StreamExt, stream};
use tokio::sync::Mutex;
use weir_sql::error::{Error, sqlstate};

use crate::results::{Batches, Columns};

/// Cursors and portals of a session at a time. Each holds scans of every slot, and the epoch that they read.
pub(crate) const CURSORS_MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    declared: HashMap<String, Declared>,
    portals: HashSet<String>,
}

#[derive(Debug)]
struct Declared {
    cursor: Arc<SqlCursor>,
    /// Outlives its transaction.
    holds: bool,
    /// Its transaction was committed.
    is_committed: bool,
}

impl Cursors {
    /// Keeps a cursor. Outside of a transaction one is committed at once.
    ///
    /// # Errors
    /// As [`Cursors::check_free`].
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

    /// The names of cursors and portals, and whether each outlives its transaction.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        let declared = self.declared.iter().map(|(name, declared)| (name.as_str(), declared.holds));
        declared.chain(self.portals.iter().map(|name| (name.as_str(), false)))
    }

    /// Notes a portal of the protocol's. The one without a name can be opened again and again.
    ///
    /// # Errors
    /// As [`Cursors::check_free`].
    pub(crate) fn add_portal(&mut self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Ok(());
        }
        self.check_free(name)?;
        self.portals.insert(name.to_owned());
        Ok(())
    }

    /// Whether a name can be given to another cursor.
    ///
    /// # Errors
    /// `42P03` if it is taken, `54000` if there are too many.
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

    /// Forgets a cursor or portal; false if there is none.
    pub(crate) fn close(&mut self, name: &str) -> bool {
        self.declared.remove(name).is_some() | self.portals.remove(name)
    }

    /// Forgets all portals of the protocol's.
    pub(crate) fn close_portals(&mut self) {
        self.portals.clear();
    }

    /// Forgets everything.
    pub(crate) fn close_all(&mut self) {
        self.declared.clear();
        self.portals.clear();
    }

    /// A transaction ended: what it opened ends with it, unless it was committed and the cursor is to be held.
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

/// A query that is read some rows at a time.
pub(crate) struct SqlCursor {
    pub(crate) columns: Columns,
    rows: Arc<Mutex<Rest>>,
}

/// The rows that were not fetched yet.
struct Rest {
    batches: Batches,
    /// Of the batch that was fetched last.
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

    /// The next `count` rows, as they come; without a count all that are left.
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
                    // What failed has no more rows.
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
