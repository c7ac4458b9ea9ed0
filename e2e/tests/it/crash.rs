//! Nothing is lost and nothing is counted twice, whoever is killed with SIGKILL and however often.
//!
//! Messages flow while processes are killed at moments that follow from a seed, into a table for each way of reading a
//! stream. In the meantime a watcher queries the first table again and again: what was readable once stays readable, and
//! new rows are never long in coming. At the end the tables are compared with what was sent, message by message. A
//! process that dies of its own is no part of a plan, and fails the test.
//!
//! State is in a local folder, and again in an object store that speaks S3; a standalone has it in its folder always.
//! Streams have Limits retention, and again WorkQueue and Interest, where a message that is acknowledged too early is gone,
//! and one that is never acknowledged stays.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::stream::RetentionPolicy;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use weir_e2e::chaos::{self, Kill};
use weir_e2e::s3::S3;
use weir_e2e::sandbox::{Sandbox, scenario};
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::{PATIENCE, eventually};
use weir_e2e::weir::{Cluster, Node, State, Weir};
use weir_e2e::workload::Events;

use crate::support::{
    Publishing, Reading, SUBJECTS, compare_readings, compare_sequences, readings_acknowledged, standalone_with,
    total_for,
};

/// Messages of the long tests.
const TOTAL: u64 = 200_000;
/// Messages of the tests that kill servers of others.
pub(crate) const TOTAL_SHORT: u64 = 60_000;
/// Messages a second: slow enough for every kill to fall into the flow of data.
const RATE: u64 = 5_000;

/// What meta counts its commits by.
const COMMITS: &str = "weir_commits_total";
/// Messages of the test with state on S3, of which the first third flows undisturbed while requests are counted.
const TOTAL_S3: u64 = 100_000;
/// Objects that a commit of one busy table on four slots may write, compaction and housekeeping included. S3 asks money
/// for each.
const PUTS_A_COMMIT_MAX: f64 = 12.0;
/// Of the cluster's two compute nodes together.
const SLOTS: usize = 4;
/// Databases that may remain: of each slot its own, and those whose files it may still read, which is what compaction leaves
/// of its ancestors.
const KEPT_DATABASES_MAX: usize = SLOTS * (1 + 4);
/// How long they may take to be rewritten and the others to be collected. Files that were replaced are kept for scans
/// for a minute, and with them the databases they belong to.
const COLLECTION_DEADLINE: Duration = PATIENCE;
/// The longest that new rows may be in coming while processes are killed. How soon they come is what `make bench` measures.
const OUTAGE_MAX: Duration = PATIENCE;

/// Lines that nodes may log when others die. The last ten are SlateDB's: of a term that ends
/// while its database flushes, and of garbage that nodes of two terms collect at the same time.
pub(crate) const NODE_LOST: [&str; 13] = [
    "disconnecting a compute node",
    "this node cannot go on with the term",
    "cannot start the term",
    "l0_flush_tracker, error=Closed",
    "failed to shutdown l0 flush tracker [error=Closed]",
    "l0_sst_uploader, error=Closed",
    "failed to shutdown l0 sst uploader [error=Closed]",
    "error collecting garbage [resource=Compacted SSTs, error=ManifestMissing",
    "slatedb::garbage_collector::compacted_gc: error deleting SST",
    "slatedb::garbage_collector::manifest_gc: error deleting manifest",
    "slatedb::garbage_collector::compactions_gc: error deleting compactions",
    "error=LatestTransactionalObjectVersionMissing]",
    "slatedb_txn_obj::object_store: listed file missing on read, retrying",
];
/// What a meta node may say of the death of etcd.
const ETCD_LOST: [&str; 3] =
    ["cannot keep the leader's lease alive", "cannot campaign now, trying again", "leadership lost"];

/// The tables, their stream and everything that goes on while processes are killed.
pub(crate) struct Flow {
    readings: Vec<Reading>,
    events: Events,
    total: u64,
    sql: Sql,
    pub(crate) publishing: Publishing,
    watching: AbortOnDropHandle<Result<()>>,
    seen: watch::Receiver<Seen>,
}

/// What the watcher has seen so far.
#[derive(Clone, Copy, Debug)]
struct Seen {
    answers: u64,
    count: u64,
    /// When the count last grew.
    grown: Instant,
    /// The longest time between two answers of which the second had more rows.
    outage: Duration,
}

