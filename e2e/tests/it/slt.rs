//! The files of `e2e/slt`: statements, and queries with their answers, on a real cluster. Every
//! file runs once through the simple protocol and once through the extended one.
//!
//! The format is that of sqllogictest. Beside SQL a file has statements of its own: `PUBLISH json`,
//! a line a message, publishes to the file's subject. `${SUBJECT}` and `${NATS}` are that subject
//! and the address of the server; `@SEQUENCE` is that of the last message. An answer that depends
//! on messages is asked for again until it is there: `query … retry`. `WEIR_SLT=name` runs one file
//! only.

mod values;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::weir::Cluster;

use values::Text;

/// How a session sends its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Simple,
    Extended,
}

/// A connection that runs the statements of a file.
struct Session {
    client: Client,
    protocol: Protocol,
    jetstream: jetstream::Context,
    subject: String,
    /// The sequence of the last message that was published.
    last: AtomicU64,
}

/// The reason why a statement has no answer, with all its causes.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Failure(#[from] anyhow::Error);

impl Session {
    async fn answer(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>> {
        if sql.starts_with("PUBLISH ") {
            for payload in sql.lines().filter_map(|line| line.strip_prefix("PUBLISH ")) {
                let ack = self.jetstream.publish(self.subject.clone(), payload.to_owned().into()).await?.await?;
                self.last.store(ack.sequence, Ordering::Relaxed);
            }
            return Ok(DBOutput::StatementComplete(0));
        }
        let sql = sql.replace("@SEQUENCE", &self.last.load(Ordering::Relaxed).to_string());
        match self.protocol {
            Protocol::Simple => self.simple(&sql).await,
            Protocol::Extended => self.extended(&sql).await,
        }
    }

    async fn simple(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>> {
        let (mut columns, mut rows, mut count) = (None, Vec::new(), 0);
        for message in self.client.simple_query(sql).await.map_err(told)? {
            match message {
                SimpleQueryMessage::RowDescription(described) => columns = Some(described.len()),
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|column| shown(row.get(column))).collect());
                }
                SimpleQueryMessage::CommandComplete(affected) => count = affected,
                _ => {}
            }
        }
        Ok(if columns.is_some() { output(columns, rows) } else { DBOutput::StatementComplete(count) })
    }

    async fn extended(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>> {
        let statement = self.client.prepare(sql).await.map_err(told)?;
        if statement.columns().is_empty() {
            return Ok(DBOutput::StatementComplete(self.client.execute(&statement, &[]).await.map_err(told)?));
        }
        let rows = self.client.query(&statement, &[]).await.map_err(told)?;
        let cells = |row: &tokio_postgres::Row| {
            let cell = |column| Ok(shown(row.try_get::<_, Option<Text>>(column)?.as_ref().map(|text| text.0.as_str())));
            (0..row.len()).map(cell).collect::<Result<Vec<String>>>()
        };
        Ok(output(Some(statement.columns().len()), rows.iter().map(cells).collect::<Result<_>>()?))
    }
}

#[async_trait::async_trait]
impl AsyncDB for Session {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        Ok(self.answer(sql).await?)
    }

    async fn shutdown(&mut self) {}
}

/// The server's own words.
fn told(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(told) => anyhow::anyhow!("{}: {}", told.code().code(), told.message()),
        None => error.into(),
    }
}

fn shown(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.to_owned(),
    }
}

fn output(columns: Option<usize>, rows: Vec<Vec<String>>) -> DBOutput<DefaultColumnType> {
    match columns {
        Some(columns) => DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows },
        None => DBOutput::StatementComplete(0),
    }
}

/// Runs a file through one protocol, with a subject of its own.
async fn run(path: &PathBuf, protocol: Protocol, cluster: &Cluster, nats: &Nats) -> Result<()> {
    let name = path.file_stem().and_then(|stem| stem.to_str()).context("a file without a name")?;
    let subject = format!("events.{name}.{protocol:?}").to_lowercase();
    let address = cluster.frontend.sql_address();
    let parameters = format!("host={} port={} user=root dbname=dev", address.ip(), address.port());
    let jetstream = nats.jetstream().await?;
    let mut runner = Runner::new(|| {
        let (parameters, jetstream, subject) = (parameters.clone(), jetstream.clone(), subject.clone());
        async move {
            let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await.map_err(told)?;
            tokio::spawn(connection);
            Ok::<_, Failure>(Session { client, protocol, jetstream, subject, last: AtomicU64::new(0) })
        }
    });
    runner.set_var("SUBJECT".to_owned(), subject.clone());
    runner.set_var("NATS".to_owned(), nats.address());
    runner.run_file_async(path).await.with_context(|| format!("{protocol:?}"))
}

#[test]
fn statements_have_the_answers_that_the_files_state() {
    scenario("slt", async |sandbox| {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("slt");
        let mut files = std::fs::read_dir(&folder)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
        if let Ok(only) = std::env::var("WEIR_SLT") {
            files.retain(|file| file.file_stem().is_some_and(|stem| *stem == *only));
        }
        files.sort();
        ensure!(!files.is_empty(), "{} has no files", folder.display());
        let nats = Nats::start(sandbox).await?;
        nats.create_stream("EVENTS", &["events.>"]).await?;
        let cluster = Cluster::start(sandbox, 1, 2).await?;
        cluster.expect_warnings(&["kept a bad record", "skipped a bad record", "job failed, and stops alone"]);
        for path in &files {
            for protocol in [Protocol::Simple, Protocol::Extended] {
                run(path, protocol, &cluster, &nats).await?;
            }
        }
        Ok(())
    });
}
