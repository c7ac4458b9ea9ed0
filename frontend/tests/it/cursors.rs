//! Cursors that are declared in SQL, and the transaction blocks that contain them.

use datafusion::arrow::array::{ArrayRef, Int64Array};
use std::sync::Arc;
use weir_common::types::SqlType;

use crate::cluster::{Cluster, Scan, Shared};
use crate::statements::{add_events, db_error, rows};
use crate::wire::Wire;

fn code(error: &tokio_postgres::error::DbError) -> (&str, &str) {
    (error.code().code(), error.message())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_fetched_as_they_are_asked_for() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 20_000);
    let client = cluster.client().await;
    rows(&client, "BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT id FROM events ORDER BY id").await;
    assert_eq!(rows(&client, "FETCH c").await, "0");
    assert_eq!(rows(&client, "FETCH 2 FROM c").await, "1\n2");
    assert_eq!(rows(&client, "FETCH FORWARD 2 IN c").await, "3\n4");
    assert_eq!(rows(&client, "MOVE 10000 IN c; FETCH NEXT FROM c").await, "10005");
    assert_eq!(rows(&client, "SELECT name, is_holdable FROM pg_cursors").await, "c|f");
    assert_eq!(rows(&client, "FETCH ALL FROM c").await.lines().count(), 20_000 - 10_006);
    assert_eq!(rows(&client, "FETCH FORWARD ALL FROM c").await, "");
    assert_eq!(code(&db_error(&client, "FETCH PRIOR FROM c").await), ("55000", "cursor can only scan forward"));
    rows(&client, "ROLLBACK").await;
    assert_eq!(code(&db_error(&client, "FETCH c").await), ("34000", "cursor \"c\" does not exist"));
    cluster.until("are all pins released", |state| state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_ends_with_its_transaction_unless_it_is_held() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 10);
    let client = cluster.client().await;
    let error = db_error(&client, "DECLARE c CURSOR FOR SELECT 1").await;
    assert_eq!(code(&error), ("25P01", "DECLARE CURSOR can only be used in transaction blocks"));
    rows(&client, "BEGIN; DECLARE c CURSOR FOR SELECT 1; DECLARE h CURSOR WITH HOLD FOR SELECT id FROM events").await;
    assert_eq!(
        code(&db_error(&client, "DECLARE c CURSOR FOR SELECT 1").await),
        ("42P03", "cursor \"c\" already exists")
    );
    rows(&client, "ROLLBACK").await;
    assert_eq!(db_error(&client, "FETCH h").await.code().code(), "34000");
    rows(&client, "BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT id FROM events ORDER BY id; COMMIT").await;
    assert_eq!(rows(&client, "FETCH 2 FROM h").await, "0\n1");
    rows(&client, "CLOSE h").await;
    assert_eq!(code(&db_error(&client, "CLOSE h").await), ("34000", "cursor \"h\" does not exist"));
    rows(&client, "DECLARE h CURSOR WITH HOLD FOR SELECT id FROM events; CLOSE ALL").await;
    cluster.until("are all pins released", |state| state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_described_as_a_portal_and_fetched_in_binary() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 3);
    let mut wire = Wire::connect(&cluster).await;
    wire.query("BEGIN");
    wire.until_ready().await;
    wire.parse("", "DECLARE c CURSOR FOR SELECT id FROM events WHERE id > $1 ORDER BY id", &[20]);
    wire.bind("", "", 1, &[Some(&0_i64.to_be_bytes())], 0).describe(b'P', "").execute("", 0).sync();
    let answers = wire.until_ready().await;
    assert_eq!(
        answers,
        ["ParseComplete", "BindComplete", "NoData", "CommandComplete DECLARE CURSOR", "ReadyForQuery T"]
    );
    wire.describe(b'P', "c").sync();
    assert_eq!(wire.until_ready().await, ["RowDescription id:20:0", "ReadyForQuery T"]);
    wire.parse("", "FETCH FORWARD 1 FROM c", &[]).bind("", "", 0, &[], 1).describe(b'P', "").execute("", 0).sync();
    assert_eq!(
        wire.until_ready().await,
        [
            "ParseComplete",
            "BindComplete",
            "RowDescription id:20:1",
            "DataRow 0000000000000001",
            "CommandComplete FETCH 1",
            "ReadyForQuery T"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_mends_a_failed_transaction() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    assert_eq!(db_error(&client, "SAVEPOINT s").await.code().code(), "25P01");
    rows(&client, "BEGIN; SAVEPOINT s").await;
    db_error(&client, "SELECT nothing").await;
    assert_eq!(db_error(&client, "SELECT 1").await.code().code(), "25P02");
    assert_eq!(rows(&client, "ROLLBACK TO SAVEPOINT s; SELECT 1").await, "1");
    rows(&client, "RELEASE SAVEPOINT s").await;
    let error = db_error(&client, "ROLLBACK TO s").await;
    assert_eq!(code(&error), ("3B001", "savepoint \"s\" does not exist"));
    rows(&client, "ROLLBACK").await;
    assert_eq!(rows(&client, "SELECT 1").await, "1");
}

/// Adds a table of wide rows: 400 batches of a quarter of a mebibyte.
pub(crate) fn add_wide(shared: &Shared) {
    let columns: Vec<(String, ArrayRef)> = (0..32)
        .map(|column| {
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values((0..400_000).map(|row| row * column)));
            (format!("c{column}"), values)
        })
        .collect();
    let columns: Vec<(&str, SqlType, ArrayRef)> =
        columns.iter().map(|(name, values)| (name.as_str(), SqlType::BigInt, Arc::clone(values))).collect();
    shared.add("wide", &columns, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_the_scan_back() {
    let cluster = Cluster::start().await;
    add_wide(&cluster.shared);
    let client = cluster.client().await;
    let total = cluster.shared.state().batches();
    rows(&client, "BEGIN; DECLARE c CURSOR FOR SELECT * FROM wide; FETCH 1 FROM c").await;
    let sent = cluster.settled(|state| state.sent_batches).await;
    assert!(sent < total / 4, "{sent} of {total} batches were sent for one row");
    rows(&client, "ROLLBACK").await;
    cluster.until("is the scan over", |state| state.open_scans == 0 && state.pins.is_empty()).await;

    // A client that requests all rows without reading them holds the scan back too.
    cluster.shared.state().sent_batches = 0;
    let mut wire = Wire::connect(&cluster).await;
    wire.query("SELECT * FROM wide").send().await;
    let sent = cluster.settled(|state| state.sent_batches).await;
    assert!(sent > 0 && sent < total / 2, "{sent} of {total} batches were sent to a client that does not read");
    drop(wire);
    cluster.until("is the scan over", |state| state.open_scans == 0 && state.pins.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_whose_snapshot_is_lost_says_so() {
    let cluster = Cluster::start().await;
    add_events(&cluster.shared, 100_000);
    let client = cluster.client().await;
    cluster.shared.state().scans.extend(vec![Scan::FailAfter(20, weir_common::error::Kind::Fenced); 3]);
    rows(&client, "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM events; FETCH 10 FROM c").await;
    assert_eq!(db_error(&client, "FETCH ALL FROM c").await.code().code(), "40001");
    assert_eq!(rows(&client, "FETCH ALL FROM c; CLOSE c").await, "");
}
