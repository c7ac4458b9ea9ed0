//! The metadata store in one local file, for standalone.
//!
//! Owns a thread that owns the file: calls are queued to it and executed one after another, which makes every one of
//! them linearizable, keeps blocking work off the async threads, and needs no lock. What a call does is in
//! `file`.
//!
//! Leases live in memory only: those of an earlier process ended with it, and opening the file deletes their keys. The lock on
//! the file says that no other process has any, so leadership here needs no clock, see [`MetaStore::is_exclusive`].
//!
//! Invariant: the file is synced to disk before a transaction is reported to have succeeded.

mod file;

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use weir_common::running;

use self::file::File;
use super::{CALL_TIMEOUT, Error, KeyValue, LeaseId, MetaStore, Txn, TxnOutcome};

/// Calls that wait for the thread. More than the callers there are: meta makes few calls at a time.
const QUEUE_CALLS: usize = 64;

type Call = Box<dyn FnOnce(&mut File) + Send>;

/// A metadata store in a local file, which it holds locked. Dropping it waits for the calls under way.
pub struct EmbeddedStore {
    /// Present until dropped.
    calls: Option<mpsc::Sender<Call>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("too many calls wait for the disk")]
    NotQueued,
    #[error("the disk did not answer in time")]
    TimedOut,
    #[error("the thread of the metadata store has ended")]
    Ended,
}

impl EmbeddedStore {
    /// Opens the file, or creates it with the directory it lies in.
    ///
    /// # Errors
    /// If the file cannot be opened, is open in another process, or is no metadata store.
    pub async fn open(path: impl Into<PathBuf>) -> Result<EmbeddedStore, Error> {
        let path = path.into();
        let (calls, mut queue) = mpsc::channel::<Call>(QUEUE_CALLS);
        let (opened, open_result) = oneshot::channel();
        let store = path.display().to_string();
        let run = move || match File::open(path) {
            Ok(mut file) => {
                // The receiver is gone only if nobody wants the store any more; then the queue ends at once.
                let _ = opened.send(Ok(()));
                while let Some(call) = queue.blocking_recv() {
                    call(&mut file);
                }
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        };
        let cannot_open = |source| Error::Open { store: store.clone(), source };
        let thread = std::thread::Builder::new().name("meta-store".to_owned()).spawn(run);
        let thread = thread.map_err(|error| cannot_open(error.into()))?;
        open_result.await.map_err(|_| cannot_open(Failure::Ended.into()))??;
        Ok(EmbeddedStore { calls: Some(calls), thread: Some(thread) })
    }

    /// Executes a call on the thread. The inner error is the call's own, the outer one says why there is no answer.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut File, Instant) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |file| {
            // Whoever has stopped waiting does not want it to happen late.
            if !reply.is_closed() {
                let _ = reply.send(call(file, Instant::now()));
            }
        });
        let calls = self.calls.as_ref().ok_or(Failure::Ended)?;
        let permit = running::timeout(CALL_TIMEOUT, calls.reserve()).await.map_err(|_| Failure::NotQueued)?;
        permit.map_err(|_| Failure::NotQueued)?.send(call);
        running::timeout(CALL_TIMEOUT, answer).await.map_err(|_| Failure::TimedOut)?.map_err(|_| Failure::Ended)
    }

    /// Executes a call that may be repeated, so that the lack of an answer does no harm.
    async fn repeatable<T: Send + 'static>(
        &self,
        name: &'static str,
        call: impl FnOnce(&mut File, Instant) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.call(call).await.map_err(|failure| Error::Unavailable { call: name, source: failure.into() })?
    }
}

#[async_trait]
impl MetaStore for EmbeddedStore {
    fn is_exclusive(&self) -> bool {
        true
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        let key = key.to_owned();
        self.repeatable("read a key", move |file, now| file.get(&key, now)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<KeyValue>, Error> {
        let prefix = prefix.to_owned();
        self.repeatable("list keys", move |file, now| file.list(&prefix, now)).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        txn.check()?;
        match self.call(move |file, now| file.txn(&txn, now)).await {
            Ok(answer) => answer,
            Err(failure @ Failure::NotQueued) => {
                Err(Error::Unavailable { call: "apply a transaction", source: failure.into() })
            }
            Err(failure) => Err(Error::UnknownOutcome { source: failure.into() }),
        }
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.repeatable("grant a lease", move |file, now| Ok(file.grant_lease(ttl, now))).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, Error> {
        self.repeatable("keep a lease alive", move |file, now| file.keep_alive(lease, now)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.repeatable("revoke a lease", move |file, now| file.revoke(lease, now)).await
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the metadata store panicked");
        }
    }
}
