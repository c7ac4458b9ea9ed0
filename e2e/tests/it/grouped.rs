//! `CREATE MATERIALIZED VIEW … GROUP BY` over a source whose messages arrive meanwhile.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use weir_e2e::chaos;
use weir_e2e::publish::publish_all;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually_equal;
use weir_e2e::weir::{Cluster, Node};
use weir_e2e::workload::{Events, Workload};

use crate::crash::NODE_LOST;
use crate::support::{LATE, Publishing, SUBJECTS, create_events_with, standalone, wait_for};

/// A row of a group: the number of events, the sum of their prices, the least and greatest number.
const AGGREGATES: &str = "count(*) AS events, sum(price) AS prices, min(seq) AS first, max(seq) AS last";

/// Compares a view of [`AGGREGATES`] by subject with the first `total` events.
async fn compare_by_subject(sql: &mut Sql, view: &str, events: &Events, total: u64) -> Result<()> {
    wait_for(sql, &format!("SELECT coalesce(sum(events), 0) FROM {view}"), total, LATE).await?;
    let mut wanted: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    for number in 0..total {
        let group = wanted.entry(events.subject(number)).or_insert([0, 0, number, number]);
        *group = [group[0] + 1, group[1] + Events::price(number), group[2], number];
    }
    let wanted: Vec<Vec<String>> = wanted
        .into_iter()
        .map(|(subject, group)| std::iter::once(subject).chain(group.map(|value| value.to_string())).collect())
        .collect();
    let query = format!("SELECT subject, events, prices, first, last FROM {view} ORDER BY subject");
    let found = sql.query(&query).await?;
    let rows: Vec<Vec<&str>> = (0..found.rows.len()).map(|row| found.row(row)).collect();
    ensure!(rows == wanted, "{view} is not what was published; wanted {wanted:?}\n{found}");
    Ok(())
}

/// Compares a view by key with the first `total` events: as many groups, and what they have together.
async fn compare_by_key(sql: &mut Sql, view: &str, total: u64) -> Result<()> {
    wait_for(sql, &format!("SELECT coalesce(sum(events), 0) FROM {view}"), total, LATE).await?;
    let mut wanted: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for number in 0..total {
        let group = wanted.entry(Events::price(number) % 5_000).or_default();
        *group = (group.0 + 1, group.1.max(number));
    }
    let found = sql.query(&format!("SELECT key, events, last FROM {view} ORDER BY key")).await?;
    ensure!(found.rows.len() == wanted.len(), "{view} has {} groups of {}", found.rows.len(), wanted.len());
    for (row, (key, (events, last))) in wanted.into_iter().enumerate() {
        let wanted = [key, events, last].map(|value| value.to_string());
        ensure!(found.row(row) == wanted, "{view}: wanted {wanted:?}, found {:?}", found.row(row));
    }
    Ok(())
}

fn by_subject(view: &str) -> String {
    format!("CREATE MATERIALIZED VIEW {view} AS SELECT subject, {AGGREGATES} FROM s GROUP BY subject")
}

fn by_key(view: &str) -> String {
    format!(
        "CREATE MATERIALIZED VIEW {view} AS SELECT price % 5000 AS key, count(*) AS events, max(seq) AS last FROM s GROUP BY 1"
    )
}

#[test]
fn groups_are_exact_over_history_and_over_what_arrives_while_they_are_created() {
    scenario("groups", async |sandbox| {
        const TOTAL: u64 = 40_000;
        let (nats, weir) = standalone(sandbox).await?;
        let (mut sql, events) = (weir.sql(), Events::new("events", SUBJECTS));
        sql.query(&create_events_with("SOURCE s", &nats.address(), ", consumer.durable_name = 'jobs'")).await?;
        // Before there is a message, beside history, and while messages arrive.
        sql.query(&by_subject("empty")).await?;
        publish_all(&nats.client().await?, &events, 0..TOTAL / 4).await?;
        compare_by_subject(&mut sql, "empty", &events, TOTAL / 4).await?;
        sql.query(&by_subject("history")).await?;
        compare_by_subject(&mut sql, "history", &events, TOTAL / 4).await?;
        let client = nats.client().await?;
        let publishing = publish_all(&client, &events, TOTAL / 4..TOTAL);
        let creating = async {
            let mut other = weir.sql();
            other.query(&by_subject("during")).await?;
            other.query(&by_key("keys")).await?;
            other.query("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS events, sum(price) FROM s").await
        };
        let (published, created) = tokio::join!(publishing, creating);
        published?;
        created?;
        for view in ["empty", "history", "during"] {
            compare_by_subject(&mut sql, view, &events, TOTAL).await?;
        }
        compare_by_key(&mut sql, "keys", TOTAL).await?;
        wait_for(&mut sql, "SELECT events FROM total", TOTAL, LATE).await?;
        let sum: u64 = (0..TOTAL).map(Events::price).sum();
        ensure!(sql.value::<u64>("SELECT sum FROM total").await? == sum);

        // A dropped one leaves the others alone, and its name is free.
        sql.query("DROP MATERIALIZED VIEW history, keys").await?;
        publish_all(&nats.client().await?, &events, TOTAL..TOTAL + 1_000).await?;
        sql.query(&by_key("history")).await?;
        compare_by_subject(&mut sql, "during", &events, TOTAL + 1_000).await?;
        compare_by_key(&mut sql, "history", TOTAL + 1_000).await?;
        sql.query("DROP SOURCE s CASCADE").await?;
        eventually_equal("no job", LATE, 0, async || sql.value::<u64>("SELECT count(*) FROM weir_catalog.jobs").await)
            .await
    });
}

#[test]
fn groups_are_exact_whoever_is_killed() {
    scenario("groups-kills", async |sandbox| {
        const TOTAL: u64 = 60_000;
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", SUBJECTS));
        let subjects: Vec<String> = (0..SUBJECTS).map(|number| format!("events.{number}")).collect();
        let split = format!(", subject = '{}', split_by_subject = true", subjects.join(","));
        sql.query(&create_events_with("SOURCE s", &nats.address(), &split)).await?;
        sql.query(&by_subject("v0")).await?;
        sql.query(&by_key("keys")).await?;
        let mut publishing = Publishing::start(&nats, &events, TOTAL, 4_000).await?;
        let mut created = 1;
        let victims = [Node::Compute(0), Node::Compute(1), Node::Meta(0)];
        for kill in chaos::plan(chaos::seed(), &victims, 6, TOTAL / 30..TOTAL - TOTAL / 30) {
            publishing.reaches(kill.at).await?;
            // It is killed while the view begins.
            sql.query(&by_subject(&format!("IF NOT EXISTS v{created}"))).await?;
            created += 1;
            eprintln!("{}: kill {:?}", kill.at, kill.victim);
            cluster.node(kill.victim).process().kill9()?;
            publishing.reaches(kill.back_at).await?;
            cluster.node(kill.victim).process().restart()?;
        }
        publishing.end().await?;
        for view in 0..created {
            compare_by_subject(&mut sql, &format!("v{view}"), &events, TOTAL).await?;
        }
        compare_by_key(&mut sql, "keys", TOTAL).await
    });
}
