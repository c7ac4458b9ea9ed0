//! The metadata store in etcd, for clusters.
//!
//! Owns the connection: one endpoint is used at a time, and whenever a call over it fails for want of an answer, the
//! connection is thrown away and the next endpoint gets a new one. So a restarted, moved or silent etcd costs at most
//! the time limit of an attempt, and nothing of the process has to be restarted.
//!
//! Invariant: a transaction is sent again only if it certainly never left this process, or certainly was refused.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client as etcd;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, ConnectError, Status};

use super::error::Cause;
use super::{CALL_TIMEOUT, Compare, Error, KeyValue, LeaseId, MetaStore, Put, Txn, TxnOutcome, whole_seconds};

/// How long one attempt at a call that can safely be repeated may take before the next endpoint is tried.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a list may take: its answer can be large.
const LIST_TIMEOUT: Duration = Duration::from_secs(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often an idle connection is probed; etcd hangs up on clients that do so more often than every five seconds.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two attempts, so that a dead etcd is not hammered.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A metadata store in an etcd cluster.
pub struct EtcdStore {
    /// At least one.
    endpoints: Vec<String>,
    connection: Mutex<Connection>,
}

/// The connection in use.
#[derive(Clone)]
struct Connection {
    /// How many connections there were before; selects the endpoint.
    generation: usize,
    client: etcd::Client,
}

/// Why an attempt brought no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Etcd(#[from] etcd::Error),
    #[error("etcd did not answer in time")]
    TimedOut,
}

/// What is known after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The request never left.
    NotSent,
    /// etcd has declined it for now.
    Declined,
    /// etcd has declined it, and will again.
    Refused,
    /// It is about a lease that etcd does not know.
    NoLease,
    /// Anything may have happened.
    Unknown,
}

impl EtcdStore {
    /// A store in the etcd cluster that these endpoints (`http://host:port` or `host:port`) belong to. Does not wait
    /// for etcd: it may come later.
    ///
    /// # Errors
    /// If there is no endpoint or one is malformed.
    pub async fn open(endpoints: &[String]) -> Result<EtcdStore, Error> {
        let Some(first) = endpoints.first() else {
            return Err(Error::Open { store: "etcd".to_owned(), source: "no endpoint is given".into() });
        };
        for endpoint in &endpoints[1..] {
            connect(endpoint).await?;
        }
        let connection = Connection { generation: 0, client: connect(first).await? };
        Ok(EtcdStore { endpoints: endpoints.to_vec(), connection: Mutex::new(connection) })
    }

    async fn connection(&self) -> Connection {
        self.connection.lock().await.clone()
    }

    /// Replaces a connection that failed, unless somebody else has already.
    async fn abandon(&self, generation: usize) -> Result<(), Error> {
        let mut connection = self.connection.lock().await;
        if connection.generation == generation {
            let generation = generation.wrapping_add(1);
            let client = connect(&self.endpoints[generation % self.endpoints.len()]).await?;
            *connection = Connection { generation, client };
        }
        Ok(())
    }

    /// Makes a call that may be repeated, until it is answered or `CALL_TIMEOUT` has passed.
    async fn repeat<T, F>(
        &self,
        name: &'static str,
        attempt_timeout: Duration,
        call: impl Fn(etcd::Client) -> F + Send + Sync,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd::Error>> + Send,
    {
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            let Connection { generation, client } = self.connection().await;
            let attempt_deadline = deadline.min(Instant::now() + attempt_timeout);
            let failure = match timeout_at(attempt_deadline, call(client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Failure::Etcd(error),
                Err(_) => Failure::TimedOut,
            };
            if failure.verdict() == Verdict::Refused {
                return Err(Error::Refused { call: name, source: failure.into() });
            }
            self.abandon(generation).await?;
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(Error::Unavailable { call: name, source: failure.into() });
            }
            sleep(RETRY_PAUSE).await;
        }
    }
}

