//! What the embedded store does, synchronously: keys, revisions and leases over a redb file.
//!
//! Owns the layout of the file and the deadlines of leases. Does not own time: every call brings it. A lease that is
//! due ends at the next call, before anything else of that call happens, so nobody can see that it ended late.
//!
//! Invariant: `revision` is written in the same redb transaction as what it numbers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::super::{Compare, Error, KeyValue, LeaseId, Txn, TxnOutcome, whole_seconds};

/// Key → create revision, mod revision, lease (0: none), value.
const KEYS: TableDefinition<&str, (u64, u64, i64, &[u8])> = TableDefinition::new("keys");
/// The keys that each lease holds.
const LEASED: TableDefinition<(i64, &str), ()> = TableDefinition::new("leased");
/// `revision`: of the newest transaction that wrote anything.
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";
/// The revision of an empty store, as in etcd, so that the first transaction has 2.
const FIRST_REVISION: u64 = 1;

/// Metadata is small.
const CACHE_BYTES: usize = 16 << 20;

/// The open file and the leases granted since it was opened.
pub(super) struct File {
    path: PathBuf,
    /// Absent after a failure that redb asks to answer by opening the file again; the next call does.
    database: Option<Database>,
    leases: HashMap<LeaseId, Lease>,
}

struct Lease {
    ttl: Duration,
    deadline: Instant,
}

/// The tables of a write transaction, and its revision.
struct Tables<'txn> {
    keys: Table<'txn, &'static str, (u64, u64, i64, &'static [u8])>,
    leased: Table<'txn, (i64, &'static str), ()>,
    counters: Table<'txn, &'static str, u64>,
}

impl File {
    /// Opens or creates the file, and ends the leases of earlier processes.
    pub(super) fn open(path: PathBuf) -> Result<File, Error> {
        let cannot_open = |error: redb::Error| Error::Open { store: path.display().to_string(), source: error.into() };
        let database = open(&path).map_err(cannot_open)?;
        let mut file = File { path, database: Some(database), leases: HashMap::new() };
        file.write("end the leases of an earlier process", |tables| {
            let earlier = tables.leases()?;
            tables.end_leases(earlier)
        })?;
        Ok(file)
    }

    pub(super) fn get(&mut self, key: &str, now: Instant) -> Result<Option<KeyValue>, Error> {
        self.end_due_leases(now)?;
        self.attempt("read a key", |file| {
            let keys = file.database()?.begin_read()?.open_table(KEYS)?;
            Ok(keys.get(key)?.map(|found| key_value(key, found.value())))
        })
    }

    pub(super) fn list(&mut self, prefix: &str, now: Instant) -> Result<Vec<KeyValue>, Error> {
        self.end_due_leases(now)?;
        self.attempt("list keys", |file| {
            let keys = file.database()?.begin_read()?.open_table(KEYS)?;
            let mut found = Vec::new();
            for entry in keys.range(prefix..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push(key_value(key.value(), value.value()));
            }
            Ok(found)
        })
    }

    pub(super) fn txn(&mut self, txn: &Txn, now: Instant) -> Result<TxnOutcome, Error> {
        const NAME: &str = "apply a transaction";
        self.end_due_leases(now)?;
        let prepared = self.attempt(NAME, |file| {
            let write = file.database()?.begin_write()?;
            let prepared = Tables::open(&write)?.prepare(txn)?;
            Ok((write, prepared))
        });
        let (write, outcome) = prepared?;
        let ended = |lease: &LeaseId| !self.leases.contains_key(lease);
        let lease_ended = txn.puts.iter().filter_map(|put| put.lease).find(ended);
        match (outcome.succeeded, lease_ended) {
            (true, Some(lease)) => Err(Error::LeaseEnded { lease }),
            (true, None) => match write.commit() {
                Ok(()) => Ok(outcome),
                Err(error) => {
                    self.database = None;
                    Err(Error::UnknownOutcome { source: error.into() })
                }
            },
            (false, _) => Ok(outcome),
        }
    }

    pub(super) fn grant_lease(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        let ttl = Duration::from_secs(u64::from(whole_seconds(ttl)));
        let mut lease = LeaseId(rand::random_range(1..=i64::MAX));
        while self.leases.contains_key(&lease) {
            lease = LeaseId(rand::random_range(1..=i64::MAX));
        }
        self.leases.insert(lease, Lease { ttl, deadline: now + ttl });
        lease
    }

    pub(super) fn keep_alive(&mut self, lease: LeaseId, now: Instant) -> Result<bool, Error> {
        self.end_due_leases(now)?;
        let found = self.leases.get_mut(&lease);
        Ok(found.is_some_and(|lease| {
            lease.deadline = now + lease.ttl;
            true
        }))
    }

    pub(super) fn revoke(&mut self, lease: LeaseId, now: Instant) -> Result<(), Error> {
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.deadline = now;
        }
        self.end_due_leases(now)
    }

    /// Deletes the keys of all leases whose time is up.
    fn end_due_leases(&mut self, now: Instant) -> Result<(), Error> {
        let due = self.leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id);
        let due: Vec<_> = due.collect();
        if due.is_empty() {
            return Ok(());
        }
        // Should this fail, the leases are still due at the next call.
        self.write("end leases", |tables| tables.end_leases(due.clone()))?;
        for lease in due {
            self.leases.remove(&lease);
        }
        Ok(())
    }

    /// Writes something that may be repeated if its outcome is unknown.
    fn write(
        &mut self,
        name: &'static str,
        change: impl FnOnce(&mut Tables<'_>) -> Result<(), redb::Error>,
    ) -> Result<(), Error> {
        self.attempt(name, |file| {
            let write = file.database()?.begin_write()?;
            change(&mut Tables::open(&write)?)?;
            Ok(write.commit()?)
        })
    }

    /// Does something that, when it fails, was not applied or may be repeated.
    fn attempt<T>(
        &mut self,
        name: &'static str,
        action: impl FnOnce(&mut File) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        action(self).map_err(|error| {
            self.database = None;
            match error {
                redb::Error::Corrupted(_) => Error::Corrupt { path: self.path.clone(), source: error.into() },
                error => Error::Unavailable { call: name, source: error.into() },
            }
        })
    }

    fn database(&mut self) -> Result<&Database, redb::Error> {
        if self.database.is_none() {
            self.database = Some(open(&self.path)?);
        }
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }
}

