//! State of operators in a slot's database.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use weir_common::ids::{TableId, VNODES, VnodeRange};
use weir_common::key::KEY_BYTES_MAX;
use weir_compute::storage::state::{CloneSource, SlotDb, Store, Tuning, keys};

use crate::state::eventually;

const JOB: TableId = TableId(7);

/// The stored key of an operator's key, which begins with a lookup prefix of one byte.
fn key(job: TableId, vnode: u16, key: &[u8]) -> Bytes {
    let mut stored = Vec::new();
    keys::write_state_key(job, 0, vnode, &key[..1], key, &mut stored);
    stored.into()
}

fn bytes(value: &'static str) -> Bytes {
    Bytes::from_static(value.as_bytes())
}

async fn checkpoint(slot: &SlotDb) {
    slot.begin_checkpoint().await.expect("a checkpoint").wait().await.expect("durable");
}

#[tokio::test]
async fn lookups_see_each_write_and_each_delete_at_once() {
    let store = Store::open_with("memory://", Tuning::default()).expect("a store");
    let none = HashSet::new();
    let slot = SlotDb::open(&store, "state/test/1-a/0", VnodeRange::ALL, &[], &none).await.expect("a database");
    let mut expected = BTreeMap::new();
    let rounds: [&[(&[u8], Option<&'static str>)]; 4] = [
        &[(b"a1", Some("x")), (b"a2", Some("y")), (b"a", Some("z")), (b"b1", Some("other prefix"))],
        &[(b"a1", None), (b"a3", Some("new"))],
        &[(b"a1", Some("again")), (b"a2", None), (b"c", None)],
        &[(b"a", None), (b"a1", None), (b"a3", None)],
    ];
    for round in rounds {
        let changes = round.iter().map(|(name, value)| (key(JOB, 3, name), value.map(bytes)));
        slot.write(changes).await.expect("a write");
        for (name, value) in round {
            match value {
                Some(value) => expected.insert(*name, bytes(value)),
                None => expected.remove(name),
            };
        }
        for _ in ["in memory", "in files"] {
            let names: [&[u8]; 6] = [b"a", b"a1", b"a2", b"a3", b"b1", b"c"];
            let found = slot.get(names.iter().map(|name| key(JOB, 3, name)).collect()).await.expect("values");
            assert!(names.iter().map(|name| expected.get(name)).eq(found.iter().map(Option::as_ref)), "{found:?}");
            let range = keys::state_range(JOB, 0, 3, b"a");
            let all: Vec<(Bytes, Bytes)> = expected
                .iter()
                .filter(|(name, _)| name.starts_with(b"a"))
                .map(|(name, value)| (key(JOB, 3, name), value.clone()))
                .collect();
            assert_eq!(slot.scan_prefix(range.clone(), usize::MAX).await.expect("a scan"), all);
            let first = slot.scan_prefix(range.clone(), 1).await.expect("a scan");
            assert_eq!(first, all[..all.len().min(1)]);
            // A page begins behind the one before.
            let rest = key(JOB, 3, b"a\0")..range.end.clone();
            let found = slot.scan_prefix(rest, usize::MAX).await.expect("a scan");
            assert!(found.iter().eq(all.iter().filter(|(stored, _)| *stored != key(JOB, 3, b"a"))));
            let part = key(JOB, 3, b"a1")..key(JOB, 3, b"a2");
            let found = slot.scan_prefix(part, usize::MAX).await.expect("a scan");
            assert!(found.iter().eq(all.iter().filter(|(stored, _)| *stored == key(JOB, 3, b"a1"))));
            checkpoint(&slot).await;
        }
    }
    assert_eq!(slot.scan_prefix(keys::state_range(JOB, 0, 4, b"a"), 9).await.expect("a scan"), []);
    slot.close().await;
}

/// Compaction merges nothing by itself, so that only what a test is about changes files.
fn quiet() -> Tuning {
    Tuning {
        compaction_poll: Duration::from_millis(20),
        compaction_sources_min: 1000,
        collection_interval: Duration::from_millis(100),
        ..Tuning::default()
    }
}

type Rows = BTreeMap<Bytes, Bytes>;

/// Rows of jobs, a kilobyte each, over all vnodes.
fn rows(jobs: impl IntoIterator<Item = u32>, numbers: std::ops::Range<u16>) -> Rows {
    let row = |job, number: u16| {
        let name = [b"k".as_slice(), &number.to_be_bytes()].concat();
        (key(TableId(job), number % VNODES, &name), Bytes::from(vec![u8::try_from(job).expect("few jobs"); 1000]))
    };
    jobs.into_iter().flat_map(|job| numbers.clone().map(move |number| row(job, number))).collect()
}

/// Everything in the operators' segment, whichever job it is of.
async fn all_rows(slot: &SlotDb) -> Rows {
    let snapshot = slot.snapshot().expect("a snapshot");
    snapshot.scan(keys::STATE, VnodeRange::ALL).try_collect().await.expect("a scan")
}

async fn put(slots: &[(VnodeRange, SlotDb)], rows: &Rows) {
    for (vnodes, slot) in slots {
        let own =
            rows.iter().filter(|(key, _)| (vnodes.start..vnodes.end).contains(&u16::from_be_bytes([key[4], key[5]])));
        slot.write(own.map(|(key, value)| (key.clone(), Some(value.clone())))).await.expect("a write");
    }
}

/// Opens the databases of a term, which take over the jobs of the catalog from the sources.
async fn open(
    store: &Store,
    term: u32,
    parts: usize,
    sources: &[CloneSource],
    jobs: &[u32],
) -> Vec<(VnodeRange, SlotDb)> {
    let tables: HashSet<TableId> = jobs.iter().copied().map(TableId).collect();
    let mut slots = Vec::new();
    for vnodes in VnodeRange::divide(parts) {
        let path = format!("state/test/{term}-a/{}", slots.len());
        let slot = SlotDb::open(store, &path, vnodes, sources, &tables).await.expect("a database");
        slots.push((vnodes, slot));
    }
    slots
}

async fn commit(slots: &[(VnodeRange, SlotDb)]) -> Vec<CloneSource> {
    let mut sources = Vec::new();
    for (vnodes, slot) in slots {
        let checkpoint = slot.begin_checkpoint().await.expect("a checkpoint").wait().await.expect("durable");
        sources.push(CloneSource { path: slot.path().to_owned(), checkpoint, vnodes: *vnodes });
    }
    sources
}

/// Waits until the databases hold exactly these rows, which a drop has made fewer, in fewer bytes.
async fn shrinks_to(slots: &[(VnodeRange, SlotDb)], rows: &Rows) {
    eventually("the rows of dropped jobs are gone, in every file", async || {
        let (mut found, mut bytes) = (Rows::new(), 0);
        for (_, slot) in slots {
            found.extend(all_rows(slot).await);
            bytes += slot.gauges().bytes;
        }
        assert!(rows.iter().all(|(key, value)| found.get(key) == Some(value)), "rows of others stay");
        let stored: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        found == *rows && bytes <= stored as u64 * 5 / 4
    })
    .await;
}

async fn close(slots: Vec<(VnodeRange, SlotDb)>) {
    for (_, slot) in slots {
        slot.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_a_dropped_job_leaves_the_files_that_it_shares() {
    let store = Store::open_with("memory://", quiet()).expect("a store");
    let slots = open(&store, 1, 1, &[], &[1, 2]).await;
    let reclaim = tokio::spawn(slots[0].1.clone().reclaim());
    let mut kept = Rows::new();
    for round in 0..4 {
        put(&slots, &rows([1, 2, 3], round * 512..(round + 1) * 512)).await;
        kept.extend(rows([2, 3], round * 512..(round + 1) * 512));
        commit(&slots).await;
    }
    assert!(slots[0].1.gauges().bytes > 3_000_000);
    slots[0].1.drop_table(TableId(1));
    // A job that is new. Rows of the dropped one that came after a look at the files would stay
    // until the next usual compaction, since they are few.
    put(&slots, &rows([4], 0..512)).await;
    kept.extend(rows([4], 0..512));
    commit(&slots).await;
    shrinks_to(&slots, &kept).await;
    // The only job that is left of the segment leaves nothing behind.
    for job in 2..=4 {
        slots[0].1.drop_table(TableId(job));
    }
    shrinks_to(&slots, &Rows::new()).await;
    put(&slots, &rows([5], 0..100)).await;
    commit(&slots).await;
    shrinks_to(&slots, &rows([5], 0..100)).await;
    close(slots).await;
    reclaim.await.expect("it ends with the database");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_a_job_that_was_dropped_before_a_crash_is_removed_in_later_terms() {
    let store = Store::open_with("memory://", quiet()).expect("a store");
    let slots = open(&store, 1, 3, &[], &[1, 2]).await;
    put(&slots, &rows([1, 2], 0..2048)).await;
    let head = commit(&slots).await;
    // The crash comes between the drop and its first checkpoint.
    slots[0].1.drop_table(TableId(1));
    close(slots).await;
    for (term, parts) in [(2, 2), (3, 4)] {
        let slots = open(&store, term, parts, &head, &[2]).await;
        let mut kept = rows([2], 0..2048);
        let found = all_rows(&slots[0].1).await;
        assert!(found.len() > 2048 / parts, "the state of all jobs comes along");
        // The job is newer than the catalog that the databases know.
        put(&slots, &rows([3], 0..300)).await;
        kept.extend(rows([3], 0..300));
        let uncommitted = commit(&slots).await;
        assert_eq!(uncommitted.len(), parts);
        let tasks: Vec<_> = slots.iter().map(|(_, slot)| tokio::spawn(slot.clone().reclaim())).collect();
        if term == 3 {
            shrinks_to(&slots, &kept).await;
            let head = commit(&slots).await;
            close(slots).await;
            let slots = open(&store, 4, 1, &head, &[2, 3]).await;
            assert_eq!(all_rows(&slots[0].1).await, kept);
            close(slots).await;
        } else {
            // This term crashes after it has rewritten the first files, and before a checkpoint.
            let slot = &slots[0].1;
            let before = slot.gauges().sorted_runs;
            eventually("files are rewritten", async || slot.gauges().sorted_runs > before).await;
            close(slots).await;
        }
        for task in tasks {
            task.await.expect("it ends with the database");
        }
    }
}

#[tokio::test]
async fn a_lookup_of_a_prefix_that_does_not_exist_reads_no_rows() {
    let objects = Arc::new(ThrottledStore::new(InMemory::new(), ThrottleConfig::default()));
    let tuning = Tuning { compaction_poll: Duration::from_secs(3600), cache_written: false, ..Tuning::default() };
    let store = Store::over(Arc::clone(&objects) as Arc<_>, tuning);
    let slots = open(&store, 1, 1, &[], &[7]).await;
    for file in 0..20 {
        put(&slots, &rows([7], file * 10..file * 10 + 10)).await;
        commit(&slots).await;
    }
    // Whatever has to be read takes longer than the test waits.
    objects.config_mut(|config| config.wait_get_per_call = Duration::from_secs(3600));
    let slot = &slots[0].1;
    let patience = Duration::from_secs(5);
    for (vnode, name) in (0..VNODES).zip(b'l'..b'z') {
        let missing = slot.scan_prefix(keys::state_range(JOB, 0, vnode, &[name]), 1);
        let missing = tokio::time::timeout(patience, missing).await.expect("nothing is read");
        assert_eq!(missing.expect("a scan"), []);
        let missing = tokio::time::timeout(patience, slot.get(vec![key(JOB, vnode, &[name, 0])]));
        assert_eq!(missing.await.expect("nothing is read").expect("values"), [None]);
    }
    let found = slot.scan_prefix(keys::state_range(JOB, 0, 7, b"k"), 1);
    tokio::time::timeout(Duration::from_millis(100), found).await.expect_err("one that exists is read");
    objects.config_mut(|config| config.wait_get_per_call = Duration::ZERO);
    close(slots).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_may_be_longer_than_those_of_tables() {
    let store = Store::open_with("memory://", Tuning { compaction_sources_min: 4, ..quiet() }).expect("a store");
    let slots = open(&store, 1, 1, &[], &[7]).await;
    let long = |number: u8| key(JOB, 3, &[vec![b'k'; 4 * KEY_BYTES_MAX], vec![number]].concat());
    let all: Rows = (0..8).map(|number| (long(number), bytes("value"))).collect();
    for (key, value) in &all {
        put(&slots, &Rows::from([(key.clone(), value.clone())])).await;
        commit(&slots).await;
    }
    eventually("files are merged", async || slots[0].1.gauges().sorted_runs > 0).await;
    assert_eq!(all_rows(&slots[0].1).await, all);
    close(slots).await;
}
