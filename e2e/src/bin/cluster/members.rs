//! The processes of the running cluster, by name, and what can be done to them.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_e2e::process::Process;
use weir_e2e::sandbox::Sandbox;
use weir_e2e::servers::Nats;
use weir_e2e::weir::{Cluster, Weir};

use crate::control::Request;

/// Compute nodes to begin with.
const COMPUTES: usize = 2;
/// Slots of each.
const PARALLELISM: usize = 2;
/// How long a compute node may take to hand its share over.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// The names of the servers of others.
const NATS: &str = "nats-server";
const ETCD: &str = "etcd";

/// Every process of a running cluster. They end with it.
pub(crate) struct Members<'a> {
    sandbox: &'a Sandbox,
    cluster: Cluster,
    nats: Nats,
    /// The number of the next compute node: a name means one node, as long as the cluster runs.
    next_compute: usize,
}

impl Members<'_> {
    /// Starts all of them and waits until they can do their work.
    pub(crate) async fn start(sandbox: &Sandbox) -> Result<Members<'_>> {
        let nats = Nats::start(sandbox).await?;
        let cluster = Cluster::start(sandbox, 1, COMPUTES).await?;
        Ok(Members { sandbox, cluster, nats, next_compute: COMPUTES })
    }

    /// What a user has to know of the running cluster.
    pub(crate) fn greeting(&self) -> String {
        let sql = self.cluster.frontend.sql_address();
        let (nats, folder) = (self.nats.address(), self.sandbox.path().display());
        format!(
            "* nats-server with JetStream runs at {nats}, which is also what tables name as their server_url\n\
             * a meta node, {COMPUTES} compute nodes and a frontend run; connect from another terminal with\n\n    \
             psql -h {} -p {} -U root -d dev\n\n\
             * logs are in {folder}/logs, data beside them until the cluster ends\n\
             * make cluster-status lists the processes, make cluster-add adds a compute node,\n  \
             make cluster-remove NODE=compute-1 removes one, make cluster-kill NODE=… kills any process,\n  \
             make cluster-start NODE=… starts it again\n\
             * Ctrl-C ends it all",
            sql.ip(),
            sql.port()
        )
    }

    /// Does what is asked; the answer is for a person.
    pub(crate) async fn perform(&mut self, request: Request) -> Result<String> {
        match request {
            Request::Add => self.add().await,
            Request::Remove { node } => self.remove(&node).await,
            Request::Kill { node } => {
                let process = self.process(&node)?;
                ensure!(process.is_running()?, "{node} does not run");
                process.kill9()?;
                Ok(format!("{node} is killed; make cluster-start NODE={node} starts it again"))
            }
            Request::Start { node } => self.start_again(&node).await,
            Request::Status => self.status().await,
        }
    }

    async fn add(&mut self) -> Result<String> {
        let name = format!("compute-{}", self.next_compute);
        self.next_compute += 1;
        let mut node = Weir::compute(self.sandbox, &name, PARALLELISM, &self.cluster.shared)?;
        let ready = node.ready().await;
        // Listed even if it is not ready yet, so that it can be looked at and killed.
        self.cluster.computes.push(node);
        ready?;
        Ok(format!("{name} has joined"))
    }

    async fn remove(&mut self, name: &str) -> Result<String> {
        let index = self.cluster.computes.iter().position(|node| node.name() == name);
        let index = index.with_context(|| format!("there is no compute node \"{name}\"; {}", self.names()))?;
        let mut others = 0;
        for (other, node) in self.cluster.computes.iter_mut().enumerate() {
            others += usize::from(other != index && node.process().is_running()?);
        }
        let process = self.cluster.computes[index].process();
        if process.is_running()? {
            ensure!(others > 0, "{name} is the last compute node that runs: nobody could take its share over");
            let status = process.terminate(DRAIN_DEADLINE).await?;
            ensure!(status.success(), "{name} ended with {status}; its log says why");
        }
        self.cluster.computes.remove(index);
        Ok(format!("{name} has handed its share over and ended"))
    }

    async fn start_again(&mut self, name: &str) -> Result<String> {
        let process = self.process(name)?;
        ensure!(!process.is_running()?, "{name} runs already");
        process.restart()?;
        match name {
            NATS => self.nats.ready().await?,
            ETCD => self.cluster.etcd.ready().await?,
            _ => {
                let node = self.nodes().find(|node| node.name() == name);
                node.context("it was found above")?.ready().await?;
            }
        }
        Ok(format!("{name} runs again"))
    }

    /// A line for each process.
    async fn status(&mut self) -> Result<String> {
        let mut text = format!("{:<12} {:>8}  {:<15}  {}\n", "NODE", "PID", "ADDRESS", "STATE");
        let mut line = |name: &str, pid: Option<u32>, address: &str, state: &str| {
            let pid = pid.map(|pid| pid.to_string()).unwrap_or_default();
            writeln!(text, "{name:<12} {pid:>8}  {address:<15}  {state}")
                .expect("a string takes what is written to it");
        };
        let (nats, etcd) = (self.nats.address(), self.cluster.etcd.url());
        for (name, address) in [(NATS, nats.as_str()), (ETCD, etcd.trim_start_matches("http://"))] {
            let pid = running(self.process(name)?)?;
            line(name, pid, address, pid.map_or("does not run", |_| "runs"));
        }
        for node in self.nodes() {
            let pid = running(node.process())?;
            let state = match (pid, node.readiness().await) {
                (None, _) => "does not run".to_owned(),
                (Some(_), Ok(())) => "ready".to_owned(),
                (Some(_), Err(error)) => format!("not ready: {error:#}"),
            };
            line(node.name(), pid, &node.sql_address().to_string(), &state);
        }
        Ok(text)
    }

    fn nodes(&mut self) -> impl Iterator<Item = &mut Weir> {
        let Cluster { metas, computes, frontend, .. } = &mut self.cluster;
        metas.iter_mut().chain(computes).chain([frontend])
    }

    fn process(&mut self, name: &str) -> Result<&mut Process> {
        let unknown = format!("there is no process \"{name}\"; {}", self.names());
        match name {
            NATS => Ok(self.nats.process()),
            ETCD => Ok(self.cluster.etcd.process()),
            _ => self.nodes().find(|node| node.name() == name).map(Weir::process).context(unknown),
        }
    }

    fn names(&self) -> String {
        let Cluster { metas, computes, frontend, .. } = &self.cluster;
        let nodes = metas.iter().chain(computes).chain([frontend]).map(Weir::name);
        format!("there are {}", [NATS, ETCD].into_iter().chain(nodes).collect::<Vec<_>>().join(", "))
    }
}

/// The id of a process, if it runs.
fn running(process: &mut Process) -> Result<Option<u32>> {
    Ok(if process.is_running()? { Some(process.pid()?) } else { None })
}
