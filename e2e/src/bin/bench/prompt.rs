//! The latency of short queries: on small tables, and of rows that are looked up by key in a large one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio_postgres::{Client, NoTls};
use weir_e2e::publish::publish_all;
use weir_e2e::servers::Nats;
use weir_e2e::wait::eventually;
use weir_e2e::weir::Weir;
use weir_e2e::workload::{Small, Workload};

use crate::report::{Aim, Report, millis, percentile};
use crate::{DEADLINE, Kept};

/// Rows of the small tables.
const FEW: u64 = 60;
/// Rows of the table that rows are looked up in.
const MANY: u64 = 1_000_000;
/// How often each query is run.
const RUNS: u64 = 500;
/// Runs before those that are measured.
const WARM_UP: u64 = 50;
/// Connections that look rows up, or insert them, at the same time, and for how long.
const CONNECTIONS: u64 = 50;
const LOAD: Duration = Duration::from_secs(5);

/// Measures the time that short queries take.
pub(crate) async fn measure(nats: &Nats, weir: &Weir, report: &mut Report) -> Result<()> {
    println!("measuring short queries …");
    let mut sql = weir.sql();
    for (name, rows) in [("few", FEW), ("fewer", FEW), ("many", MANY)] {
        let (stream, subject) = (name.to_uppercase(), format!("prompt.{name}"));
        nats.create_stream(&stream, &[subject.as_str()]).await?;
        publish_all(&nats.client().await?, &Named(subject.clone()), 0..rows).await?;
        let columns = format!("{}, PRIMARY KEY (id)", Small::COLUMNS);
        sql.query(&Kept::Appended.create(name, &columns, (stream.as_str(), subject.as_str()), "", nats)).await?;
        let count = format!("SELECT count(*) FROM {name}");
        let complete = async || Ok((sql.value::<u64>(&count).await? == rows).then_some(()));
        eventually("the table to be complete", DEADLINE, complete).await?;
    }
    let address = weir.sql_address();
    let client = connect(address).await?;
    let at_most = Aim::AtMost;
    for (what, query, aim) in [
        ("SELECT 1", "SELECT 1", Aim::None),
        ("count(*) of 60 rows", "SELECT count(*) FROM few", at_most(3.0)),
        ("a join of two tables of 60 rows", "SELECT count(*) FROM few JOIN fewer ON few.id = fewer.id", at_most(5.0)),
        ("a row of 60 by its value", "SELECT * FROM few WHERE value = 5", Aim::None),
    ] {
        let run = async |_| {
            client.simple_query(query).await?;
            Ok(())
        };
        let times = times(run).await?;
        add(report, what, &times, aim);
    }
    let look_up = async |number: u64| {
        let id = number * 7919 % MANY;
        let answer = client.simple_query(&format!("SELECT id, value FROM many WHERE id = {id}")).await?;
        // Its columns, the row, and how many there are.
        ensure!(answer.len() == 3, "no single row has id {id}");
        Ok(())
    };
    add(report, "a row of 1 million by its key", &times(look_up).await?, at_most(2.0));
    let prepared = client.prepare("SELECT value FROM many WHERE id = $1").await?;
    let look_up = async |number: u64| {
        client.query_one(&prepared, &[&((number * 7919 % MANY) as i64)]).await?;
        Ok(())
    };
    add(report, "the same by a prepared statement", &times(look_up).await?, at_most(2.0));
    add(report, "publish, wait_for, SELECT", &own_events(nats, &client).await?, at_most(20.0));
    let rate = a_second(address, "SELECT value FROM many WHERE id = $1", 1).await?;
    report.add("rows looked up a second by 50 connections", rate, 0, Aim::AtLeast(1_000.0));
    sql.query("CREATE TABLE written (id bigint PRIMARY KEY, value bigint)").await?;
    let insert = async |number: u64| {
        client.simple_query(&format!("INSERT INTO written VALUES ({}, 1)", MANY + number)).await?;
        Ok(())
    };
    add(report, "INSERT of a row", &times(insert).await?, Aim::None);
    let rate = a_second(address, "INSERT INTO written VALUES ($1, 2)", 0).await?;
    report.add("rows inserted a second by 50 connections, a statement each", rate, 0, Aim::AtLeast(1_000.0));
    Ok(())
}

fn add(report: &mut Report, what: &str, sorted: &[Duration], aim: Aim) {
    report.add(&format!("{what}, p50, ms"), millis(percentile(sorted, 50)), 2, aim);
    report.add(&format!("{what}, p99, ms"), millis(percentile(sorted, 99)), 2, Aim::None);
}

/// The times of a query, sorted.
async fn times(query: impl AsyncFn(u64) -> Result<()>) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in 0..WARM_UP + RUNS {
        let start = Instant::now();
        query(number).await?;
        if number >= WARM_UP {
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    Ok(times)
}

/// The times from a message's publishing to an answer that contains it, sorted.
async fn own_events(nats: &Nats, client: &Client) -> Result<Vec<Duration>> {
    let (jetstream, payload) = (nats.jetstream().await?, Small.payload(MANY));
    let times = times(async |_| {
        let ack = jetstream.publish("prompt.few", payload.clone()).await?.await?;
        let query = format!("SET wait_for = 'FEW:{}'; SELECT value FROM few WHERE id = {MANY}", ack.sequence);
        ensure!(client.simple_query(&query).await?.len() == 4, "the message is not there");
        Ok(())
    })
    .await?;
    client.simple_query("RESET wait_for").await?;
    Ok(times)
}

/// How often a second 50 connections run a statement with an id; each answer has so many rows.
async fn a_second(address: SocketAddr, sql: &str, rows: usize) -> Result<f64> {
    let done = AtomicU64::new(0);
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = connect(address).await?;
        let statement = client.prepare(sql).await?;
        clients.push((client, statement));
    }
    let (start, done) = (Instant::now(), &done);
    let work = clients.iter().zip(0..).map(|((client, statement), number): (_, u64)| async move {
        let mut id = number * 31;
        while start.elapsed() < LOAD {
            id = (id + 7919) % MANY;
            let answer = client.query(statement, &[&(id as i64)]).await?;
            ensure!(answer.len() == rows, "{} rows have id {id}", answer.len());
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<_, anyhow::Error>(())
    });
    futures::future::try_join_all(work).await?;
    Ok(done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

async fn connect(address: SocketAddr) -> Result<Client> {
    let (host, port) = (address.ip(), address.port());
    let parameters = format!("host={host} port={port} user=root dbname=dev");
    let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Small messages on a subject of their own.
#[derive(Clone, Debug)]
struct Named(String);

impl Workload for Named {
    fn subject(&self, _: u64) -> String {
        self.0.clone()
    }

    fn payload(&self, number: u64) -> bytes::Bytes {
        Small.payload(number)
    }
}
