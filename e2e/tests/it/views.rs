//! `CREATE MATERIALIZED VIEW` over a source: one set of readers feeds all of them, whenever each was created.

use anyhow::{Result, ensure};
use async_nats::jetstream::stream::RetentionPolicy;
use weir_e2e::publish::publish_all;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually_equal;
use weir_e2e::weir::{Cluster, Node};
use weir_e2e::workload::Events;

use crate::crash::NODE_LOST;
use crate::support::{
    LATE, SOON, SUBJECTS, acknowledged, compare_events, create_events_with, create_json, publish_payloads,
    publish_while_nodes_are_killed, refuses, split_by_subject, standalone, wait_for,
};

/// Creates the source `s` of [`Events`] with the stream's sequence and the subject.
async fn create_source(sql: &mut Sql, nats: &Nats, more: &str) -> Result<()> {
    sql.query(&create_events_with("SOURCE s", &nats.address(), more)).await?;
    Ok(())
}

/// Waits until the stream has so many consumers.
async fn wait_for_consumers(nats: &Nats, wanted: usize) -> Result<()> {
    let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
    eventually_equal("the consumers of the stream", LATE, wanted, async || {
        Ok(stream.get_info().await?.state.consumer_count)
    })
    .await
}

#[test]
fn all_views_over_a_source_share_its_reader_whenever_they_were_created() {
    scenario("views-shared", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", SUBJECTS));
        publish_all(&nats.client().await?, &events, 0..20_000).await?;
        create_source(&mut sql, &nats, ", consumer.durable_name = 'jobs', consumer.ack_policy = 'all'").await?;
        wait_for_consumers(&nats, 0).await?;
        sql.query("CREATE MATERIALIZED VIEW whole AS SELECT * FROM s").await?;
        compare_events(&mut sql, "whole", &events, 20_000).await?;
        acknowledged(&nats, "jobs").await?;
        // It catches up through a consumer of its own, which is gone afterwards.
        sql.query("CREATE MATERIALIZED VIEW late AS SELECT * FROM s").await?;
        sql.query(
            "CREATE MATERIALIZED VIEW odd (number, cents) AS \
             SELECT t.seq, t.price * 100 FROM (SELECT seq, price FROM s WHERE subject <> 'events.0') AS t WHERE t.seq % 2 = 1",
        )
        .await?;
        publish_all(&nats.client().await?, &events, 20_000..30_000).await?;
        compare_events(&mut sql, "whole", &events, 30_000).await?;
        compare_events(&mut sql, "late", &events, 30_000).await?;
        let wanted =
            "SELECT seq AS number, price * 100 AS cents FROM whole WHERE subject <> 'events.0' AND seq % 2 = 1";
        let count = sql.value::<u64>(&format!("SELECT count(*) FROM ({wanted}) AS w")).await?;
        wait_for(&mut sql, "SELECT count(*) FROM odd", count, SOON).await?;
        let both = format!("SELECT count(*) FROM ({wanted} INTERSECT SELECT number, cents FROM odd) AS b");
        ensure!(count > 0 && sql.value::<u64>(&both).await? == count);
        wait_for_consumers(&nats, 1).await?;
        acknowledged(&nats, "jobs").await?;
        let read = "SELECT string_agg(source, ',') FROM weir_catalog.splits";
        eventually_equal(read, SOON, "s".to_owned(), async || sql.value::<String>(read).await).await?;

        // One goes, the others go on; the last takes the reader with it, and not what the source reads through.
        sql.query("DROP MATERIALIZED VIEW whole").await?;
        publish_all(&nats.client().await?, &events, 30_000..31_000).await?;
        compare_events(&mut sql, "late", &events, 31_000).await?;
        sql.query("DROP MATERIALIZED VIEW late, odd").await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM weir_catalog.splits").await? == 0);
        wait_for_consumers(&nats, 1).await?;
        publish_all(&nats.client().await?, &events, 31_000..32_000).await?;
        sql.query("CREATE MATERIALIZED VIEW again AS SELECT * FROM s").await?;
        compare_events(&mut sql, "again", &events, 32_000).await?;
        sql.query("DROP SOURCE s CASCADE").await?;
        wait_for_consumers(&nats, 0).await
    });
}