impl<'txn> Tables<'txn> {
    fn open(write: &'txn WriteTransaction) -> Result<Tables<'txn>, redb::Error> {
        let (keys, leased, counters) =
            (write.open_table(KEYS)?, write.open_table(LEASED)?, write.open_table(COUNTERS)?);
        Ok(Tables { keys, leased, counters })
    }

    fn revision(&self) -> Result<u64, redb::Error> {
        Ok(self.counters.get(REVISION)?.map_or(FIRST_REVISION, |revision| revision.value()))
    }

    /// Evaluates a transaction and writes it if its compares hold; nothing is durable yet.
    fn prepare(&mut self, txn: &Txn) -> Result<TxnOutcome, redb::Error> {
        let revision = self.revision()?;
        for compare in &txn.compares {
            if !self.holds(compare)? {
                return Ok(TxnOutcome { succeeded: false, revision });
            }
        }
        let next = revision + 1;
        let mut wrote = !txn.puts.is_empty();
        for key in &txn.deletes {
            wrote |= self.delete(key)?;
        }
        for put in &txn.puts {
            self.put(&put.key, &put.value, put.lease, next)?;
        }
        if wrote {
            self.counters.insert(REVISION, next)?;
        }
        Ok(TxnOutcome { succeeded: true, revision: if wrote { next } else { revision } })
    }

    fn holds(&self, compare: &Compare) -> Result<bool, redb::Error> {
        let found = self.keys.get(compare.key())?;
        let revisions = found.map(|found| (found.value().0, found.value().1));
        Ok(match compare {
            Compare::ModRevision(_, wanted) => revisions.is_some_and(|(_, modified)| modified == *wanted),
            Compare::CreateRevision(_, wanted) => revisions.is_some_and(|(created, _)| created == *wanted),
            Compare::Absent(_) => revisions.is_none(),
        })
    }

    fn put(&mut self, key: &str, value: &[u8], lease: Option<LeaseId>, revision: u64) -> Result<(), redb::Error> {
        let lease = lease.map_or(0, |lease| lease.0);
        let before = self.keys.get(key)?.map(|found| (found.value().0, found.value().2));
        let (created, lease_before) = before.unwrap_or((revision, 0));
        self.keys.insert(key, (created, revision, lease, value))?;
        if lease_before != 0 {
            self.leased.remove((lease_before, key))?;
        }
        if lease != 0 {
            self.leased.insert((lease, key), ())?;
        }
        Ok(())
    }

    /// Deletes a key and answers whether it existed.
    fn delete(&mut self, key: &str) -> Result<bool, redb::Error> {
        let Some(lease) = self.keys.remove(key)?.map(|found| found.value().2) else { return Ok(false) };
        if lease != 0 {
            self.leased.remove((lease, key))?;
        }
        Ok(true)
    }

    /// The leases that hold keys.
    fn leases(&self) -> Result<Vec<LeaseId>, redb::Error> {
        let mut leases = Vec::new();
        for entry in self.leased.iter()? {
            leases.push(LeaseId(entry?.0.value().0));
        }
        leases.dedup();
        Ok(leases)
    }

    /// Deletes all keys of these leases, in one revision.
    fn end_leases(&mut self, leases: Vec<LeaseId>) -> Result<(), redb::Error> {
        let next = self.revision()? + 1;
        let mut keys = Vec::new();
        for lease in leases {
            for entry in self.leased.range((lease.0, "")..(lease.0 + 1, ""))? {
                keys.push(entry?.0.value().1.to_owned());
            }
        }
        for key in &keys {
            self.delete(key)?;
        }
        if !keys.is_empty() {
            self.counters.insert(REVISION, next)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    // The file's own entry in its directory has to survive a power failure too.
    std::fs::File::open(directory)?.sync_all()?;
    Ok(database)
}

fn key_value(key: &str, (create_revision, mod_revision, _, value): (u64, u64, i64, &[u8])) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Bytes::copy_from_slice(value), create_revision, mod_revision }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_failed_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = File::open(directory.path().join("meta.redb")).unwrap();
        let now = Instant::now();
        let lease = file.grant_lease(Duration::from_secs(3), now);
        file.txn(&Txn::new().put_leased("a", "1", lease), now).unwrap();
        file.database = None;
        assert!(file.get("a", now).unwrap().is_some(), "the lease lives on, the process being the same");
        assert!(file.get("a", now + Duration::from_secs(3)).unwrap().is_none());
    }

    #[test]
    fn a_key_put_again_without_its_lease_outlives_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = File::open(directory.path().join("meta.redb")).unwrap();
        let now = Instant::now();
        let lease = file.grant_lease(Duration::from_secs(1), now);
        file.txn(&Txn::new().put_leased("a", "1", lease).put_leased("b", "1", lease), now).unwrap();
        file.txn(&Txn::new().put("a", "2"), now).unwrap();
        let later = now + Duration::from_secs(1);
        let keys = file.list("", later).unwrap().into_iter().map(|found| found.key);
        assert_eq!(keys.collect::<Vec<_>>(), ["a"]);
    }
}
