//! Clients that do not read their results, and cursors that nobody fetches from.

use std::time::Duration;

use tokio::time::timeout;

use crate::cluster::{Cluster, PATIENCE};
use crate::cursors::add_wide;
use crate::statements::{add_events, rows};
use crate::wire::Wire;

/// The number of clients that do not read.
const SILENT: usize = 6;
/// The number of cursors from which one row was fetched.
const CURSORS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stall_hold_nobody_else_up_and_are_seen() {
    let cluster = Cluster::start().await;
    add_wide(&cluster.shared);
    add_events(&cluster.shared, 5_000);
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        let mut wire = Wire::connect_narrow(&cluster).await;
        wire.query("SELECT * FROM wide").send().await;
        silent.push(wire);
    }
    let holder = cluster.client().await;
    rows(&holder, "BEGIN").await;
    for number in 0..CURSORS {
        let open = format!("DECLARE c{number} CURSOR FOR SELECT * FROM wide; FETCH 1 FROM c{number}");
        let fetched = rows(&holder, &open);
        timeout(PATIENCE, fetched).await.expect("a cursor is opened whoever else has one");
    }
    let client = cluster.client().await;
    let seen_writing = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE state = 'active' AND wait_event = 'ClientWrite' AND query = 'SELECT * FROM wide'";
        while rows(&client, waiting).await != SILENT.to_string() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, seen_writing).await.expect("clients that do not read are seen");
    let seen_idle = async {
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' \
                    AND wait_event = 'ClientRead' AND query LIKE 'FETCH 1 FROM c%' AND xact_start < now()";
        while rows(&client, idle).await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, seen_idle).await.expect("open cursors are seen");
    let counted = rows(&client, "SELECT count(*), sum(id) FROM events");
    assert_eq!(timeout(PATIENCE, counted).await.expect("others are answered"), "5000|12497500");
    let read = rows(&client, "SELECT sum(c1) FROM wide");
    assert_eq!(timeout(PATIENCE, read).await.expect("of the same table, too"), "79999800000");
    // The cursors continue at their positions.
    let rest = rows(&holder, "MOVE 300000 IN c7; FETCH 1 FROM c7");
    assert_eq!(timeout(PATIENCE, rest).await.expect("the rest is there").lines().count(), 1);
    drop(silent);
    rows(&holder, "ROLLBACK").await;
    cluster.until("are all scans over", |state| state.open_scans == 0 && state.pins.is_empty()).await;
}