#[test]
fn views_are_exact_whoever_is_killed_while_they_are_created_and_catch_up() {
    scenario("views-kills", async |sandbox| {
        const TOTAL: u64 = 60_000;
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", SUBJECTS));
        create_source(&mut sql, &nats, &format!("{}, consumer.durable_name = 'jobs'", split_by_subject())).await?;
        sql.query("CREATE MATERIALIZED VIEW v0 AS SELECT * FROM s").await?;
        let mut created = 1;
        publish_while_nodes_are_killed(&mut cluster, (&nats, &events, TOTAL), async || {
            // A node is killed while the view begins to catch up.
            sql.query(&format!("CREATE MATERIALIZED VIEW IF NOT EXISTS v{created} AS SELECT * FROM s")).await?;
            created += 1;
            Ok(())
        })
        .await?;
        for view in 0..created {
            compare_events(&mut sql, &format!("v{view}"), &events, TOTAL).await?;
        }
        let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
        eventually_equal("a consumer a split", LATE, SUBJECTS, async || {
            Ok(stream.get_info().await?.state.consumer_count as u64)
        })
        .await
    });
}

/// Kills compute and meta nodes while views are created over a source whose stream loses what is acknowledged.
fn views_over_what_is_consumed(name: &str, retention: RetentionPolicy) {
    const TOTAL: u64 = 60_000;
    scenario(name, async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream_with("EVENTS", &["events.>"], retention).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        cluster.expect_warnings(&["kept a bad record"]);
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", SUBJECTS));
        create_source(&mut sql, &nats, &split_by_subject()).await?;
        sql.query("CREATE MATERIALIZED VIEW v0 AS SELECT * FROM s").await?;
        // Of each later view: what it is sure to have, because it was published when the view was there.
        let mut later = Vec::new();
        publish_while_nodes_are_killed(&mut cluster, (&nats, &events, TOTAL), async || {
            let view = format!("v{}", later.len() + 1);
            sql.query(&format!("CREATE MATERIALIZED VIEW IF NOT EXISTS {view} AS SELECT * FROM s")).await?;
            later.push((view, nats.last_sequence("EVENTS").await?));
            Ok(())
        })
        .await?;
        compare_events(&mut sql, "v0", &events, TOTAL).await?;
        for (view, from) in &later {
            compare_suffix(&mut sql, view, *from).await?;
        }

        // What is no row is kept, though nobody can read it from the stream any more.
        publish_payloads(&nats, "events.0", &["no JSON"]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM dead_letters.s", 1, LATE).await?;
        emptied(&nats).await?;
        cluster.node(Node::Compute(0)).process().kill9()?;
        cluster.node(Node::Compute(0)).process().restart()?;
        wait_for(&mut sql, "SELECT count(*) FROM dead_letters.s WHERE payload = 'no JSON'::bytea", 1, LATE).await?;
        refuses(&mut sql, "SELECT * FROM s", "0A000", "cannot be read by a query").await?;

        // While there is no view nothing is acknowledged, and the next one has it all.
        let views: Vec<String> = (0..=later.len()).map(|number| format!("v{number}")).collect();
        sql.query(&format!("DROP MATERIALIZED VIEW {}", views.join(", "))).await?;
        publish_all(&nats.client().await?, &events, 0..1_000).await?;
        sql.query("CREATE MATERIALIZED VIEW again AS SELECT * FROM s").await?;
        compare_events(&mut sql, "again", &events, 1_000).await?;
        emptied(&nats).await?;
        sql.query("DROP SOURCE s CASCADE").await?;
        wait_for_consumers(&nats, 0).await
    });
}

/// Checks that of each subject a view has what `v0` has, from some event on, that none published after the first `from` is missing,
/// and that none is there twice.
async fn compare_suffix(sql: &mut Sql, view: &str, from: u64) -> Result<()> {
    // It may have been created so late that nothing of a subject was left for it.
    let missing = format!(
        "SELECT count(*) FROM (SELECT seq, price, note, subject FROM v0 LEFT JOIN \
         (SELECT subject, min(seq) AS first FROM {view} GROUP BY subject) AS begins USING (subject) \
         WHERE v0.seq >= least(coalesce(first, {from}), {from}) EXCEPT SELECT seq, price, note, subject FROM {view}) AS missing"
    );
    wait_for(sql, &missing, 0, LATE).await?;
    let twice = format!("SELECT count(*) - count(DISTINCT seq) FROM {view}");
    ensure!(sql.value::<u64>(&twice).await? == 0, "{view} has events twice");
    Ok(())
}

