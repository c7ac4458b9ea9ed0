//! nats-server and etcd as child processes on the loopback interface.
//!
//! Each keeps its ports and its data over a restart. A server counts as started when it does what tests need of it:
//! nats-server answers a JetStream request, etcd serves a linearizable read.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream;
use async_nats::jetstream::stream::RetentionPolicy;

use crate::process::{Process, Program, nats_executable, server_executable};
use crate::sandbox::{Sandbox, free_address};
use crate::wait::{PATIENCE, eventually};

/// How long a server may take to start.
const START_DEADLINE: Duration = PATIENCE;

/// A nats-server with JetStream on disk.
pub struct Nats {
    process: Process,
    address: SocketAddr,
}

impl Nats {
    /// Starts one with the defaults of its vendor and waits until JetStream answers.
    ///
    /// # Errors
    /// If it cannot be run or does not answer.
    pub async fn start(sandbox: &Sandbox) -> Result<Nats> {
        Nats::start_with(sandbox, &[]).await
    }

    /// Starts one with more arguments, users and passwords for instance, with which a client without credentials
    /// may not connect: then the caller waits by itself.
    ///
    /// # Errors
    /// If it cannot be run or, given no more arguments, does not answer.
    pub async fn start_with(sandbox: &Sandbox, more: &[&str]) -> Result<Nats> {
        let nats = Nats::run(sandbox, "nats-server", more)?;
        if more.is_empty() {
            nats.ready().await?;
        }
        Ok(nats)
    }

    /// Starts so many as one JetStream cluster, named `nats-0`, `nats-1` and so on.
    ///
    /// # Errors
    /// If they cannot be run or do not answer.
    pub async fn start_cluster(sandbox: &Sandbox, servers: usize) -> Result<Vec<Nats>> {
        let routes: Vec<String> = (0..servers).map(|_| format!("nats://{}", free_address())).collect();
        let all = routes.join(",");
        let mut cluster = Vec::with_capacity(servers);
        for (number, route) in routes.iter().enumerate() {
            let name = format!("nats-{number}");
            let more = ["--name", &name, "--cluster_name", "weir", "--cluster", route, "--routes", &all];
            cluster.push(Nats::run(sandbox, &name, &more)?);
        }
        for nats in &cluster {
            nats.ready().await?;
        }
        Ok(cluster)
    }

    fn run(sandbox: &Sandbox, name: &str, more: &[&str]) -> Result<Nats> {
        let address = free_address();
        let (store, port) = (sandbox.folder(name)?.display().to_string(), address.port().to_string());
        let arguments = ["-js", "-sd", &store, "-a", "127.0.0.1", "-p", &port]
            .into_iter()
            .chain(more.iter().copied())
            .map(str::to_owned);
        let program = Program::new(nats_executable()?, arguments);
        Ok(Nats { process: Process::start(program, sandbox.log(name, false))?, address })
    }

    /// Waits until JetStream answers.
    ///
    /// # Errors
    /// If it does not by the deadline.
    pub async fn ready(&self) -> Result<()> {
        eventually("nats-server to serve JetStream", START_DEADLINE, async || {
            let client = async_nats::connect(self.address()).await?;
            jetstream::new(client).query_account().await?;
            Ok(Some(()))
        })
        .await
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where it listens.
    pub fn socket(&self) -> SocketAddr {
        self.address
    }

    /// A client that reconnects without end.
    ///
    /// # Errors
    /// If the server is not there now.
    pub async fn client(&self) -> Result<async_nats::Client> {
        let options = async_nats::ConnectOptions::new()
            .ping_interval(Duration::from_secs(5))
            // Requests to a server that is being restarted are asked again by their callers.
            .request_timeout(Some(Duration::from_secs(5)));
        options.connect(self.address()).await.with_context(|| format!("cannot connect to {}", self.address()))
    }

    /// Whether it can reset consumers: nats-server 2.14 and later can.
    ///
    /// # Errors
    /// If the server is not there now.
    pub async fn can_reset(&self) -> Result<bool> {
        let version = self.client().await?.server_info().version;
        let mut parts = version.split('.').map_while(|part| part.parse::<u64>().ok());
        Ok((parts.next(), parts.next()) >= (Some(2), Some(14)))
    }

    /// A JetStream context on a connection of its own.
    ///
    /// # Errors
    /// If the server is not there now.
    pub async fn jetstream(&self) -> Result<jetstream::Context> {
        Ok(jetstream::new(self.client().await?))
    }

    /// Makes a file stream with Limits retention over the given subjects.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn create_stream(&self, name: &str, subjects: &[&str]) -> Result<()> {
        self.create_stream_with(name, subjects, RetentionPolicy::Limits).await
    }

