//! `make demo`: metrics of live streams flow through NATS JetStream into a table, and queries show them.
//!
//! Starts a nats-server and a standalone Weir of its own and ends both with itself. With a terminal on standard input
//! it stays until it is interrupted; without one it checks that the table holds what was published and ends.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use weir_e2e::publish::{publish_all, publish_in_background};
use weir_e2e::sandbox::{Sandbox, program};
use weir_e2e::servers::Nats;
use weir_e2e::sql::Sql;
use weir_e2e::wait::{eventually, eventually_equal};
use weir_e2e::weir::Weir;
use weir_e2e::workload::{LiveStreamMetrics, Workload};

/// Reports that are in the stream before the table is created.
const HISTORY: u64 = 20_000;
/// Reports a second from then on.
const RATE: u64 = 2_000;
/// Reports after which a demo without a terminal stops publishing.
const END: u64 = 26_000;
/// How often the growing count is shown.
const SHOWN_COUNTS: usize = 5;
/// What a step may take on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60);

const QUERIES: [(&str, &str); 3] = [
    (
        "How the streams do, by country",
        "SELECT country, count(*) AS reports, count(DISTINCT user_id) AS users, round(avg(video_rtt)) AS rtt_ms, \
         max(video_lost_pps) AS lost_pps_max FROM live_stream_metrics GROUP BY country ORDER BY country",
    ),
    (
        "The rooms in which viewers wait longest",
        "SELECT room_id, sum(video_total_freeze_duration) AS frozen_ms, max(video_longest_freeze_duration) AS longest_ms \
         FROM live_stream_metrics GROUP BY room_id ORDER BY frozen_ms DESC LIMIT 3",
    ),
    (
        "The latest reports",
        "SELECT report_timestamp, user_id, room_id, video_bps / 1000 AS kbps, video_fps AS fps \
         FROM live_stream_metrics ORDER BY report_timestamp DESC LIMIT 3",
    ),
];

#[tokio::main]
async fn main() -> ExitCode {
    program("demo", run).await
}

async fn run(sandbox: &Sandbox) -> Result<()> {
    let interactive = std::io::stdin().is_terminal();
    let nats = Nats::start(sandbox).await?;
    println!("* nats-server with JetStream runs at {}", nats.address());
    let mut weir = Weir::standalone(sandbox)?;
    weir.ready().await?;
    // Said after the whole machine, or this process, stood still for longer than a leader's lease.
    weir.expect_warnings(&["leadership lost"]);
    println!("* weir standalone runs, SQL at {}", weir.sql_address());

    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let mut metrics = LiveStreamMetrics { start_ms: i64::try_from(now)? };
    // The history ends now.
    metrics.start_ms -= metrics.timestamp_ms(HISTORY) - metrics.start_ms;
    nats.create_stream("live_stream", &[LiveStreamMetrics::SUBJECT]).await?;
    publish_all(&nats.client().await?, &metrics, 0..HISTORY).await?;
    println!("* {HISTORY} reports are in the stream, {RATE} a second follow\n");

    let mut sql = weir.sql();
    show(&mut sql, &create_table(&nats.address())).await?;
    let end = if interactive { u64::MAX } else { END };
    let publishing = publish_in_background(nats.client().await?, metrics.clone(), HISTORY..end, RATE);
    show_growth(&mut sql, end).await?;
    for (title, query) in QUERIES {
        println!("-- {title}");
        show(&mut sql, query).await?;
    }
    if interactive {
        invite(&weir);
        sandbox.stay().await
    } else {
        publishing.await??;
        check(&mut sql, &metrics).await?;
        sandbox.check_logs()
    }
}

/// The first example of the NATS source's reference page, as JSON and so with columns.
fn create_table(nats: &str) -> String {
    let columns = LiveStreamMetrics::COLUMNS.split(", ").collect::<Vec<_>>().join(",\n    ");
    format!(
        "CREATE TABLE live_stream_metrics (\n    {columns}\n)\nWITH (\n    connector = 'nats',\n    \
         server_url = '{nats}',\n    subject = '{}',\n    stream = 'live_stream',\n    \
         allow_create_stream = 'true',\n    connect_mode = 'plain'\n) FORMAT PLAIN ENCODE JSON",
        LiveStreamMetrics::SUBJECT
    )
}

/// Runs a statement and prints it with its answer.
async fn show(sql: &mut Sql, statement: &str) -> Result<()> {
    println!("dev=> {statement};");
    let answer = sql.query(statement).await?;
    println!("{}", if answer.columns.is_empty() { "\n".to_owned() } else { answer.to_string() });
    Ok(())
}

/// Prints the count of the table until it has grown a few times, history first, or has come to its end, which on a
/// machine that is slow to answer may be sooner.
async fn show_growth(sql: &mut Sql, end: u64) -> Result<()> {
    let statement = "SELECT count(*) FROM live_stream_metrics";
    println!("dev=> {statement};  -- again and again");
    let mut wanted = HISTORY;
    for _ in 0..SHOWN_COUNTS {
        let count = eventually(&format!("the table to have {wanted} rows"), DEADLINE, async || {
            let count = sql.value::<u64>(statement).await?;
            ensure!(count >= wanted, "it has {count}");
            Ok(Some(count))
        })
        .await?;
        println!("    {count}");
        if count >= end {
            break;
        }
        wanted = end.min(count + RATE / 4);
    }
    println!();
    Ok(())
}

/// Says how to connect.
fn invite(weir: &Weir) {
    let (host, port) = (weir.sql_address().ip(), weir.sql_address().port());
    println!("Reports keep coming. Connect from another terminal with\n");
    println!("    psql -h {host} -p {port} -U root -d dev\n\nand end the demo with Ctrl-C.");
}

/// Compares the table with what was published.
async fn check(sql: &mut Sql, metrics: &LiveStreamMetrics) -> Result<()> {
    eventually_equal("all reports", DEADLINE, END, async || {
        sql.value::<u64>("SELECT count(*) FROM live_stream_metrics").await
    })
    .await?;
    let (mut bits, mut frozen) = (0, 0);
    for number in 0..END {
        let report: serde_json::Value = serde_json::from_slice(&metrics.payload(number))?;
        bits += report["video_bps"].as_u64().context("a number")?;
        frozen += report["video_total_freeze_duration"].as_u64().context("a number")?;
    }
    let sums = "SELECT sum(video_bps), sum(video_total_freeze_duration) FROM live_stream_metrics";
    let answer = sql.query(sums).await?;
    ensure!(answer.row(0) == [bits.to_string(), frozen.to_string()], "sums differ: {answer}");
    println!("Checked: {END} reports published, the same {END} in the table.");
    Ok(())
}