impl Flow {
    /// Creates a table for each way of reading through `server`, starts publishing and watching.
    pub(crate) async fn start(
        nats: &Nats,
        server: &str,
        weir: &Weir,
        readings: &[Reading],
        total: u64,
    ) -> Result<Flow> {
        let (mut sql, events) = (weir.sql(), Events::new("events", SUBJECTS));
        for reading in readings {
            sql.query(&reading.create(server)).await?;
        }
        let publishing = Publishing::start(nats, &events, total, RATE).await?;
        let start = Seen { answers: 0, count: 0, grown: Instant::now(), outage: Duration::ZERO };
        let (sender, seen) = watch::channel(start);
        let watching = AbortOnDropHandle::new(tokio::spawn(watch_growth(weir.sql(), readings[0], sender)));
        Ok(Flow { readings: readings.to_vec(), events, total, sql, publishing, watching, seen })
    }

    /// Where kills may fall: not before the first rows, and early enough for the last restart to see new ones.
    pub(crate) fn kill_range(&self) -> Range<u64> {
        self.total / 50..self.total - self.total / 50
    }

    /// Kills nodes of a cluster, and starts them again, when their time comes.
    async fn kill_by_plan(&mut self, cluster: &mut Cluster, plan: Vec<Kill<Victim>>) -> Result<()> {
        for Kill { victim, at, back_at } in plan {
            self.publishing.reaches(at).await?;
            let node = victim.node(cluster).await?;
            eprintln!("{at}: kill {victim:?}, {node:?}, back at {back_at}");
            cluster.node(node).process().kill9()?;
            self.publishing.reaches(back_at).await?;
            cluster.node(node).process().restart()?;
        }
        Ok(())
    }

    /// Compares the tables with what was published, and waits for the acknowledgements.
    pub(crate) async fn finish(mut self, nats: &Nats) -> Result<()> {
        self.publishing.end().await?;
        let last = nats.last_sequence("EVENTS").await?;
        if last == self.total {
            compare_readings(&mut self.sql, &self.readings, &self.events, self.total).await?;
        } else {
            compare_sequences(nats, &mut self.sql, &self.readings, last, self.total).await?;
        }
        // The watcher sees the end too, and with it the last outage.
        let seen = self.seen.wait_for(|seen| seen.count >= self.total).await.map(|seen| *seen);
        let seen = match seen {
            Ok(seen) => seen,
            Err(_) => bail!("the watcher has ended: {:?}", self.watching.await),
        };
        eprintln!("{} answers to the watcher, new rows at most {:?} apart", seen.answers, seen.outage);
        // An answer in two seconds: fewer show nothing about what stays readable.
        ensure!(seen.answers >= self.total / RATE / 2, "the watcher got {} answers only", seen.answers);
        ensure!(seen.outage <= OUTAGE_MAX, "no new rows for {:?}", seen.outage);
        readings_acknowledged(nats, &self.readings).await
    }
}

/// Queries the count for ever; fails if it ever goes back.
async fn watch_growth(mut sql: Sql, reading: Reading, seen: watch::Sender<Seen>) -> Result<()> {
    let query = format!("SELECT count(*) FROM {}", reading.table());
    loop {
        let count = sql.value::<u64>(&query).await?;
        let Seen { answers, count: last, grown, outage } = *seen.borrow();
        ensure!(count >= last, "{count} rows after {last} were readable");
        let now = Instant::now();
        let (grown, outage) = if count > last { (now, outage.max(now - grown)) } else { (grown, outage) };
        seen.send_replace(Seen { answers: answers + 1, count, grown, outage });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A part that a node of the cluster plays.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Leader,
    Standby,
    Compute(usize),
    Frontend,
}

impl Victim {
    const ALL: [Victim; 5] =
        [Victim::Leader, Victim::Standby, Victim::Compute(0), Victim::Compute(1), Victim::Frontend];

    /// Who plays it now.
    async fn node(self, cluster: &Cluster) -> Result<Node> {
        Ok(match self {
            Victim::Leader => Node::Meta(cluster.leader().await?),
            Victim::Standby => Node::Meta(1 - cluster.leader().await?),
            Victim::Compute(index) => Node::Compute(index),
            Victim::Frontend => Node::Frontend,
        })
    }
}

/// Where state is.
enum Place<'a> {
    /// In a folder of the sandbox.
    Folder(&'a Sandbox),
    /// In an object store.
    S3(&'a S3),
}

impl Place<'_> {
    fn state(&self) -> Result<State> {
        match self {
            Place::Folder(sandbox) => State::local(sandbox),
            Place::S3(s3) => Ok(s3.state()),
        }
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        match self {
            Place::Folder(sandbox) => {
                let found = std::fs::read_dir(sandbox.folder("state")?.join(folder))?;
                found.map(|found| Ok(found?.file_name().to_string_lossy().into_owned())).collect()
            }
            Place::S3(s3) => s3.folders(folder).await,
        }
    }

    /// How many readings are worth it: requests to the object store are counted for one table, and are slow.
    fn readings(&self) -> &'static [Reading] {
        match self {
            Place::Folder(_) => &Reading::ALL,
            Place::S3(_) => &[Reading::Durable("all")],
        }
    }
}

