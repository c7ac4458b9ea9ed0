//! Nothing is lost and nothing is counted twice, whoever is killed with SIGKILL and however often.
//!
//! State is in a local folder, and again in an object store that speaks S3; a standalone has it in its folder always.
//!
//! Messages flow while processes are killed at moments that follow from a seed. In the meantime a watcher queries the
//! table again and again: what was readable once stays readable. At the end the table is compared with what was sent,
//! message by message.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use weir_e2e::chaos::{self, Kill};
use weir_e2e::publish::{Pace, publish};
use weir_e2e::s3::S3;
use weir_e2e::sandbox::{Sandbox, scenario};
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually;
use weir_e2e::weir::{Cluster, State, Weir};
use weir_e2e::workload::Events;

use crate::support::{acknowledged, compare_events, create_events, standalone};

/// Messages of the long tests.
const TOTAL: u64 = 200_000;
/// Messages of the tests that kill servers of others.
const TOTAL_SHORT: u64 = 60_000;
/// Messages a second: slow enough for every kill to fall into the flow of data.
const RATE: u64 = 5_000;

/// What meta counts its commits by.
const COMMITS: &str = "weir_commits_total";
/// Messages of the test with state on S3, of which the first third flows undisturbed while requests are counted.
const TOTAL_S3: u64 = 100_000;
/// Objects that a commit of one busy table on four slots may write, compaction and housekeeping included. S3 asks money
/// for each.
const PUTS_A_COMMIT_MAX: f64 = 12.0;
/// Terms whose databases the running one may still read, besides its own.
const KEPT_TERMS_MAX: u64 = 6;
/// How long they may take to be rewritten and the others to be collected.
const COLLECTION_DEADLINE: Duration = Duration::from_secs(60);
/// Fewer answers than this show nothing about what stays readable.
const ANSWERS_MIN: u64 = 5;

/// What nodes may say of the death of others. The last two are SlateDB's, when a term ends while its database flushes.
pub(crate) const NODE_LOST: [&str; 5] = [
    "disconnecting a compute node",
    "this node cannot go on with the term",
    "cannot start the term",
    "l0_flush_tracker, error=Closed",
    "failed to shutdown l0 flush tracker [error=Closed]",
];
/// What a meta node may say of the death of etcd.
const ETCD_LOST: [&str; 3] =
    ["cannot keep the leader's lease alive", "cannot campaign now, trying again", "leadership lost"];

/// The table, its stream and everything that goes on while processes are killed.
struct Flow {
    events: Events,
    total: u64,
    sql: Sql,
    publishing: AbortOnDropHandle<Result<()>>,
    watching: AbortOnDropHandle<Result<()>>,
    /// How many answers the watcher got.
    answers: watch::Receiver<u64>,
    progress: watch::Receiver<u64>,
}

impl Flow {
    /// Creates the table through `server`, starts publishing and watching.
    async fn start(nats: &Nats, server: &str, weir: &Weir, total: u64) -> Result<Flow> {
        let (mut sql, events) = (weir.sql(), Events::new("events", 7));
        sql.query(&create_events("events", server, "reader")).await?;
        let (sender, progress) = watch::channel(0);
        let (client, workload) = (nats.client().await?, events.clone());
        let publishing =
            tokio::spawn(
                async move { publish(&client, &workload, 0..total, Pace::steady(RATE), &sender).await.map(drop) },
            );
        let (counter, answers) = watch::channel(0);
        let watching = tokio::spawn(watch_growth(weir.sql(), counter));
        Ok(Flow {
            events,
            total,
            sql,
            publishing: AbortOnDropHandle::new(publishing),
            watching: AbortOnDropHandle::new(watching),
            answers,
            progress,
        })
    }

    /// Waits until so many messages are in the stream.
    async fn reaches(&mut self, messages: u64) -> Result<()> {
        let reached = self.progress.wait_for(|&acknowledged| acknowledged >= messages).await;
        reached.map(drop).context("publishing has ended early")
    }

    /// Where kills may fall: not before the first rows, and early enough for the last restart to see new ones.
    fn kill_range(&self) -> Range<u64> {
        self.total / 50..self.total - self.total / 50
    }

