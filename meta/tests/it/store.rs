//! What both implementations of the metadata store promise.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use weir_common::error::Kind;
use weir_meta::store::embedded::EmbeddedStore;
use weir_meta::store::{Compare, Error, KeyValue, LeaseId, MetaStore, TXN_OPERATIONS_MAX, Txn, VALUE_BYTES_MAX};

use crate::support::{Backend, eventually, on_both};

on_both! {
    compares_decide_on_the_present_life_of_a_key,
    a_transaction_happens_wholly_or_not_at_all,
    concurrent_increments_are_all_counted,
    a_list_is_in_order_and_ends_with_its_prefix,
    the_end_of_a_lease_deletes_its_keys_and_fails_their_compares,
    a_lease_lives_as_long_as_it_is_kept_alive,
    nothing_is_written_under_an_ended_lease,
    a_restart_keeps_keys_and_revisions,
    oversize_is_refused,
}

async fn compares_decide_on_the_present_life_of_a_key(backend: Backend) {
    let store = backend.store();
    let absent = || Compare::Absent("k".to_owned());
    let created = store.txn(Txn::new().when(absent()).put("k", "1")).await.unwrap();
    assert!(created.succeeded);
    assert!(!store.txn(Txn::new().when(absent()).put("k", "2")).await.unwrap().succeeded);

    let modified = Compare::ModRevision("k".to_owned(), created.revision);
    let changed = store.txn(Txn::new().when(modified.clone()).put("k", "3")).await.unwrap();
    assert!(changed.succeeded);
    assert!(changed.revision > created.revision);
    assert!(!store.txn(Txn::new().when(modified).put("k", "4")).await.unwrap().succeeded);

    let expected = KeyValue {
        key: "k".to_owned(),
        value: "3".into(),
        create_revision: created.revision,
        mod_revision: changed.revision,
    };
    assert_eq!(store.get("k").await.unwrap(), Some(expected));

    let first_life = Compare::CreateRevision("k".to_owned(), created.revision);
    assert!(store.txn(Txn::new().when(first_life.clone()).delete("k")).await.unwrap().succeeded);
    assert_eq!(store.get("k").await.unwrap(), None);
    assert!(!store.txn(Txn::new().when(first_life.clone()).put("x", "")).await.unwrap().succeeded);
    assert!(store.txn(Txn::new().when(absent()).put("k", "5")).await.unwrap().succeeded);
    assert!(!store.txn(Txn::new().when(first_life).put("x", "")).await.unwrap().succeeded);
    let never = [Compare::ModRevision("y".to_owned(), 0), Compare::CreateRevision("y".to_owned(), 0)];
    for compare in never {
        assert!(!store.txn(Txn::new().when(compare)).await.unwrap().succeeded, "an absent key has no revision");
    }
}

async fn a_transaction_happens_wholly_or_not_at_all(backend: Backend) {
    let store = backend.store();
    let first = store.txn(Txn::new().put("a", "1").put("b", "1")).await.unwrap();
    let holds = || Compare::ModRevision("a".to_owned(), first.revision);
    let fails = || Compare::Absent("b".to_owned());
    let refused = Txn::new().when(holds()).when(fails()).put("a", "2").put("c", "2").delete("b");
    assert!(!store.txn(refused).await.unwrap().succeeded);
    assert_eq!(contents(&*store).await, [("a", "1"), ("b", "1")].map(owned));

    let applied = Txn::new().when(holds()).put("a", "2").put("c", "2").delete("b").delete("never there");
    let outcome = store.txn(applied).await.unwrap();
    assert!(outcome.succeeded);
    assert_eq!(contents(&*store).await, [("a", "2"), ("c", "2")].map(owned));
    assert!(store.list("").await.unwrap().iter().all(|found| found.mod_revision == outcome.revision));
}

