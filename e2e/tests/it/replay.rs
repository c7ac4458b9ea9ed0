//! `ALTER TABLE … REPLAY DEAD LETTERS`: what was no row of its table becomes one, once.

use anyhow::{Result, ensure};
use weir_e2e::sandbox::{Log, scenario};
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually;
use weir_e2e::weir::Cluster;

use crate::crash::NODE_LOST;
use crate::support::{LATE, SOON, events_options, publish_payloads, refuses, standalone, wait_for};

const KEPT: &str = "kept a bad record as a dead letter";
/// Larger than an integer.
const LARGE: u64 = 1 << 40;

/// A table of JSON with the stream's sequences.
async fn create(sql: &mut Sql, nats: &Nats, name: &str, columns: &str, more: &str) -> Result<()> {
    let options = events_options(&nats.address());
    sql.query(&format!(
        "CREATE TABLE {name} ({columns}) INCLUDE offset AS place INCLUDE header 'h' varchar AS header INCLUDE timestamp AS at \
         WITH ({options}{more}) FORMAT PLAIN ENCODE JSON"
    ))
    .await?;
    Ok(())
}

/// The statement's only row, as text.
async fn row(sql: &mut Sql, query: &str) -> Result<Vec<String>> {
    let answer = sql.query(query).await?;
    ensure!(answer.rows.len() == 1, "{query}:\n{answer}");
    Ok(answer.row(0).into_iter().map(str::to_owned).collect())
}

#[test]
fn dead_letters_become_rows_once_the_columns_fit() {
    scenario("replay", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&[KEPT]);
        let mut sql = weir.sql();
        create(&mut sql, &nats, "t", "n int, s varchar", "").await?;
        let mut headers = async_nats::HeaderMap::new();
        headers.append("h", "abc");
        let large = format!("{{\"n\": {LARGE}, \"s\": \"large\"}}");
        let jetstream = nats.jetstream().await?;
        jetstream.publish_with_headers("events.a", headers, large.into()).await?.await?;
        let several = format!("[{{\"n\": 5}}, {{\"n\": {LARGE}}}]");
        publish_payloads(&nats, "events.b", &["{\"n\": 2}", "no JSON", &several, "{\"n\": true}"]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM dead_letters.t", 4, SOON).await?;
        // None of them fits yet.
        sql.query("ALTER TABLE t REPLAY DEAD LETTERS").await?;
        wait_for(&mut sql, "SELECT count(*) FROM dead_letters.t", 4, SOON).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 1, SOON).await?;
        let reason = "SELECT error FROM dead_letters.t WHERE sequence = 5";
        ensure!(row(&mut sql, reason).await? == ["column \"n\": expected integer, found true"], "as it was");

        sql.query("ALTER TABLE t ALTER COLUMN n TYPE bigint").await?;
        sql.query("ALTER TABLE t REPLAY DEAD LETTERS").await?;
        let rows = sql.query("SELECT place, n, s, header, at IS NULL FROM t ORDER BY n, place").await?;
        let large = LARGE.to_string();
        let wanted = [
            ["2", "2", "", "", "f"],
            ["4", "5", "", "", "f"],
            ["1", &large, "large", "abc", "f"],
            ["4", &large, "", "", "f"],
        ];
        ensure!(rows.rows.len() == 4 && (0..4).all(|at| rows.row(at) == wanted[at]), "{rows}");
        let letters =
            "SELECT string_agg(sequence::varchar || ' ' || error, ', ' ORDER BY sequence) FROM dead_letters.t";
        let left = row(&mut sql, letters).await?.remove(0);
        ensure!(
            left == "3 payload is not JSON: expected a value at byte 0, 5 column \"n\": expected bigint, found true",
            "{left}"
        );

        // Later letters are kept and replayed like earlier ones; what is stored is replayed once.
        publish_payloads(&nats, "events.a", &["{\"n\": \"x\"}"]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM dead_letters.t", 3, SOON).await?;
        sql.query("ALTER TABLE IF EXISTS t REPLAY DEAD LETTERS").await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 4, SOON).await?;
        wait_for(&mut sql, "SELECT count(*) FROM dead_letters.t", 3, SOON).await?;
        let options = events_options(&nats.address());
        sql.query(&format!("CREATE SOURCE s (n int) WITH ({options}) FORMAT PLAIN ENCODE JSON")).await?;
        for (statement, code, named) in [
            ("SOURCE s REPLAY DEAD LETTERS", "55000", "keeps no dead letters"),
            ("TABLE none REPLAY DEAD LETTERS", "42P01", "\"none\" does not exist"),
            ("TABLE t REPLAY LETTERS", "42601", "syntax error"),
        ] {
            refuses(&mut sql, &format!("ALTER {statement}"), code, named).await?;
        }
        Ok(())
    });
}

/// The number of rows, and of letters, before the first replay.
const TOTAL: u64 = 12_000;
/// How many keys there are.
const KEYS: u64 = 500;

