//! Views that aggregate: throughput and processor time by the number of groups, of views, and of
//! views over views; freshness, idle views, and recovery with a large state.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weir_e2e::publish::{publish_all, publish_in_background};
use weir_e2e::sandbox::Sandbox;
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::weir::Weir;
use weir_e2e::workload::{Auctions, Bids};

use crate::report::{Aim, Report, millis};
use crate::standalone::{COMPLETION_POLL, Cost, committed, freshness_of, kill_and_wait};
use crate::{DEADLINE, Options};

/// The auctions of streams whose groups are few or of a common size.
const AUCTIONS: u64 = 1_000_000;
/// Views that are there while nothing is published.
const IDLE: usize = 100;
/// For how long idle views are watched.
const IDLE_FOR: Duration = Duration::from_secs(20);
const CPU: &str = "CPU-seconds per million messages";

/// A stream of bids, with the source that views read.
struct Events {
    name: String,
    bids: Auctions,
    messages: u64,
}

impl Events {
    async fn publish(name: &str, auctions: u64, is_skewed: bool, messages: u64, nats: &Nats) -> Result<Events> {
        let events = Events::announce(name, auctions, is_skewed, messages, nats).await?;
        println!("publishing {messages} bids for {auctions} auctions …");
        publish_all(&nats.client().await?, &events.bids, 0..messages).await?;
        Ok(events)
    }

    /// The stream without messages.
    async fn announce(name: &str, auctions: u64, is_skewed: bool, messages: u64, nats: &Nats) -> Result<Events> {
        nats.create_stream(&name.to_uppercase(), &[&format!("{name}.>")]).await?;
        let bids = Auctions { prefix: name.to_owned(), auctions, is_skewed };
        Ok(Events { name: name.to_owned(), bids, messages })
    }

    /// `CREATE kind` over the stream.
    fn create(&self, kind: &str, columns: &str, nats: &Nats) -> String {
        format!(
            "CREATE {kind} {0} ({columns}) WITH (connector = 'nats', server_url = '{1}', stream = '{2}', \
             subject = '{0}.>', connect_mode = 'plain') FORMAT PLAIN ENCODE JSON",
            self.name,
            nats.address(),
            self.name.to_uppercase()
        )
    }

    async fn create_source(&self, sql: &mut Sql, nats: &Nats) -> Result<()> {
        sql.query(&self.create("SOURCE", Bids::COLUMNS, nats)).await?;
        Ok(())
    }
}

/// A view that counts and sums by a column.
fn by(column: &str, view: &str, source: &str) -> String {
    format!(
        "CREATE MATERIALIZED VIEW {view} AS SELECT {column}, count(*) AS n, sum(price) AS total FROM {source} GROUP BY {column}"
    )
}

/// Measures all of it; a Weir of its own for each state that is large.
pub(crate) async fn measure(options: &Options, sandbox: &Sandbox, nats: &mut Nats, report: &mut Report) -> Result<()> {
    groups(options, sandbox, nats, report).await?;
    let mut weir = started(sandbox, &[]).await?;
    several(options, nats, &mut weir, report).await?;
    let aim = Aim::Under(400.0, " (a barrier interval of 200 ms + 200 ms)");
    let fresh = Events::announce("fresh_groups", AUCTIONS, true, options.rate * options.seconds, nats).await?;
    let mut sql = weir.sql();
    fresh.create_source(&mut sql, nats).await?;
    sql.query(&by("channel", "fresh_channels", &fresh.name)).await?;
    let count = "SELECT coalesce(sum(n), 0)::bigint FROM fresh_channels";
    freshness_of("in an aggregate", fresh.bids, count, aim, (options, nats, &weir), report).await?;
    stopped(weir).await?;
    idle(sandbox, nats, report).await
}

