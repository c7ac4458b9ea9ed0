//! `make bench`: what Weir does on this machine, measured in one run beside a bare reader of the same stream.
//!
//! One fresh nats-server and one standalone Weir, both over loopback and on the local disk, share the machine's cores.
//! `docs/benchmarks.md` says how to read the numbers. The run fails if the table is not what was published.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use clap::Parser;
use futures::StreamExt;
use tokio::sync::watch;
use weir_e2e::process::cpu_time_of;
use weir_e2e::publish::{Pace, publish, publish_all};
use weir_e2e::sandbox::Sandbox;
use weir_e2e::servers::Nats;
use weir_e2e::sql::{Answer, Sql};
use weir_e2e::wait::eventually;
use weir_e2e::weir::Weir;
use weir_e2e::workload::{Bids, Workload};

/// What a phase may take.
const DEADLINE: Duration = Duration::from_secs(600);
/// How often the table is asked whether it holds everything; costs Weir processor time, so not too often.
const COMPLETION_POLL: Duration = Duration::from_millis(100);
/// The rate at which rows keep coming while recovery is measured.
const RECOVERY_RATE: u64 = 1_000;

/// Measures throughput, processor time, freshness and recovery time of a standalone Weir.
#[derive(Parser)]
struct Options {
    /// Messages of 200 bytes in the stream whose reading is measured.
    #[arg(long, default_value_t = 2_000_000)]
    messages: u64,
    /// Messages a second while freshness is measured.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Seconds for which freshness is measured.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Times that Weir is killed and started again.
    #[arg(long, default_value_t = 5)]
    kills: u64,
}

/// Time and processor time of a phase.
struct Cost {
    elapsed: Duration,
    reader: Duration,
    server: Duration,
}

impl Cost {
    fn thousands_a_second(&self, messages: u64) -> f64 {
        messages as f64 / self.elapsed.as_secs_f64() / 1_000.0
    }

    fn reader_a_million(&self, messages: u64) -> f64 {
        self.reader.as_secs_f64() / messages as f64 * 1e6
    }

    fn server_a_million(&self, messages: u64) -> f64 {
        self.server.as_secs_f64() / messages as f64 * 1e6
    }
}

/// The table of results.
#[derive(Default)]
struct Report(Answer);