#[test]
fn each_is_replayed_once_while_nodes_are_killed() {
    scenario("replay-crash", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        cluster.expect_warnings(&[KEPT]);
        let mut sql = cluster.frontend.sql();
        create(&mut sql, &nats, "blocks", "id int, n int", "").await?;
        create(&mut sql, &nats, "keyed", "key int PRIMARY KEY, id int, n int", "").await?;
        // Every third is too large; of some keys the last one is, of others it is not.
        let n = |id: u64| if id.is_multiple_of(3) { LARGE + id } else { id };
        let key = |id: u64| (id / 7) % KEYS;
        let payload = |id: u64| format!("{{\"id\": {id}, \"key\": {}, \"n\": {}}}", key(id), n(id));
        let publish = async |from: u64, to: u64| {
            let payloads: Vec<String> = (from..to).map(payload).collect();
            publish_payloads(&nats, "events.n", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        for part in 0..4 {
            publish(part * TOTAL / 4, (part + 1) * TOTAL / 4).await?;
            let victim = &mut cluster.computes[(part % 2) as usize];
            victim.process().kill9()?;
            victim.process().restart()?;
        }
        for table in ["blocks", "keyed"] {
            wait_for(&mut sql, &format!("SELECT count(*) FROM dead_letters.{table}"), TOTAL / 3, LATE).await?;
            sql.query(&format!("ALTER TABLE {table} ALTER COLUMN n TYPE bigint")).await?;
        }
        // A view above, which takes the changes that replayed rows make.
        let view = "CREATE MATERIALIZED VIEW parts AS \
                    SELECT key % 10 AS part, count(*) AS keys, sum(n) AS sum, max(place::bigint) AS place \
                    FROM keyed GROUP BY key % 10";
        sql.query(view).await?;
        // What is published from now on fits at once, and is later than what is replayed.
        let more = TOTAL + 700;
        publish(TOTAL, more).await?;
        for (number, table) in ["blocks", "keyed", "keyed", "blocks"].into_iter().enumerate() {
            let victim = &mut cluster.computes[number % 2];
            let begun = format!("replaying dead letters table={table} ");
            let begun = |log: &Log| Ok::<_, anyhow::Error>(log.read()?.matches(&begun).count());
            let earlier = begun(&victim.log())?;
            let mut killed = cluster.frontend.sql();
            let statement = format!("ALTER TABLE {table} REPLAY DEAD LETTERS");
            let replay = tokio::spawn(async move { killed.once(&statement).await.map(drop) });
            eventually("the replay to begin", LATE, async || Ok((begun(&victim.log())? > earlier).then_some(())))
                .await?;
            // Whether it is through when the node dies is left to chance.
            victim.process().kill9()?;
            victim.process().restart()?;
            // It may fail; then it is run again.
            drop(replay.await?);
            let letters = sql.value::<u64>(&format!("SELECT count(*) FROM dead_letters.{table}")).await?;
            ensure!(letters <= TOTAL / 3, "{table}: {letters} letters");
        }
        for table in ["blocks", "keyed"] {
            eventually("the replay to go through", LATE, async || {
                sql.query(&format!("ALTER TABLE {table} REPLAY DEAD LETTERS")).await?;
                Ok(Some(()))
            })
            .await?;
            wait_for(&mut sql, &format!("SELECT count(*) FROM dead_letters.{table}"), 0, SOON).await?;
        }
        let sum: u64 = (0..more).map(n).sum();
        wait_for(&mut sql, "SELECT count(*) FROM blocks", more, LATE).await?;
        let found =
            row(&mut sql, "SELECT count(*), count(DISTINCT id), count(DISTINCT place), sum(n) FROM blocks").await?;
        ensure!(found == [more, more, more, sum].map(|number| number.to_string()), "blocks: {found:?}, sum {sum}");
        // Of each key the last message is the row, whether it was one at once or not.
        let mut last = vec![0; KEYS as usize];
        (0..more).for_each(|id| last[key(id) as usize] = id);
        let rows = sql.query("SELECT key, id, n, place FROM keyed ORDER BY key").await?;
        ensure!(rows.rows.len() as u64 == KEYS, "{} keys", rows.rows.len());
        for (key, id) in last.iter().copied().enumerate() {
            let wanted = [key as u64, id, n(id), id + 1].map(|number| number.to_string());
            ensure!(rows.row(key) == wanted, "keyed: wanted {wanted:?}, found {:?}", rows.row(key));
        }
        let rows = sql.query("SELECT part, keys, sum, place FROM parts ORDER BY part").await?;
        ensure!(rows.rows.len() == 10, "{} parts", rows.rows.len());
        for part in 0..10 {
            let ids: Vec<u64> = last.iter().skip(part).step_by(10).copied().collect();
            let (sum, place) = (ids.iter().map(|id| n(*id)).sum::<u64>(), ids.iter().max().map_or(0, |id| id + 1));
            let wanted = [part as u64, ids.len() as u64, sum, place].map(|number| number.to_string());
            ensure!(rows.row(part) == wanted, "parts: wanted {wanted:?}, found {:?}", rows.row(part));
        }
        let differing = sql.query("VERIFY MATERIALIZED VIEW parts").await?;
        ensure!(differing.rows.is_empty(), "parts: {:?}", differing.rows);
        Ok(())
    });
}
