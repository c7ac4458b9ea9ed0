//! The clients that people use: psql, psycopg, asyncpg, tokio-postgres.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::stream::RetentionPolicy;
use weir_e2e::process::workspace;
use weir_e2e::publish::publish_all;
use weir_e2e::sandbox::{Sandbox, scenario};
use weir_e2e::servers::Nats;
use weir_e2e::weir::Weir;
use weir_e2e::workload::Events;

use crate::support::{SOON, create_events, create_events_with, standalone, standalone_with, wait_for};

/// A standalone Weir with 100 events in a table `events`.
async fn with_events(sandbox: &Sandbox) -> Result<(Nats, Weir)> {
    let (nats, weir) = standalone(sandbox).await?;
    publish_all(&nats.client().await?, &Events::new("events", 3), 0..100).await?;
    let mut sql = weir.sql();
    sql.query(&create_events("events", &nats.address(), "d")).await?;
    wait_for(&mut sql, "SELECT count(*) FROM events", 100, SOON).await?;
    Ok((nats, weir))
}

/// What psql prints for a command.
fn psql(weir: &Weir, command: &str) -> Result<String> {
    Ok(psql_telling(weir, command)?.0)
}

/// The same, and what it tells besides: notices.
fn psql_telling(weir: &Weir, command: &str) -> Result<(String, String)> {
    let (host, port) = (weir.sql_address().ip().to_string(), weir.sql_address().port().to_string());
    let output = Command::new("psql")
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-h", &host, "-p", &port, "-U", "root", "-d", "dev", "-c", command])
        .output()
        .context("cannot run psql")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "psql -c '{command}': {errors}");
    ensure!(!errors.contains("ERROR"), "psql -c '{command}': {errors}");
    Ok((String::from_utf8(output.stdout)?, errors.into_owned()))
}

#[test]
fn psql_is_told_where_views_over_a_work_queue_begin() {
    scenario("psql-notices", async |sandbox| {
        let (nats, weir) = standalone_with(sandbox, RetentionPolicy::WorkQueue).await?;
        let told = |command: &str| Ok::<_, anyhow::Error>(psql_telling(&weir, command)?.1);
        let source = create_events_with("SOURCE s", &nats.address(), "");
        let created = told(&source)?;
        assert!(
            created.contains("weir-standalone-s") && created.contains("use CREATE TABLE to keep everything"),
            "{created}"
        );
        let first = told("CREATE MATERIALIZED VIEW v AS SELECT * FROM s")?;
        assert_eq!(first, "", "it begins with everything");
        let late = told("CREATE MATERIALIZED VIEW w AS SELECT * FROM s")?;
        assert!(late.contains("NOTICE") && late.contains("this one begins where they are"), "{late}");
        Ok(())
    });
}

#[test]
fn psql_lists_and_describes_tables() {
    scenario("psql", async |sandbox| {
        let (_nats, weir) = with_events(sandbox).await?;
        let counted = psql(&weir, "SELECT count(*) FROM events")?;
        assert!(counted.contains("100") && counted.contains("(1 row)"), "{counted}");
        for command in ["\\d", "\\dt"] {
            let listed = psql(&weir, command)?;
            assert!(listed.contains("public") && listed.contains("events") && listed.contains("table"), "{listed}");
        }
        let described = psql(&weir, "\\d events")?;
        for column in ["seq", "price", "note", "stream_seq", "subject", "bigint", "character varying"] {
            assert!(described.contains(column), "{column} is missing:\n{described}");
        }
        let tables = psql(&weir, "\\dt nothing*")?;
        assert!(!tables.contains("events"), "{tables}");
        Ok(())
    });
}

#[test]
fn psycopg_reads_with_and_without_parameters() {
    scenario("psycopg", async |sandbox| {
        let (_nats, weir) = with_events(sandbox).await?;
        run_python(Path::new("/usr/bin/python3"), include_str!("client.py"), &weir)
    });
}

#[test]
fn asyncpg_reads_in_binary_through_a_pool() {
    scenario("asyncpg", async |sandbox| {
        let (_nats, weir) = with_events(sandbox).await?;
        let python = workspace().join(".cache/python/venv/bin/python");
        ensure!(python.exists(), "no {}; `deploy/setup.sh test` provides it", python.display());
        run_python(&python, include_str!("client_asyncpg.py"), &weir)
    });
}

/// Runs a program that prints `ok` if it found all as it should be.
fn run_python(python: &Path, program: &str, weir: &Weir) -> Result<()> {
    let (host, port) = (weir.sql_address().ip().to_string(), weir.sql_address().port().to_string());
    let output = Command::new(python).args(["-c", program, &host, &port]).output().context("cannot run Python")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "ok");
    Ok(())
}

#[test]
fn tokio_postgres_reads_typed_rows_with_parameters() {
    scenario("tokio-postgres", async |sandbox| {
        let (_nats, weir) = with_events(sandbox).await?;
        let parameters = format!("host=127.0.0.1 port={} user=root dbname=dev", weir.sql_address().port());
        let (client, connection) = tokio_postgres::connect(&parameters, tokio_postgres::NoTls).await?;
        let connection = tokio::spawn(connection);
        let statement = "SELECT seq, price, note FROM events WHERE seq >= $1 AND seq < $2 ORDER BY seq";
        let rows = client.query(statement, &[&10_i64, &20_i64]).await?;
        assert_eq!(rows.len(), 10);
        for (row, number) in rows.iter().zip(10..) {
            assert_eq!(row.get::<_, i64>("seq"), number as i64);
            assert_eq!(row.get::<_, i64>("price"), Events::price(number) as i64);
            assert_eq!(row.get::<_, &str>("note"), Events::note(number));
        }
        let row = client.query_one("SELECT true, 1.5::float8, 'x', NULL::bigint", &[]).await?;
        assert!(row.get::<_, bool>(0));
        assert_eq!(row.get::<_, f64>(1), 1.5);
        assert_eq!(row.get::<_, &str>(2), "x");
        assert_eq!(row.get::<_, Option<i64>>(3), None);
        drop(client);
        connection.await??;
        Ok(())
    });
}
