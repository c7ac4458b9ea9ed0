//! What the nodes of a cluster owe to those who run them: a short outage when one is lost, an orderly end when one is told
//! to go, and metrics as they are described.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir_e2e::process::workspace;
use weir_e2e::proxy::Proxy;
use weir_e2e::publish::publish_in_background;
use weir_e2e::recovery::Watched;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::wait::{PATIENCE, eventually};
use weir_e2e::weir::{Cluster, Node};
use weir_e2e::workload::Events;

use crate::support::{
    Publishing, SOON, acknowledged, compare_events, create_events, create_events_with, publish_payloads, standalone,
};

/// What new rows may take after a loss. On an idle machine it is at most 3 seconds and, where a leader is lost, its lease
/// of 3 more; `make bench` measures that. Here others use the same cores.
const OUTAGE_MAX: Duration = PATIENCE;
/// Events a second while something is lost.
const RATE: u64 = 1_000;

#[test]
fn new_rows_soon_flow_again_whichever_node_of_a_cluster_is_lost() {
    scenario("cluster-outage", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let mut cluster = Cluster::start(sandbox, 2, 2).await?;
        cluster.expect_warnings(&["disconnecting a compute node", "this node cannot go on with the term"]);
        let mut sql = cluster.frontend.sql();
        sql.query(&create_events("events", &nats.address(), "reader")).await?;
        let events = Events::new("events", 7);
        let _publishing = publish_in_background(nats.client().await?, events, 0..u64::MAX, RATE);
        let watched = Watched { nats: &nats, stream: "EVENTS", table: "events", deadline: OUTAGE_MAX };

        watched.settled(&mut cluster, &mut sql).await?;
        let leader = cluster.leader().await?;
        for node in [Node::Compute(0), Node::Meta(leader), Node::Compute(1), Node::Meta(1 - leader)] {
            let start = Instant::now();
            cluster.node(node).process().kill9()?;
            let outage = watched.new_rows(start, &mut sql).await.with_context(|| format!("{node:?} was killed"))?;
            eprintln!("{node:?}: new rows after {outage:?}");
            cluster.node(node).process().restart()?;
            watched.settled(&mut cluster, &mut sql).await?;
        }
        // The frontend has nobody to take over from it, so its time runs from its start.
        cluster.frontend.process().kill9()?;
        let start = Instant::now();
        cluster.frontend.process().restart()?;
        let outage = watched.new_rows(start, &mut sql).await.context("the frontend was killed")?;
        eprintln!("frontend: new rows after {outage:?}");
        Ok(())
    });
}

#[test]
fn new_rows_soon_flow_again_when_a_standalone_is_started_after_a_kill() {
    scenario("standalone-outage", async |sandbox| {
        let (nats, mut weir) = standalone(sandbox).await?;
        let mut sql = weir.sql();
        sql.query(&create_events("events", &nats.address(), "reader")).await?;
        let events = Events::new("events", 7);
        let _publishing = publish_in_background(nats.client().await?, events, 0..u64::MAX, RATE);
        let watched = Watched { nats: &nats, stream: "EVENTS", table: "events", deadline: OUTAGE_MAX };
        for _ in 0..3 {
            watched.new_rows(Instant::now(), &mut sql).await?;
            weir.process().kill9()?;
            let start = Instant::now();
            weir.process().restart()?;
            eprintln!("new rows after {:?}", watched.new_rows(start, &mut sql).await?);
        }
        Ok(())
    });
}

#[test]
fn nodes_that_are_told_to_end_do_so_in_order_while_connections_are_cut() {
    const TOTAL: u64 = 40_000;
    scenario("cluster-order", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let proxy = Proxy::start(nats.socket(), 1).await?;
        let mut cluster = Cluster::start(sandbox, 2, 2).await?;
        let (mut sql, events) = (cluster.frontend.sql(), Events::new("events", 7));
        sql.query(&create_events("events", &proxy.address(), "reader")).await?;
        let mut publishing = Publishing::start(&nats, &events, TOTAL, 4_000).await?;
        let leader = cluster.leader().await?;
        let nodes = [Node::Compute(0), Node::Meta(leader), Node::Compute(1), Node::Meta(1 - leader), Node::Frontend];
        for (node, moment) in nodes.into_iter().zip(1..) {
            publishing.reaches(moment * TOTAL / 8).await?;
            let status = cluster.node(node).process().terminate(SOON).await?;
            ensure!(status.success(), "{node:?} ended with {status}");
            proxy.cut_all();
            cluster.node(node).process().restart()?;
            cluster.ready().await?;
        }
        publishing.end().await?;
        publish_payloads(&nats, "events.bad", &["no event"]).await?;
        cluster.expect_warnings(&["kept a bad record", "skipped a bad record"]);
        compare_events(&mut sql, "events", &events, TOTAL).await?;
        // Every other row fails, and is counted.
        sql.query(&create_events_with("SOURCE s", &proxy.address(), "")).await?;
        sql.query("CREATE MATERIALIZED VIEW odd AS SELECT subject, sum(1 / (seq % 2)) FROM s GROUP BY subject").await?;
        acknowledged(&nats, "reader").await?;
        metrics_are_as_described(&cluster).await?;
        sql.query("DROP SOURCE s CASCADE").await?;
        eventually("no metric of a dropped job", SOON, async || {
            for compute in &cluster.computes {
                let metrics = compute.metrics().await?;
                let mut states = metrics.lines().filter(|line| line.starts_with("weir_job_state_"));
                ensure!(states.all(|line| !line.contains("table=\"odd\"")), "the dropped view is there still");
            }
            Ok(Some(()))
        })
        .await
    });
}

