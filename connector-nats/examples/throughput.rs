//! How fast a split is read, without decoding: `throughput HOST:PORT [MESSAGES]` against a nats-server with JetStream.
//!
//! Fills a stream with messages of 200 bytes, then reads it under every acknowledgement policy, committing every 200 ms,
//! and prints messages a second.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use weir_common::task::Group;
use weir_connector_nats::{Options, Reader, ReaderConfig, preflight, remove_consumers};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or_else(|| "127.0.0.1:4222".to_owned());
    let messages: u64 = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    fill(&server, messages).await?;
    for policy in ["ephemeral", "none", "all", "explicit"] {
        let mut options = BTreeMap::from(
            [("connector", "nats"), ("server_url", server.as_str()), ("stream", "throughput"), ("subject", "t.>")]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        if policy != "ephemeral" {
            options.insert("consumer.durable_name".to_owned(), policy.to_owned());
            options.insert("consumer.ack_policy".to_owned(), policy.to_owned());
        }
        let options = Arc::new(Options::parse(&options)?);
        let took = read(&options, messages).await?;
        println!("{policy}: {:.0} messages/s", messages as f64 / took.as_secs_f64());
    }
    Ok(())
}

async fn fill(server: &str, messages: u64) -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = async_nats::connect(server).await?;
    let js = jetstream::new(client.clone());
    let _ = js.delete_stream("throughput").await;
    let subjects = vec!["t.>".to_owned()];
    let mut stream =
        js.create_stream(stream::Config { name: "throughput".to_owned(), subjects, ..Default::default() }).await?;
    let payload = "x".repeat(200);
    for n in 0..messages {
        client.publish(format!("t.{}", n % 16), payload.clone().into()).await?;
        // Published without acknowledgements: the server must not fall too far behind.
        if n % 10_000 == 9_999 {
            client.flush().await?;
            while stream.info().await?.state.messages + 50_000 < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    client.flush().await?;
    while stream.info().await?.state.messages < messages {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn read(options: &Arc<Options>, messages: u64) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let owner = "example/throughput".to_owned();
    let start = preflight(options, &owner).await?.splits.remove(0);
    let group = Group::default();
    let started = Instant::now();
    let split = start.split.clone();
    let config = ReaderConfig {
        options: Arc::clone(options),
        position: start.position(),
        split: start.split,
        stored: true,
        follows: false,
        owner: owner.clone(),
    };
    let mut reader = Reader::spawn(config, &group);
    let control = reader.control();
    let mut commits = tokio::time::interval(Duration::from_millis(200));
    let (mut read, mut batches, mut position) = (0, 0, start.sequence);
    while read < messages {
        tokio::select! {
            batch = reader.next() => {
                read += batch.messages.len() as u64;
                batches += 1;
                position = batch.position;
            }
            () = control.wants_checkpoint() => control.committed(position),
            _ = commits.tick() => control.committed(position),
        }
    }
    let took = started.elapsed();
    println!("{batches} batches, {:?}", reader.status());
    group.stop().await;
    remove_consumers(options, &split, &owner).await?;
    Ok(took)
}
