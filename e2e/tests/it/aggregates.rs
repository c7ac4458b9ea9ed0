//! Views that aggregate, on clusters whose processes are killed.

use anyhow::{Result, ensure};
use weir_e2e::chaos;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually_equal;
use weir_e2e::weir::{Cluster, Node};
use weir_e2e::workload::Events;

use crate::crash::NODE_LOST;
use crate::support::{LATE, Publishing, SUBJECTS, create_events_with, wait_for};

/// Queries over the source `s`.
const QUERIES: [&str; 6] = [
    "SELECT count(*) AS n, sum(seq) AS total, min(seq) AS least, max(price) AS most FROM s",
    "SELECT price, count(*) AS n, sum(seq) AS total, avg(seq) AS mean, min(note) AS least FROM s GROUP BY price",
    "SELECT seq % 1000 AS part, subject, count(*) AS n, max(seq) AS last FROM s GROUP BY seq % 1000, subject",
    "SELECT DISTINCT price FROM s WHERE seq % 3 = 1",
    "SELECT subject, count(DISTINCT price) AS prices, count(*) FILTER (WHERE price > 10) AS high FROM s GROUP BY subject",
    "SELECT price, bool_and(seq % 2 = 0) AS even FROM s GROUP BY price HAVING count(*) % 2 = 1",
];

/// Queries over the views of these queries, `v` standing for the view.
const UPPER: [&str; 6] = [
    "SELECT n % 7 AS part, total FROM v",
    "SELECT n, count(*) AS prices, sum(total) AS total, min(least) AS least FROM v GROUP BY n",
    "SELECT subject, sum(n) AS n, max(last) AS last, count(DISTINCT part) AS parts FROM v GROUP BY subject",
    "SELECT count(*) AS prices, min(price) AS least, max(price) AS most FROM v",
    "SELECT subject, prices FROM v WHERE high > 10",
    "SELECT even, count(*) AS prices FROM v GROUP BY even UNION ALL SELECT NULL, count(*) FROM v",
];

/// The query over the view of this number.
fn upper(number: usize) -> String {
    UPPER[number % UPPER.len()].replace("FROM v", &format!("FROM v{number}"))
}

/// Checks that each view over a view has the rows of its query, in whichever epoch is the newest.
async fn agree(sql: &mut Sql, views: usize) -> Result<()> {
    for number in 0..views {
        let (view, query) = (format!("SELECT * FROM u{number}"), upper(number));
        let differing = format!(
            "SELECT count(*) FROM ((({view}) EXCEPT ALL ({query})) UNION ALL (({query}) EXCEPT ALL ({view}))) AS differing"
        );
        let differing: u64 = sql.value(&differing).await?;
        ensure!(differing == 0, "{differing} rows of u{number} and its query differ: {query}");
    }
    Ok(())
}

/// All rows of a query, in an order of their own.
async fn rows(sql: &mut Sql, query: &str) -> Result<Vec<Vec<Option<String>>>> {
    let mut rows = sql.query(query).await?.rows;
    rows.sort();
    Ok(rows)
}

/// Checks that a view has the rows of its query over the source, once it has read everything.
async fn compare(sql: &mut Sql, view: &str, query: &str) -> Result<()> {
    let wanted = rows(sql, query).await?;
    eventually_equal(&format!("rows of {view}: {query}"), LATE, wanted, async || {
        rows(sql, &format!("SELECT * FROM {view}")).await
    })
    .await
}

#[test]
fn aggregates_are_exact_whoever_is_killed_while_they_are_created_and_kept_up_to_date() {
    scenario("aggregates-kills", async |sandbox| {
        const TOTAL: u64 = 60_000;
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", SUBJECTS));
        let subjects: Vec<String> = (0..SUBJECTS).map(|number| format!("events.{number}")).collect();
        let split = format!(", subject = '{}', split_by_subject = true", subjects.join(","));
        sql.query(&create_events_with("SOURCE s", &nats.address(), &split)).await?;
        let create = |number: usize| {
            format!("CREATE MATERIALIZED VIEW IF NOT EXISTS v{number} AS {}", QUERIES[number % QUERIES.len()])
        };
        let create_upper = |number| format!("CREATE MATERIALIZED VIEW IF NOT EXISTS u{number} AS {}", upper(number));
        sql.query(&create(0)).await?;
        sql.query(&create_upper(0)).await?;
        let mut publishing = Publishing::start(&nats, &events, TOTAL, 4_000).await?;
        let mut created = 1;
        let victims = [Node::Compute(0), Node::Compute(1), Node::Meta(0)];
        for kill in chaos::plan(chaos::seed(), &victims, 6, TOTAL / 30..TOTAL - TOTAL / 30) {
            publishing.reaches(kill.at).await?;
            sql.query(&create(created)).await?;
            sql.query(&create_upper(created)).await?;
            created += 1;
            agree(&mut sql, created).await?;
            eprintln!("{}: kill {:?}", kill.at, kill.victim);
            cluster.node(kill.victim).process().kill9()?;
            publishing.reaches(kill.back_at).await?;
            cluster.node(kill.victim).process().restart()?;
            agree(&mut sql, created).await?;
        }
        publishing.end().await?;
        wait_for(&mut sql, "SELECT n FROM v0", TOTAL, LATE).await?;
        for view in 0..created {
            compare(&mut sql, &format!("v{view}"), QUERIES[view % QUERIES.len()]).await?;
        }
        agree(&mut sql, created).await?;
        // All of it is still there, and goes on, after one more start.
        for node in victims {
            cluster.node(node).process().kill9()?;
            cluster.node(node).process().restart()?;
        }
        for view in 0..created {
            compare(&mut sql, &format!("v{view}"), QUERIES[view % QUERIES.len()]).await?;
        }
        agree(&mut sql, created).await?;
        Ok(())
    });
}
