//! The metadata store: a small, strongly consistent map of keys to values, in which the whole cluster agrees.
//!
//! Owns the contract ([`MetaStore`]) and its two implementations: [`etcd`] for clusters, [`embedded`] for standalone.
//! [`election`] builds leadership on the contract alone. Does not own what the keys mean: callers bring whole keys,
//! the prefix of their cluster included.
//!
//! Invariant: a transaction happens wholly or not at all, revisions only grow, and `create_revision` names one life of
//! a key: once the key is deleted, by whomever or by the end of its lease, no later life bears it again. That is what
//! fences an old leader: whatever it still has under way compares the create revision of a key that is gone.

pub mod election;
pub mod embedded;
mod error;
pub mod etcd;

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use error::Error;

/// No call takes longer than this, whatever happens to the store.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest value of a key, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The largest sum of all keys and values of a transaction, in bytes; etcd refuses requests above 1.5 MiB.
pub const TXN_BYTES_MAX: usize = VALUE_BYTES_MAX + (256 << 10);
/// The most compares, puts and deletes of a transaction, together; etcd refuses more than 128.
pub const TXN_OPERATIONS_MAX: usize = 100;

/// What the rest of meta sees of etcd and of the embedded store.
///
/// Dropping a call's future before it is ready leaves its outcome unknown.
#[async_trait]
pub trait MetaStore: Send + Sync {
    /// Whether no other process can use the store as long as this one does. Whoever holds a key of it then keeps it until it
    /// is given back, however slowly this process runs.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// The key as it is now: a linearizable read, which sees every transaction that has returned.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error>;

    /// All keys that begin with `prefix` as they are at one moment, in the order of their bytes. Linearizable.
    async fn list(&self, prefix: &str) -> Result<Vec<KeyValue>, Error>;

    /// Applies all puts and deletes if every compare holds, else nothing. A failed compare is an outcome, no error.
    ///
    /// # Errors
    /// After [`Error::UnknownOutcome`] the transaction may have been applied or may yet be; every other error means
    /// that it was not and will not be.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, Error>;

    /// A new lease that ends `ttl` (rounded up to seconds) after its last keep-alive, unless revoked before.
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error>;

    /// Extends a lease by its `ttl` from now; false if it has ended.
    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, Error>;

    /// Ends a lease and deletes the keys it holds. A lease that has ended already is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error>;
}

/// A key's present life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// What was put last.
    pub value: Bytes,
    /// The revision of the transaction that brought the key to life.
    pub create_revision: u64,
    /// The revision of the transaction that put it last.
    pub mod_revision: u64,
}

/// Keys put under a lease are deleted when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key exists and was put last by this revision.
    ModRevision(String, u64),
    /// The key exists and came to life in this revision.
    CreateRevision(String, u64),
    /// The key does not exist.
    Absent(String),
}

impl Compare {
    /// The key that is looked at.
    pub fn key(&self) -> &str {
        match self {
            Compare::ModRevision(key, _) | Compare::CreateRevision(key, _) | Compare::Absent(key) => key,
        }
    }
}

/// A value to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Where to.
    pub key: String,
    /// What.
    pub value: Bytes,
    /// With which lease the key is to end; none: it stays, even if it had a lease before.
    pub lease: Option<LeaseId>,
}

/// Conditions, and what to write if all of them hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// Keys to be written.
    pub puts: Vec<Put>,
    /// Keys to be deleted; one that does not exist is no error.
    pub deletes: Vec<String>,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Whether every compare held, and so everything was written.
    pub succeeded: bool,
    /// If it succeeded, the `mod_revision` of all that it put; else the revision at which it was refused.
    pub revision: u64,
}

impl Txn {
    /// An empty transaction, to be filled.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// Adds a condition.
    pub fn when(mut self, compare: Compare) -> Txn {
        self.compares.push(compare);
        self
    }

    /// Adds a key to be written.
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Txn {
        self.puts.push(Put { key: key.into(), value: value.into(), lease: None });
        self
    }

    /// Adds a key to be written that ends with a lease.
    pub fn put_leased(mut self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Txn {
        self.puts.push(Put { key: key.into(), value: value.into(), lease: Some(lease) });
        self
    }

    /// Adds a key to be deleted.
    pub fn delete(mut self, key: impl Into<String>) -> Txn {
        self.deletes.push(key.into());
        self
    }

    /// Refuses what etcd would refuse, so that both implementations refuse it, with the same words.
    fn check(&self) -> Result<(), Error> {
        let operations = self.compares.len() + self.puts.len() + self.deletes.len();
        if operations > TXN_OPERATIONS_MAX {
            return Err(Error::TooManyOperations { operations });
        }
        if let Some(put) = self.puts.iter().find(|put| put.value.len() > VALUE_BYTES_MAX) {
            return Err(Error::ValueTooLarge { key: put.key.clone(), bytes: put.value.len() });
        }
        let written = || self.puts.iter().map(|put| &put.key).chain(&self.deletes);
        let keys = || self.compares.iter().map(Compare::key).chain(written().map(String::as_str));
        if keys().any(str::is_empty) {
            return Err(Error::EmptyKey);
        }
        let bytes = keys().map(str::len).sum::<usize>() + self.puts.iter().map(|put| put.value.len()).sum::<usize>();
        if bytes > TXN_BYTES_MAX {
            return Err(Error::TxnTooLarge { bytes });
        }
        let mut seen = HashSet::new();
        match written().find(|key| !seen.insert(*key)) {
            Some(key) => Err(Error::DuplicateKey { key: key.clone() }),
            None => Ok(()),
        }
    }
}

/// The time that a lease is granted for: at least one second, rounded up to whole ones as etcd wants it.
fn whole_seconds(ttl: Duration) -> u32 {
    let rounded_up = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    u32::try_from(rounded_up).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_rounded_up_to_seconds() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
        assert_eq!(whole_seconds(Duration::from_millis(3001)), 4);
    }

    #[test]
    fn a_transaction_that_etcd_would_refuse_is_refused() {
        let large = Bytes::from(vec![0; VALUE_BYTES_MAX]);
        assert!(Txn::new().put("a", large.clone()).check().is_ok());
        let oversize = Txn::new().put("a", vec![0; VALUE_BYTES_MAX + 1]);
        assert!(matches!(oversize.check(), Err(Error::ValueTooLarge { .. })));
        let sum = Txn::new().put("a", large.clone()).put("b", large);
        assert!(matches!(sum.check(), Err(Error::TxnTooLarge { .. })));
        let many = (0..=TXN_OPERATIONS_MAX).fold(Txn::new(), |txn, i| txn.delete(format!("k{i}")));
        assert!(matches!(many.check(), Err(Error::TooManyOperations { operations: 101 })));
        let twice = Txn::new().put("a", "").delete("a");
        assert!(matches!(twice.check(), Err(Error::DuplicateKey { .. })));
        assert!(matches!(Txn::new().delete("").check(), Err(Error::EmptyKey)));
    }
}
