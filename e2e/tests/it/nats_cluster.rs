//! A JetStream cluster of three servers: streams and consumers that move to other leaders lose and repeat nothing.

use anyhow::{Context, Result};
use async_nats::jetstream::Context as JetStream;
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use futures::TryStreamExt;
use serde_json::Value;
use weir_e2e::chaos::{self, Kill};
use weir_e2e::sandbox::scenario;
use weir_e2e::servers::Nats;
use weir_e2e::wait::eventually;
use weir_e2e::weir::Weir;

use crate::crash::{Flow, TOTAL_SHORT};
use crate::support::{LATE, Reading};

/// What happens to the cluster.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// The stream's leader steps down.
    Stream,
    /// The leaders of its consumers step down.
    Consumers,
    /// The server of the stream's leader is killed and started again.
    Server,
}

impl Trouble {
    const ALL: [Trouble; 3] = [Trouble::Stream, Trouble::Consumers, Trouble::Server];

    /// Requests are answered by leaders, of which there may just be none, and are asked again.
    async fn strike(self, servers: &mut [Nats]) -> Result<()> {
        let jetstream = servers[0].jetstream().await?;
        match self {
            Trouble::Stream => {
                eventually("the stream's leader to step down", LATE, async || {
                    Ok(step_down(&jetstream, "STREAM.LEADER.STEPDOWN.EVENTS").await?.then_some(()))
                })
                .await
            }
            // Some have just gone, because their readers make them anew, or have one replica and nobody to step down for.
            Trouble::Consumers => {
                eventually("leaders of consumers to step down", LATE, async || {
                    let stream = jetstream.get_stream("EVENTS").await?;
                    let names: Vec<String> = stream.consumer_names().try_collect().await?;
                    let mut stepped_down = false;
                    for name in names {
                        stepped_down |=
                            step_down(&jetstream, &format!("CONSUMER.LEADER.STEPDOWN.EVENTS.{name}")).await?;
                    }
                    Ok(stepped_down.then_some(()))
                })
                .await
            }
            Trouble::Server => {
                let leader = eventually("the stream to have a leader", LATE, async || leader(&jetstream).await).await?;
                let number: usize = leader.trim_start_matches("nats-").parse()?;
                servers[number].process().restart()?;
                servers[number].ready().await
            }
        }
    }
}

/// Whether there was a leader that stepped down.
async fn step_down(jetstream: &JetStream, what: &str) -> Result<bool> {
    // Without a body: servers of version 2.10 refuse one.
    let answer = jetstream.client().request(format!("$JS.API.{what}"), "".into()).await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    Ok(answer["success"] == true)
}

async fn leader(jetstream: &JetStream) -> Result<Option<String>> {
    let stream = jetstream.get_stream("EVENTS").await?;
    Ok(stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone()))
}

/// Waits until every server has all of the stream, so that the next trouble meets a cluster that can bear it.
async fn whole(servers: &[Nats]) -> Result<()> {
    eventually("every replica to be current", LATE, async || {
        let jetstream = servers[0].jetstream().await?;
        let stream = jetstream.get_stream("EVENTS").await?;
        let cluster = stream.cached_info().cluster.clone().context("a cluster")?;
        let current = cluster.replicas.iter().filter(|peer| peer.current && !peer.offline).count();
        Ok((cluster.leader.is_some() && current == servers.len() - 1).then_some(()))
    })
    .await
}

fn leaders_change(name: &str, retention: RetentionPolicy) {
    scenario(name, async |sandbox| {
        let seed = chaos::seed();
        let mut servers = Nats::start_cluster(sandbox, 3).await?;
        let subjects = vec!["events.>".to_owned()];
        let config = Config { name: "EVENTS".to_owned(), subjects, retention, num_replicas: 3, ..Config::default() };
        eventually("the cluster to make a stream", LATE, async || {
            servers[0].jetstream().await?.create_stream(config.clone()).await?;
            Ok(Some(()))
        })
        .await?;
        let mut weir = Weir::standalone(sandbox)?;
        weir.ready().await?;
        let addresses: Vec<String> = servers.iter().map(Nats::address).collect();
        let readings = Reading::of(retention);
        let mut flow = Flow::start(&servers[0], &addresses.join(","), &weir, readings, TOTAL_SHORT).await?;
        for Kill { victim, at, .. } in chaos::plan(seed, &Trouble::ALL, 6, flow.kill_range()) {
            flow.publishing.reaches(at).await?;
            whole(&servers).await?;
            eprintln!("{at}: {victim:?}");
            victim.strike(&mut servers).await?;
        }
        whole(&servers).await?;
        flow.finish(&servers[0]).await
    });
}

#[test]
fn tables_are_exact_while_leaders_change() {
    leaders_change("leaders", RetentionPolicy::Limits);
}

#[test]
fn a_table_over_a_work_queue_is_exact_while_leaders_change() {
    leaders_change("leaders-queue", RetentionPolicy::WorkQueue);
}

#[test]
fn tables_over_an_interest_stream_are_exact_while_leaders_change() {
    leaders_change("leaders-interest", RetentionPolicy::Interest);
}
