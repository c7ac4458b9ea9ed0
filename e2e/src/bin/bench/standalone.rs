//! A standalone Weir beside a bare reader of the same stream: throughput, processor time, freshness, recovery.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use weir_e2e::process::cpu_time_of;
use weir_e2e::publish::{Pace, publish, publish_all, publish_in_background};
use weir_e2e::sandbox::Sandbox;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually;
use weir_e2e::weir::Weir;
use weir_e2e::workload::{Bids, Small, Workload};

use crate::prompt;
use crate::reading;
use crate::report::{Aim, Report, millis, percentile};
use crate::views;
use crate::{DEADLINE, Kept, Options, Part, create_table};

/// How often Weir is asked how far a table is.
pub(crate) const COMPLETION_POLL: Duration = Duration::from_millis(50);
/// The rate at which rows keep coming while recovery is measured.
const RECOVERY_RATE: u64 = 1_000;

/// Measures what of it is wanted, one after the other on one Weir.
pub(crate) async fn measure(options: &Options, sandbox: &Sandbox, nats: &mut Nats, report: &mut Report) -> Result<()> {
    let mut weir = Weir::standalone(sandbox)?;
    weir.ready().await?;
    if [Part::Throughput, Part::Acks, Part::Splits, Part::History].iter().any(|part| options.wants(*part)) {
        publish_bids(options, nats).await?;
    }
    if options.wants(Part::Throughput) {
        throughput(options, nats, &mut weir, report).await?;
    }
    if options.wants(Part::Acks) {
        reading::acks(options, nats, &mut weir, report).await?;
    }
    if options.wants(Part::Retention) {
        reading::retention(options, nats, &mut weir, report).await?;
    }
    if options.wants(Part::Splits) {
        reading::splits(options, nats, &mut weir, report).await?;
    }
    if options.wants(Part::History) {
        reading::history(options, nats, report).await?;
    }
    if options.wants(Part::Objects) {
        reading::several_rows_a_message(options, nats, &mut weir, report).await?;
    }
    if options.wants(Part::Views) {
        views::measure(options, nats, &mut weir, report).await?;
    }
    if options.wants(Part::Freshness) {
        freshness(options, nats, &weir, report).await?;
    }
    if options.wants(Part::Scans) {
        scans(options, nats, &weir, report).await?;
    }
    if options.wants(Part::Prompt) {
        prompt::measure(nats, &weir, report).await?;
    }
    if options.wants(Part::Recovery) {
        recovery(options.kills, nats, &mut weir, report).await?;
    }
    Ok(())
}

/// Time and processor time of a phase.
pub(crate) struct Cost {
    pub(crate) elapsed: Duration,
    reader: Duration,
    server: Duration,
}

/// The beginning of a phase.
pub(crate) struct Meter {
    start: Instant,
    reader: Duration,
    server: Duration,
}

impl Meter {
    /// The cost since then.
    pub(crate) fn end(self, nats: &mut Nats, weir: &mut Weir) -> Result<Cost> {
        Ok(Cost {
            elapsed: self.start.elapsed(),
            reader: weir.process().cpu_time()? - self.reader,
            server: nats.process().cpu_time()? - self.server,
        })
    }
}

impl Cost {
    /// Begins to measure what Weir and nats-server spend.
    pub(crate) fn start(nats: &mut Nats, weir: &mut Weir) -> Result<Meter> {
        Ok(Meter { start: Instant::now(), reader: weir.process().cpu_time()?, server: nats.process().cpu_time()? })
    }

    /// The rate at which so many messages, or rows, were read in it.
    pub(crate) fn thousands_a_second(&self, messages: u64) -> f64 {
        messages as f64 / self.elapsed.as_secs_f64() / 1_000.0
    }

    pub(crate) fn reader_a_million(&self, messages: u64) -> f64 {
        self.reader.as_secs_f64() / messages as f64 * 1e6
    }