/// Waits until nothing is left in the stream.
async fn emptied(nats: &Nats) -> Result<()> {
    let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
    eventually_equal("messages in the stream", LATE, 0, async || Ok(stream.get_info().await?.state.messages)).await
}

#[test]
fn what_was_no_row_of_a_source_is_replayed_into_its_views() {
    scenario("views-replay", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream_with("EVENTS", &["events.>"], RetentionPolicy::WorkQueue).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        cluster.expect_warnings(&["kept a bad record"]);
        let mut sql = cluster.frontend.sql();
        let split = ", subject = 'events.a,events.b,events.c', split_by_subject = true";
        create_json(&mut sql, &nats, "SOURCE s", "n bigint, m int", split).await?;
        sql.query("CREATE MATERIALIZED VIEW v AS SELECT n FROM s").await?;
        sql.query("CREATE MATERIALIZED VIEW large AS SELECT n * 10 AS n FROM s WHERE n > 2").await?;
        for (number, subject) in ["events.a", "events.b", "events.c"].into_iter().enumerate() {
            let good = format!("{{\"n\": {}, \"m\": 1}}", number * 2);
            let wide = format!("{{\"n\": {}, \"m\": 3000000000}}", number * 2 + 1);
            publish_payloads(&nats, subject, &[good.as_str(), wide.as_str(), "no JSON"]).await?;
        }
        wait_for(&mut sql, "SELECT sum(n) FROM v", 2 + 4, SOON).await?;
        wait_for(&mut sql, "SELECT count(*) FROM dead_letters.s", 6, SOON).await?;
        emptied(&nats).await?;
        // Nothing has changed: they are no rows still.
        sql.query("ALTER SOURCE s REPLAY DEAD LETTERS").await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM dead_letters.s").await? == 6);
        sql.query("ALTER SOURCE s ALTER COLUMN m TYPE bigint").await?;
        sql.query("ALTER SOURCE s REPLAY DEAD LETTERS").await?;
        cluster.node(Node::Compute(0)).process().kill9()?;
        cluster.node(Node::Compute(0)).process().restart()?;
        wait_for(&mut sql, "SELECT sum(n) FROM v", 15, LATE).await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM v").await? == 6);
        ensure!(sql.value::<u64>("SELECT sum(n) FROM large").await? == 30 + 40 + 50);
        ensure!(sql.value::<u64>("SELECT count(*) FROM dead_letters.s").await? == 3);
        // A row for which a view's expression fails is left out of that view.
        sql.query("CREATE MATERIALIZED VIEW inverse AS SELECT 100 / (n - 7) AS n FROM s").await?;
        publish_payloads(&nats, "events.a", &["{\"n\": 7, \"m\": 9223372036854775808}"]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM dead_letters.s", 4, SOON).await?;
        sql.query("ALTER SOURCE s ALTER COLUMN m TYPE numeric").await?;
        sql.query("ALTER SOURCE s REPLAY DEAD LETTERS").await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM dead_letters.s").await? == 3);
        ensure!(sql.value::<u64>("SELECT sum(n) FROM v").await? == 15 + 7);
        ensure!(sql.value::<u64>("SELECT count(*) FROM inverse").await? == 0);
        sql.query("DROP MATERIALIZED VIEW v, large, inverse").await?;
        refuses(&mut sql, "ALTER SOURCE s REPLAY DEAD LETTERS", "55000", "no materialized view over source").await
    });
}

#[test]
fn views_over_a_work_queue_share_what_is_read_once() {
    views_over_what_is_consumed("views-queue", RetentionPolicy::WorkQueue);
}

#[test]
fn views_over_an_interest_stream_share_what_is_read_once() {
    views_over_what_is_consumed("views-interest", RetentionPolicy::Interest);
}