#[async_trait]
impl MetaStore for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        const NAME: &str = "read a key";
        let answer = self.repeat(NAME, ATTEMPT_TIMEOUT, |client| {
            let key = key.to_owned();
            async move { client.kv_client().get(key, None).await }
        });
        let found = answer.await?.take_kvs().into_iter().next();
        found.map(|found| key_value(NAME, found)).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<Vec<KeyValue>, Error> {
        const NAME: &str = "list keys";
        let answer = self.repeat(NAME, LIST_TIMEOUT, |client| {
            let prefix = prefix.to_owned();
            async move {
                // All keys come in one message, so that they are of one moment.
                let mut client = client.kv_client().max_decoding_message_size(usize::MAX);
                client.get(prefix, Some(etcd::GetOptions::new().with_prefix())).await
            }
        });
        answer.await?.take_kvs().into_iter().map(|found| key_value(NAME, found)).collect()
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        const NAME: &str = "apply a transaction";
        txn.check()?;
        let lease = txn.puts.iter().find_map(|put| put.lease);
        let request = request(txn);
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            let Connection { generation, client } = self.connection().await;
            let failure = match timeout_at(deadline, client.kv_client().txn(request.clone())).await {
                Ok(Ok(answer)) => return outcome(&answer),
                Ok(Err(error)) => Failure::Etcd(error),
                Err(_) => Failure::TimedOut,
            };
            match (failure.verdict(), lease) {
                (Verdict::Refused, _) => return Err(Error::Refused { call: NAME, source: failure.into() }),
                (Verdict::NoLease, Some(lease)) => return Err(Error::LeaseEnded { lease }),
                (Verdict::NotSent | Verdict::Declined, _) => {}
                (Verdict::NoLease | Verdict::Unknown, _) => {
                    self.abandon(generation).await?;
                    return Err(Error::UnknownOutcome { source: failure.into() });
                }
            }
            self.abandon(generation).await?;
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(Error::Unavailable { call: NAME, source: failure.into() });
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error> {
        let seconds = i64::from(whole_seconds(ttl));
        // An attempt whose answer is lost leaves a lease that nobody uses and that ends by itself.
        let answer = self.repeat("grant a lease", ATTEMPT_TIMEOUT, |client| async move {
            client.lease_client().grant(seconds, None).await
        });
        Ok(LeaseId(answer.await?.id()))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, Error> {
        let answer = self.repeat("keep a lease alive", ATTEMPT_TIMEOUT, |client| async move {
            match client.lease_client().keep_alive(lease.0).await {
                Ok(_) => Ok(true),
                // The client's word for a lease that etcd does not know.
                Err(etcd::Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(error),
            }
        });
        answer.await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        let answer = self.repeat("revoke a lease", ATTEMPT_TIMEOUT, |client| async move {
            match client.lease_client().revoke(lease.0).await {
                Ok(_) => Ok(()),
                Err(etcd::Error::GRpcStatus(status)) if status.code() == Code::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        });
        answer.await
    }
}

/// A client of one endpoint, which connects at its first call.
async fn connect(endpoint: &str) -> Result<etcd::Client, Error> {
    let options = etcd::ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(PROBE_INTERVAL, PROBE_TIMEOUT);
    let client = etcd::Client::connect([endpoint], Some(options)).await;
    client.map_err(|source| Error::Open { store: endpoint.to_owned(), source: source.into() })
}

fn request(txn: Txn) -> etcd::Txn {
    let compares = txn.compares.into_iter().map(|compare| match compare {
        Compare::ModRevision(key, revision) => {
            etcd::Compare::mod_revision(key, etcd::CompareOp::Equal, signed(revision))
        }
        Compare::CreateRevision(key, revision) => {
            etcd::Compare::create_revision(key, etcd::CompareOp::Equal, signed(revision))
        }
        Compare::Absent(key) => etcd::Compare::create_revision(key, etcd::CompareOp::Equal, 0),
    });
    let puts = txn.puts.into_iter().map(|Put { key, value, lease }| {
        let options = lease.map(|lease| etcd::PutOptions::new().with_lease(lease.0));
        etcd::TxnOp::put(key, value, options)
    });
    let deletes = txn.deletes.into_iter().map(|key| etcd::TxnOp::delete(key, None));
    etcd::Txn::new().when(compares.collect::<Vec<_>>()).and_then(puts.chain(deletes).collect::<Vec<_>>())
}

/// etcd knows no revision 0 and takes it for "does not exist"; a compare with it must fail here as it does elsewhere.
fn signed(revision: u64) -> i64 {
    match i64::try_from(revision) {
        Ok(0) | Err(_) => i64::MAX,
        Ok(revision) => revision,
    }
}

fn outcome(answer: &etcd::TxnResponse) -> Result<TxnOutcome, Error> {
    let revision = answer.header().and_then(|header| u64::try_from(header.revision()).ok());
    let revision = revision.ok_or_else(|| Error::UnknownOutcome { source: "etcd's answer has no revision".into() })?;
    Ok(TxnOutcome { succeeded: answer.succeeded(), revision })
}

fn key_value(call: &'static str, found: etcd::KeyValue) -> Result<KeyValue, Error> {
    let refused = |source: Cause| Error::Refused { call, source };
    let create_revision = u64::try_from(found.create_revision()).map_err(|error| refused(error.into()))?;
    let mod_revision = u64::try_from(found.mod_revision()).map_err(|error| refused(error.into()))?;
    let (key, value) = found.into_key_value();
    let key = String::from_utf8(key).map_err(|error| refused(error.into()))?;
    Ok(KeyValue { key, value: value.into(), create_revision, mod_revision })
}

impl Failure {
    fn verdict(&self) -> Verdict {
        match self {
            Failure::TimedOut => Verdict::Unknown,
            Failure::Etcd(etcd::Error::GRpcStatus(status)) => verdict(status),
            Failure::Etcd(etcd::Error::InvalidArgs(_) | etcd::Error::InvalidUri(_)) => Verdict::Refused,
            Failure::Etcd(_) => Verdict::Unknown,
        }
    }
}

/// Reads a status. One that was made on this side has a source, one that etcd sent has none.
fn verdict(status: &Status) -> Verdict {
    let mut cause = std::error::Error::source(status);
    if cause.is_none() {
        return match status.code() {
            Code::NotFound => Verdict::NoLease,
            Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => {
                Verdict::Refused
            }
            // Too many requests, no space left: etcd says so before it proposes the request to its members.
            Code::ResourceExhausted => Verdict::Declined,
            _ => Verdict::Unknown,
        };
    }
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return Verdict::NotSent;
        }
        cause = error.source();
    }
    Verdict::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_etcd_declined_is_known_not_to_have_happened() {
        assert_eq!(verdict(&Status::unavailable("etcdserver: leader changed")), Verdict::Unknown);
        assert_eq!(verdict(&Status::not_found("etcdserver: requested lease not found")), Verdict::NoLease);
        assert_eq!(verdict(&Status::resource_exhausted("etcdserver: too many requests")), Verdict::Declined);
        assert_eq!(verdict(&Status::permission_denied("etcdserver: permission denied")), Verdict::Refused);
        assert_eq!(Failure::TimedOut.verdict(), Verdict::Unknown);
    }

    #[test]
    fn a_failure_to_connect_is_known_not_to_have_been_sent() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(refused.into())));
        assert_eq!(verdict(&status), Verdict::NotSent);
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(verdict(&Status::from_error(Box::new(reset))), Verdict::Unknown);
    }
}