    pub(crate) fn server_a_million(&self, messages: u64) -> f64 {
        self.server.as_secs_f64() / messages as f64 * 1e6
    }
}

pub(crate) fn bids() -> Bids {
    Bids { prefix: "bids".to_owned() }
}

async fn publish_bids(options: &Options, nats: &Nats) -> Result<()> {
    nats.create_stream("BIDS", &["bids.>"]).await?;
    println!("publishing …");
    publish_all(&nats.client().await?, &bids(), 0..options.messages).await?;
    Ok(())
}

async fn throughput(options: &Options, nats: &mut Nats, weir: &mut Weir, report: &mut Report) -> Result<()> {
    let messages = options.messages;
    println!("reading with a bare async-nats reader …");
    let bare = read_bare(messages, nats).await?;
    println!("reading with CREATE TABLE …");
    let create = create_table("bids", Kept::Appended, "BIDS", "bids.>", nats);
    let table = read_table("bids", &create, messages, nats, weir).await?;
    println!("reading with CREATE TABLE … PRIMARY KEY …");
    let create = create_table("keyed_bids", Kept::ByOffset, "BIDS", "bids.>", nats);
    let keyed = read_table("keyed_bids", &create, messages, nats, weir).await?;
    let ratio = bare.elapsed.as_secs_f64() / table.elapsed.as_secs_f64();
    report.add("bare reader, k messages/s", bare.thousands_a_second(messages), 0, Aim::None);
    // A hundred times what the server's default window of 1,000 allows with a commit a second.
    report.add("Weir, k messages/s", table.thousands_a_second(messages), 0, Aim::AtLeast(100.0));
    report.add("Weir ÷ bare reader", ratio, 2, Aim::AtLeast(0.6));
    let cpu = "CPU-seconds per million messages";
    report.add(&format!("bare reader, {cpu}"), bare.reader_a_million(messages), 2, Aim::None);
    report.add(&format!("nats-server under it, {cpu}"), bare.server_a_million(messages), 2, Aim::None);
    report.add(&format!("Weir, {cpu}"), table.reader_a_million(messages), 2, Aim::AtMost(2.0));
    report.add(&format!("nats-server under it, {cpu}"), table.server_a_million(messages), 2, Aim::None);
    report.add("Weir with a primary key, k messages/s", keyed.thousands_a_second(messages), 0, Aim::None);
    report.add(&format!("Weir with a primary key, {cpu}"), keyed.reader_a_million(messages), 2, Aim::None);
    Ok(())
}

/// Reads the stream from its beginning with async-nats' `messages()`: nothing is decoded, nothing acknowledged.
async fn read_bare(messages: u64, nats: &mut Nats) -> Result<Cost> {
    let stream = nats.jetstream().await?.get_stream("BIDS").await?;
    cost_of(nats, reading::range(&stream, 0, messages)).await
}

/// What it costs this process and nats-server.
pub(crate) async fn cost_of(nats: &mut Nats, reading: impl Future<Output = Result<()>>) -> Result<Cost> {
    let (start, reader, server) = (Instant::now(), cpu_time_of(std::process::id())?, nats.process().cpu_time()?);
    reading.await?;
    Ok(Cost {
        elapsed: start.elapsed(),
        reader: cpu_time_of(std::process::id())? - reader,
        server: nats.process().cpu_time()? - server,
    })
}

/// Creates a table over the stream of bids and waits until all of it is committed; then checks the table's content.
pub(crate) async fn read_table(
    table: &str,
    create: &str,
    messages: u64,
    nats: &mut Nats,
    weir: &mut Weir,
) -> Result<Cost> {
    let mut sql = weir.sql();
    sql.query("SELECT 1").await?;
    let (start, meter) = (Instant::now(), Cost::start(nats, weir)?);
    sql.query(create).await?;
    committed(&mut sql, table, start).await?;
    let cost = meter.end(nats, weir)?;
    complete(&mut sql, table, messages, start).await?;
    let published = bids();
    let wanted = (0..messages).map(|number| price(&published, number)).sum::<Result<u64>>()?;
    let answer = sql.query(&format!("SELECT count(*), sum(price) FROM {table}")).await?;
    ensure!(answer.row(0) == [messages.to_string(), wanted.to_string()], "{table} holds something else: {answer}");
    Ok(cost)
}

