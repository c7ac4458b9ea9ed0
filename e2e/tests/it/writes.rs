//! Statements that write, on a cluster whose nodes are killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;
use weir_e2e::chaos;
use weir_e2e::sandbox::scenario;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually;
use weir_e2e::weir::{Cluster, Node};

use crate::crash::NODE_LOST;
use crate::support::LATE;

/// Sessions that write at once.
const WRITERS: u64 = 6;
/// Statements of a session.
const STATEMENTS: u64 = 250;
/// Keys of a session.
const KEYS: u64 = 20;

/// The values that a row may have: nothing, or a number; several while an outcome is unknown.
type Possible = Vec<Option<i64>>;

/// The effect of a statement on a row.
fn effect(number: u64, before: Option<i64>) -> (String, Option<i64>) {
    match (number % 5, before) {
        (0, Some(_)) => ("DELETE FROM t WHERE k = $K".to_owned(), None),
        (1 | 2, Some(value)) => ("UPDATE t SET v = v + 1 WHERE k = $K".to_owned(), Some(value + 1)),
        (_, _) => {
            let value = i64::try_from(number).expect("a small number");
            (format!("INSERT INTO t VALUES ($K, {value})"), Some(value))
        }
    }
}

/// A session that writes its own keys. Returns its knowledge of them, and the numbers of its rows
/// in the log: those that are there, and those that may be.
async fn write(
    parameters: String,
    writer: u64,
    done: Arc<AtomicU64>,
) -> Result<(BTreeMap<u64, Possible>, Vec<u64>, Vec<u64>)> {
    let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
    tokio::spawn(connection);
    let mut known: BTreeMap<u64, Possible> = (0..KEYS).map(|key| (writer * KEYS + key, vec![None])).collect();
    let (mut logged, mut unsure) = (Vec::new(), Vec::new());
    for number in 0..STATEMENTS {
        let key = writer * KEYS + number * 7 % KEYS;
        let before = known[&key].clone();
        let (sql, _) = effect(number, before[0]);
        let outcome = client.simple_query(&sql.replace("$K", &key.to_string())).await;
        let after: Possible = before
            .iter()
            .map(|value| match (sql.split(' ').next(), value) {
                (Some("INSERT"), _) => effect(number, None).1,
                (Some("UPDATE"), value) => value.map(|value| value + 1),
                _ => None,
            })
            .collect();
        match told(outcome)? {
            Outcome::Done => drop(known.insert(key, after)),
            Outcome::Refused => {}
            Outcome::Unknown => drop(known.insert(key, [before, after].concat())),
        }
        let row = writer * STATEMENTS + number;
        match told(client.simple_query(&format!("INSERT INTO log VALUES ({row})")).await)? {
            Outcome::Done => logged.push(row),
            Outcome::Refused => {}
            Outcome::Unknown => unsure.push(row),
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok((known, logged, unsure))
}

enum Outcome {
    Done,
    Refused,
    Unknown,
}

fn told<T>(outcome: std::result::Result<T, tokio_postgres::Error>) -> Result<Outcome> {
    let Err(error) = outcome else { return Ok(Outcome::Done) };
    match error.as_db_error().map(|error| error.code().code()) {
        Some("40001" | "57P03") => Ok(Outcome::Refused),
        Some("08007") => Ok(Outcome::Unknown),
        _ => Err(error).context("a statement failed"),
    }
}

#[test]
fn statements_are_there_once_or_not_at_all_whoever_is_killed() {
    scenario("writes-kills", async |sandbox| {
        let mut cluster = Cluster::start(sandbox, 2, 2).await?;
        cluster.expect_warnings(&NODE_LOST);
        let mut sql = cluster.frontend.sql();
        sql.query("CREATE TABLE t (k int PRIMARY KEY, v bigint)").await?;
        sql.query("CREATE TABLE log (n int)").await?;
        let address = cluster.frontend.sql_address();
        let parameters = format!("host={} port={} user=root dbname=dev", address.ip(), address.port());
        let done = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(parameters.clone(), writer, Arc::clone(&done)));
        }
        let victims = [Node::Compute(0), Node::Meta(0), Node::Compute(1), Node::Meta(1)];
        let total = WRITERS * STATEMENTS;
        for kill in chaos::plan(chaos::seed(), &victims, 6, total / 20..total - total / 20) {
            reaches(&done, kill.at).await?;
            eprintln!("{}: kill {:?}", kill.at, kill.victim);
            cluster.node(kill.victim).process().kill9()?;
            reaches(&done, kill.back_at).await?;
            cluster.node(kill.victim).process().restart()?;
        }
        let (mut known, mut logged, mut unsure) = (BTreeMap::new(), Vec::new(), Vec::new());
        while let Some(written) = writers.join_next().await {
            let (keys, rows, maybe) = written??;
            known.extend(keys);
            logged.extend(rows);
            unsure.extend(maybe);
        }
        eprintln!("{} rows logged, {} perhaps", logged.len(), unsure.len());
        compare(&mut sql, &known, (&mut logged, &unsure)).await
    });
}

/// Waits until sessions have ended so many statements. They go on only if nodes that are down need
/// not be there.
async fn reaches(done: &AtomicU64, statements: u64) -> Result<()> {
    eventually("statements to end", LATE, async || Ok((done.load(Ordering::Relaxed) >= statements).then_some(()))).await
}

async fn compare(
    sql: &mut Sql,
    known: &BTreeMap<u64, Possible>,
    (logged, unsure): (&mut Vec<u64>, &[u64]),
) -> Result<()> {
    let found = sql.query("SELECT k, v FROM t").await?;
    let rows = (0..found.rows.len()).map(|row| {
        let row = found.row(row);
        Ok((row[0].parse::<u64>()?, row[1].parse::<i64>()?))
    });
    let rows: BTreeMap<u64, i64> = rows.collect::<Result<_>>()?;
    for (key, possible) in known {
        let value = rows.get(key).copied();
        ensure!(possible.contains(&value), "row {key} is {value:?}, and may be {possible:?}");
    }
    ensure!(rows.keys().all(|key| known.contains_key(key)), "nobody wrote some rows: {rows:?}");
    let found = sql.query("SELECT n FROM log ORDER BY n").await?;
    let found: Vec<u64> = found.column("n").iter().map(|n| n.parse()).collect::<std::result::Result<_, _>>()?;
    logged.extend(unsure.iter().filter(|row| found.contains(row)));
    logged.sort_unstable();
    ensure!(found == *logged, "the log has {} rows, and {} were acknowledged", found.len(), logged.len());
    Ok(())
}