async fn start_cluster(place: &Place<'_>, sandbox: &Sandbox) -> Result<(Nats, Cluster)> {
    start_cluster_over(RetentionPolicy::Limits, place, sandbox).await
}

async fn start_cluster_over(
    retention: RetentionPolicy,
    place: &Place<'_>,
    sandbox: &Sandbox,
) -> Result<(Nats, Cluster)> {
    let nats = Nats::start(sandbox).await?;
    nats.create_stream_with("EVENTS", &["events.>"], retention).await?;
    let cluster = Cluster::start_on(place.state()?, sandbox, 2, 2).await?;
    cluster.expect_warnings(&NODE_LOST);
    Ok((nats, cluster))
}

/// Kills processes of a cluster that reads a stream.
fn kills_in_a_cluster(name: &str, retention: RetentionPolicy) {
    scenario(name, async |sandbox| {
        let (seed, place) = (chaos::seed(), Place::Folder(sandbox));
        let (nats, mut cluster) = start_cluster_over(retention, &place, sandbox).await?;
        let total = total_for(&nats, retention, TOTAL).await?;
        let mut flow = Flow::start(&nats, &nats.address(), &cluster.frontend, Reading::of(retention), total).await?;
        let plan = chaos::plan(seed, &Victim::ALL, 10, flow.kill_range());
        flow.kill_by_plan(&mut cluster, plan).await?;
        flow.finish(&nats).await?;
        dead_terms_are_collected(&place).await
    });
}

#[test]
fn tables_are_exact_after_ten_kills_in_a_cluster() {
    kills_in_a_cluster("crash-cluster", RetentionPolicy::Limits);
}

#[test]
fn a_table_over_a_work_queue_is_exact_after_ten_kills_in_a_cluster() {
    kills_in_a_cluster("crash-cluster-queue", RetentionPolicy::WorkQueue);
}

#[test]
fn tables_over_an_interest_stream_are_exact_after_ten_kills_in_a_cluster() {
    kills_in_a_cluster("crash-cluster-interest", RetentionPolicy::Interest);
}

#[test]
fn a_table_is_exact_after_ten_kills_with_its_state_on_s3() {
    scenario("crash-s3", async |sandbox| {
        let seed = chaos::seed();
        let s3 = S3::start(sandbox).await?;
        let place = Place::S3(&s3);
        let (nats, mut cluster) = start_cluster(&place, sandbox).await?;
        let mut flow = Flow::start(&nats, &nats.address(), &cluster.frontend, place.readings(), TOTAL_S3).await?;
        let undisturbed = TOTAL_S3 / 3;
        count_puts(&s3, &cluster, &mut flow, undisturbed).await?;
        let plan = chaos::plan(seed, &Victim::ALL, 10, undisturbed..flow.kill_range().end);
        flow.kill_by_plan(&mut cluster, plan).await?;
        flow.finish(&nats).await?;
        dead_terms_are_collected(&place).await
    });
}

/// Counts the requests that write, until so many messages are published.
async fn count_puts(s3: &S3, cluster: &Cluster, flow: &mut Flow, until: u64) -> Result<()> {
    let leader = &cluster.metas[cluster.leader().await?];
    flow.publishing.reaches(until / 5).await?;
    let (puts, commits) = (s3.requests("PUT")?, leader.metric(COMMITS).await?);
    flow.publishing.reaches(until).await?;
    let (puts, commits) = (s3.requests("PUT")? - puts, leader.metric(COMMITS).await? - commits);
    let puts_a_commit = puts as f64 / commits;
    eprintln!("{puts} PUTs in {commits} commits: {puts_a_commit:.1} a commit");
    ensure!(commits > 0.0 && puts_a_commit < PUTS_A_COMMIT_MAX, "{puts} PUTs in {commits} commits");
    Ok(())
}

/// Waits until dead terms have left behind no more than their successors still read.
async fn dead_terms_are_collected(place: &Place<'_>) -> Result<()> {
    eventually("databases of dead terms to be collected", COLLECTION_DEADLINE, async || {
        let (mut terms, mut databases, mut newest) = (0, 0, 0);
        for cluster in place.folders("state").await? {
            for name in place.folders(&format!("state/{cluster}")).await? {
                let number = name.split('-').next().and_then(|number| number.parse().ok());
                newest = newest.max(number.with_context(|| format!("\"{name}\" is no term"))?);
                terms += 1;
                databases += place.folders(&format!("state/{cluster}/{name}")).await?.len();
            }
        }
        let found = format!("{databases} databases of {terms} of {newest} terms");
        // Each of these may be of another term, so that a few terms may all be left.
        ensure!(databases <= KEPT_DATABASES_MAX, "there are {found}");
        eprintln!("{found}");
        Ok(Some(()))
    })
    .await
}

