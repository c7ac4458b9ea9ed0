//! `make cluster` as a program drives it: compute nodes come, go and are killed while messages flow, and at the end of its
//! standard input everything ends.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use weir_e2e::publish::publish_in_background;
use weir_e2e::sandbox::scenario;
use weir_e2e::sql::Sql;
use weir_e2e::wait::eventually;
use weir_e2e::workload::Events;

use crate::support::{SOON, compare_events, create_events, wait_for};

/// Messages in all, and a second: enough for them to flow while all is done that this test does.
const TOTAL: u64 = 60_000;
const RATE: u64 = 3_000;
/// What the greeting has before the address of nats-server, and before the frontend's port.
const NATS: &str = "nats-server with JetStream runs at ";
const PSQL: &str = "psql -h 127.0.0.1 -p ";

/// The running program. When it goes, it is told to end, and waited for: killed, it would leave its processes behind.
struct Running {
    child: Child,
    control: PathBuf,
    nats: String,
    sql: SocketAddr,
}

impl Running {
    fn start(control: &Path) -> Result<Running> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
        let command = command.arg("--control").arg(control).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().context("the cluster can be run")?;
        let mut running =
            Running { child, control: control.to_owned(), nats: String::new(), sql: ([127, 0, 0, 1], 0).into() };
        let output = running.child.stdout.take().context("its output is a pipe")?;
        let (sender, lines) = mpsc::channel();
        // Reads on to the end, so that the program never waits for its output to be read.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        while running.sql.port() == 0 {
            let line = lines.recv_timeout(2 * SOON).context("the cluster has not greeted")?;
            let after = |text: &str| Some(line.split_once(text)?.1.split([' ', ',']).next()?.to_owned());
            if let Some(nats) = after(NATS) {
                running.nats = nats;
            }
            if let Some(port) = after(PSQL) {
                running.sql.set_port(port.parse()?);
            }
        }
        Ok(running)
    }

    /// Runs a command, as the targets of the Makefile do; whether it succeeded, and what it printed.
    fn ask(&self, words: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
        let output = command.args(words).arg("--control").arg(&self.control).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// Runs a command that has to succeed.
    fn done(&self, words: &[&str]) -> Result<String> {
        let (success, text) = self.ask(words)?;
        eprint!("{words:?}: {text}");
        ensure!(success, "{words:?}: {text}");
        Ok(text)
    }

    /// The ids of all processes that run.
    fn pids(&self) -> Result<Vec<u32>> {
        let status = self.done(&["status"])?;
        Ok(status.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect())
    }

    /// Ends its standard input and waits for its end.
    fn end(&mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the cluster ended with {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn a_cluster_in_one_command_stays_exact_while_its_nodes_come_go_and_die() {
    scenario("cluster-command", async |sandbox| {
        let mut cluster = Running::start(&sandbox.path().join("control"))?;
        let client = async_nats::connect(&cluster.nats).await?;
        let config = jetstream::stream::Config {
            name: "EVENTS".to_owned(),
            subjects: vec!["events.>".to_owned()],
            ..Default::default()
        };
        jetstream::new(client.clone()).create_stream(config).await?;
        let (mut sql, events) = (Sql::new(cluster.sql), Events::new("events", 5));
        sql.query(&create_events("events", &cluster.nats, "reader")).await?;
        let publishing = publish_in_background(client, events.clone(), 0..TOTAL, RATE);
        let at_least = "SELECT count(*) > 2000 FROM events";
        eventually("the first rows", SOON, async || {
            Ok((sql.query(at_least).await?.rows[0][0].as_deref() == Some("t")).then_some(()))
        })
        .await?;

        ensure!(cluster.done(&["add"])?.contains("compute-2 has joined"));
        cluster.done(&["remove", "compute-0"])?;
        cluster.done(&["kill", "compute-1"])?;
        let status = cluster.done(&["status"])?;
        ensure!(!status.contains("compute-0"), "a node that was removed is listed: {status}");
        let killed = status.lines().find(|line| line.starts_with("compute-1")).context("a killed node is listed")?;
        ensure!(killed.ends_with("does not run"), "{killed}");
        cluster.done(&["start", "compute-1"])?;
        for name in ["meta-0", "frontend", "nats-server", "etcd"] {
            cluster.done(&["kill", name])?;
            cluster.done(&["start", name])?;
        }
        for (words, complaint) in [
            (&["remove", "compute-0"][..], "no compute node \"compute-0\""),
            (&["kill", "nobody"], "there are nats-server, etcd, meta-0, compute-1, compute-2, frontend"),
            (&["start", "compute-1"], "runs already"),
        ] {
            let (success, text) = cluster.ask(words)?;
            ensure!(!success && text.contains(complaint), "{words:?}: {text}");
        }

        publishing.await??;
        compare_events(&mut sql, "events", &events, TOTAL).await?;
        cluster.done(&["remove", "compute-1"])?;
        wait_for(&mut sql, "SELECT count(*) FROM events", TOTAL, SOON).await?;
        let (success, text) = cluster.ask(&["remove", "compute-2"])?;
        ensure!(!success && text.contains("the last compute node"), "{text}");

        let pids = cluster.pids()?;
        ensure!(pids.len() == 5, "five processes run: {pids:?}");
        cluster.end()?;
        let left = pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect::<Vec<_>>();
        ensure!(left.is_empty(), "processes {left:?} outlive the cluster");
        let (success, text) = cluster.ask(&["status"])?;
        ensure!(!success && text.contains("no cluster runs"), "{text}");
        Ok(())
    });
}
