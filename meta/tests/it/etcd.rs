//! What happens to calls when etcd is gone, hangs, or is one of several.

use std::time::Duration;

use tokio::time::Instant;
use weir_common::error::Kind;
use weir_meta::store::etcd::EtcdStore;
use weir_meta::store::{CALL_TIMEOUT, Compare, Error, MetaStore, Txn};

use crate::support::{Etcd, eventually};

/// What a call may take beyond its limit on a busy machine.
const SLACK: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_calls_end_and_nothing_has_happened() {
    let mut etcd = Etcd::start().await;
    let store = etcd.store().await;
    store.txn(Txn::new().put("k", "1")).await.unwrap();
    etcd.kill();
    let begin = Instant::now();
    let error = store.get("k").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(begin.elapsed() < CALL_TIMEOUT + SLACK);
    let error = store.txn(Txn::new().put("k", "2")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "it cannot have been sent: {error:?}");
    etcd.restart().await;
    assert_eq!(store.get("k").await.unwrap().unwrap().value, "1");
    store.txn(Txn::new().put("k", "3")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_to_an_etcd_that_hangs_has_an_unknown_outcome() {
    let etcd = Etcd::start().await;
    let store = etcd.store().await;
    store.txn(Txn::new().put("k", "1")).await.unwrap();
    etcd.signal("-STOP");
    let begin = Instant::now();
    let error = store.txn(Txn::new().put("k", "2")).await.unwrap_err();
    assert!(matches!(error, Error::UnknownOutcome { .. }), "{error:?}");
    assert!(begin.elapsed() < CALL_TIMEOUT + SLACK);
    assert_eq!(store.get("k").await.unwrap_err().kind(), Kind::Unavailable);
    etcd.signal("-CONT");
    // It was on its way, and arrives now or not; the store works again in any case.
    let written = || async {
        let outcome = store.txn(Txn::new().when(Compare::Absent("done".to_owned())).put("done", "")).await;
        outcome.is_ok_and(|outcome| outcome.succeeded)
    };
    eventually("etcd answers again", written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_left_for_one_that_lives() {
    let (mut first, second) = (Etcd::start().await, Etcd::start().await);
    // Two clusters stand in for two members: it shows which of them answers.
    let store = EtcdStore::open(&[first.endpoint(), second.endpoint()]).await.unwrap();
    store.txn(Txn::new().put("k", "first")).await.unwrap();
    first.kill();
    assert_eq!(store.get("k").await.unwrap(), None);
    assert!(store.txn(Txn::new().put("k", "second")).await.unwrap().succeeded);
    assert_eq!(second.store().await.get("k").await.unwrap().unwrap().value, "second");
}

#[tokio::test]
async fn malformed_endpoints_are_refused() {
    for endpoints in [vec![], vec!["http://".to_owned()], vec!["https://localhost:2379".to_owned()]] {
        let error = EtcdStore::open(&endpoints).await.err().unwrap();
        assert_eq!(error.kind(), Kind::User, "{endpoints:?}");
    }
}
