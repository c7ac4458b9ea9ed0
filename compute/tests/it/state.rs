//! Slot databases: contents of checkpoints and clones, and collection of garbage.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use proptest::prelude::*;
use weir_common::error::Kind;
use weir_common::head::SlotState;
use weir_common::ids::{Sequence, SlotId, SplitId, TableId, VNODES, VnodeRange};
use weir_compute::storage::state::keys::BlockKey;
use weir_compute::storage::state::{CloneSource, Error, SlotDb, Snapshot, Store, Survey, Tuning};

const PREFIX: &str = "state/test";

/// Everything in the background happens at once.
fn hasty() -> Tuning {
    Tuning {
        compaction_poll: Duration::from_millis(20),
        compaction_sources_min: 4,
        replaced_files_lifetime: Duration::from_millis(200),
        collection_interval: Duration::from_millis(100),
        collection_age_min: Duration::from_millis(100),
        bulk_bytes_min: 0,
        ..Tuning::default()
    }
}

fn key(table: u32, vnode: u16, sequence: u64) -> Bytes {
    let split = SplitId(format!("split {}", vnode % 3));
    BlockKey { table: TableId(table), vnode, split, sequence: Sequence(sequence) }.encode()
}

fn tables(ids: impl IntoIterator<Item = u32>) -> HashSet<TableId> {
    ids.into_iter().map(TableId).collect()
}

/// A table's entries, read in both ways.
async fn rows(snapshot: &Snapshot, table: u32, vnodes: VnodeRange) -> Vec<(Bytes, Bytes)> {
    let rows: Vec<(Bytes, Bytes)> = snapshot.scan(TableId(table), vnodes).try_collect().await.expect("a scan");
    let values: Vec<Bytes> =
        snapshot.values(TableId(table), vnodes).stream().try_concat().await.expect("a scan of values");
    assert!(rows.iter().map(|(_, value)| value).eq(&values), "both ways read the same");
    rows
}

/// Waits until a condition holds, for at most three minutes.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !is_so().await {
        assert!(Instant::now() < deadline, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A cluster's state over many terms, in one process.
struct Cluster {
    store: Store,
    term: u64,
    head: Vec<SlotState>,
    slots: Vec<(VnodeRange, SlotDb)>,
}

impl Cluster {
    fn new(store: Store) -> Cluster {
        Cluster { store, term: 0, head: Vec::new(), slots: Vec::new() }
    }

    /// Ends the term without a warning, and begins another with `parts` slots.
    async fn recover(&mut self, parts: usize, tables: &HashSet<TableId>) {
        for (_, slot) in self.slots.drain(..) {
            slot.close().await;
        }
        self.term += 1;
        let sources: Vec<CloneSource> = self.head.iter().map(CloneSource::from).collect();
        for (id, vnodes) in VnodeRange::divide(parts).into_iter().enumerate() {
            let path = format!("{PREFIX}/{}-0123456789abcdef/{id}", self.term);
            let slot = SlotDb::open(&self.store, &path, vnodes, &sources, tables).await.expect("a database");
            self.slots.push((vnodes, slot));
        }
    }

    async fn write(&self, entries: impl IntoIterator<Item = (Bytes, Bytes)>) {
        let mut batches = vec![Vec::new(); self.slots.len()];
        for (key, value) in entries {
            let vnode = BlockKey::decode(&key).expect("a key").vnode;
            let slot = self.slots.iter().position(|(vnodes, _)| (vnodes.start..vnodes.end).contains(&vnode));
            batches[slot.expect("all vnodes are held")].push((key, Some(value)));
        }
        for ((_, slot), batch) in self.slots.iter().zip(batches) {
            slot.write(batch).await.expect("a write");
        }
    }

    /// Commits a checkpoint of all slots and forgets the one before.
    async fn commit(&mut self) {
        let mut head = Vec::new();
        for (id, (vnodes, slot)) in self.slots.iter().enumerate() {
            let checkpoint = slot.begin_checkpoint().await.expect("a checkpoint").wait().await.expect("durable");
            let slot_id = SlotId(u32::try_from(id).expect("few slots"));
            head.push(SlotState { slot: slot_id, vnodes: *vnodes, path: slot.path().to_owned(), checkpoint });
        }
        let before = std::mem::replace(&mut self.head, head);
        for old in before {
            if let Some((_, slot)) = self.slots.iter().find(|(_, slot)| slot.path() == old.path) {
                slot.delete_checkpoint(old.checkpoint).await.expect("a deletion");
            }
        }
    }

    /// All of a table, over all slots.
    async fn scan(&self, table: u32) -> BTreeMap<Bytes, Bytes> {
        let mut all = BTreeMap::new();
        for (vnodes, slot) in &self.slots {
            let found = rows(&slot.snapshot().expect("a snapshot"), table, VnodeRange::ALL).await;
            assert!(found.is_sorted_by_key(|(key, _)| key.clone()), "a scan is in the order of keys");
            for (key, value) in found {
                let vnode = BlockKey::decode(&key).expect("a key").vnode;
                assert!((vnodes.start..vnodes.end).contains(&vnode), "vnode {vnode} is not of {vnodes}");
                all.insert(key, value);
            }
        }
        all
    }

    async fn collect(&self) -> usize {
        let survey = Survey::take(&self.store, PREFIX).await.expect("a survey");
        let live: Vec<String> = self.slots.iter().map(|(_, slot)| slot.path().to_owned()).collect();
        survey.collect(&self.head, &live).await.expect("a collection").kept
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u32, u16, u64, Vec<u8>)>),
    Commit,
    /// A checkpoint that becomes durable but is never committed.
    Checkpoint,
    Recover(usize),
    Drop(u32),
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0_u32..3, 0..VNODES, 0_u64..40, prop::collection::vec(any::<u8>(), 0..300));
    let step = prop_oneof![
        5 => prop::collection::vec(row, 1..40).prop_map(Step::Write),
        4 => Just(Step::Commit),
        1 => Just(Step::Checkpoint),
        2 => (1_usize..6).prop_map(Step::Recover),
        1 => (0_u32..3).prop_map(Step::Drop),
        1 => Just(Step::Collect),
    ];
    prop::collection::vec(step, 1..40)
}

