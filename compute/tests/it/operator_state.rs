//! State of operators in a slot's database.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use weir_common::ids::{TableId, VnodeRange};
use weir_compute::storage::state::{SlotDb, Store, Tuning, keys};

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
