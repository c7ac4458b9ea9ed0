//! Views that this version of Weir cannot build, since a newer one made them: they wait, visibly, and nothing else does.

use anyhow::{Context, Result, ensure};
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually_equal;
use weir_e2e::weir::Cluster;

use crate::support::{LATE, events_options, publish_payloads, wait_for};

/// How a meta node speaks of a view that it cannot build.
const WAITS: &str = "a job cannot be built by this version: it waits";

/// Messages `from` to `to`: their numbers, and the rest of each divided by 3.
async fn publish(nats: &Nats, from: u64, to: u64) -> Result<()> {
    let payloads: Vec<String> = (from..to).map(|n| format!("{{\"n\": {n}, \"k\": {}}}", n % 3)).collect();
    publish_payloads(nats, "events.n", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Replaces a part of the catalog entry of a relation in the metadata store, while no meta node runs, and starts meta
/// again.
async fn restored_with(cluster: &mut Cluster, relation: &str, from: &str, to: &str) -> Result<()> {
    cluster.metas[0].process().kill9()?;
    let mut etcd = etcd_client::Client::connect([cluster.etcd.url()], None).await?;
    let all = etcd.get("", Some(etcd_client::GetOptions::new().with_all_keys())).await?;
    let stored = all.kvs().iter().filter(|stored| stored.key_str().is_ok_and(|key| key.contains("/table/")));
    let is_it = |stored: &&etcd_client::KeyValue| {
        serde_json::from_slice(stored.value()).is_ok_and(|entry: serde_json::Value| entry["name"] == relation)
    };
    let stored = stored.into_iter().find(is_it).with_context(|| format!("\"{relation}\" is not in the catalog"))?;
    let entry = stored.value_str()?;
    ensure!(entry.contains(from), "\"{relation}\" does not contain {from}");
    etcd.put(stored.key(), entry.replace(from, to), None).await?;
    cluster.metas[0].process().restart()?;
    cluster.ready().await
}

/// Waits until `SHOW JOBS` has these states, by the names of the relations.
async fn states(sql: &mut Sql, expected: &[(&str, &str)]) -> Result<()> {
    let names: Vec<String> = expected.iter().map(|(name, _)| format!("'{name}'")).collect();
    let select =
        format!("SELECT name, state FROM weir_catalog.jobs WHERE name IN ({}) ORDER BY name", names.join(", "));
    let row = |(name, state): &(&str, &str)| vec![Some((*name).to_owned()), Some((*state).to_owned())];
    let expected: Vec<_> = expected.iter().map(row).collect();
    eventually_equal("the states of jobs", LATE, expected, async || Ok(sql.query(&select).await?.rows)).await
}

#[test]
fn a_view_that_only_a_newer_version_can_build_waits_for_it() {
    scenario("versions", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&["lost the leader", "cannot reach a meta node", WAITS, "job failed"]);
        let mut sql = cluster.frontend.sql();
        let options = events_options(&nats.address());
        for statement in [
            &format!("CREATE SOURCE s (n bigint, k bigint) WITH ({options}) FORMAT PLAIN ENCODE JSON"),
            "CREATE TABLE t (n bigint PRIMARY KEY)",
            "CREATE MATERIALIZED VIEW counts AS SELECT k, count(*) AS n FROM s GROUP BY k",
            "CREATE MATERIALIZED VIEW above AS SELECT sum(n) AS n FROM counts",
            "CREATE MATERIALIZED VIEW other AS SELECT k, sum(n) AS n FROM s GROUP BY k",
            "CREATE MATERIALIZED VIEW followed AS SELECT max(n) AS n FROM t",
        ] {
            sql.query(statement).await?;
        }
        publish(&nats, 0, 300).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM counts", 300, LATE).await?;
        let before = sql.query("SELECT * FROM above").await?;

        // The operator is called otherwise by the version that made the view.
        restored_with(&mut cluster, "counts", "\"aggregate\":{", "\"aggregate_in_windows\":{").await?;
        states(&mut sql, &[("above", "waiting"), ("counts", "waiting"), ("other", "running")]).await?;
        publish(&nats, 300, 600).await?;
        wait_for(&mut sql, "SELECT sum(n) FROM other", 600 * 599 / 2, LATE).await?;
        let refused = sql.refused("SELECT * FROM counts").await?;
        ensure!(refused.code().code() == "55000", "{refused}");
        ensure!(refused.message().contains("aggregate_in_windows"), "{refused}");
        ensure!(sql.query("SELECT * FROM above").await?.rows == before.rows, "its input has not changed");
        let jobs = format!("{:?}", sql.query("SHOW JOBS").await?);
        ensure!(jobs.contains("unknown variant `aggregate_in_windows`"), "{jobs}");
        // Objects can be created and dropped beside it, and it can be renamed.
        sql.query("ALTER MATERIALIZED VIEW counts RENAME TO counted").await?;
        sql.query("CREATE MATERIALIZED VIEW later AS SELECT count(*) AS n FROM s").await?;
        wait_for(&mut sql, "SELECT n FROM later", 600, LATE).await?;

        restored_with(&mut cluster, "counted", "\"aggregate_in_windows\":{", "\"aggregate\":{").await?;
        states(&mut sql, &[("above", "running"), ("counted", "running"), ("other", "running")]).await?;
        wait_for(&mut sql, "SELECT n FROM above", 600, LATE).await?;
        wait_for(&mut sql, "SELECT count(*) FROM counted WHERE n = 200", 3, LATE).await?;

        // A revision of a function that compute nodes lack.
        let (known, newer) = ("\"function\":\"count\",\"revision\":1", "\"function\":\"count\",\"revision\":9");
        restored_with(&mut cluster, "counted", known, newer).await?;
        states(&mut sql, &[("above", "waiting"), ("counted", "waiting"), ("other", "running")]).await?;
        publish(&nats, 600, 900).await?;
        wait_for(&mut sql, "SELECT n FROM later", 900, LATE).await?;
        restored_with(&mut cluster, "counted", newer, known).await?;
        wait_for(&mut sql, "SELECT n FROM above", 900, LATE).await?;
        let differing = sql.query("VERIFY MATERIALIZED VIEW above").await?;
        ensure!(differing.rows.is_empty(), "{differing:?}");

        // A view over a table that goes on can never be right again.
        restored_with(&mut cluster, "followed", "\"aggregate\":{", "\"aggregate_in_windows\":{").await?;
        states(&mut sql, &[("above", "running"), ("counted", "running"), ("followed", "failed")]).await?;
        sql.query("INSERT INTO t VALUES (1)").await?;
        restored_with(&mut cluster, "followed", "\"aggregate_in_windows\":{", "\"aggregate\":{").await?;
        states(&mut sql, &[("followed", "failed")]).await?;
        let jobs = format!("{:?}", sql.query("SHOW JOBS").await?);
        ensure!(jobs.contains("drop it and create it again"), "{jobs}");
        sql.query("DROP MATERIALIZED VIEW followed").await?;
        sql.query("CREATE MATERIALIZED VIEW followed AS SELECT max(n) AS n FROM t").await?;
        wait_for(&mut sql, "SELECT n FROM followed", 1, LATE).await
    });
}
