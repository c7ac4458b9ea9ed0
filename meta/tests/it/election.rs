//! Leadership over both metadata stores.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use weir_meta::store::election::{Leadership, campaign, leader};
use weir_meta::store::{Error, KeyValue, LeaseId, MetaStore, Txn, TxnOutcome};

use crate::support::{Backend, Etcd, PATIENCE, eventually, on_both};

const KEY: &str = "weir/leader";
/// A sixth of it is what tasks of a test may be late.
const TTL: Duration = Duration::from_secs(4);

on_both! {
    one_leads_and_after_its_loss_another,
    who_resigns_is_followed_at_once,
    a_leader_whose_key_was_deleted_cannot_write,
    a_candidate_can_be_called_off,
}

/// A real store behind a connection that can be cut: calls then wait until it is mended.
struct Link {
    store: Arc<dyn MetaStore>,
    up: watch::Sender<bool>,
}

impl Link {
    fn to(store: Arc<dyn MetaStore>) -> Arc<Link> {
        Arc::new(Link { store, up: watch::Sender::new(true) })
    }

    async fn passable(&self) -> &dyn MetaStore {
        self.up.subscribe().wait_for(|up| *up).await.unwrap();
        &*self.store
    }
}

#[async_trait]
impl MetaStore for Link {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        self.passable().await.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<KeyValue>, Error> {
        self.passable().await.list(prefix).await
    }
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        self.passable().await.txn(txn).await
    }
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.passable().await.grant_lease(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, Error> {
        self.passable().await.keep_alive(lease).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.passable().await.revoke(lease).await
    }
}

/// Campaigns in the background.
fn candidate(store: Arc<dyn MetaStore>, value: &'static str, cancel: &CancellationToken) -> JoinHandle<Leadership> {
    let cancel = cancel.clone();
    tokio::spawn(async move { campaign(store, KEY, value, TTL, &cancel).await.unwrap().unwrap() })
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("did not happen in time: {what}"))
}

async fn one_leads_and_after_its_loss_another(backend: Backend) {
    let cancel = CancellationToken::new();
    let link = Link::to(backend.store());
    let first = soon("the first leads", candidate(link.clone(), "first:1", &cancel)).await.unwrap();
    let seen = leader(&*backend.store(), KEY).await.unwrap().unwrap();
    assert_eq!((seen.value.as_str(), seen.create_revision), ("first:1", first.create_revision));

    // It leads for longer than a lease, while the other one tries.
    let mut second = candidate(backend.store(), "second:1", &cancel);
    assert!(timeout(TTL * 2, &mut second).await.is_err(), "two lead");
    assert!(first.holds() && !first.lost.is_cancelled());
    let written = backend.store().txn(Txn::new().when(first.fence()).put("by", "first")).await.unwrap();
    assert!(written.succeeded);

    // Cut off, it stops by itself, before the other one leads.
    let delayed = Txn::new().when(first.fence()).put("by", "first, late");
    link.up.send_replace(false);
    let cut = Instant::now();
    soon("the first notices", first.lost.cancelled()).await;
    assert!(cut.elapsed() < TTL, "it noticed after its lease");
    assert!(!first.holds());
    assert!(!second.is_finished(), "the second leads although the first one's lease lasts");
    let second = soon("the second leads", second).await.unwrap();
    assert_ne!(second.create_revision, first.create_revision);

    // What the first one sent arrives now.
    link.up.send_replace(true);
    assert!(!link.txn(delayed).await.unwrap().succeeded, "an old leader wrote");
    assert!(backend.store().txn(Txn::new().when(second.fence()).put("by", "second")).await.unwrap().succeeded);
    assert!(second.holds());
}

async fn who_resigns_is_followed_at_once(backend: Backend) {
    let cancel = CancellationToken::new();
    let first = soon("the first leads", candidate(backend.store(), "first:1", &cancel)).await.unwrap();
    let second = candidate(backend.store(), "second:1", &cancel);
    let lost = first.lost.clone();
    first.resign().await;
    assert!(lost.is_cancelled());
    let begin = Instant::now();
    let second = soon("the second leads", second).await.unwrap();
    assert!(begin.elapsed() < TTL, "it waited for the lease");

    // Dropped is resigned too.
    drop(second);
    let store = backend.store();
    eventually("the key is free", || async { leader(&*store, KEY).await.unwrap().is_none() }).await;
}

async fn a_leader_whose_key_was_deleted_cannot_write(backend: Backend) {
    let cancel = CancellationToken::new();
    let store = backend.store();
    let first = soon("the first leads", candidate(backend.store(), "first:1", &cancel)).await.unwrap();
    // Its lease lasts, so it still believes to lead; the fence knows better.
    assert!(store.txn(Txn::new().delete(KEY)).await.unwrap().succeeded);
    assert!(!store.txn(Txn::new().when(first.fence()).put("by", "first")).await.unwrap().succeeded);
}

async fn a_candidate_can_be_called_off(backend: Backend) {
    let cancel = CancellationToken::new();
    let _first = soon("the first leads", candidate(backend.store(), "first:1", &cancel)).await.unwrap();
    let store = backend.store();
    let task = {
        let cancel = cancel.clone();
        tokio::spawn(async move { campaign(store, KEY, "second:1", TTL, &cancel).await })
    };
    cancel.cancel();
    assert!(soon("the candidate stops", task).await.unwrap().unwrap().is_none());
}

/// A process that got no processor for longer than its lease: in a store of its own it leads on.
#[tokio::test]
async fn who_stood_still_leads_on_where_nobody_else_can() {
    let backend = Backend::embedded().await;
    let cancel = CancellationToken::new();
    let store = backend.store();
    let leading = soon("it leads", candidate(backend.store(), "only:1", &cancel)).await.unwrap();
    std::thread::sleep(TTL * 2);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(leading.holds() && !leading.lost.is_cancelled());
    assert!(store.txn(Txn::new().when(leading.fence()).put("by", "it")).await.unwrap().succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_etcd_ends_leadership_and_the_next_one_follows() {
    let mut server = Etcd::start().await;
    let cancel = CancellationToken::new();
    let first = candidate(Arc::new(server.store().await), "first:1", &cancel).await.unwrap();
    let second = candidate(Arc::new(server.store().await), "second:1", &cancel);
    server.kill();
    soon("the first notices", first.lost.cancelled()).await;
    assert!(!second.is_finished());
    server.restart().await;
    soon("the second leads", second).await.unwrap();
}
