//! The modes of transactions: how they are shown, the epochs that are read, the statements that a
//! read-only transaction refuses.

use weir_common::error::Kind;

use crate::cluster::{Cluster, Scan, State};
use crate::statements::{add_events, db_error, rows};

/// Returns the epochs that were scanned since the last call.
fn scanned(state: &mut State) -> Vec<u64> {
    let mut epochs: Vec<u64> = std::mem::take(&mut state.scan_requests).iter().map(|scan| scan.epoch).collect();
    epochs.dedup();
    epochs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeatable_transaction_reads_one_epoch() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    let count = "SELECT count(*) FROM events";
    for (begin, is_repeatable) in [
        ("BEGIN", false),
        ("BEGIN ISOLATION LEVEL READ COMMITTED", false),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", true),
        ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY", true),
        ("BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", true),
        ("BEGIN; SET transaction_isolation TO 'repeatable read'", true),
    ] {
        let epoch = cluster.shared.state().epoch;
        rows(&client, begin).await;
        assert_eq!(rows(&client, count).await, "10");
        cluster.shared.state().epoch += 1;
        assert_eq!(rows(&client, count).await, "10");
        let wanted = if is_repeatable { vec![epoch] } else { vec![epoch, epoch + 1] };
        assert_eq!(scanned(&mut cluster.shared.state()), wanted, "{begin}");
        rows(&client, "COMMIT").await;
        cluster.until("is the pin released", |state| state.pins.is_empty()).await;
        rows(&client, count).await;
        assert_eq!(scanned(&mut cluster.shared.state()), [epoch + 1], "after {begin}");
    }

    // The setting applies to all transactions of a session, but not to statements outside of them.
    rows(&client, "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ").await;
    rows(&client, count).await;
    cluster.until("is the pin released", |state| state.pins.is_empty()).await;
    rows(&client, "BEGIN").await;
    rows(&client, count).await;
    assert_eq!(cluster.shared.state().pins.len(), 1);
    drop(client);
    cluster.until("has the pin gone with the client", |state| state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeatable_transaction_ends_when_its_epoch_is_lost() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    let count = "SELECT count(*) FROM events";
    rows(&client, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    // A transaction that has read nothing can move to another epoch.
    cluster.shared.state().scans.push_back(Scan::FailAfter(0, Kind::Fenced));
    assert_eq!(rows(&client, count).await, "10");
    cluster.shared.state().scans.push_back(Scan::FailAfter(0, Kind::Fenced));
    let error = db_error(&client, count).await;
    assert_eq!((error.code().code(), error.hint()), ("40001", Some("run the transaction again")));
    rows(&client, "ROLLBACK").await;
    assert_eq!(rows(&client, count).await, "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_modes_of_a_transaction_are_shown() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    let level = "SHOW TRANSACTION ISOLATION LEVEL";
    assert_eq!(rows(&client, level).await, "read committed");
    rows(&client, "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY").await;
    let session = "SHOW default_transaction_isolation; SHOW default_transaction_read_only";
    assert_eq!(rows(&client, session).await, "serializable\non");
    let both = "SHOW transaction_isolation; SHOW transaction_read_only";
    assert_eq!(rows(&client, both).await, "serializable\non");
    rows(&client, "BEGIN ISOLATION LEVEL READ UNCOMMITTED READ WRITE").await;
    assert_eq!(rows(&client, both).await, "read uncommitted\noff");
    rows(&client, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await;
    assert_eq!(rows(&client, level).await, "read committed");
    rows(&client, "COMMIT").await;
    assert_eq!(rows(&client, both).await, "serializable\non");
    // Outside of a transaction, these have no effect.
    rows(&client, "SET TRANSACTION READ WRITE; SET transaction_isolation TO 'read committed'").await;
    assert_eq!(rows(&client, both).await, "serializable\non");
    rows(&client, "RESET ALL").await;
    assert_eq!(rows(&client, both).await, "read committed\noff");

    rows(&client, "BEGIN; SELECT id FROM events").await;
    for set in ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET transaction_isolation TO serializable"] {
        rows(&client, "SAVEPOINT s").await;
        assert_eq!(db_error(&client, set).await.code().code(), "25001", "{set}");
        rows(&client, "ROLLBACK TO s").await;
    }
    rows(&client, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await;
    rows(&client, "ROLLBACK").await;
    assert_eq!(db_error(&client, "SET default_transaction_isolation TO chaos").await.code().code(), "22023");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_transaction_changes_no_tables() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    rows(&client, "BEGIN READ ONLY").await;
    let error = db_error(&client, "DROP TABLE events").await;
    assert_eq!(error.code().code(), "25006");
    assert_eq!(error.message(), "cannot execute DROP TABLE in a read-only transaction");
    rows(&client, "ROLLBACK").await;
    rows(&client, "SET default_transaction_read_only TO on").await;
    let create = "CREATE TABLE t (x int) WITH (connector = 'nats') FORMAT PLAIN ENCODE JSON";
    assert_eq!(db_error(&client, create).await.code().code(), "25006");
    assert_eq!(rows(&client, "SELECT count(*) FROM events").await, "10");
    rows(&client, "BEGIN READ WRITE; DROP TABLE events; COMMIT").await;
}
