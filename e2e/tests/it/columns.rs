//! `ALTER { TABLE | SOURCE } … ADD COLUMN`, `… ALTER COLUMN … TYPE`: columns of what is read and stored already.

use anyhow::ensure;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::weir::Cluster;

use crate::crash::NODE_LOST;
use crate::support::{LATE, SOON, create_json, events_options, publish_payloads, refuses, standalone, wait_for};

/// So many messages are published before each change, and after the last one.
const PART: u64 = 4_000;
/// How large the numbers of each part are.
const FACTORS: [i128; 4] = [1, 1, 1_000_000_000, 1_000_000_000_000_000_000];

#[test]
fn columns_are_added_and_widened_while_nodes_are_killed() {
    scenario("columns", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        let mut sql = cluster.frontend.sql();
        let columns = "id bigint, n smallint, s struct<x int>";
        create_json(&mut sql, &nats, "TABLE blocks", columns, "").await?;
        create_json(&mut sql, &nats, "TABLE keyed", &format!("{columns}, PRIMARY KEY (id)"), "").await?;
        create_json(&mut sql, &nats, "SOURCE source", columns, "").await?;
        let changes = [
            "ADD COLUMN later varchar",
            "ALTER COLUMN n TYPE bigint, ALTER s SET DATA TYPE struct<x numeric, y varchar[]>",
            "ADD last int, ALTER n TYPE numeric",
        ];
        // What every message has, and some columns hold of it from the second, third and fourth part on.
        for (part, factor) in FACTORS.into_iter().enumerate() {
            if part > 0 {
                for relation in ["TABLE blocks", "TABLE keyed", "SOURCE source"] {
                    sql.query(&format!("ALTER {relation} {}", changes[part - 1])).await?;
                }
            }
            let first = part as u64 * PART;
            let payload = |id: u64| {
                let (n, x) = (i128::from(id % 9) * factor, id % 10);
                format!(
                    r#"{{"id": {id}, "n": {n}, "later": "l{id}", "s": {{"x": {x}, "y": ["{id}"]}}, "last": {part}}}"#
                )
            };
            let payloads: Vec<String> = (first..first + PART).map(payload).collect();
            publish_payloads(&nats, "events.a", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await?;
            for table in ["blocks", "keyed"] {
                wait_for(&mut sql, &format!("SELECT count(*) FROM {table}"), first + PART, LATE).await?;
            }
            let victim = &mut cluster.computes[part % 2];
            victim.process().kill9()?;
            victim.process().restart()?;
        }
        let sum = |of: fn(i128) -> i128| (0..4 * i128::from(PART)).map(of).sum::<i128>().to_string();
        let (n, x) = (sum(|id| id % 9 * FACTORS[(id / i128::from(PART)) as usize]), sum(|id| id % 10));
        let rows = |parts: u64| (parts * PART).to_string();
        // What lies in the stream is read with the columns of now.
        let wanted = |stored: bool| match stored {
            true => [rows(4), rows(4), n.clone(), rows(3), x.clone(), rows(2), rows(1), rows(3)],
            false => [rows(4), rows(4), n.clone(), rows(4), x.clone(), rows(4), rows(4), rows(6)],
        };
        for (relation, stored) in [("blocks", true), ("keyed", true), ("source", false)] {
            let summary = sql
                .query(&format!(
                    "SELECT count(*), count(DISTINCT id), sum(n), count(later), sum((s).x), count((s).y), count(last), sum(last) \
                     FROM {relation}"
                ))
                .await?;
            ensure!(summary.row(0) == wanted(stored), "{relation}: wanted {:?}\n{summary}", wanted(stored));
            let query =
                format!("SELECT n, later, s, last FROM {relation} WHERE id IN (8, {}) ORDER BY id", 3 * PART + 8);
            let rows = sql.query(&query).await?;
            let last = 3 * PART + 8;
            let n = (i128::from(last % 9) * FACTORS[3]).to_string();
            let later = [n, format!("l{last}"), format!("({},{{{last}}})", last % 10), "3".to_owned()];
            let first = if stored { ["8", "", "(8,)", ""] } else { ["8", "l8", "(8,{8})", "0"] };
            ensure!(rows.row(0) == first && rows.row(1) == later, "{relation}: wanted {first:?}, {later:?}\n{rows}");
        }
        Ok(())
    });
}

#[test]
fn a_failed_job_goes_on_where_it_was_once_its_columns_fit() {
    scenario("columns-failed", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["job failed"]);
        let mut sql = weir.sql();
        create_json(&mut sql, &nats, "TABLE t", "n int", ", on_error = 'fail'").await?;
        publish_payloads(&nats, "events.a", &["{\"n\": 1}", "{\"n\": 3000000000}", "{\"n\": 2}"]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM weir_catalog.jobs WHERE state = 'failed'", 1, SOON).await?;
        sql.query("ALTER TABLE t ALTER COLUMN n TYPE bigint").await?;
        wait_for(&mut sql, "SELECT sum(n) FROM t", 3_000_000_003, SOON).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 3, SOON).await
    });
}

