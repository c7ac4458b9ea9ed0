//! Streams that go back to an earlier end under the same creation time: told, not read, and nothing
//! of them acknowledged, until the user says otherwise. Then they are read from their first
//! message, beside the rows that are there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use weir_e2e::sandbox::{Sandbox, scenario};
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::{eventually, eventually_equal};
use weir_e2e::weir::Weir;

use crate::support::{LATE, SOON, create_json, events_options, publish_payloads, standalone_with, wait_for};

/// What a server that is stopped may take.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// What is told when a stream is found to be another one.
const TOLD: &str = "is not the one that was read before";

/// How a stream goes back, and how it is read.
struct Case {
    retention: RetentionPolicy,
    /// Whether Weir is down meanwhile.
    down: bool,
    /// How many of the first hundred messages are left.
    left: u64,
}

/// Copies the server's store while it does not run.
async fn copy_store(nats: &mut Nats, from: &Path, to: &Path) -> Result<()> {
    nats.process().terminate(STOP_DEADLINE).await?;
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    copy_folder(from, to)?;
    nats.process().restart()?;
    nats.ready().await
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// Messages with a key `k`, of which there are 50, a number `n`, and the same number as text.
async fn publish_numbers(nats: &Nats, numbers: std::ops::Range<u64>) -> Result<()> {
    let payloads = numbers.map(|n| format!("{{\"k\": {}, \"n\": {n}}}", n % 50)).collect::<Vec<_>>();
    publish_payloads(nats, "events.n", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Creates everything that reads the stream; the relations, keyed ones aside.
async fn create(sql: &mut Sql, nats: &Nats, retention: RetentionPolicy) -> Result<Vec<&'static str>> {
    let columns = "k bigint, n bigint";
    create_json(sql, nats, "TABLE plain", columns, "").await?;
    if retention != RetentionPolicy::Limits {
        return Ok(vec!["plain"]);
    }
    create_json(sql, nats, "TABLE by_all", columns, ", consumer.durable_name = 'by_all', consumer.ack_policy = 'all'")
        .await?;
    create_json(sql, nats, "TABLE keyed", "k bigint PRIMARY KEY, n bigint", ", consumer.durable_name = 'keyed'")
        .await?;
    let options = events_options(&nats.address());
    let source =
        format!("CREATE SOURCE source ({columns}) INCLUDE offset AS seq WITH ({options}) FORMAT PLAIN ENCODE JSON");
    sql.query(&source).await?;
    sql.query("CREATE MATERIALIZED VIEW seen AS SELECT n, seq FROM source").await?;
    Ok(vec!["plain", "by_all", "seen"])
}

/// All relations have so many rows; those of the keyed one are the newest of their keys.
async fn hold(sql: &mut Sql, relations: &[&str], rows: u64, newest: u64) -> Result<()> {
    for relation in relations {
        wait_for(sql, &format!("SELECT count(*) FROM {relation}"), rows, SOON).await?;
    }
    if relations.len() > 1 {
        let sum = (newest - 49..=newest).sum();
        wait_for(sql, "SELECT sum(n) FROM keyed", sum, SOON).await?;
        wait_for(sql, "SELECT count(*) FROM keyed", 50, SOON).await?;
    }
    Ok(())
}

async fn messages(nats: &Nats) -> Result<u64> {
    Ok(nats.jetstream().await?.get_stream("EVENTS").await?.get_info().await?.state.messages)
}

async fn check(sandbox: &Sandbox, Case { retention, down, left }: Case) -> Result<()> {
    let (mut nats, mut weir) = standalone_with(sandbox, retention).await?;
    weir.process().log().expect_warnings(&["not reading"]);
    let (store, backup) = (sandbox.folder("nats-server")?, sandbox.folder("backup")?);
    let mut sql = weir.sql();
    let relations = create(&mut sql, &nats, retention).await?;
    publish_numbers(&nats, 0..left).await?;
    if left > 0 {
        hold(&mut sql, &relations, left, left - 1).await?;
    }
    copy_store(&mut nats, &store, &backup).await?;
    publish_numbers(&nats, left..100).await?;
    hold(&mut sql, &relations, 100, 99).await?;
    let consumed = retention != RetentionPolicy::Limits;
    if consumed {
        eventually_equal("everything to be acknowledged", SOON, 0, async || messages(&nats).await).await?;
    }

    if down {
        weir.process().kill9()?;
    }
    copy_store(&mut nats, &backup, &store).await?;
    let kept = messages(&nats).await?;
    publish_numbers(&nats, 1_000..1_150).await?;
    if down {
        weir.process().restart()?;
        weir.ready().await?;
        sql = weir.sql();
    }
    told(&mut sql, &mut weir, &relations, consumed).await?;
    let there = messages(&nats).await?;
    ensure!(there >= 150 && there <= kept + 150, "{there} messages are left of {kept} and 150");

    read_on(&nats, &mut weir, &relations, there, consumed).await
}

/// The stream of which a hundred messages were read is found to be another one, and is not read.
async fn told(sql: &mut Sql, weir: &mut Weir, relations: &[&str], consumed: bool) -> Result<()> {
    let told = eventually("the stream to be told from the one that was read", SOON, async || {
        let log = weir.process().log().read()?;
        let told = log.lines().filter(|line| line.contains("not reading") && line.contains(TOLD)).count();
        Ok((told >= relations.len()).then_some(()))
    });
    told.await?;
    hold(sql, relations, 100, 99).await?;
    let stopped = "SELECT count(*) FROM weir_catalog.splits WHERE state = 'stopped' AND reason LIKE '%on_new_stream%'";
    wait_for(sql, stopped, if consumed { 1 } else { 4 }, SOON).await?;
    let jobs = format!("{:?}", sql.query("SHOW JOBS").await?);
    ensure!(jobs.contains("stalled") && jobs.contains(TOLD), "{jobs}");
    Ok(())
}

/// The user says that the stream is to be read. It holds `there` messages.
async fn read_on(nats: &Nats, weir: &mut Weir, relations: &[&str], there: u64, consumed: bool) -> Result<()> {
    let mut sql = weir.sql();
    for relation in relations {
        let altered = if *relation == "seen" { "SOURCE source".to_owned() } else { format!("TABLE {relation}") };
        sql.query(&format!("ALTER {altered} CONNECTOR WITH (on_new_stream = 'read')")).await?;
    }
    if !consumed {
        sql.query("ALTER TABLE keyed CONNECTOR WITH (on_new_stream = 'read')").await?;
    }
    hold(&mut sql, relations, 100 + there, 1_149).await?;
    let split = "SELECT min(incarnation) FROM weir_catalog.splits";
    wait_for(&mut sql, split, 1, SOON).await?;
    // The new position outlives the process.
    publish_numbers(nats, 1_150..1_160).await?;
    hold(&mut sql, relations, 110 + there, 1_159).await?;
    weir.process().kill9()?;
    publish_numbers(nats, 1_160..1_170).await?;
    weir.process().restart()?;
    weir.ready().await?;
    let mut sql = weir.sql();
    hold(&mut sql, relations, 120 + there, 1_169).await?;
    if consumed {
        eventually_equal("everything to be acknowledged", SOON, 0, async || messages(nats).await).await?;
        return Ok(());
    }
    // A view that comes later has the history of the stream that is there.
    sql.query("CREATE MATERIALIZED VIEW later AS SELECT n FROM source").await?;
    wait_for(&mut sql, "SELECT count(*) FROM later", there + 20, SOON).await?;
    publish_numbers(nats, 1_170..1_180).await?;
    wait_for(&mut sql, "SELECT count(*) FROM later", there + 30, SOON).await?;
    wait_for(&mut sql, "SELECT max(seq::bigint) FROM seen", nats.last_sequence("EVENTS").await?, SOON).await?;
    wait_for(&mut sql, "SELECT count(*) FROM source", there + 30, SOON).await
}

#[test]
fn a_stream_that_is_restored_empty_and_has_overtaken_is_not_read_until_the_user_says_so() {
    use RetentionPolicy::{Interest, Limits, WorkQueue};
    for (retention, down) in
        [(Limits, false), (Limits, true), (WorkQueue, false), (WorkQueue, true), (Interest, false), (Interest, true)]
    {
        scenario("restored", async |sandbox| check(sandbox, Case { retention, down, left: 0 }).await);
    }
}

#[test]
fn a_stream_that_lost_its_tail_and_has_overtaken_is_not_read_until_the_user_says_so() {
    for (retention, down) in [(RetentionPolicy::Limits, false), (RetentionPolicy::WorkQueue, true)] {
        scenario("lost-tail", async |sandbox| check(sandbox, Case { retention, down, left: 60 }).await);
    }
}

/// A stream in memory on some servers of a cluster, all of which restart: the cluster still knows
/// the stream, which is empty.
async fn check_memory(sandbox: &Sandbox, num_replicas: usize) -> Result<()> {
    let mut servers = Nats::start_cluster(sandbox, 3).await?;
    let subjects = vec!["events.>".to_owned()];
    let config =
        Config { name: "EVENTS".to_owned(), subjects, num_replicas, storage: StorageType::Memory, ..Config::default() };
    eventually("the cluster to make a stream", LATE, async || {
        servers[0].jetstream().await?.create_stream(config.clone()).await?;
        Ok(Some(()))
    })
    .await?;
    let (created, leader) = eventually("the stream to have a leader", LATE, async || {
        let stream = servers[0].jetstream().await?.get_stream("EVENTS").await?;
        let info = stream.cached_info();
        let leader = info.cluster.as_ref().and_then(|cluster| cluster.leader.clone());
        Ok(leader.map(|leader| (info.created, leader)))
    })
    .await?;
    let leader: usize = leader.trim_start_matches("nats-").parse()?;

    let mut weir = Weir::standalone(sandbox)?;
    weir.ready().await?;
    weir.process().log().expect_warnings(&["not reading"]);
    let mut sql = weir.sql();
    let relations = create(&mut sql, &servers[0], RetentionPolicy::Limits).await?;
    publish_numbers(&servers[0], 0..100).await?;
    hold(&mut sql, &relations, 100, 99).await?;

    let holders = if num_replicas == 1 { leader..leader + 1 } else { 0..3 };
    servers[holders.clone()].iter_mut().try_for_each(|server| server.process().kill9())?;
    servers[holders.clone()].iter_mut().try_for_each(|server| server.process().restart())?;
    // One alone does not answer.
    for server in &servers[holders] {
        server.ready().await?;
    }
    eventually("the stream to be there again, and empty", LATE, async || {
        let stream = servers[0].jetstream().await?.get_stream("EVENTS").await?;
        let info = stream.cached_info();
        ensure!(info.created == created, "it was created at {}, not at {created}", info.created);
        let led = info.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_some());
        Ok((led && info.state.messages == 0).then_some(()))
    })
    .await?;
    publish_numbers(&servers[0], 1_000..1_150).await?;
    told(&mut sql, &mut weir, &relations, false).await?;
    read_on(&servers[0], &mut weir, &relations, 150, false).await
}

#[test]
fn a_memory_stream_whose_servers_restarted_is_not_read_until_the_user_says_so() {
    for replicas in [1, 3] {
        scenario("memory-stream", async |sandbox| check_memory(sandbox, replicas).await);
    }
}