impl Report {
    fn add(&mut self, measure: &str, value: String, aim: &str) {
        self.0.rows.push([measure.to_owned(), value, aim.to_owned()].map(Some).to_vec());
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let sandbox = Sandbox::new("bench")?;
    match run(&options, &sandbox).await {
        Ok(mut report) => {
            report.0.columns = ["measure", "value", "aim"].map(str::to_owned).to_vec();
            println!("\n{}", report.0);
            Ok(())
        }
        Err(error) => {
            sandbox.print_tails();
            Err(error)
        }
    }
}

async fn run(options: &Options, sandbox: &Sandbox) -> Result<Report> {
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores, {} messages of {} bytes", options.messages, Bids::BYTES);
    let mut nats = Nats::start(sandbox).await?;
    let mut weir = Weir::standalone(sandbox)?;
    weir.ready().await?;
    let mut report = Report::default();
    throughput(options, &mut nats, &mut weir, &mut report).await?;
    freshness(options, &nats, &weir, &mut report).await?;
    recovery(options, &nats, &mut weir, &mut report).await?;
    Ok(report)
}

async fn throughput(options: &Options, nats: &mut Nats, weir: &mut Weir, report: &mut Report) -> Result<()> {
    let (messages, bids) = (options.messages, Bids { prefix: "bids".to_owned() });
    nats.create_stream("BIDS", &["bids.>"]).await?;
    println!("publishing …");
    publish_all(&nats.client().await?, &bids, 0..messages).await?;
    println!("reading with a bare async-nats reader …");
    let bare = read_bare(messages, nats).await?;
    println!("reading with CREATE TABLE …");
    let table = read_table(messages, &bids, nats, weir).await?;
    let ratio = bare.elapsed.as_secs_f64() / table.elapsed.as_secs_f64();
    report.add("bare reader, k messages/s", format!("{:.0}", bare.thousands_a_second(messages)), "");
    report.add("Weir, k messages/s", format!("{:.0}", table.thousands_a_second(messages)), "");
    report.add("Weir ÷ bare reader", format!("{ratio:.2}"), "at least 0.6");
    let cpu = "CPU-seconds per million messages";
    report.add(&format!("bare reader, {cpu}"), format!("{:.2}", bare.reader_a_million(messages)), "");
    report.add(&format!("nats-server under it, {cpu}"), format!("{:.2}", bare.server_a_million(messages)), "");
    report.add(&format!("Weir, {cpu}"), format!("{:.2}", table.reader_a_million(messages)), "at most 2.0");
    report.add(&format!("nats-server under it, {cpu}"), format!("{:.2}", table.server_a_million(messages)), "");
    Ok(())
}

/// Reads the stream from its beginning with async-nats' `messages()`: nothing is decoded, nothing acknowledged.
async fn read_bare(messages: u64, nats: &mut Nats) -> Result<Cost> {
    let stream = nats.jetstream().await?.get_stream("BIDS").await?;
    let (start, reader, server) = (Instant::now(), cpu_time_of(std::process::id())?, nats.process().cpu_time()?);
    let config = pull::Config { ack_policy: AckPolicy::None, ..Default::default() };
    let consumer = stream.create_consumer(config).await?;
    let mut received = consumer.stream().max_messages_per_batch(5_000).messages().await?;
    for _ in 0..messages {
        received.next().await.context("the reader has ended")??;
    }
    Ok(Cost {
        elapsed: start.elapsed(),
        reader: cpu_time_of(std::process::id())? - reader,
        server: nats.process().cpu_time()? - server,
    })
}

/// Creates a table over the stream and waits until every row can be queried; then checks what is in it.
async fn read_table(messages: u64, bids: &Bids, nats: &mut Nats, weir: &mut Weir) -> Result<Cost> {
    let mut sql = weir.sql();
    sql.query("SELECT 1").await?;
    let (start, reader, server) = (Instant::now(), weir.process().cpu_time()?, nats.process().cpu_time()?);
    sql.query(&create_table("bids", "BIDS", "bids.>", nats)).await?;
    while sql.value::<u64>("SELECT count(*) FROM bids").await? < messages {
        ensure!(start.elapsed() < DEADLINE, "the table is not complete after {DEADLINE:?}");
        tokio::time::sleep(COMPLETION_POLL).await;
    }
    let cost = Cost {
        elapsed: start.elapsed(),
        reader: weir.process().cpu_time()? - reader,
        server: nats.process().cpu_time()? - server,
    };
    let wanted = (0..messages).map(|number| price(bids, number)).sum::<Result<u64>>()?;
    let answer = sql.query("SELECT count(*), sum(price) FROM bids").await?;
    ensure!(answer.row(0) == [messages.to_string(), wanted.to_string()], "the table holds something else: {answer}");
    Ok(cost)
}

fn price(bids: &Bids, number: u64) -> Result<u64> {
    let bid: serde_json::Value = serde_json::from_slice(&bids.payload(number))?;
    bid["price"].as_u64().context("a price is a number")
}

fn create_table(name: &str, stream: &str, subject: &str, nats: &Nats) -> String {
    format!(
        "CREATE TABLE {name} ({}) WITH (connector = 'nats', server_url = '{}', stream = '{stream}', \
         subject = '{subject}', connect_mode = 'plain') FORMAT PLAIN ENCODE JSON",
        Bids::COLUMNS,
        nats.address()
    )
}

/// From the moment at which a message is handed to the client until a SELECT shows its row.
async fn freshness(options: &Options, nats: &Nats, weir: &Weir, report: &mut Report) -> Result<()> {
    println!("measuring freshness at {} messages/s for {} s …", options.rate, options.seconds);
    nats.create_stream("FRESH", &["fresh.>"]).await?;
    let mut sql = weir.sql();
    sql.query(&create_table("fresh", "FRESH", "fresh.>", nats)).await?;
    let (client, pace, total) = (nats.client().await?, options.rate, options.rate * options.seconds);
    let publishing = tokio::spawn(async move {
        let pace = Pace { per_second: Some(pace), survive: false };
        publish(&client, &Bids { prefix: "fresh".to_owned() }, 0..total, pace, &watch::Sender::new(0)).await
    });
    let mut seen = Vec::new();
    let mut count = 0;
    let start = Instant::now();
    while count < total {
        ensure!(start.elapsed() < DEADLINE, "only {count} of {total} rows after {DEADLINE:?}");
        count = sql.value::<u64>("SELECT count(*) FROM fresh").await?;
        seen.push((Instant::now(), count));
    }
    let sent = publishing.await??;
    // Rows become visible in the order of the stream, so a count tells which.
    let mut answers = seen.into_iter().peekable();
    let mut ages = Vec::with_capacity(sent.len());
    for (number, sent) in (1..).zip(sent) {
        while answers.next_if(|&(_, count)| count < number).is_some() {}
        let (at, _) = answers.peek().context("the last answer shows every row")?;
        ages.push(at.duration_since(sent));
    }
    ages.sort_unstable();
    let aim = "under 400 ms (a barrier interval of 200 ms + 200 ms)";
    report.add("freshness p50, ms", format!("{:.0}", millis(percentile(&ages, 50))), "");
    report.add("freshness p99, ms", format!("{:.0}", millis(percentile(&ages, 99))), aim);
    Ok(())
}

/// From the start of the process after a SIGKILL until a SELECT shows a row that was not there before the kill.
async fn recovery(options: &Options, nats: &Nats, weir: &mut Weir, report: &mut Report) -> Result<()> {
    println!("measuring recovery after {} kills …", options.kills);
    let client = nats.client().await?;
    let base = options.rate * options.seconds;
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    let publishing = tokio::spawn(async move {
        let (bids, mut from) = (Bids { prefix: "fresh".to_owned() }, base);
        while !stopped.is_cancelled() {
            let pace = Pace { per_second: Some(RECOVERY_RATE), survive: false };
            publish(&client, &bids, from..from + RECOVERY_RATE, pace, &watch::Sender::new(0)).await?;
            from += RECOVERY_RATE;
        }
        Ok::<_, anyhow::Error>(())
    });
    let mut times = Vec::new();
    for _ in 0..options.kills {
        let before = count(&mut weir.sql()).await?;
        weir.process().kill9();
        let start = Instant::now();
        weir.process().restart()?;
        let mut sql = weir.sql();
        eventually(
            "new rows after the restart",
            DEADLINE,
            async || Ok((count(&mut sql).await? > before).then_some(())),
        )
        .await?;
        times.push(start.elapsed());
    }
    stop.cancel();
    publishing.await??;
    times.sort_unstable();
    report.add("recovery after kill -9, median, ms", format!("{:.0}", millis(percentile(&times, 50))), "");
    report.add(
        "recovery after kill -9, longest, ms",
        format!("{:.0}", millis(percentile(&times, 100))),
        "under 3000 ms",
    );
    Ok(())
}

async fn count(sql: &mut Sql) -> Result<u64> {
    sql.value("SELECT count(*) FROM fresh").await
}

/// The smallest value that so many percent of the sorted values do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