#[test]
fn statements_find_a_table_whole_while_its_columns_change() {
    scenario("columns-read", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create_json(&mut sql, &nats, "TABLE t", "n int", "").await?;
        publish_payloads(&nats, "events.a", &["{\"n\": 1}", "{\"n\": 2}"]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 2, SOON).await?;
        let mut reading = weir.sql();
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let reads = tokio::spawn(async move {
            let mut reads = 0_u64;
            while stopped.try_recv().is_err() {
                let rows = reading.query("SELECT * FROM t ORDER BY n").await?;
                ensure!(rows.rows.len() == 2 && rows.row(0)[0] == "1" && rows.row(1)[0] == "2", "{rows}");
                reads += 1;
            }
            Ok(reads)
        });
        sql.query("ALTER TABLE t ALTER n TYPE bigint").await?;
        for number in 0..5 {
            sql.query(&format!("ALTER TABLE t ADD COLUMN c{number} varchar")).await?;
        }
        let rows = sql.query("SELECT * FROM t").await?;
        ensure!(rows.row(0).len() == 6, "{rows}");
        stop.send(()).expect("statements are run until now");
        ensure!(reads.await?? > 5, "statements were run meanwhile");
        let shown = sql.query("SHOW CREATE TABLE t").await?.to_string();
        ensure!(shown.contains("(n bigint, c0 varchar, c1 varchar, c2 varchar, c3 varchar, c4 varchar)"), "{shown}");
        Ok(())
    });
}

#[test]
fn what_columns_cannot_become_is_said() {
    scenario("columns-refused", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create_json(&mut sql, &nats, "TABLE t", "id int PRIMARY KEY, n bigint, s struct<x int>", "").await?;
        let options = events_options(&nats.address());
        sql.query(&format!("CREATE TABLE raw INCLUDE offset WITH ({options}) FORMAT PLAIN ENCODE JSON")).await?;
        sql.query(&format!("CREATE TABLE bytes (b bytea) WITH ({options}) FORMAT PLAIN ENCODE BYTES")).await?;
        for (statement, code, named) in [
            ("TABLE t ADD COLUMN n int", "42701", "column \"n\" specified more than once"),
            ("TABLE t ADD COLUMN _rw_n int", "42939", "\"_rw_n\" is reserved"),
            ("TABLE t ADD COLUMN a serial", "42704", "serial"),
            ("TABLE t ADD COLUMN a int NOT NULL", "0A000", "ADD COLUMN … NOT"),
            ("TABLE t ADD a", "42601", "syntax error"),
            ("TABLE t ADD PRIMARY KEY (n)", "0A000", "ADD PRIMARY"),
            ("TABLE t ALTER COLUMN n TYPE int", "42804", "\"n\" of type bigint cannot become integer"),
            ("TABLE t ALTER COLUMN n TYPE varchar", "42804", "cannot become character varying"),
            ("TABLE t ALTER COLUMN s TYPE struct<y int, x int>", "42804", "cannot become struct<y integer, x integer>"),
            ("TABLE t ALTER COLUMN id TYPE bigint", "0A000", "primary key"),
            ("TABLE t ALTER COLUMN no TYPE int", "42703", "column \"no\" of relation \"t\" does not exist"),
            ("TABLE t ALTER COLUMN n SET DEFAULT 1", "0A000", "ALTER COLUMN … SET"),
            ("TABLE t ALTER COLUMN n TYPE numeric USING n + 1", "0A000", "USING"),
            ("TABLE t ADD COLUMN a int, DROP COLUMN n", "0A000", "ALTER TABLE … DROP"),
            ("TABLE raw ADD COLUMN a int", "0A000", "without a list of columns"),
            ("TABLE raw ALTER COLUMN _rw_nats_offset TYPE bigint", "0A000", "not a declared one"),
            ("TABLE bytes ADD COLUMN a int", "42P16", "exactly one column"),
            ("SOURCE t ADD COLUMN a int", "42809", "is not a source"),
            ("TABLE none ADD COLUMN a int", "42P01", "\"none\" does not exist"),
        ] {
            refuses(&mut sql, &format!("ALTER {statement}"), code, named).await?;
        }
        sql.query("ALTER TABLE t ADD COLUMN IF NOT EXISTS n int").await?;
        sql.query("ALTER TABLE t ALTER COLUMN n TYPE bigint").await?;
        // Three columns and the key.
        let described = sql.query("DESCRIBE t").await?;
        ensure!(described.rows.len() == 4, "{described}");
        Ok(())
    });
}