    /// Compares the table with what was published, and waits for the acknowledgements.
    async fn finish(mut self, nats: &Nats) -> Result<()> {
        self.publishing.await??;
        ensure!(nats.last_sequence("EVENTS").await? == self.total, "the publisher has put doubles into the stream");
        compare_events(&mut self.sql, "events", &self.events, self.total).await?;
        ensure!(!self.watching.is_finished(), "the watcher has ended: {:?}", self.watching.await);
        let answers = *self.answers.borrow();
        ensure!(answers >= ANSWERS_MIN, "the watcher got {answers} answers only");
        acknowledged(nats, "reader").await
    }
}

/// Queries the count for ever; fails if it ever goes back.
async fn watch_growth(mut sql: Sql, answers: watch::Sender<u64>) -> Result<()> {
    let mut last = 0;
    loop {
        let count = sql.value::<u64>("SELECT count(*) FROM events").await?;
        ensure!(count >= last, "{count} rows after {last} were readable");
        last = count;
        answers.send_modify(|answers| *answers += 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A process of the cluster.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Meta,
    Compute(usize),
    Frontend,
}

fn victim(cluster: &mut Cluster, victim: Victim) -> &mut Weir {
    match victim {
        Victim::Meta => &mut cluster.metas[0],
        Victim::Compute(index) => &mut cluster.computes[index],
        Victim::Frontend => &mut cluster.frontend,
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

    /// The terms of the cluster that have databases, by the names of their folders.
    async fn terms(&self) -> Result<Vec<String>> {
        let mut terms = Vec::new();
        for cluster in self.folders("state").await? {
            terms.append(&mut self.folders(&format!("state/{cluster}")).await?);
        }
        Ok(terms)
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
}

async fn start_cluster(place: &Place<'_>, sandbox: &Sandbox) -> Result<(Nats, Cluster)> {
    let nats = Nats::start(sandbox).await?;
    nats.create_stream("EVENTS", &["events.>"]).await?;
    let cluster = Cluster::start_on(place.state()?, sandbox, 1, 2).await?;
    cluster.expect_warnings(&NODE_LOST);
    Ok((nats, cluster))
}

/// Kills processes of the cluster and starts them again, as the plan has it.
async fn kill_and_restart(cluster: &mut Cluster, flow: &mut Flow, plan: Vec<Kill<Victim>>) -> Result<()> {
    for Kill { victim: who, at, back_at } in plan {
        flow.reaches(at).await?;
        eprintln!("{at}: kill {who:?}, back at {back_at}");
        victim(cluster, who).process().kill9();
        flow.reaches(back_at).await?;
        victim(cluster, who).process().restart()?;
    }
    Ok(())
}

/// Everybody of a cluster who keeps nothing of its own.
const EVERYBODY: [Victim; 4] = [Victim::Meta, Victim::Compute(0), Victim::Compute(1), Victim::Frontend];

#[test]
fn a_table_is_exact_after_ten_kills_in_a_cluster() {
    scenario("crash-cluster", async |sandbox| {
        let (seed, place) = (chaos::seed(), Place::Folder(sandbox));
        let (nats, mut cluster) = start_cluster(&place, sandbox).await?;
        let mut flow = Flow::start(&nats, &nats.address(), &cluster.frontend, TOTAL).await?;
        let plan = chaos::plan(seed, &EVERYBODY, 10, flow.kill_range());
        kill_and_restart(&mut cluster, &mut flow, plan).await?;
        flow.finish(&nats).await?;
        dead_terms_are_collected(&place).await
    });
}

#[test]
fn a_table_is_exact_after_kills_with_its_state_on_s3() {
    scenario("crash-s3", async |sandbox| {
        let seed = chaos::seed();
        let s3 = S3::start(sandbox).await?;
        let place = Place::S3(&s3);
        let (nats, mut cluster) = start_cluster(&place, sandbox).await?;
        let mut flow = Flow::start(&nats, &nats.address(), &cluster.frontend, TOTAL_S3).await?;
        let undisturbed = TOTAL_S3 / 3;
        count_puts(&s3, &cluster, &mut flow, undisturbed).await?;
        let plan = chaos::plan(seed, &EVERYBODY, 10, undisturbed..flow.kill_range().end);
        kill_and_restart(&mut cluster, &mut flow, plan).await?;
        flow.finish(&nats).await?;
        dead_terms_are_collected(&place).await
    });
}

/// Counts the requests that write, until so many messages are published.
async fn count_puts(s3: &S3, cluster: &Cluster, flow: &mut Flow, until: u64) -> Result<()> {
    flow.reaches(until / 5).await?;
    let (puts, commits) = (s3.requests("PUT")?, cluster.metas[0].metric(COMMITS).await?);
    flow.reaches(until).await?;
    let (puts, commits) = (s3.requests("PUT")? - puts, cluster.metas[0].metric(COMMITS).await? - commits);
    let puts_a_commit = puts as f64 / commits;
    eprintln!("{puts} PUTs in {commits} commits: {puts_a_commit:.1} a commit");
    ensure!(commits > 0.0 && puts_a_commit < PUTS_A_COMMIT_MAX, "{puts} PUTs in {commits} commits");
    Ok(())
}

/// Waits until most terms have left nothing behind: what they wrote was taken over by their successors.
async fn dead_terms_are_collected(place: &Place<'_>) -> Result<()> {
    eventually("databases of dead terms to be collected", COLLECTION_DEADLINE, async || {
        let (mut kept, mut newest) = (0, 0);
        for name in place.terms().await? {
            let number = name.split('-').next().and_then(|number| number.parse().ok());
            newest = newest.max(number.with_context(|| format!("\"{name}\" is no term"))?);
            kept += 1;
        }
        ensure!(kept < newest && kept <= KEPT_TERMS_MAX, "{kept} of {newest} terms have databases");
        eprintln!("{kept} of {newest} terms have databases");
        Ok(Some(()))
    })
    .await
}

#[test]
fn a_table_is_exact_after_ten_kills_of_a_standalone() {
    scenario("crash-standalone", async |sandbox| {
        let seed = chaos::seed();
        let (nats, mut weir) = standalone(sandbox).await?;
        let mut flow = Flow::start(&nats, &nats.address(), &weir, TOTAL).await?;
        for Kill { at, back_at, .. } in chaos::plan(seed, &[()], 10, flow.kill_range()) {
            flow.reaches(at).await?;
            eprintln!("{at}: kill, back at {back_at}");
            weir.process().kill9();
            flow.reaches(back_at).await?;
            weir.process().restart()?;
        }
        flow.finish(&nats).await
    });
}

/// Kills nats-server under a Weir that is read through `weir`.
async fn kills_of_nats_server(nats: &mut Nats, weir: &Weir) -> Result<()> {
    let seed = chaos::seed();
    let mut flow = Flow::start(nats, &nats.address(), weir, TOTAL_SHORT).await?;
    for Kill { at, .. } in chaos::plan(seed, &[()], 5, flow.kill_range()) {
        flow.reaches(at).await?;
        eprintln!("{at}: kill nats-server");
        nats.process().restart()?;
        nats.ready().await?;
    }
    flow.finish(nats).await
}

#[test]
fn a_table_is_exact_after_kills_of_nats_server() {
    scenario("crash-nats", async |sandbox| {
        let (mut nats, weir) = standalone(sandbox).await?;
        kills_of_nats_server(&mut nats, &weir).await
    });
}

#[test]
fn a_table_is_exact_after_kills_of_nats_server_with_its_state_on_s3() {
    scenario("crash-nats-s3", async |sandbox| {
        let s3 = S3::start(sandbox).await?;
        let (mut nats, cluster) = start_cluster(&Place::S3(&s3), sandbox).await?;
        kills_of_nats_server(&mut nats, &cluster.frontend).await
    });
}

/// Kills etcd under a cluster.
async fn kills_of_etcd(place: &Place<'_>, sandbox: &Sandbox) -> Result<()> {
    let seed = chaos::seed();
    let (nats, mut cluster) = start_cluster(place, sandbox).await?;
    cluster.expect_warnings(&ETCD_LOST);
    let mut flow = Flow::start(&nats, &nats.address(), &cluster.frontend, TOTAL_SHORT).await?;
    for Kill { at, back_at, .. } in chaos::plan(seed, &[()], 5, flow.kill_range()) {
        flow.reaches(at).await?;
        eprintln!("{at}: kill etcd, back at {back_at}");
        cluster.etcd.process().kill9();
        flow.reaches(back_at).await?;
        cluster.etcd.process().restart()?;
        cluster.etcd.ready().await?;
    }
    flow.finish(&nats).await
}

#[test]
fn a_table_is_exact_after_kills_of_etcd() {
    scenario("crash-etcd", async |sandbox| kills_of_etcd(&Place::Folder(sandbox), sandbox).await);
}

#[test]
fn a_table_is_exact_after_kills_of_etcd_with_its_state_on_s3() {
    scenario("crash-etcd-s3", async |sandbox| {
        let s3 = S3::start(sandbox).await?;
        kills_of_etcd(&Place::S3(&s3), sandbox).await
    });
}