/// Kills a standalone that reads a stream.
fn kills_of_a_standalone(name: &str, retention: RetentionPolicy, total: u64) {
    scenario(name, async |sandbox| {
        let seed = chaos::seed();
        let (nats, mut weir) = standalone_with(sandbox, retention).await?;
        let mut flow = Flow::start(&nats, &nats.address(), &weir, Reading::of(retention), total).await?;
        for Kill { at, back_at, .. } in chaos::plan(seed, &[()], 10, flow.kill_range()) {
            flow.publishing.reaches(at).await?;
            eprintln!("{at}: kill, back at {back_at}");
            weir.process().kill9()?;
            flow.publishing.reaches(back_at).await?;
            weir.process().restart()?;
        }
        flow.finish(&nats).await
    });
}

#[test]
fn tables_are_exact_after_ten_kills_of_a_standalone() {
    kills_of_a_standalone("crash-standalone", RetentionPolicy::Limits, TOTAL);
}

#[test]
fn a_table_over_a_work_queue_is_exact_after_ten_kills_of_a_standalone() {
    kills_of_a_standalone("crash-standalone-queue", RetentionPolicy::WorkQueue, TOTAL_SHORT);
}

#[test]
fn tables_over_an_interest_stream_are_exact_after_ten_kills_of_a_standalone() {
    kills_of_a_standalone("crash-standalone-interest", RetentionPolicy::Interest, TOTAL_SHORT);
}

/// Kills nats-server under a Weir.
async fn kills_of_nats_server(nats: &mut Nats, weir: &Weir, readings: &[Reading]) -> Result<()> {
    let seed = chaos::seed();
    let mut flow = Flow::start(nats, &nats.address(), weir, readings, TOTAL_SHORT).await?;
    for Kill { at, .. } in chaos::plan(seed, &[()], 5, flow.kill_range()) {
        flow.publishing.reaches(at).await?;
        eprintln!("{at}: kill nats-server");
        nats.process().restart()?;
        nats.ready().await?;
    }
    flow.finish(nats).await
}

/// Kills nats-server under a standalone that reads a stream.
fn kills_of_nats_server_under_a_standalone(name: &str, retention: RetentionPolicy) {
    scenario(name, async |sandbox| {
        let (mut nats, weir) = standalone_with(sandbox, retention).await?;
        kills_of_nats_server(&mut nats, &weir, Reading::of(retention)).await
    });
}

#[test]
fn tables_are_exact_after_kills_of_nats_server() {
    kills_of_nats_server_under_a_standalone("crash-nats", RetentionPolicy::Limits);
}

#[test]
fn a_table_over_a_work_queue_is_exact_after_kills_of_nats_server() {
    kills_of_nats_server_under_a_standalone("crash-nats-queue", RetentionPolicy::WorkQueue);
}

#[test]
fn tables_over_an_interest_stream_are_exact_after_kills_of_nats_server() {
    kills_of_nats_server_under_a_standalone("crash-nats-interest", RetentionPolicy::Interest);
}

#[test]
fn a_table_is_exact_after_kills_of_nats_server_with_its_state_on_s3() {
    scenario("crash-nats-s3", async |sandbox| {
        let s3 = S3::start(sandbox).await?;
        let place = Place::S3(&s3);
        let (mut nats, cluster) = start_cluster(&place, sandbox).await?;
        kills_of_nats_server(&mut nats, &cluster.frontend, place.readings()).await
    });
}

/// Kills etcd under a cluster.
async fn kills_of_etcd(place: &Place<'_>, sandbox: &Sandbox) -> Result<()> {
    let seed = chaos::seed();
    let (nats, mut cluster) = start_cluster(place, sandbox).await?;
    cluster.expect_warnings(&ETCD_LOST);
    let mut flow = Flow::start(&nats, &nats.address(), &cluster.frontend, place.readings(), TOTAL_SHORT).await?;
    for Kill { at, back_at, .. } in chaos::plan(seed, &[()], 5, flow.kill_range()) {
        flow.publishing.reaches(at).await?;
        eprintln!("{at}: kill etcd, back at {back_at}");
        cluster.etcd.process().kill9()?;
        flow.publishing.reaches(back_at).await?;
        cluster.etcd.process().restart()?;
        cluster.etcd.ready().await?;
    }
    flow.finish(&nats).await
}

#[test]
fn tables_are_exact_after_kills_of_etcd() {
    scenario("crash-etcd", async |sandbox| kills_of_etcd(&Place::Folder(sandbox), sandbox).await);
}

#[test]
fn a_table_is_exact_after_kills_of_etcd_with_its_state_on_s3() {
    scenario("crash-etcd-s3", async |sandbox| {
        let s3 = S3::start(sandbox).await?;
        kills_of_etcd(&Place::S3(&s3), sandbox).await
    });
}