/// Publishes the bids and waits until `source`, a table or a source with views, has committed them; then checks that each of
/// the relations has them all. Weir's CPU-seconds a million messages.
pub(crate) async fn follow(
    nats: &Nats,
    weir: &mut Weir,
    bids: &Bids,
    (source, relations): (&str, &[String]),
    messages: u64,
) -> Result<f64> {
    let mut sql = weir.sql();
    let (start, before) = (Instant::now(), weir.process().cpu_time()?);
    publish_all(&nats.client().await?, bids, 0..messages).await?;
    committed(&mut sql, source, start).await?;
    let cpu = weir.process().cpu_time()? - before;
    for relation in relations {
        complete(&mut sql, relation, messages, start).await?;
    }
    Ok(cpu.as_secs_f64() / messages as f64 * 1e6)
}

/// Waits until all of a source's stream is committed. Counting rows instead would be a scan for each question, and its
/// processor time would count as that of reading.
pub(crate) async fn committed(sql: &mut Sql, source: &str, since: Instant) -> Result<()> {
    // A split of one subject of many need not know that the rest of the stream holds nothing for it.
    let through = "committed_position > last_sequence OR lag_messages = 0 AND committed_position = read_position";
    let question = format!(
        "SELECT count(*) > 0 AND coalesce(bool_and(coalesce({through}, false)), false) FROM weir_catalog.splits WHERE source = '{source}'"
    );
    while sql.query(&question).await?.row(0) != ["t"] {
        ensure!(since.elapsed() < DEADLINE, "\"{source}\" is not committed after {DEADLINE:?}");
        tokio::time::sleep(COMPLETION_POLL).await;
    }
    Ok(())
}

/// Waits until a relation has as many rows as there are messages; it must not have more.
pub(crate) async fn complete(sql: &mut Sql, relation: &str, messages: u64, since: Instant) -> Result<()> {
    let count = format!("SELECT count(*) FROM {relation}");
    loop {
        let rows = sql.value::<u64>(&count).await?;
        ensure!(rows <= messages, "\"{relation}\" has {rows} rows of {messages} messages");
        if rows == messages {
            return Ok(());
        }
        ensure!(since.elapsed() < DEADLINE, "\"{relation}\" is not complete after {DEADLINE:?}");
        tokio::time::sleep(COMPLETION_POLL).await;
    }
}

fn price(bids: &Bids, number: u64) -> Result<u64> {
    let bid: serde_json::Value = serde_json::from_slice(&bids.payload(number))?;
    bid["price"].as_u64().context("a price is a number")
}

/// How long queries take that look at every row of a large table, without a primary key and with one.
async fn scans(options: &Options, nats: &Nats, weir: &Weir, report: &mut Report) -> Result<()> {
    let rows = options.rows;
    println!("publishing {rows} small messages …");
    nats.create_stream("SMALL", &["small"]).await?;
    publish_all(&nats.client().await?, &Small, 0..rows).await?;
    let mut sql = weir.sql();
    for (table, kept, name) in
        [("small", Kept::Appended, "without a primary key"), ("keyed_small", Kept::ByOffset, "with a primary key")]
    {
        println!("reading and scanning them {name} …");
        sql.query(&kept.create(table, Small::COLUMNS, ("SMALL", "small"), "", nats)).await?;
        let start = Instant::now();
        committed(&mut sql, table, start).await?;
        complete(&mut sql, table, rows, start).await?;
        for (what, query) in [
            ("count(*)", format!("SELECT count(*) FROM {table}")),
            ("sum of a column", format!("SELECT sum(value) FROM {table}")),
            ("two columns grouped", format!("SELECT value % 10, count(id) FROM {table} GROUP BY 1")),
        ] {
            let start = Instant::now();
            sql.query(&query).await?;
            let millions = rows as f64 / 1e6;
            let measure = format!("{what} of {millions} million rows {name}, ms");
            report.add(&measure, millis(start.elapsed()), 0, Aim::None);
        }
    }
    Ok(())
}

