//! Queries of the Nexmark benchmark over its bids, as views. A source with a view for each query is
//! compared with the same queries over a table that has read the stream too.

use anyhow::{Result, ensure};
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::weir::{Cluster, Node};
use weir_e2e::workload::{Auctions, Bids};

use crate::crash::NODE_LOST;
use crate::support::{LATE, Publishing, create_json, wait_for};

const TOTAL: u64 = 24_000;

/// The aggregates of q15 to q17: how many bids there are, by their price, …
const BIDS: &str = "count(*) AS total_bids, count(*) FILTER (WHERE price < 10000) AS rank1_bids, \
                    count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids, \
                    count(*) FILTER (WHERE price >= 1000000) AS rank3_bids";
/// … and how many bidders and auctions.
const DISTINCT: &str = "count(DISTINCT bidder) AS total_bidders, \
                        count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders, \
                        count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders, \
                        count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders, \
                        count(DISTINCT auction) AS total_auctions, \
                        count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions, \
                        count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions, \
                        count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions";

/// The queries by their names, over the relation `bid`.
fn queries() -> Vec<(&'static str, String)> {
    vec![
        ("q0", "SELECT auction, bidder, price, date_time FROM bid".to_owned()),
        ("q1", "SELECT auction, bidder, 0.908 * price AS price, date_time FROM bid".to_owned()),
        ("q2", "SELECT auction, price FROM bid WHERE auction IN (7, 20, 201, 219, 287)".to_owned()),
        (
            "q14",
            "SELECT auction, bidder, 0.908 * price AS price, \
             CASE WHEN extract(hour FROM date_time) >= 8 AND extract(hour FROM date_time) <= 18 THEN 'dayTime' \
             WHEN extract(hour FROM date_time) <= 6 OR extract(hour FROM date_time) >= 20 THEN 'nightTime' \
             ELSE 'otherTime' END AS bid_time_type, \
             date_time, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts \
             FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000"
                .to_owned(),
        ),
        (
            "q15",
            format!("SELECT to_char(date_time, 'YYYY-MM-DD') AS day, {BIDS}, {DISTINCT} FROM bid GROUP BY to_char(date_time, 'YYYY-MM-DD')"),
        ),
        (
            "q16",
            format!(
                "SELECT channel, to_char(date_time, 'YYYY-MM-DD') AS day, max(to_char(date_time, 'HH24:MI')) AS minute, \
                 {BIDS}, {DISTINCT} FROM bid GROUP BY channel, to_char(date_time, 'YYYY-MM-DD')"
            ),
        ),
        (
            "q17",
            format!(
                "SELECT auction, to_char(date_time, 'YYYY-MM-DD') AS day, {BIDS}, min(price) AS min_price, \
                 max(price) AS max_price, avg(price) AS avg_price, sum(price) AS sum_price \
                 FROM bid GROUP BY auction, to_char(date_time, 'YYYY-MM-DD')"
            ),
        ),
        (
            "q22",
            "SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, \
             split_part(url, '/', 6) AS dir3 FROM bid"
                .to_owned(),
        ),
    ]
}

/// Checks that each view has the rows of its query over the table, in the epoch of the statement.
async fn agree(sql: &mut Sql) -> Result<()> {
    for (name, query) in queries() {
        let (view, query) = (format!("SELECT * FROM {name}"), query.replace("FROM bid", "FROM bids"));
        let differing = format!(
            "SELECT count(*) FROM ((({view}) EXCEPT ALL ({query})) UNION ALL (({query}) EXCEPT ALL ({view}))) AS differing"
        );
        let differing: u64 = sql.value(&differing).await?;
        ensure!(differing == 0, "{name}: {differing} rows differ");
        let rows: u64 = sql.value(&format!("SELECT count(*) FROM {name}")).await?;
        ensure!(rows > 0, "{name} has no rows");
    }
    Ok(())
}

#[test]
fn views_of_nexmark_are_exact_whoever_is_killed() {
    scenario("nexmark", async |sandbox| {
        let mut nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        cluster.expect_warnings(&["not reading"]);
        let mut sql = cluster.frontend.sql();
        create_json(&mut sql, &nats, "SOURCE bid", Bids::COLUMNS, "").await?;
        create_json(&mut sql, &nats, "TABLE bids", Bids::COLUMNS, "").await?;
        for (name, query) in queries() {
            sql.query(&format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await?;
        }
        let bids = Auctions { prefix: "events".to_owned(), auctions: 1_000, is_skewed: true };
        let mut publishing = Publishing::start(&nats, &bids, TOTAL, 3_000).await?;
        let victims = [Some(Node::Compute(0)), None, Some(Node::Meta(0)), Some(Node::Compute(1))];
        for (at, victim) in (1..).map(|part| part * TOTAL / 5).zip(victims) {
            publishing.reaches(at).await?;
            // `None` is nats-server.
            let process = match victim {
                Some(node) => cluster.node(node).process(),
                None => nats.process(),
            };
            process.kill9()?;
            process.restart()?;
        }
        publishing.end().await?;
        let last = nats.last_sequence("EVENTS").await?;
        for relation in ["bids", "q0", "q22"] {
            wait_for(&mut sql, &format!("SELECT count(*) FROM {relation}"), last, LATE).await?;
        }
        for (view, count) in [("q15", "total_bids"), ("q16", "total_bids"), ("q17", "total_bids")] {
            wait_for(&mut sql, &format!("SELECT coalesce(sum({count}), 0)::bigint FROM {view}"), last, LATE).await?;
        }
        agree(&mut sql).await
    });
}