/// What `docs/metrics.md` says of a metric, or a node does: its type and its labels.
pub(super) type Described = BTreeMap<String, (String, BTreeSet<String>)>;

/// Compares what the nodes say of their metrics, once they have said enough, with what the documentation does.
async fn metrics_are_as_described(cluster: &Cluster) -> Result<()> {
    /// Counted only when a statement loses its snapshot, which is not to be had at will.
    const RARE: &str = "weir_frontend_query_retries_total";
    let documented = documented_metrics()?;
    eventually("every metric of the documentation", SOON, async || {
        let mut exposed = Described::new();
        for node in cluster.metas.iter().chain(&cluster.computes).chain([&cluster.frontend]) {
            expose(&node.metrics().await?, &mut exposed);
        }
        let undocumented = exposed.keys().filter(|name| !documented.contains_key(*name)).collect::<Vec<_>>();
        ensure!(undocumented.is_empty(), "docs/metrics.md lacks {undocumented:?}");
        let common = documented.iter().filter(|(name, _)| *name != RARE);
        let wrong = common.filter(|(name, description)| exposed.get(*name) != Some(description));
        let wrong = wrong.map(|(name, description)| format!("{name}: {description:?}, not {:?}", exposed.get(name)));
        let wrong = wrong.collect::<Vec<_>>();
        ensure!(wrong.is_empty(), "docs/metrics.md is wrong about\n{}", wrong.join("\n"));
        Ok(Some(()))
    })
    .await?;
    let mut sums = BTreeMap::<&str, f64>::new();
    for name in ["weir_source_rows_total", "weir_source_bytes_total", "weir_source_bad_records_total"] {
        for compute in &cluster.computes {
            *sums.entry(name).or_default() += compute.metric(name).await?;
        }
    }
    ensure!(sums.values().all(|&sum| sum > 0.0), "something was read: {sums:?}");
    for name in ["weir_barriers_total", "weir_commits_total", "weir_recoveries_total"] {
        let counted = cluster.metas[cluster.leader().await?].metric(name).await?;
        ensure!(counted > 0.0, "{name} is {counted}");
    }
    Ok(())
}

/// The rows ``| `name` | type | unit | labels | meaning |`` of the page.
pub(super) fn documented_metrics() -> Result<Described> {
    let page = std::fs::read_to_string(workspace().join("docs/metrics.md"))?;
    let rows = page.lines().filter(|line| line.starts_with("| `weir_"));
    let metrics = rows.map(|row| {
        let cells = row.split('|').map(str::trim).collect::<Vec<_>>();
        ensure!(cells.len() == 7, "{row}: not five columns");
        let labels = cells[4].split([',', ' ', '`']).filter(|label| !label.is_empty()).map(str::to_owned).collect();
        Ok((cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels)))
    });
    metrics.collect()
}

/// Adds what a node says in Prometheus' text format: `# TYPE name type`, then `name{label="value",…} number`.
fn expose(text: &str, exposed: &mut Described) {
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            // Others are the exporter's own.
            if name.starts_with("weir_") {
                exposed.entry(name.to_owned()).or_insert_with(|| (kind.to_owned(), BTreeSet::new()));
            }
        } else if let Some((series, labels)) = line.split_once('{') {
            let mut families = ["_bucket", "_sum", "_count"].iter().filter_map(|end| series.strip_suffix(end));
            let family = families.find(|family| exposed.contains_key(*family)).unwrap_or(series);
            let names = labels.split('"').step_by(2).filter_map(|name| name.trim_matches(',').strip_suffix('='));
            // `le` is a histogram's own; the exporter names the meter.
            let names = names.filter(|name| *name != "le" && !name.starts_with("otel_scope")).map(str::to_owned);
            if let Some((_, known)) = exposed.get_mut(family) {
                known.extend(names);
            }
        }
    }
}

#[test]
fn metrics_are_read_from_their_text() {
    let text = "# HELP weir_a_seconds time\n# TYPE weir_a_seconds histogram\n\
                weir_a_seconds_bucket{otel_scope_name=\"weir\",slot=\"1\",le=\"+Inf\"} 1\n\
                weir_a_seconds_sum{slot=\"1\"} 2\n# TYPE weir_b gauge\nweir_b{table=\"a=\",split=\"x\"} 3\n\
                # TYPE weir_c_total counter\nweir_c_total 1\n";
    let mut exposed = Described::new();
    expose(text, &mut exposed);
    let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(exposed["weir_a_seconds"], ("histogram".to_owned(), labels(&["slot"])));
    assert_eq!(exposed["weir_b"], ("gauge".to_owned(), labels(&["split", "table"])));
    assert_eq!(exposed["weir_c_total"], ("counter".to_owned(), labels(&[])));
}