/// From the moment at which a message is handed to the client until a SELECT shows its row.
async fn freshness(options: &Options, nats: &Nats, weir: &Weir, report: &mut Report) -> Result<()> {
    println!("measuring freshness at {} messages/s for {} s …", options.rate, options.seconds);
    nats.create_stream("FRESH", &["fresh.>"]).await?;
    let mut sql = weir.sql();
    sql.query(&create_table("fresh", Kept::Appended, "FRESH", "fresh.>", nats)).await?;
    let bids = Bids { prefix: "fresh".to_owned() };
    let aim = Aim::Under(400.0, " (a barrier interval of 200 ms + 200 ms)");
    freshness_of("", bids, "SELECT count(*) FROM fresh", aim, (options, nats, weir), report).await
}

/// Publishes messages, and asks `count` how many of them are there.
pub(crate) async fn freshness_of(
    what: &str,
    workload: impl Workload + 'static,
    count_query: &str,
    aim: Aim,
    (options, nats, weir): (&Options, &Nats, &Weir),
    report: &mut Report,
) -> Result<()> {
    let mut sql = weir.sql();
    let (client, pace, total) = (nats.client().await?, options.rate, options.rate * options.seconds);
    let publishing = tokio::spawn(async move {
        let pace = Pace { per_second: Some(pace), survive: false };
        publish(&client, &workload, 0..total, pace, &watch::Sender::new(0)).await
    });
    let mut seen = Vec::new();
    let mut count = 0;
    let start = Instant::now();
    while count < total {
        ensure!(start.elapsed() < DEADLINE, "only {count} of {total} rows after {DEADLINE:?}");
        count = sql.value::<u64>(count_query).await?;
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
    let what = if what.is_empty() { "freshness".to_owned() } else { format!("freshness {what}") };
    report.add(&format!("{what} p50, ms"), millis(percentile(&ages, 50)), 0, Aim::None);
    report.add(&format!("{what} p99, ms"), millis(percentile(&ages, 99)), 0, aim);
    Ok(())
}

/// From the start of the process after a SIGKILL until a SELECT shows a row that was not there before the kill.
async fn recovery(kills: usize, nats: &Nats, weir: &mut Weir, report: &mut Report) -> Result<()> {
    const COUNT: &str = "SELECT count(*) FROM recovering";
    println!("measuring recovery after {kills} kills …");
    nats.create_stream("RECOVERY", &["recovery.>"]).await?;
    weir.sql().query(&create_table("recovering", Kept::Appended, "RECOVERY", "recovery.>", nats)).await?;
    let bids = Bids { prefix: "recovery".to_owned() };
    let publishing = publish_in_background(nats.client().await?, bids, 0..u64::MAX, RECOVERY_RATE);
    let times = kill_and_wait(kills, COUNT, weir).await?;
    ensure!(!publishing.is_finished(), "publishing has ended early: {:?}", publishing.await);
    report.add_times("recovery after kill -9 of a standalone", times, Aim::Under(3_000.0, ""));
    Ok(())
}

/// The times from restarts after kills until `count` has grown.
pub(crate) async fn kill_and_wait(kills: usize, count: &str, weir: &mut Weir) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..kills {
        let before = weir.sql().value::<u64>(count).await?;
        weir.process().kill9()?;
        let start = Instant::now();
        weir.process().restart()?;
        let mut sql = weir.sql();
        let recovered = async || Ok((sql.value::<u64>(count).await? > before).then_some(start.elapsed()));
        times.push(eventually("new rows after the restart", DEADLINE, recovered).await?);
    }
    Ok(times)
}