/// Runs the steps and compares every table with a map, after every recovery and at the end.
async fn runs_like_a_map(store: Store, steps: Vec<Step>) {
    let mut cluster = Cluster::new(store);
    let mut live: BTreeMap<u32, BTreeMap<Bytes, Bytes>> = (0..3).map(|table| (table, BTreeMap::new())).collect();
    let mut committed = live.clone();
    cluster.recover(2, &tables(0..3)).await;
    for step in steps.into_iter().chain([Step::Recover(3)]) {
        match step {
            Step::Write(new) => {
                let new = new.into_iter().filter(|(table, ..)| live.contains_key(table));
                let entries: Vec<_> =
                    new.map(|(table, vnode, n, value)| (table, (key(table, vnode, n), Bytes::from(value)))).collect();
                cluster.write(entries.iter().map(|(_, entry)| entry.clone())).await;
                for (table, (key, value)) in entries {
                    live.entry(table).or_default().insert(key, value);
                }
            }
            Step::Commit => {
                cluster.commit().await;
                committed = live.clone();
            }
            Step::Checkpoint => {
                for (_, slot) in &cluster.slots {
                    slot.begin_checkpoint().await.expect("a checkpoint").wait().await.expect("durable");
                }
            }
            Step::Recover(parts) => {
                live = committed.clone();
                cluster.recover(parts, &tables(live.keys().copied())).await;
                for (table, expected) in &live {
                    assert_eq!(&cluster.scan(*table).await, expected, "table {table} after recovery");
                }
            }
            Step::Drop(table) => {
                live.remove(&table);
                cluster.slots.iter().for_each(|(_, slot)| slot.drop_table(TableId(table)));
            }
            Step::Collect => {
                cluster.collect().await;
            }
        }
        for (table, expected) in &live {
            assert_eq!(&cluster.scan(*table).await, expected, "table {table}");
        }
    }
    for (_, slot) in &cluster.slots {
        slot.close().await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_history_runs_like_a_map(steps in steps()) {
        let store = Store::open_with("memory://", hasty()).expect("a store");
        runtime().block_on(runs_like_a_map(store, steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn any_history_runs_like_a_map_on_disk(steps in steps()) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open_with(&format!("file://{}", dir.path().display()), hasty()).expect("a store");
        runtime().block_on(runs_like_a_map(store, steps));
    }
}

#[tokio::test]
async fn a_path_is_never_used_twice() {
    let store = Store::open("memory://").expect("a store");
    let open = async || SlotDb::open(&store, "state/test/1-a/0", VnodeRange::ALL, &[], &tables([1])).await;
    let slot = open().await.expect("a database");
    slot.close().await;
    assert!(matches!(open().await, Err(Error::PathUsed { path }) if path == "state/test/1-a/0"));
}

#[tokio::test]
async fn a_snapshot_stays_as_it_was_while_writes_and_compaction_go_on() {
    let store = Store::open_with("memory://", hasty()).expect("a store");
    let slot = SlotDb::open(&store, "state/test/1-a/0", VnodeRange::ALL, &[], &tables([1])).await.expect("a database");
    let value = |round: u64| Bytes::from(format!("round {round}").repeat(1000));
    let mut snapshots = Vec::new();
    for round in 0..20 {
        let batch: Vec<_> = (0..50).map(|n| (key(1, 7, n), Some(value(round)))).collect();
        slot.write(batch).await.expect("a write");
        let snapshot = slot.snapshot().expect("a snapshot");
        let pending = slot.begin_checkpoint().await.expect("a checkpoint");
        slot.write([(key(1, 7, 0), Some(Bytes::from_static(b"later")))]).await.expect("a write");
        let mut scan = Box::pin(snapshot.scan(TableId(1), VnodeRange::ALL));
        let (_, first) = scan.next().await.expect("a row").expect("no error");
        pending.wait().await.expect("durable");
        assert_eq!(first, value(round));
        assert!(scan.all(async |row| row.is_ok_and(|(_, found)| found == value(round))).await);
        snapshots.push(snapshot);
    }
    eventually("compaction has merged what was flushed", async || slot.gauges().l0_ssts < 8).await;
    for (round, snapshot) in (0..).zip(&snapshots) {
        let rows = rows(snapshot, 1, VnodeRange::ALL).await;
        assert!(rows.len() == 50 && rows.iter().all(|(_, found)| *found == value(round)), "as of round {round}");
    }
    slot.close().await;
}

#[tokio::test]
async fn a_slow_scan_outlives_the_files_it_began_with() {
    let store = Store::open_with("memory://", hasty()).expect("a store");
    let slot = SlotDb::open(&store, "state/test/1-a/0", VnodeRange::ALL, &[], &tables([1])).await.expect("a database");
    let checkpoint = async || slot.begin_checkpoint().await.expect("a checkpoint").wait().await.expect("durable");
    // More than is read ahead, in many files.
    let value = Bytes::from(vec![1; 1 << 20]);
    for n in 0..40 {
        slot.write([(key(1, 7, n), Some(value.clone()))]).await.expect("a write");
        let id = checkpoint().await;
        slot.delete_checkpoint(id).await.expect("a deletion");
    }
    eventually("there are large files", async || slot.gauges().l0_ssts < 4).await;
    let snapshot = slot.snapshot().expect("a snapshot");
    let mut scan = Box::pin(snapshot.scan(TableId(1), VnodeRange::ALL));
    let first = scan.next().await.expect("a row").expect("no error");
    let mut in_bulk = Box::pin(snapshot.values(TableId(1), VnodeRange::ALL).stream());
    let mut values = in_bulk.next().await.expect("values").expect("no error");
    let files = async || {
        let path = object_store::path::Path::from("state/test/1-a/0/compacted");
        store.objects().list(Some(&path)).map_ok(|object| object.location).try_collect::<HashSet<_>>().await
    };
    let began_with = files().await.expect("a listing");
    let mut more = 0;
    eventually("the files it began with are gone", async || {
        // The first files are merged with others only after as much again.
        more += 1;
        slot.write([(key(1, 9, more), Some(value.clone()))]).await.expect("a write");
        let id = checkpoint().await;
        slot.delete_checkpoint(id).await.expect("a deletion");
        files().await.expect("a listing").is_disjoint(&began_with)
    })
    .await;
    let rest: Vec<_> = scan.try_collect().await.expect("a whole scan");
    let all: Vec<_> = std::iter::once(first).chain(rest).collect();
    // Later writes do not show.
    assert_eq!(all, (0..40).map(|n| (key(1, 7, n), value.clone())).collect::<Vec<_>>());
    assert!(values.len() < 40, "the scan of values was under way");
    values.extend(in_bulk.try_concat().await.expect("a whole scan"));
    assert_eq!(values, vec![value; 40]);
    slot.close().await;
}

#[tokio::test]
async fn a_dropped_table_leaves_without_a_trace() {
    let store = Store::open_with("memory://", hasty()).expect("a store");
    let slot =
        SlotDb::open(&store, "state/test/1-a/0", VnodeRange::ALL, &[], &tables([1, 2])).await.expect("a database");
    let big = Bytes::from(vec![7; 100_000]);
    slot.write((0..10).map(|n| (key(1, 0, n), Some(big.clone())))).await.expect("a write");
    slot.write([(key(2, 0, 0), Some(big.clone()))]).await.expect("a write");
    slot.begin_checkpoint().await.expect("a checkpoint").wait().await.expect("durable");
    assert!(slot.gauges().bytes > 1_000_000);
    slot.write([(key(1, 0, 99), Some(big.clone()))]).await.expect("a write");
    slot.drop_table(TableId(1));
    slot.begin_checkpoint().await.expect("a checkpoint").wait().await.expect("durable");
    eventually("only the other table's file is left", async || slot.gauges().bytes < 200_000).await;
    let snapshot = slot.snapshot().expect("a snapshot");
    assert!(rows(&snapshot, 1, VnodeRange::ALL).await.is_empty());
    assert_eq!(rows(&snapshot, 2, VnodeRange::ALL).await.len(), 1);
    slot.close().await;
}

#[tokio::test]
async fn an_owner_learns_that_its_database_was_taken_or_closed() {
    let store = Store::open_with("memory://", hasty()).expect("a store");
    let slot = SlotDb::open(&store, "state/test/1-a/0", VnodeRange::ALL, &[], &tables([1])).await.expect("a database");
    slot.close().await;
    assert!(matches!(slot.closed().await, Error::Closed { .. }));
    let refused = slot.write([(key(1, 0, 0), None)]).await.expect_err("no write after the end");
    assert!(matches!(refused, Error::Closed { .. }), "{refused:?}");
    assert!(matches!(slot.begin_checkpoint().await.map(|_| ()), Err(Error::Closed { .. })));
    assert!(slot.snapshot().is_err());
}

#[tokio::test]
async fn a_checkpoint_that_was_deleted_cannot_be_cloned() {
    let store = Store::open_with("memory://", hasty()).expect("a store");
    let mut cluster = Cluster::new(store.clone());
    cluster.recover(1, &tables([1])).await;
    cluster.write([(key(1, 0, 0), Bytes::from_static(b"a"))]).await;
    cluster.commit().await;
    let source = CloneSource::from(&cluster.head[0]);
    cluster.slots[0].1.delete_checkpoint(source.checkpoint).await.expect("a deletion");
    let clone = SlotDb::open(&store, "state/test/9-a/0", VnodeRange::ALL, &[source], &tables([1])).await;
    assert!(clone.is_err_and(|error| error.kind() == weir_common::error::Kind::Corrupt));
}

/// If databases of the head are damaged, it is unknown which others they are built on, so nothing
/// is garbage.
#[tokio::test]
async fn nothing_is_collected_while_the_head_is_not_complete() {
    let store = Store::open_with("memory://", hasty()).expect("a store");
    let mut cluster = Cluster::new(store.clone());
    cluster.recover(1, &tables([1])).await;
    cluster.write([(key(1, 0, 0), Bytes::from_static(b"a"))]).await;
    cluster.commit().await;
    cluster.recover(1, &tables([1])).await;
    cluster.commit().await;
    // A clone of a clone whose term has ended: only its own manifest names its ancestors.
    let (head, (_, last)) = (cluster.head.clone(), cluster.slots.remove(0));
    let databases = async || {
        let survey = Survey::take(&store, PREFIX).await.expect("a survey");
        survey.databases().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = databases().await;
    assert_eq!(before.len(), 2);
    let survey = Survey::take(&store, PREFIX).await.expect("a survey");
    last.delete_checkpoint(head[0].checkpoint).await.expect("a deletion");
    last.close().await;
    let refused = survey.collect(&head, &[]).await.expect_err("it has changed since");
    assert_eq!(refused.kind(), Kind::Fenced, "{refused}");
    let survey = Survey::take(&store, PREFIX).await.expect("a survey");
    let refused = survey.collect(&head, &[]).await.expect_err("the checkpoint is gone");
    assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    let path = object_store::path::Path::from(format!("{}/manifest", head[0].path));
    let manifests: Vec<_> =
        store.objects().list(Some(&path)).map_ok(|object| object.location).try_collect().await.expect("a list");
    for manifest in manifests {
        store.objects().delete(&manifest).await.expect("a deletion");
    }
    let survey = Survey::take(&store, PREFIX).await.expect("a survey");
    let refused = survey.collect(&head, &[]).await.expect_err("the manifest is gone");
    assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    assert_eq!(databases().await, before);
}

/// Two collections may overlap. If a database is gone, the other one has removed it.
#[tokio::test]
async fn what_another_collection_has_removed_is_not_missed() {
    let store = Store::open_with("memory://", hasty()).expect("a store");
    let mut cluster = Cluster::new(store.clone());
    cluster.recover(1, &tables([1])).await;
    cluster.write([(key(1, 0, 0), Bytes::from_static(b"a"))]).await;
    cluster.commit().await;
    let dead = cluster.head[0].path.clone();
    cluster.recover(1, &tables([1])).await;
    cluster.commit().await;
    let live = [cluster.head[0].path.clone()];
    let survey = Survey::take(&store, PREFIX).await.expect("a survey");
    assert_eq!(survey.databases().collect::<Vec<_>>(), [dead.as_str(), live[0].as_str()]);
    let objects = store.objects().list(Some(&object_store::path::Path::from(dead))).map_ok(|object| object.location);
    for object in objects.try_collect::<Vec<_>>().await.expect("a list") {
        store.objects().delete(&object).await.expect("a deletion");
    }
    survey.collect(&cluster.head, &live).await.expect("nothing is wrong");
}

/// Sixty recoveries in a row, with different divisions: everything stays, and neither the time of a
/// recovery nor the storage grows with their number.
async fn recoveries_leave_no_sediment(store: Store) {
    let mut cluster = Cluster::new(store.clone());
    let mut expected = BTreeMap::new();
    let (mut early, mut late) = (Duration::ZERO, Duration::ZERO);
    let mut kept_max = 0;
    for term in 0..60_u64 {
        let parts = [2, 3, 1, 4][usize::try_from(term % 4).expect("below 4")];
        let started = Instant::now();
        cluster.recover(parts, &tables([1])).await;
        let took = started.elapsed() / u32::try_from(parts).expect("few parts");
        match term {
            10..20 => early += took,
            50..60 => late += took,
            _ => {}
        }
        assert_eq!(cluster.scan(1).await, expected, "after {term} recoveries");
        // Every term adds a little and overwrites nothing, as events do.
        for round in 0..3 {
            let batch: Vec<_> = (0..VNODES)
                .step_by(16)
                .map(|vnode| (key(1, vnode, term * 10 + round), Bytes::from(vec![1; 500])))
                .collect();
            expected.extend(batch.iter().cloned());
            cluster.write(batch).await;
            cluster.commit().await;
        }
        if term % 5 == 4 {
            for (_, slot) in &cluster.slots {
                let max = hasty().ancestors_max;
                eventually("few ancestors are left", async || slot.gauges().ancestors <= max).await;
            }
            cluster.commit().await;
            let few = async || {
                let kept = cluster.collect().await;
                kept_max = kept_max.max(kept);
                kept <= parts * (1 + hasty().ancestors_max)
            };
            eventually("ancestors are collected", few).await;
        }
    }
    assert!(late < early * 5 + Duration::from_secs(5), "recoveries became slower: {early:?}, then {late:?}");
    let listing: BTreeSet<String> =
        Survey::take(&store, PREFIX).await.expect("a survey").databases().map(str::to_owned).collect();
    assert!(listing.len() <= 4 * (1 + hasty().ancestors_max), "databases are left over: {listing:?}");
    assert_eq!(cluster.scan(1).await, expected);
    for (_, slot) in &cluster.slots {
        slot.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recoveries_leave_no_sediment_in_memory() {
    recoveries_leave_no_sediment(Store::open_with("memory://", hasty()).expect("a store")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recoveries_leave_no_sediment_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open_with(&format!("file://{}", dir.path().display()), hasty()).expect("a store");
    recoveries_leave_no_sediment(store).await;
    // Directories of removed databases are gone too.
    let terms = std::fs::read_dir(dir.path().join(PREFIX)).expect("a directory").count();
    assert!(terms <= 4 * (1 + hasty().ancestors_max), "{terms} terms are left");
}

/// The opening of a database on an object store that takes no writes is given up in time, and the
/// error says why.
#[tokio::test]
async fn a_database_that_cannot_be_opened_is_given_up() {
    let config = ThrottleConfig { wait_put_per_call: Duration::from_secs(1 << 25), ..ThrottleConfig::default() };
    let objects = Arc::new(ThrottledStore::new(InMemory::new(), config));
    let store = Store::over(objects, Tuning { open_timeout: Duration::from_secs(1), ..hasty() });
    let opened = SlotDb::open(&store, &format!("{PREFIX}/1-0/0"), VnodeRange::ALL, &[], &tables([1])).await;
    let error = opened.err().expect("it cannot be opened");
    assert_eq!(error.kind(), Kind::Unavailable);
    let wanted = "database \"state/test/1-0/0\" could not be opened within 1 s: the object store does not answer";
    assert_eq!(error.to_string(), wanted);
}