#[test]
fn a_source_cannot_be_taken_from_under_its_views() {
    scenario("views-depend", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create_json(&mut sql, &nats, "SOURCE s", "n int, m int", "").await?;
        sql.query("CREATE MATERIALIZED VIEW v AS SELECT *, n + m AS sum FROM s").await?;
        sql.query("CREATE MATERIALIZED VIEW n AS SELECT n FROM s").await?;
        refuses(&mut sql, "DROP SOURCE s", "2BP01", "because other objects depend on it").await?;
        refuses(&mut sql, "ALTER SOURCE s ALTER COLUMN m TYPE bigint", "0A000", "view \"v\" reads it").await?;
        refuses(&mut sql, "DROP TABLE v", "42809", "is not a table").await?;
        refuses(&mut sql, "DROP MATERIALIZED VIEW s", "42809", "is not a materialized view").await?;
        publish_payloads(&nats, "events.a", &["{\"n\": 1, \"m\": 2}"]).await?;
        wait_for(&mut sql, "SELECT sum FROM v", 3, SOON).await?;
        // A column more is none of the view's; other subjects are.
        sql.query("DROP MATERIALIZED VIEW n").await?;
        sql.query("ALTER SOURCE s ADD COLUMN more varchar").await?;
        sql.query("ALTER SOURCE s CONNECTOR WITH (subject = 'events.b')").await?;
        publish_payloads(&nats, "events.a", &["{\"n\": 10, \"m\": 20}"]).await?;
        publish_payloads(&nats, "events.b", &["{\"n\": 100, \"m\": 200, \"more\": \"x\"}"]).await?;
        wait_for(&mut sql, "SELECT sum(sum) FROM v", 303, SOON).await?;
        let columns = sql.query("SELECT * FROM v").await?.columns;
        ensure!(columns == ["n", "m", "sum"], "{columns:?}");
        sql.query("DROP SOURCE s CASCADE").await?;
        refuses(&mut sql, "SELECT * FROM v", "42P01", "does not exist").await
    });
}