async fn concurrent_increments_are_all_counted(backend: Backend) {
    const TASKS: u64 = 8;
    const INCREMENTS: u64 = 10;
    let store = backend.store();
    store.txn(Txn::new().put("n", "0")).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = backend.store();
        tasks.spawn(async move {
            let mut done = 0;
            while done < INCREMENTS {
                let found = store.get("n").await.unwrap().unwrap();
                let count: u64 = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
                let unchanged = Compare::ModRevision("n".to_owned(), found.mod_revision);
                let outcome = store.txn(Txn::new().when(unchanged).put("n", (count + 1).to_string())).await;
                done += u64::from(outcome.unwrap().succeeded);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(store.get("n").await.unwrap().unwrap().value, (TASKS * INCREMENTS).to_string());
}

async fn a_list_is_in_order_and_ends_with_its_prefix(backend: Backend) {
    let store = backend.store();
    let keys = ["p/10", "p/2", "p", "p/", "p0", "p/é", "q/1", "o/9", "p/1/x"];
    let txn = keys.iter().fold(Txn::new(), |txn, key| txn.put(*key, *key));
    store.txn(txn).await.unwrap();
    let listed: Vec<_> = store.list("p/").await.unwrap().into_iter().map(|found| found.key).collect();
    assert_eq!(listed, ["p/", "p/1/x", "p/10", "p/2", "p/é"]);
    let all: Vec<_> = store.list("").await.unwrap().into_iter().map(|found| found.key).collect();
    assert_eq!(all, BTreeSet::from(keys).into_iter().collect::<Vec<_>>());
    assert_eq!(store.list("nothing").await.unwrap(), []);
}

async fn the_end_of_a_lease_deletes_its_keys_and_fails_their_compares(backend: Backend) {
    let store = backend.store();
    let lease = store.grant_lease(Duration::from_secs(1)).await.unwrap();
    let txn = Txn::new().put_leased("leased", "1", lease).put_leased("kept", "1", lease).put("other", "1");
    let created = store.txn(txn).await.unwrap();
    // Put again without the lease, a key is no longer bound to it.
    store.txn(Txn::new().put("kept", "2")).await.unwrap();
    let gone = || async { store.get("leased").await.unwrap().is_none() };
    eventually("the lease ends", gone).await;
    assert_eq!(contents(&*store).await, [("kept", "2"), ("other", "1")].map(owned));
    let still_there = Compare::CreateRevision("leased".to_owned(), created.revision);
    assert!(!store.txn(Txn::new().when(still_there.clone()).put("x", "")).await.unwrap().succeeded);
    assert!(!store.keep_alive(lease).await.unwrap());
    store.revoke(lease).await.unwrap();

    // A second life of the key is another one.
    store.txn(Txn::new().put("leased", "1")).await.unwrap();
    assert!(!store.txn(Txn::new().when(still_there).put("x", "")).await.unwrap().succeeded);
}

async fn a_lease_lives_as_long_as_it_is_kept_alive(backend: Backend) {
    let store = backend.store();
    let (kept, witness) = (
        store.grant_lease(Duration::from_secs(2)).await.unwrap(),
        store.grant_lease(Duration::from_secs(2)).await.unwrap(),
    );
    store.txn(Txn::new().put_leased("kept", "", kept).put_leased("witness", "", witness)).await.unwrap();
    let witness_gone = || async {
        assert!(store.keep_alive(kept).await.unwrap());
        store.get("witness").await.unwrap().is_none()
    };
    eventually("the lease that is not kept alive ends", witness_gone).await;
    assert!(store.get("kept").await.unwrap().is_some());

    store.revoke(kept).await.unwrap();
    assert!(store.get("kept").await.unwrap().is_none());
    assert!(!store.keep_alive(kept).await.unwrap());
    assert!(!store.keep_alive(LeaseId(77)).await.unwrap(), "never granted");
}

async fn nothing_is_written_under_an_ended_lease(backend: Backend) {
    let store = backend.store();
    let lease = store.grant_lease(Duration::from_secs(10)).await.unwrap();
    store.revoke(lease).await.unwrap();
    let txn = || Txn::new().put("a", "").put_leased("b", "", lease);
    let error = store.txn(txn()).await.unwrap_err();
    assert!(matches!(error, Error::LeaseEnded { lease: ended } if ended == lease), "{error:?}");
    assert_eq!(store.list("").await.unwrap(), []);
    let refused = store.txn(txn().when(Compare::ModRevision("a".to_owned(), 1))).await.unwrap();
    assert!(!refused.succeeded, "a compare that fails comes first");
}

async fn a_restart_keeps_keys_and_revisions(mut backend: Backend) {
    let created = backend.store().txn(Txn::new().put("k", "1")).await.unwrap();
    let mut revision = created.revision;
    for round in 0..3 {
        backend.restart().await;
        let store = backend.store();
        let found = store.get("k").await.unwrap().unwrap();
        assert_eq!((found.create_revision, found.mod_revision), (created.revision, revision));
        let unchanged = Compare::ModRevision("k".to_owned(), revision);
        let outcome = store.txn(Txn::new().when(unchanged).put("k", round.to_string())).await.unwrap();
        assert!(outcome.succeeded && outcome.revision > revision);
        revision = outcome.revision;
    }
}

async fn oversize_is_refused(backend: Backend) {
    let store = backend.store();
    let error = store.txn(Txn::new().put("k", vec![1; VALUE_BYTES_MAX + 1])).await.unwrap_err();
    assert!(matches!(error, Error::ValueTooLarge { .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::User);
    let many = (0..=TXN_OPERATIONS_MAX).fold(Txn::new(), |txn, i| txn.put(format!("k{i}"), ""));
    let error = store.txn(many).await.unwrap_err();
    assert!(matches!(error, Error::TooManyOperations { .. }), "{error:?}");
    assert_eq!(store.list("").await.unwrap(), []);

    assert!(store.txn(Txn::new().put("k", vec![1; VALUE_BYTES_MAX])).await.unwrap().succeeded);
    let most = (0..TXN_OPERATIONS_MAX).fold(Txn::new(), |txn, i| txn.put(format!("k{i}"), ""));
    assert!(store.txn(most).await.unwrap().succeeded);
    // More than one message of gRPC holds by default.
    for i in 0..8 {
        store.txn(Txn::new().put(format!("large{i}"), vec![1; VALUE_BYTES_MAX])).await.unwrap();
    }
    assert_eq!(store.list("large").await.unwrap().len(), 8);
}

/// The same random transactions bring the same outcomes, revisions included, on both.
#[tokio::test(flavor = "multi_thread")]
async fn the_implementations_cannot_be_told_apart() {
    let seed = rand::random();
    println!("seed {seed}");
    let backends = (Backend::etcd().await, Backend::embedded().await);
    let (etcd, embedded) = (backends.0.store(), backends.1.store());
    let mut random = StdRng::seed_from_u64(seed);
    let mut leases = Vec::new();
    for _ in 0..300 {
        if random.random_bool(0.1) {
            let ttl = Duration::from_secs(600);
            leases.push((etcd.grant_lease(ttl).await.unwrap(), embedded.grant_lease(ttl).await.unwrap()));
        }
        if random.random_bool(0.05)
            && let Some((of_etcd, of_embedded)) = leases.choose(&mut random)
        {
            etcd.revoke(*of_etcd).await.unwrap();
            embedded.revoke(*of_embedded).await.unwrap();
        }
        let found = etcd.list("").await.unwrap();
        assert_eq!(found, embedded.list("").await.unwrap());
        let (for_etcd, for_embedded) = random_txns(&mut random, &found, &leases);
        match (etcd.txn(for_etcd.clone()).await, embedded.txn(for_embedded).await) {
            (Ok(of_etcd), Ok(of_embedded)) => assert_eq!(of_etcd, of_embedded, "{for_etcd:?}"),
            (Err(Error::LeaseEnded { .. }), Err(Error::LeaseEnded { .. })) => {}
            (of_etcd, of_embedded) => panic!("{for_etcd:?}: {of_etcd:?} and {of_embedded:?}"),
        }
    }
}

/// One transaction for each store; they differ only in the ids of leases.
fn random_txns(random: &mut StdRng, found: &[KeyValue], leases: &[(LeaseId, LeaseId)]) -> (Txn, Txn) {
    let mut keys = vec!["a", "b", "c", "d"];
    let revisions: Vec<u64> = found.iter().flat_map(|found| [found.create_revision, found.mod_revision]).collect();
    let mut txns = (Txn::new(), Txn::new());
    for _ in 0..random.random_range(0..3) {
        let key = (*keys.choose(random).unwrap()).to_owned();
        let revision = revisions.choose(random).copied().unwrap_or(5);
        let compare = match random.random_range(0..3) {
            0 => Compare::Absent(key),
            1 => Compare::ModRevision(key, revision),
            _ => Compare::CreateRevision(key, revision),
        };
        txns = (txns.0.when(compare.clone()), txns.1.when(compare));
    }
    for _ in 0..random.random_range(0..4) {
        let key = keys.swap_remove(random.random_range(0..keys.len()));
        let value = random.random::<u8>().to_string();
        txns = match (random.random_range(0..3), leases.choose(random)) {
            (0, _) => (txns.0.delete(key), txns.1.delete(key)),
            (1, Some((of_etcd, of_embedded))) => {
                (txns.0.put_leased(key, value.clone(), *of_etcd), txns.1.put_leased(key, value.clone(), *of_embedded))
            }
            _ => (txns.0.put(key, value.clone()), txns.1.put(key, value)),
        };
    }
    txns
}

#[tokio::test]
async fn opening_the_embedded_store_ends_the_leases_of_the_process_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not yet there").join("meta.redb");
    let store = EmbeddedStore::open(&path).await.unwrap();
    let lease = store.grant_lease(Duration::from_secs(600)).await.unwrap();
    let created = store.txn(Txn::new().put_leased("leased", "", lease).put("kept", "")).await.unwrap();
    drop(store);

    let store = EmbeddedStore::open(&path).await.unwrap();
    assert_eq!(contents(&store).await, [("kept", "")].map(owned));
    assert!(!store.keep_alive(lease).await.unwrap());
    let old = Compare::CreateRevision("leased".to_owned(), created.revision);
    assert!(!store.txn(Txn::new().when(old)).await.unwrap().succeeded);
    assert!(store.txn(Txn::new().put("x", "")).await.unwrap().revision > created.revision + 1);
}

#[tokio::test]
async fn an_embedded_store_belongs_to_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    let _held = EmbeddedStore::open(&path).await.unwrap();
    let error = EmbeddedStore::open(&path).await.err().unwrap();
    assert!(matches!(error, Error::Open { .. }), "{error:?}");
    std::fs::write(directory.path().join("other"), "no store").unwrap();
    assert!(EmbeddedStore::open(directory.path().join("other")).await.is_err());
}

const WRITER_VARIABLE: &str = "WEIR_TEST_WRITER";

/// Everything that a killed process was told to have written is there.
#[tokio::test]
async fn the_embedded_store_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    let mut told = 0;
    for round in 1..=5 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::a_process_that_writes_until_it_is_killed", "--nocapture"])
            .env(WRITER_VARIABLE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut written = lines.by_ref().filter_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok());
        told = written.nth(round * 7).unwrap();
        writer.kill().unwrap();
        told = written.last().unwrap_or(told);
        writer.wait().unwrap();

        let store = EmbeddedStore::open(&path).await.unwrap();
        let found = store.get("n").await.unwrap().unwrap();
        let n: u64 = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
        assert!(n == told || n == told + 1, "{told} was written, found {n}");
        assert_eq!(store.list("twin").await.unwrap()[0].value, found.value, "half a transaction");
    }
    assert!(told >= 5 * 7);
}

/// The process that the test above kills. Without the variable it is a test without content.
#[tokio::test]
async fn a_process_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(WRITER_VARIABLE) else { return };
    let store = EmbeddedStore::open(path).await.unwrap();
    let found = store.get("n").await.unwrap();
    let mut n: u64 = found.map_or(0, |found| std::str::from_utf8(&found.value).unwrap().parse().unwrap());
    loop {
        n += 1;
        let outcome = store.txn(Txn::new().put("n", n.to_string()).put("twin", n.to_string())).await.unwrap();
        assert!(outcome.succeeded);
        // The pipe breaks when the test is done; so does this process, if it was not killed.
        writeln!(std::io::stdout(), "written {n}").unwrap();
    }
}

async fn contents(store: &dyn MetaStore) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    store.list("").await.unwrap().into_iter().map(|found| (found.key.clone(), text(&found.value))).collect()
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}
