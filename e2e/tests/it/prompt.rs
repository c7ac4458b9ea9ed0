//! Rows that are looked up by key, and answers while other clients do not read theirs.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};
use weir_e2e::publish::publish_all;
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually_equal;
use weir_e2e::weir::Cluster;
use weir_e2e::workload::Bids;

use crate::support::{LATE, SOON, events_options, publish_payloads, standalone, wait_for};

/// A query, and the same with a condition that is not pushed into the scan.
fn with_and_without(table: &str, condition: &str) -> [String; 2] {
    // A limit keeps conditions above it.
    let all = format!("(SELECT * FROM {table} LIMIT 1000000) AS everything");
    [table, &all].map(|from| format!("SELECT * FROM {from} WHERE {condition} ORDER BY 1, 2, 3"))
}

async fn plan(sql: &mut Sql, query: &str) -> Result<String> {
    Ok(sql.query(&format!("EXPLAIN {query}")).await?.to_string())
}

#[test]
fn rows_are_found_by_their_keys_as_by_reading_all() {
    scenario("keyed-lookups", async |sandbox| {
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let cluster = Cluster::start(sandbox, 1, 2).await?;
        let mut sql = cluster.frontend.sql();
        let options = events_options(&nats.address());
        for create in [
            "CREATE TABLE t (a int, b varchar, x double precision, n numeric(10,2), at timestamptz, \
             PRIMARY KEY (a, b))",
            "CREATE TABLE f (x double precision PRIMARY KEY, a int, b varchar)",
            "CREATE TABLE n (n numeric(10,2), at timestamptz, a int, PRIMARY KEY (n, at))",
            "CREATE TABLE texts (b varchar, a int, x double precision, PRIMARY KEY (b, a))",
            "CREATE TABLE blocks (a int, b varchar, x double precision, at timestamptz)",
        ] {
            let include = if create.contains(" blocks ") { "INCLUDE offset AS sequence" } else { "" };
            sql.query(&format!("{create} {include} WITH ({options}) FORMAT PLAIN ENCODE JSON")).await?;
        }
        let payloads: Vec<String> = (0..2_000)
            .map(|number| {
                let x = match number % 50 {
                    0 => "\"NaN\"".to_owned(),
                    1 => "-0.0".to_owned(),
                    2 => "\"Infinity\"".to_owned(),
                    other => format!("{}.5", number - other),
                };
                format!(
                    r#"{{"a":{},"b":"k{}","x":{x},"n":{}.25,"at":"2024-01-01T00:00:{:02}Z"}}"#,
                    number % 97 - 5,
                    number % 31,
                    number % 700,
                    number % 60
                )
            })
            .collect();
        publish_payloads(&nats, "events.k", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        wait_for(&mut sql, "SELECT count(*) FROM blocks", 2_000, SOON).await?;
        wait_for(&mut sql, "SELECT count(*) FROM t", 2_000, SOON).await?;
        sql.query("FLUSH").await?;
        for (table, condition, is_pushed) in [
            ("t", "a = 5 AND b = 'k7'", true),
            ("t", "a = 5", true),
            ("t", "a IN (1, 2, 3, 90) AND b IN ('k1', 'k2', 'nothing')", true),
            ("t", "a BETWEEN 3 AND 6 AND b > 'k2'", true),
            ("t", "a > 80", true),
            ("t", "a = 5 AND b >= 'k2' AND b < 'k3' AND x > 0", true),
            ("t", "a = 3000000000", true),
            ("t", "a < 3000000000", false),
            ("t", "a = NULL", false),
            ("t", "a = 5.0 AND b = 'k7'", true),
            ("t", "a = 5.5", true),
            ("t", "a = 5 OR a = 6 AND b = 'k1'", true),
            ("t", "b = 'k7'", false),
            ("t", "NOT a = 5", false),
            ("f", "x = 'NaN'", true),
            ("f", "x = 0", true),
            ("f", "x = -0.0", true),
            ("f", "x > 1900", true),
            ("f", "x < 'NaN' AND x > 1000", true),
            ("n", "n = 3.25", true),
            ("n", "n = 3.250 AND at = '2024-01-01 00:00:03+00'", true),
            ("n", "n = 3.2500001", true),
            ("n", "n > 699 AND at > '2024-01-01 00:00:30+00'", true),
            ("n", "n = 3", true),
            ("texts", "b LIKE 'k2%' AND a > 0", true),
            ("texts", "b = (SELECT max(b) FROM texts)", true),
            ("texts", "b > (SELECT 'k' || 3)", true),
            ("blocks", "a = 91", true),
            ("blocks", "a = 1000", true),
            ("blocks", "at < '2024-01-01 00:00:02+00'", true),
            ("blocks", "sequence = '17'", false),
            ("blocks", "sequence::bigint BETWEEN 5 AND 9", false),
        ] {
            let [with, without] = with_and_without(table, condition);
            let (found, expected) = (sql.query(&with).await?, sql.query(&without).await?);
            ensure!(found == expected, "{with}:\n{found}\nwanted\n{expected}");
            let plan = plan(&mut sql, &with).await?;
            let shown = plan.contains(", keys=[") || plan.contains(", blocks=[");
            ensure!(!is_pushed || shown || plan.contains("EmptyExec"), "{with} is not pushed:\n{plan}");
        }
        let one = plan(&mut sql, "SELECT * FROM t WHERE a = 5 AND b = 'k7'").await?;
        ensure!(one.contains("slots=1,"), "more than one slot is asked:\n{one}");
        let sequences = plan(&mut sql, "SELECT * FROM blocks WHERE sequence = '17'").await?;
        ensure!(sequences.contains("sequences=17..=17"), "{sequences}");
        // A join with few rows asks for their keys only.
        let joined = "SELECT count(*), min(x.a), max(x.b) FROM (SELECT 5 AS a, 'k7' AS b UNION ALL SELECT 6, 'k8') AS few \
                      JOIN t AS x ON x.a = few.a AND x.b = few.b";
        ensure!(sql.query(joined).await?.row(0) == ["2", "5", "k8"]);
        // The smaller side is found, wherever it stands.
        let swapped = "SELECT count(*), min(x.a), max(x.b) FROM t AS x \
                       JOIN (VALUES (5, 'k7'), (6, 'k8')) AS few (a, b) ON x.a = few.a AND x.b = few.b";
        ensure!(sql.query(swapped).await?.row(0) == ["2", "5", "k8"]);
        for query in [joined, swapped, "SELECT * FROM t WHERE a = (SELECT 5)"] {
            let plan = plan(&mut sql, query).await?;
            ensure!(plan.contains(", keys=["), "{query} reads all:\n{plan}");
        }
        let prepared = Parameters::new(cluster.frontend.sql_address()).await?;
        prepared.check().await?;
        for table in ["t", "f", "n", "texts", "blocks"] {
            sql.query(&format!("DROP TABLE {table}")).await?;
        }
        Ok(())
    });
}

struct Parameters(Client);

impl Parameters {
    async fn new(address: SocketAddr) -> Result<Parameters> {
        let parameters = format!("host={} port={} user=root dbname=dev", address.ip(), address.port());
        let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
        tokio::spawn(connection);
        Ok(Parameters(client))
    }

    async fn check(&self) -> Result<()> {
        let statement = self.0.prepare("SELECT count(*) FROM t WHERE a = $1 AND b = $2").await?;
        for (a, b, expected) in [(5_i32, "k7", 1_i64), (5, "nothing", 0), (1_000, "k7", 0)] {
            let count: i64 = self.0.query_one(&statement, &[&a, &b]).await?.get(0);
            ensure!(count == expected, "{count} rows have key ({a}, {b})");
        }
        Ok(())
    }
}

/// Clients that ask for a whole table and do not read it; cursors of which one row was fetched.
const SILENT: usize = 50;
const CURSORS: usize = 200;
/// Messages of the table that they read, of 200 bytes.
const ROWS: u64 = 100_000;
/// Each of them may add this much to the memory of the process: a block of each of its two slots,
/// and what is on its way.
const MEMORY_MIB_MAX: u64 = 4;

#[test]
fn readers_that_stall_hold_nobody_else_up() {
    scenario("stalled-readers", async |sandbox| {
        let (nats, mut weir) = standalone(sandbox).await?;
        nats.create_stream("BIDS", &["bids.>"]).await?;
        publish_all(&nats.client().await?, &Bids { prefix: "bids".to_owned() }, 0..ROWS).await?;
        let mut sql = weir.sql();
        sql.query(&format!(
            "CREATE TABLE bids ({}) WITH (connector = 'nats', server_url = '{}', stream = 'BIDS', subject = 'bids.>', \
             connect_mode = 'plain') FORMAT PLAIN ENCODE JSON",
            Bids::COLUMNS,
            nats.address()
        ))
        .await?;
        wait_for(&mut sql, "SELECT count(*) FROM bids", ROWS, LATE).await?;
        let before = memory_mib(weir.process().pid()?)?;
        let mut silent = Vec::new();
        for _ in 0..SILENT {
            silent.push(silent_reader(weir.sql_address(), "SELECT * FROM bids").await?);
        }
        let (client, connection) = {
            let address = weir.sql_address();
            let parameters = format!("host={} port={} user=root dbname=dev", address.ip(), address.port());
            tokio_postgres::connect(&parameters, NoTls).await?
        };
        let holder = tokio::spawn(connection);
        client.simple_query("BEGIN").await?;
        for number in 0..CURSORS {
            let open = format!("DECLARE c{number} CURSOR FOR SELECT * FROM bids; FETCH 1 FROM c{number}");
            timeout(SOON, client.simple_query(&open)).await.context("a cursor cannot be opened")??;
        }
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'ClientWrite'";
        eventually_equal("the silent are seen", SOON, SILENT as u64, async || sql.value::<u64>(waiting).await).await?;
        for query in ["SELECT count(*) FROM bids", "SELECT count(price) FROM bids"] {
            let count = timeout(SOON, sql.value::<u64>(query)).await.context("others are not answered")??;
            ensure!(count == ROWS);
        }
        // New messages are still read, and committed.
        publish_all(&nats.client().await?, &Bids { prefix: "bids".to_owned() }, ROWS..ROWS + 1_000).await?;
        wait_for(&mut sql, "SELECT count(*) FROM bids", ROWS + 1_000, SOON).await?;
        let grown = memory_mib(weir.process().pid()?)?.saturating_sub(before);
        eprintln!("{SILENT} silent readers and {CURSORS} cursors take {grown} MiB");
        let bound = (SILENT + CURSORS) as u64 * MEMORY_MIB_MAX;
        ensure!(grown < bound, "{SILENT} silent readers and {CURSORS} cursors take {grown} MiB, more than {bound}");
        drop(silent);
        client.simple_query("ROLLBACK").await?;
        holder.abort();
        Ok(())
    });
}

/// A client that has asked, and reads nothing.
async fn silent_reader(address: SocketAddr, query: &str) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 << 10)?;
    let mut stream = socket.connect(address).await?;
    let mut hello = 196_608_u32.to_be_bytes().to_vec();
    hello.extend_from_slice(b"user\0root\0database\0dev\0\0");
    stream.write_u32(u32::try_from(hello.len() + 4)?).await?;
    stream.write_all(&hello).await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = usize::try_from(stream.read_u32().await?)?.saturating_sub(4);
        stream.read_exact(&mut vec![0; length]).await?;
        if kind == b'Z' {
            break;
        }
    }
    stream.write_u8(b'Q').await?;
    stream.write_u32(u32::try_from(query.len() + 5)?).await?;
    stream.write_all(query.as_bytes()).await?;
    stream.write_u8(0).await?;
    Ok(stream)
}

/// The memory that a process has, from `/proc/<pid>/status`.
fn memory_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has memory")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kibibytes / 1024)
}