    /// Makes a file stream over the given subjects.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn create_stream_with(&self, name: &str, subjects: &[&str], retention: RetentionPolicy) -> Result<()> {
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            retention,
            ..Default::default()
        };
        self.jetstream().await?.create_stream(config).await?;
        Ok(())
    }

    /// The sequence of the last message of a stream.
    ///
    /// # Errors
    /// If the stream cannot be looked up.
    pub async fn last_sequence(&self, stream: &str) -> Result<u64> {
        Ok(self.jetstream().await?.get_stream(stream).await?.cached_info().state.last_sequence)
    }

    /// The stream sequence up to which everything delivered to a durable is acknowledged, or lies before it: of one that was
    /// made anew, and that nothing was delivered through yet, the server's own floor may be 0.
    ///
    /// # Errors
    /// If the stream or the durable cannot be looked up.
    pub async fn ack_floor(&self, stream: &str, durable: &str) -> Result<u64> {
        let stream = self.jetstream().await?.get_stream(stream).await?;
        let info = stream.consumer_info(durable).await?;
        let floor = info.ack_floor.stream_sequence;
        Ok(if info.delivered.consumer_sequence == 0 { info.delivered.stream_sequence } else { floor })
    }

    /// The process, to kill it, restart it or read its processor time.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// An etcd of one member.
pub struct Etcd {
    process: Process,
    address: SocketAddr,
}

impl Etcd {
    /// Starts one and waits until it serves a linearizable read.
    ///
    /// # Errors
    /// If it cannot be run or does not answer.
    pub async fn start(sandbox: &Sandbox) -> Result<Etcd> {
        let address = free_address();
        let client_url = format!("http://{address}");
        let peer_url = format!("http://{}", free_address());
        let data = sandbox.folder("etcd")?.display().to_string();
        let members = format!("default={peer_url}");
        let arguments = [
            ("--name", "default"),
            ("--data-dir", &data),
            ("--listen-client-urls", &client_url),
            ("--advertise-client-urls", &client_url),
            ("--listen-peer-urls", &peer_url),
            ("--initial-advertise-peer-urls", &peer_url),
            ("--initial-cluster", &members),
            ("--log-level", "warn"),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]);
        let program = Program::new(server_executable("etcd")?, arguments);
        let etcd = Etcd { process: Process::start(program, sandbox.log("etcd", false))?, address };
        etcd.ready().await?;
        Ok(etcd)
    }

    /// Waits until it serves a linearizable read.
    ///
    /// # Errors
    /// If it does not by the deadline.
    pub async fn ready(&self) -> Result<()> {
        eventually("etcd to serve a read", START_DEADLINE, async || {
            let mut client = etcd_client::Client::connect([self.url()], None).await?;
            client.get("ready", None).await?;
            Ok(Some(()))
        })
        .await
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The process, to kill or restart it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::scenario;

    #[test]
    fn servers_keep_their_data_over_a_kill() {
        scenario("servers", async |sandbox| {
            let mut nats = Nats::start(sandbox).await?;
            nats.create_stream("A", &["a.>"]).await?;
            nats.jetstream().await?.publish("a.b", "x".into()).await?.await?;
            nats.process().restart()?;
            nats.ready().await?;
            assert_eq!(nats.last_sequence("A").await?, 1);

            let mut etcd = Etcd::start(sandbox).await?;
            etcd_client::Client::connect([etcd.url()], None).await?.put("key", "value", None).await?;
            etcd.process().restart()?;
            etcd.ready().await?;
            let answer = etcd_client::Client::connect([etcd.url()], None).await?.get("key", None).await?;
            assert_eq!(answer.kvs()[0].value(), b"value");
            Ok(())
        });
    }
}
