//! How much of a database belongs to which table and job.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use weir_common::ids::{TableId, VnodeRange};
use weir_common::key::vnode_of;
use weir_compute::storage::state::{Content, SlotDb, Store, Stored, Tuning, keys};

const TABLE: TableId = TableId(7);
const JOB: TableId = TableId(8);

fn row(key: u32) -> Bytes {
    let mut stored = Vec::new();
    keys::write_row_key(TABLE, vnode_of(&key.to_be_bytes()), &key.to_be_bytes(), &mut stored);
    stored.into()
}

fn state(key: u32) -> Bytes {
    let mut stored = Vec::new();
    let key = key.to_be_bytes();
    keys::write_state_key(JOB, 2, vnode_of(&key), &key, &key, &mut stored);
    stored.into()
}

async fn open() -> SlotDb {
    // Nothing is compacted, so that the files keep what was replaced.
    let tuning = Tuning { compaction_poll: Duration::from_secs(3600), ..Tuning::default() };
    let store = Store::open_with("memory://", tuning).expect("a store");
    SlotDb::open(&store, "state/test/1-a/0", VnodeRange::ALL, &[], &HashSet::new()).await.expect("a database")
}

async fn checkpoint(slot: &SlotDb) {
    slot.begin_checkpoint().await.expect("a checkpoint").wait().await.expect("durable");
}

async fn contents(slot: &SlotDb) -> HashMap<TableId, Content> {
    let count = |stored: Stored<'_>| match stored {
        Stored::Table(TABLE, value) => u64::from(value[0]),
        Stored::State(JOB, 2) => 1,
        other => panic!("nobody has written {other:?}"),
    };
    slot.contents(&count).await.expect("it is open")
}

#[tokio::test]
async fn small_ones_are_counted() {
    let slot = open().await;
    assert!(contents(&slot).await.is_empty());
    for round in 0..5_u8 {
        let rows = (0..100).map(|key| (row(key), (key % 5 >= u32::from(round)).then(|| Bytes::from(vec![2; 10]))));
        slot.write(rows.chain([(state(1), Some(Bytes::from_static(b"x")))])).await.expect("a write");
        checkpoint(&slot).await;
        let found = contents(&slot).await;
        let rows = 100 - u64::from(round) * 20;
        let bytes = |key: Bytes, value: u64| key.len() as u64 + value;
        assert_eq!(found[&TABLE], Content { rows: 2 * rows, bytes: rows * bytes(row(1), 10) });
        assert_eq!(found[&JOB], Content { rows: 1, bytes: bytes(state(1), 1) });
    }
    slot.write((0..100).map(|key| (row(key), None))).await.expect("a write");
    checkpoint(&slot).await;
    assert_eq!(contents(&slot).await.get(&TABLE), None);
}

#[tokio::test]
async fn large_ones_are_estimated() {
    let slot = open().await;
    let mut expected = BTreeMap::new();
    for round in 0..6_u32 {
        // A tenth of the keys is written in every round, and a third is deleted at last.
        let keys = (0..60_000).filter(|key| key % 10 == 0 || key % 6 == round);
        let rows: Vec<(Bytes, Option<Bytes>)> = keys
            .map(|key| (row(key), (round < 5 || key % 3 > 0).then(|| Bytes::from(vec![1; 20 + key as usize % 50]))))
            .collect();
        for (key, value) in &rows {
            match value {
                Some(value) => expected.insert(key.clone(), value.len() + key.len()),
                None => expected.remove(key),
            };
        }
        slot.write(rows).await.expect("a write");
        slot.write((0..20_000).map(|key| (state(key), Some(Bytes::from_static(b"some state")))))
            .await
            .expect("a write");
        checkpoint(&slot).await;
    }
    let found = contents(&slot).await;
    let is_near = |found: u64, real: usize| (found as f64 / real as f64 - 1.0).abs() < 0.15;
    let bytes = expected.values().sum();
    assert!(is_near(found[&TABLE].rows, expected.len()), "{found:?}, {} rows", expected.len());
    assert!(is_near(found[&TABLE].bytes, bytes), "{found:?}, {bytes} bytes");
    assert!(is_near(found[&JOB].rows, 20_000), "{found:?}");
    assert_eq!(contents(&slot).await, found, "nothing has changed");
}
