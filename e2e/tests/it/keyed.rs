//! Tables with a primary key: of all messages with one key the last is the row, whoever is killed meanwhile.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use weir_e2e::chaos::{self, Kill};
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::weir::Cluster;
use weir_e2e::workload::{Events, Workload};

use crate::crash::NODE_LOST;
use crate::support::{LATE, Publishing, SOON, acknowledged, events_options, publish_payloads, standalone, wait_for};

/// Messages of the test with kills, over 5,000 keys.
const TOTAL: u64 = 100_000;
/// Messages a second: slow enough for every kill to fall into the flow of data.
const RATE: u64 = 5_000;
/// A table of the newest event of each key.
fn create_newest(name: &str, server: &str, durable: &str) -> String {
    format!(
        "CREATE TABLE {name} (seq bigint, key bigint PRIMARY KEY, note varchar) INCLUDE subject AS subject \
         WITH ({}, consumer.durable_name = '{durable}', consumer.ack_policy = 'all') FORMAT PLAIN ENCODE JSON",
        events_options(server)
    )
}

/// Compares a table made by [`create_newest`] with the first `total` events, of which the last must have arrived.
async fn compare_newest(sql: &mut Sql, table: &str, events: &Events, total: u64) -> Result<()> {
    let newest: BTreeMap<u64, u64> = (0..total).map(|number| (Events::key(number), number)).collect();
    let last = format!("SELECT count(*) FROM {table} WHERE key = {} AND seq = {}", Events::key(total - 1), total - 1);
    wait_for(sql, &last, 1, LATE).await?;
    let answer = sql.query(&format!("SELECT key, seq, note, subject FROM {table} ORDER BY key")).await?;
    ensure!(answer.rows.len() == newest.len(), "{} rows of {} keys", answer.rows.len(), newest.len());
    for (index, (key, number)) in newest.iter().enumerate() {
        let wanted = [key.to_string(), number.to_string(), Events::note(*number), events.subject(*number)];
        ensure!(answer.row(index) == wanted, "the row of key {key} is {:?}, wanted {wanted:?}", answer.row(index));
    }
    let count = sql.value::<u64>(&format!("SELECT count(*) FROM {table}")).await?;
    ensure!(count == newest.len() as u64, "{count} rows are counted");
    Ok(())
}

#[test]
fn a_keyed_table_has_the_newest_row_of_each_key_after_kills() {
    scenario("keyed-crash", async |sandbox| {
        let seed = chaos::seed();
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", 7));
        sql.query(&create_newest("newest", &nats.address(), "newest")).await?;
        let mut publishing = Publishing::start(&nats, &events, TOTAL, RATE).await?;
        // 0 is meta, the others are compute nodes.
        for Kill { victim, at, back_at } in chaos::plan(seed, &[0, 1, 2], 6, TOTAL / 20..TOTAL * 9 / 10) {
            publishing.reaches(at).await?;
            eprintln!("{at}: kill {victim}, back at {back_at}");
            let process = match victim {
                0 => &mut cluster.metas[0],
                compute => &mut cluster.computes[compute - 1],
            };
            process.process().kill9()?;
            publishing.reaches(back_at).await?;
            process.process().restart()?;
        }
        publishing.end().await?;
        compare_newest(&mut sql, "newest", &events, TOTAL).await?;
        acknowledged(&nats, "newest").await
    });
}

#[test]
fn the_later_message_replaces_the_row_of_its_key() {
    scenario("keyed", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["kept a bad record"]);
        let mut sql = weir.sql();
        sql.query(&format!(
            "CREATE TABLE t (a bigint, b varchar, x double precision, c varchar, PRIMARY KEY (b, x)) \
             INCLUDE subject AS subject WITH ({}) FORMAT PLAIN ENCODE JSON",
            events_options(&nats.address())
        ))
        .await?;
        let payloads = [
            r#"{"a":1,"b":"x","x":1.5,"c":"first"}"#,
            r#"{"a":2,"b":"x","x":2.5}"#,
            r#"{"a":3,"b":"","x":0}"#,
            r#"{"a":4,"b":"x","x":1.5,"c":"second"}"#,
            r#"{"a":5,"b":null,"x":1}"#,
            r#"{"a":6,"b":"y"}"#,
            r#"{"a":7,"b":"","x":-0.0,"c":"equal to zero"}"#,
            r#"{"a":8,"b":"end","x":"NaN"}"#,
        ];
        publish_payloads(&nats, "events.k", &payloads).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t WHERE b = 'end'", 1, SOON).await?;
        let answer = sql.query("SELECT a, b, x, c, subject FROM t ORDER BY a").await?;
        let rows: Vec<String> = (0..answer.rows.len()).map(|row| answer.row(row).join("|")).collect();
        let wanted =
            ["2|x|2.5||events.k", "4|x|1.5|second|events.k", "7||-0|equal to zero|events.k", "8|end|NaN||events.k"];
        ensure!(rows == wanted, "{answer}");
        ensure!(sql.value::<u64>("SELECT count(*) FROM t").await? == 4);
        ensure!(sql.query("SELECT c FROM t LIMIT 3").await?.rows.len() == 3);
        ensure!(sql.value::<u64>("SELECT count(c) FROM t WHERE b = 'x'").await? == 1);
        let described = sql.query("DESCRIBE t").await?;
        ensure!(described.row(described.rows.len() - 1)[..2] == ["primary key", "b, x"], "{described}");
        sql.query("DROP TABLE t").await?;
        Ok(())
    });
}

#[test]
fn keys_and_rows_are_of_any_stored_type() {
    scenario("keyed-types", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        sql.query(&format!(
            "CREATE TABLE t (k numeric(10,2), at time, n numeric, tags int[], r struct<a int, b varchar[]>, i interval, \
             PRIMARY KEY (k, at)) WITH ({}) FORMAT PLAIN ENCODE JSON",
            events_options(&nats.address())
        ))
        .await?;
        let payloads = [
            r#"{"k":1.5,"at":"10:00","n":1,"tags":[1,2],"r":{"a":1,"b":["x"]},"i":"1 day"}"#,
            r#"{"k":"-1.50","at":"10:00","n":"12345678901234567890.5","tags":[],"r":null,"i":null}"#,
            r#"{"k":"1.50","at":"10:00:00","n":2.5,"tags":[3,null],"r":{"a":null,"b":[null,"y z"]},"i":"1 mon"}"#,
        ];
        publish_payloads(&nats, "events.k", &payloads).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t WHERE n = 2.5", 1, SOON).await?;
        let answer = sql.query("SELECT k, at, n, tags, r, i FROM t ORDER BY k").await?;
        let rows: Vec<String> = (0..answer.rows.len()).map(|row| answer.row(row).join("|")).collect();
        let wanted = [
            "-1.50|10:00:00|12345678901234567890.5|{}||",
            "1.50|10:00:00|2.5|{3,NULL}|(,\"{NULL,\"\"y z\"\"}\")|1 mon",
        ];
        ensure!(rows == wanted, "{answer}");
        Ok(())
    });
}