#[test]
fn a_view_begins_with_what_the_stream_still_has() {
    scenario("views-purged", async |sandbox| {
        let (nats, mut weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create_json(&mut sql, &nats, "SOURCE s", "n bigint", ", on_gap = 'fail'").await?;
        let numbers: Vec<String> = (1..=9).map(|number| format!("{{\"n\": {number}}}")).collect();
        publish_payloads(&nats, "events.a", &numbers.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        sql.query("CREATE MATERIALIZED VIEW early AS SELECT n FROM s").await?;
        wait_for(&mut sql, "SELECT sum(n) FROM early", 45, SOON).await?;
        let stream = nats.jetstream().await?.get_stream("EVENTS").await?;
        stream.purge().sequence(6).await?;
        // What was gone before there was a view is no gap of the view's.
        sql.query("CREATE MATERIALIZED VIEW late AS SELECT n FROM s").await?;
        wait_for(&mut sql, "SELECT sum(n) FROM late", 6 + 7 + 8 + 9, SOON).await?;
        weir.process().kill9()?;
        weir.process().restart()?;
        weir.ready().await?;
        publish_payloads(&nats, "events.a", &["{\"n\": 100}"]).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM early", 145, SOON).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM late", 130, SOON).await?;
        stream.purge().await?;
        sql.query("CREATE MATERIALIZED VIEW empty AS SELECT n FROM s").await?;
        ensure!(sql.value::<u64>("SELECT count(*) FROM empty").await? == 0);
        ensure!(sql.value::<u64>("SELECT count(*) FROM weir_catalog.jobs WHERE state = 'running'").await? == 3);
        Ok(())
    });
}

#[test]
fn a_source_that_cannot_be_read_stops_its_views_until_it_is_altered() {
    scenario("views-source-fails", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        weir.expect_warnings(&["job failed", "skipped a bad record"]);
        let mut sql = weir.sql();
        create_json(&mut sql, &nats, "SOURCE s", "n bigint", ", on_error = 'fail'").await?;
        for view in ["a", "b"] {
            sql.query(&format!("CREATE MATERIALIZED VIEW {view} AS SELECT n FROM s")).await?;
        }
        publish_payloads(&nats, "events.a", &["{\"n\": 1}"]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM a", 1, SOON).await?;
        publish_payloads(&nats, "events.a", &["{\"n\": true}", "{\"n\": 2}"]).await?;
        let failed =
            "SELECT count(*) FROM weir_catalog.jobs WHERE state = 'failed' AND reason LIKE 'message 2 of stream%'";
        wait_for(&mut sql, failed, 3, SOON).await?;
        sql.query("ALTER SOURCE s CONNECTOR WITH (on_error = 'skip')").await?;
        for view in ["a", "b"] {
            wait_for(&mut sql, &format!("SELECT sum(n) FROM {view}"), 3, SOON).await?;
        }
        ensure!(sql.value::<u64>("SELECT count(*) FROM weir_catalog.jobs WHERE state = 'running'").await? == 2);
        ensure!(sql.value::<u64>("SELECT count(*) FROM dead_letters.s").await? == 1);
        Ok(())
    });
}

#[test]
fn what_a_view_cannot_be_is_refused_and_what_it_is_is_shown() {
    scenario("views-shown", async |sandbox| {
        let (nats, weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        create_json(&mut sql, &nats, "SOURCE s", "n bigint", "").await?;
        for (query, code, words) in [
            ("SELECT n FROM s ORDER BY n", "0A000", "ORDER BY"),
            ("SELECT n FROM s LIMIT 1", "0A000", "LIMIT"),
            ("SELECT a.n FROM s AS a JOIN s AS b USING (n)", "0A000", "a join"),
            ("SELECT row_number() OVER () FROM s", "0A000", "a window function"),
            ("SELECT n, now() FROM s", "0A000", "now(), whose value depends on when"),
            ("SELECT n FROM s WHERE n IN (SELECT n FROM s)", "0A000", "a subquery"),
            ("SELECT n FROM dead_letters.s", "42703", "n"),
            ("SELECT sequence FROM dead_letters.s", "0A000", "reading"),
            ("SELECT n FROM nowhere", "42P01", "\"nowhere\" does not exist"),
            ("SELECT n, n FROM s", "42701", "\"n\" specified more than once"),
            ("SELECT n + $1 FROM s", "42P02", "$1"),
            ("SELECT n +", "42601", "end of input"),
        ] {
            refuses(&mut sql, &format!("CREATE MATERIALIZED VIEW v AS {query}"), code, words).await?;
        }
        refuses(&mut sql, "CREATE MATERIALIZED VIEW v (a, b) AS SELECT n FROM s", "42601", "too many column names")
            .await?;
        refuses(&mut sql, "CREATE MATERIALIZED VIEW s AS SELECT n FROM s", "42P07", "already exists").await?;
        refuses(&mut sql, "ALTER MATERIALIZED VIEW v CONNECTOR WITH (a = 1)", "0A000", "ALTER MATERIALIZED VIEW")
            .await?;

        let create = "CREATE MATERIALIZED VIEW v AS WITH w AS (SELECT n, n::numeric(10, 2) / 4 AS quarter FROM public.s) \
                      SELECT coalesce(n, 0), quarter, upper('é' || n) AS text, n > 1 AS large, NULL AS nothing, \
                      ('[1, {\"n\": 2}]')::jsonb AS j, ARRAY[n, n + 1] AS a, n / 2.0::real AS half FROM w WHERE n IS NOT NULL";
        sql.query(create).await?;
        sql.query("CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT n FROM s").await?;
        publish_payloads(&nats, "events.a", &["{\"n\": 3}", "{}", "{\"n\": 1}"]).await?;
        wait_for(&mut sql, "SELECT count(*) FROM v", 2, SOON).await?;
        let query = create.split_once(" AS ").map(|(_, query)| query).unwrap_or_default();
        let (kept, asked) =
            (sql.query("SELECT * FROM v ORDER BY 1").await?, sql.query(&format!("{query} ORDER BY 1")).await?);
        ensure!(kept == asked, "{kept}\n{asked}");
        ensure!(sql.query("SHOW MATERIALIZED VIEWS").await?.rows == [[Some("v".to_owned())]]);
        ensure!(sql.query("SHOW CREATE MATERIALIZED VIEW v").await?.row(0) == ["public.v", create]);
        ensure!(
            sql.query("DESCRIBE v").await?.row(1)[..2] == ["quarter", "numeric"],
            "{}",
            sql.query("DESCRIBE v").await?
        );
        let class = "SELECT relkind FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                     WHERE nspname = 'public' AND relname = 'v'";
        ensure!(sql.value::<String>(class).await? == "m");
        Ok(())
    });
}
