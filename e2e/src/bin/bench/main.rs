//! `make bench`: what Weir does on this machine, measured in one run beside a bare reader of the same stream.
//!
//! A fresh nats-server and fresh Weirs, all over loopback and on the local disk, share the machine's cores: first a
//! standalone Weir, then a cluster. `docs/benchmarks.md` says how to read the numbers. The run fails if a table is not
//! what was published and, when asked to, if an aim is missed.

mod aggregates;
mod cluster;
mod prompt;
mod reading;
mod report;
mod standalone;
mod views;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use weir_e2e::sandbox::{Sandbox, program};
use weir_e2e::servers::Nats;
use weir_e2e::workload::Bids;

use report::Report;

/// What a phase may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// Measures throughput, processor time, freshness and recovery time of Weir.
#[derive(Parser)]
struct Options {
    /// What is measured; all of it by default
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Messages of 200 bytes in the stream whose reading is measured.
    #[arg(long, default_value_t = 2_000_000)]
    messages: u64,
    /// Rows of the tables whose scanning is measured.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Messages a second while freshness is measured.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Seconds for which freshness is measured.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Times that a process is killed and started again, for each kind of process.
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// End with a failure if an aim is missed
    #[arg(long)]
    fail_on_miss: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Reading a stream into a table, beside a bare reader.
    Throughput,
    /// The same with each ack policy, with a small ack window, and as a source that a statement reads.
    Acks,
    /// Reading what is being published, with each retention.
    Retention,
    /// The same as a split for each subject.
    Splits,
    /// The same with several rows in a message.
    Objects,
    /// Ways to read what a stream has stored, without Weir.
    History,
    /// Feeding one, two and four views over one source, and one that is created later.
    Views,
    /// Views that aggregate: by groups, views over a source, views over views, idle ones.
    Aggregates,
    /// The age of a message when a query shows it.
    Freshness,
    /// The time that queries take which look at every row of a large table.
    Scans,
    /// The time that short queries take, and looking rows up by their key.
    Prompt,
    /// The time that a killed standalone takes to go on.
    Recovery,
    /// The time that a cluster takes to go on after a compute node, or the meta node that leads, was killed.
    Cluster,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    program("bench", async |sandbox| {
        let report = run(&options, sandbox).await?;
        println!("\n{report}");
        let missed = report.missed().join("\n");
        ensure!(!options.fail_on_miss || missed.is_empty(), "aims were missed:\n{missed}");
        Ok(())
    })
    .await
}

async fn run(options: &Options, sandbox: &Sandbox) -> Result<Report> {
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores, {} messages of {} bytes", options.messages, Bids::BYTES);
    let mut report = Report::default();
    let mut nats = Nats::start(sandbox).await?;
    if options.parts.is_empty() || options.parts.iter().any(|part| ![Part::Cluster, Part::Aggregates].contains(part)) {
        standalone::measure(options, sandbox, &mut nats, &mut report).await?;
    }
    if options.wants(Part::Aggregates) {
        aggregates::measure(options, sandbox, &mut nats, &mut report).await?;
    }
    if options.wants(Part::Cluster) {
        cluster::measure(options.kills, sandbox, &nats, &mut report).await?;
    }
    Ok(report)
}

/// What a table keeps of its stream. Both are a row a message, so that they can be compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Without a primary key.
    Appended,
    /// With the message's sequence for a primary key.
    ByOffset,
}

impl Kept {
    /// The statement that creates a table, with options besides those that it needs.
    fn create(self, name: &str, columns: &str, (stream, subject): (&str, &str), more: &str, nats: &Nats) -> String {
        let (key, include) = match self {
            Kept::Appended => ("", ""),
            Kept::ByOffset => (", PRIMARY KEY (message)", "INCLUDE offset AS message"),
        };
        format!(
            "CREATE TABLE {name} ({columns}{key}) {include} WITH (connector = 'nats', server_url = '{}', \
             stream = '{stream}', subject = '{subject}', connect_mode = 'plain'{more}) FORMAT PLAIN ENCODE JSON",
            nats.address()
        )
    }
}

fn create_table(name: &str, kept: Kept, stream: &str, subject: &str, nats: &Nats) -> String {
    kept.create(name, Bids::COLUMNS, (stream, subject), "", nats)
}
