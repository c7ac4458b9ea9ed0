//! What the tests stand on: a server of their own, a proxy that can be cut, a table that reads and commits.

mod authority;
mod operator;
mod proxy;
mod server;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use weir_connector_nats::Options;

pub(crate) use authority::Authority;
pub(crate) use operator::Operator;
pub(crate) use proxy::Proxy;
pub(crate) use server::{Server, free_port};
pub(crate) use table::{OWNER, Table};

/// No condition takes longer than this unless something is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);
/// What has to happen by itself happens within this time, also on a machine whose cores others use: below the 30 seconds of the
/// timers that would make up for it (`ack_wait`, requests that expire).
pub(crate) const PROMPT: Duration = Duration::from_secs(25);

/// The options of a table that reads stream `events` with subjects `events.>`.
pub(crate) fn options(port: u16, pairs: &[(&str, &str)]) -> Arc<Options> {
    let url = format!("127.0.0.1:{port}");
    let base = [
        ("connector", "nats"),
        ("server_url", url.as_str()),
        ("subject", "events.>"),
        ("stream", "events"),
        ("connect_mode", "plain"),
        ("allow_interest_stream", "true"),
    ];
    let all: BTreeMap<String, String> =
        base.iter().chain(pairs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Arc::new(Options::parse(&all).expect("the options are right"))
}

/// A stream `events` with subjects `events.>`.
pub(crate) async fn create_stream(js: &jetstream::Context) -> jetstream::stream::Stream {
    let config = jetstream::stream::Config {
        name: "events".to_owned(),
        subjects: vec!["events.>".to_owned()],
        ..Default::default()
    };
    js.create_stream(config).await.expect("the stream can be created")
}

/// Publishes `count` messages over ten subjects; the payload says which one it is, from `from` on.
pub(crate) async fn publish(js: &jetstream::Context, from: u64, count: u64) {
    for window in (from..from + count).collect::<Vec<_>>().chunks(1000) {
        let mut acks = Vec::with_capacity(window.len());
        for n in window {
            let subject = format!("events.{}", n % 10);
            acks.push(js.publish(subject, n.to_string().into()).await.expect("publishing works"));
        }
        for ack in acks {
            ack.await.expect("the server stores it");
        }
    }
}

/// A JetStream context whose requests wait as long as a test does: a disk that stalls makes a server
/// slow to answer.
pub(crate) fn context(client: async_nats::Client) -> jetstream::Context {
    let mut context = jetstream::new(client);
    context.set_timeout(DEADLINE);
    context
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = tokio::time::Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until nothing is pending of a durable and its ack floor has reached a sequence. One that was made anew and delivered
/// nothing yet may have a floor of 0.
pub(crate) async fn floor_reaches(stream: &jetstream::stream::Stream, durable: &str, sequence: u64) {
    let mut last = None;
    eventually("the ack floor reaches the end", async || {
        let info = stream.consumer_info(durable).await.map_err(|error| error.to_string());
        let reached = info.as_ref().is_ok_and(|info| {
            let untouched = info.delivered.consumer_sequence == 0;
            let floor = if untouched { info.delivered } else { info.ack_floor };
            floor.stream_sequence == sequence && info.num_ack_pending == 0
        });
        let seen = format!("{info:?}");
        if last.as_ref() != Some(&seen) {
            tracing::info!(seen, "the durable");
            last = Some(seen);
        }
        reached
    })
    .await;
}

/// Logs to the test's output, which is shown if it fails.
pub(crate) fn log() {
    let filter = tracing_subscriber::EnvFilter::new("info,async_nats=off");
    // Another test of this process may have been first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}