/// A Weir without state, with these flags.
async fn started(sandbox: &Sandbox, flags: &[(&'static str, &str)]) -> Result<Weir> {
    std::fs::remove_dir_all(sandbox.folder("data")?)?;
    let mut weir = Weir::standalone_with(sandbox, flags)?;
    weir.ready().await?;
    Ok(weir)
}

async fn stopped(mut weir: Weir) -> Result<()> {
    weir.process().terminate(DEADLINE).await?;
    Ok(())
}

/// A stored stream as groups: few, and many of which few or none are hot.
async fn groups(options: &Options, sandbox: &Sandbox, nats: &mut Nats, report: &mut Report) -> Result<()> {
    let messages = options.messages;
    let zipf = Events::publish("zipf", AUCTIONS, true, messages, nats).await?;
    let even = Events::publish("even", AUCTIONS, false, messages, nats).await?;
    let mut weir = started(sandbox, &[]).await?;
    for (events, column, aim, what) in [
        (&zipf, "channel", Aim::AtMost(1.9), "10,004 groups"),
        (&zipf, "auction", Aim::AtMost(3.0), "1 million groups (Zipf)"),
        (&even, "auction", Aim::AtMost(5.0), "1 million groups (uniform)"),
    ] {
        println!("aggregating into {what} …");
        let mut sql = weir.sql();
        if column == "channel" || events.name == "even" {
            events.create_source(&mut sql, nats).await?;
        }
        let view = format!("{}_{column}", events.name);
        let cost = caught_up(&view, column, events, nats, &mut weir).await?;
        report.add(&format!("{what}, k messages/s"), cost.thousands_a_second(messages), 0, Aim::None);
        report.add(&format!("{what}, {CPU}"), cost.reader_a_million(messages), 2, aim);
    }
    recovery(options.kills, &even, nats, &mut weir, report).await?;
    stopped(weir).await?;

    let rows = options.rows;
    let large = Events::publish("large", rows, false, rows, nats).await?;
    // A group takes about 200 bytes of the cache.
    let memory = (rows / 10 * 200).max(1 << 25).to_string();
    let mut weir = started(sandbox, &[("--state-memory-bytes", &memory)]).await?;
    large.create_source(&mut weir.sql(), nats).await?;
    println!("aggregating into groups of which a tenth fits the cache …");
    let cost = caught_up("large_auction", "auction", &large, nats, &mut weir).await?;
    let what =
        format!("{} million groups, {} MiB of memory for state", rows as f64 / 1e6, memory.parse::<u64>()? >> 20);
    report.add(&format!("{what}, k messages/s"), cost.thousands_a_second(rows), 0, Aim::None);
    report.add(&format!("{what}, {CPU}"), cost.reader_a_million(rows), 2, Aim::None);
    stopped(weir).await
}

/// Creates a view over a stored stream, and waits until it has all of it.
async fn caught_up(view: &str, column: &str, events: &Events, nats: &mut Nats, weir: &mut Weir) -> Result<Cost> {
    let mut sql = weir.sql();
    sql.query("SELECT 1").await?;
    let meter = Cost::start(nats, weir)?;
    sql.query(&by(column, view, &events.name)).await?;
    included(&mut sql, events).await?;
    let cost = meter.end(nats, weir)?;
    counted(&mut sql, view, events.messages).await?;
    Ok(cost)
}

/// Waits until all views include all messages. Counting rows instead would be a scan for each
/// question, and its processor time would count as theirs.
async fn included(sql: &mut Sql, events: &Events) -> Result<()> {
    committed(sql, &events.name, Instant::now()).await?;
    sql.query(&format!("SET wait_for_timeout = '{}s'", DEADLINE.as_secs())).await?;
    sql.query(&format!("SELECT weir_wait_for('{}', {})", events.name.to_uppercase(), events.messages)).await?;
    Ok(())
}

/// Waits until a view has counted so many messages.
async fn counted(sql: &mut Sql, view: &str, messages: u64) -> Result<()> {
    let start = Instant::now();
    let count = format!("SELECT coalesce(sum(n), 0)::bigint FROM {view}");
    loop {
        let found = sql.value::<u64>(&count).await?;
        ensure!(found <= messages, "\"{view}\" counts {found} of {messages} messages");
        if found == messages {
            return Ok(());
        }
        ensure!(start.elapsed() < DEADLINE, "\"{view}\" counts {found} of {messages} messages after {DEADLINE:?}");
        tokio::time::sleep(COMPLETION_POLL).await;
    }
}

/// The time from a kill until the next rows are in the groups.
async fn recovery(kills: usize, events: &Events, nats: &Nats, weir: &mut Weir, report: &mut Report) -> Result<()> {
    const COUNT: &str = "SELECT coalesce(sum(n), 0)::bigint FROM even_channels";
    println!("measuring recovery of a million groups after {kills} kills …");
    let mut sql = weir.sql();
    // Few groups are counted faster; they share the source with the many.
    sql.query(&by("channel", "even_channels", &events.name)).await?;
    counted(&mut sql, "even_channels", events.messages).await?;
    let publishing = publish_in_background(nats.client().await?, events.bids.clone(), events.messages..u64::MAX, 1_000);
    let times = kill_and_wait(kills, COUNT, weir).await?;
    ensure!(!publishing.is_finished(), "publishing has ended early: {:?}", publishing.await);
    publishing.abort();
    report.add_times("recovery with a million groups after kill -9", times, Aim::Under(3_000.0, ""));
    Ok(())
}

/// One and ten views over a source, a view over a view, and a keyed table that a view follows,
/// while the messages are published.
async fn several(options: &Options, nats: &mut Nats, weir: &mut Weir, report: &mut Report) -> Result<()> {
    let messages = options.messages;
    let mut one = 0.0;
    for (name, views) in [("single", 1), ("tenfold", 10)] {
        println!("aggregating into {views} views over one source …");
        let events = Events::announce(name, AUCTIONS, true, messages, nats).await?;
        let mut sql = weir.sql();
        events.create_source(&mut sql, nats).await?;
        let names: Vec<String> = (0..views).map(|number| format!("{name}_{number}")).collect();
        for view in &names {
            sql.query(&by("channel", view, name)).await?;
        }
        let cpu = published(&events, &names, nats, weir).await?;
        let what = format!("{views} aggregating views over a source, {CPU}");
        let aim = if views == 1 { Aim::None } else { Aim::AtMost(3.0 * one) };
        report.add(&what, cpu, 2, aim);
        one = cpu;
        if views == 1 {
            let over = Events::announce("stacked", AUCTIONS, true, messages, nats).await?;
            over.create_source(&mut sql, nats).await?;
            sql.query(&by("channel", "stacked_0", "stacked")).await?;
            let top = "CREATE MATERIALIZED VIEW stacked_1 AS \
                       SELECT length(channel) AS size, sum(n)::bigint AS n FROM stacked_0 GROUP BY length(channel)";
            sql.query(top).await?;
            let cpu = published(&over, &["stacked_0".to_owned(), "stacked_1".to_owned()], nats, weir).await?;
            report.add(&format!("a view over a view adds, {CPU}"), cpu - one, 2, Aim::AtMost(1.0));
        }
        for view in names.iter().rev() {
            sql.query(&format!("DROP MATERIALIZED VIEW {view}")).await?;
        }
    }
    println!("following a table with a primary key …");
    let keyed = Events::announce("followed", AUCTIONS / 10, true, messages, nats).await?;
    let mut sql = weir.sql();
    let columns = format!("{}, PRIMARY KEY (auction)", Bids::COLUMNS);
    sql.query(&keyed.create("TABLE", &columns, nats)).await?;
    sql.query(&by("channel", "followed_channels", "followed")).await?;
    let before = weir.process().cpu_time()?;
    publish_all(&nats.client().await?, &keyed.bids, 0..messages).await?;
    let rows = {
        let seen: std::collections::HashSet<u64> = (0..messages).map(|number| keyed.bids.auction(number)).collect();
        seen.len() as u64
    };
    included(&mut sql, &keyed).await?;
    let cpu = (weir.process().cpu_time()? - before).as_secs_f64() / messages as f64 * 1e6;
    counted(&mut sql, "followed_channels", rows).await?;
    report.add(&format!("a table with a primary key that a view follows, {CPU}"), cpu, 2, Aim::AtMost(6.0));
    Ok(())
}

/// Publishes the bids for views that are there. Weir's CPU-seconds a million messages.
async fn published(events: &Events, views: &[String], nats: &Nats, weir: &mut Weir) -> Result<f64> {
    let mut sql = weir.sql();
    let before = weir.process().cpu_time()?;
    publish_all(&nats.client().await?, &events.bids, 0..events.messages).await?;
    included(&mut sql, events).await?;
    let cpu = (weir.process().cpu_time()? - before).as_secs_f64() / events.messages as f64 * 1e6;
    for view in views {
        counted(&mut sql, view, events.messages).await?;
    }
    Ok(cpu)
}

/// The cost of views to which nothing comes.
async fn idle(sandbox: &Sandbox, nats: &Nats, report: &mut Report) -> Result<()> {
    println!("watching {IDLE} idle views for {} s …", IDLE_FOR.as_secs());
    let mut weir = started(sandbox, &[]).await?;
    let events = Events::announce("idle", AUCTIONS, true, 0, nats).await?;
    let mut sql = weir.sql();
    events.create_source(&mut sql, nats).await?;
    for number in 0..IDLE {
        sql.query(&by("channel", &format!("idle_{number}"), "idle")).await?;
    }
    let (start, before) = (Instant::now(), weir.process().cpu_time()?);
    tokio::time::sleep(IDLE_FOR).await;
    let share = (weir.process().cpu_time()? - before).as_secs_f64() / start.elapsed().as_secs_f64();
    report.add(&format!("{IDLE} idle views, percent of a core"), share * 100.0, 1, Aim::AtMost(5.0));
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        sql.query("FLUSH").await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).context("times")?;
    report.add(&format!("a barrier through {IDLE} idle views, ms"), millis(*median), 0, Aim::AtMost(50.0));
    stopped(weir).await
}
