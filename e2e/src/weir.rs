//! The roles of Weir as child processes, and a cluster of them.
//!
//! Owns the command lines. A role is ready when its HTTP listener says so; starting does not wait, since some roles
//! wait for others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::http;
use crate::process::{Process, Program, kill9_together, weir_executable};
use crate::sandbox::{Log, Sandbox, free_address};
use crate::servers::Etcd;
use crate::sql::Sql;
use crate::wait::{PATIENCE, eventually};

/// How long a role may take to be ready.
pub const READY_DEADLINE: Duration = PATIENCE;

/// The name of the cluster that is started here.
const CLUSTER: &str = "e2e";
/// How often clusters collect garbage: far more often than in production, so that it happens while nodes are killed.
const GARBAGE_INTERVAL_MS: u64 = 500;

/// One process of Weir, in any role.
pub struct Weir {
    name: String,
    process: Process,
    /// The address that others of the cluster reach it at; the SQL address of a frontend and of standalone.
    address: SocketAddr,
    http: SocketAddr,
}

/// Where state goes.
#[derive(Clone, Debug)]
pub struct State {
    /// `file://…` or `s3://…`.
    pub url: String,
    /// What the environment has to say of it: credentials, for instance.
    pub environment: Vec<(String, String)>,
}

impl State {
    /// A folder of the sandbox.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn local(sandbox: &Sandbox) -> Result<State> {
        Ok(State { url: format!("file://{}", sandbox.folder("state")?.display()), environment: Vec::new() })
    }
}

/// What the members of a cluster have in common.
pub struct Shared {
    /// Where etcd is.
    pub etcd_url: String,
    /// Where state goes.
    pub state: State,
    /// Where meta nodes listen.
    pub meta_addresses: Vec<SocketAddr>,
    /// What is added to the environment of every node.
    pub environment: Vec<(String, String)>,
}

impl Weir {
    /// All roles in one process, with its data in the sandbox.
    ///
    /// # Errors
    /// If the executable is missing or cannot be run.
    pub fn standalone(sandbox: &Sandbox) -> Result<Weir> {
        Weir::standalone_with(sandbox, &[])
    }

    /// As [`Weir::standalone`], with more flags.
    ///
    /// # Errors
    /// If the executable is missing or cannot be run.
    pub fn standalone_with(sandbox: &Sandbox, more: &[(&'static str, &str)]) -> Result<Weir> {
        let data = sandbox.folder("data")?.display().to_string();
        Weir::start(sandbox, "standalone", &[], |address, http| {
            let mut arguments = vec![
                ("standalone", String::new()),
                ("--data-dir", data),
                ("--sql-listen", address.to_string()),
                ("--http-listen", http.to_string()),
            ];
            arguments.extend(more.iter().map(|(flag, value)| (*flag, (*value).to_owned())));
            arguments
        })
    }

    /// A meta node at an address that the others know already.
    ///
    /// # Errors
    /// If the executable is missing or cannot be run.
    pub fn meta(sandbox: &Sandbox, name: &str, listen: SocketAddr, shared: &Shared) -> Result<Weir> {
        let mut weir = Weir::start(sandbox, name, &shared.stateful(), |_, http| {
            vec![
                ("meta", String::new()),
                ("--listen", listen.to_string()),
                ("--advertise", listen.to_string()),
                ("--http-listen", http.to_string()),
                ("--etcd-endpoints", shared.etcd_url.clone()),
                ("--state-url", shared.state.url.clone()),
                ("--cluster", CLUSTER.to_owned()),
                ("--garbage-interval-ms", GARBAGE_INTERVAL_MS.to_string()),
            ]
        })?;
        weir.address = listen;
        Ok(weir)
    }

    /// A compute node with so many slots.
    ///
    /// # Errors
    /// If the executable is missing or cannot be run.
    pub fn compute(sandbox: &Sandbox, name: &str, parallelism: usize, shared: &Shared) -> Result<Weir> {
        Weir::start(sandbox, name, &shared.stateful(), |address, http| {
            vec![
                ("compute", String::new()),
                ("--listen", address.to_string()),
                ("--advertise", address.to_string()),
                ("--http-listen", http.to_string()),
                ("--meta-addr", shared.meta_list()),
                ("--state-url", shared.state.url.clone()),
                ("--cluster", CLUSTER.to_owned()),
                ("--parallelism", parallelism.to_string()),
            ]
        })
    }

    /// A frontend.
    ///
    /// # Errors
    /// If the executable is missing or cannot be run.
    pub fn frontend(sandbox: &Sandbox, name: &str, shared: &Shared) -> Result<Weir> {
        Weir::start(sandbox, name, &shared.environment, |address, http| {
            vec![
                ("frontend", String::new()),
                ("--sql-listen", address.to_string()),
                ("--http-listen", http.to_string()),
                ("--meta-addr", shared.meta_list()),
            ]
        })
    }

    fn start(
        sandbox: &Sandbox,
        name: &str,
        environment: &[(String, String)],
        arguments: impl FnOnce(SocketAddr, SocketAddr) -> Vec<(&'static str, String)>,
    ) -> Result<Weir> {
        let (address, http) = (free_address(), free_address());
        let arguments = arguments(address, http)
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .filter(|argument| !argument.is_empty());
        let mut program = Program::new(weir_executable()?, arguments);
        program.environment = environment.to_vec();
        let process = Process::start(program, sandbox.log(name, true))?;
        Ok(Weir { name: name.to_owned(), process, address, http })
    }

    /// The name under which it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process, to kill it, restart it or read its processor time.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its log.
    pub fn log(&self) -> Arc<Log> {
        Arc::clone(self.process.log())
    }

    /// Announces WARN and ERROR lines of this process, see [`crate::sandbox::Log::expect_warnings`].
    pub fn expect_warnings(&self, patterns: &[&str]) {
        self.process.log().expect_warnings(patterns);
    }

    /// Where SQL is served, by a frontend and by standalone.
    pub fn sql_address(&self) -> SocketAddr {
        self.address
    }

    /// A client, not connected yet.
    pub fn sql(&self) -> Sql {
        Sql::new(self.address)
    }

    /// Waits until the role says that it can do its work.
    ///
    /// # Errors
    /// If it does not by the deadline, or the process has ended.
    pub async fn ready(&mut self) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        eventually(&what, READY_DEADLINE, async || {
            ensure!(self.process.is_running()?, "the process has ended");
            self.readiness().await.map(Some)
        })
        .await
    }

    /// Whether the role says now that it can do its work.
    ///
    /// # Errors
    /// If it does not, with its reason.
    pub async fn readiness(&self) -> Result<()> {
        let (status, body) = http::request(self.http, "GET", "/ready").await?;
        ensure!(status == 200, "{body} ({status})");
        Ok(())
    }

    /// The value of a metric, summed over its labels; zero if it is not there yet.
    ///
    /// # Errors
    /// If the HTTP listener does not answer.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = http::request(self.http, "GET", "/metrics").await?;
        let samples = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let series = series.split('{').next()?;
            (series == name).then(|| value.parse::<f64>().ok())?
        });
        Ok(samples.sum())
    }

    /// The names and values of all metrics, as the HTTP listener prints them.
    ///
    /// # Errors
    /// If the HTTP listener does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(http::request(self.http, "GET", "/metrics").await?.1)
    }
}

impl Shared {
    /// The environment of nodes that know where state is.
    fn stateful(&self) -> Vec<(String, String)> {
        [self.environment.clone(), self.state.environment.clone()].concat()
    }

    /// The addresses as a command line wants them.
    fn meta_list(&self) -> String {
        self.meta_addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }
}

/// etcd, meta nodes, compute nodes, a frontend: every process of its own.
pub struct Cluster {
    /// What they have in common.
    pub shared: Shared,
    /// The frontend.
    pub frontend: Weir,
    /// The compute nodes.
    pub computes: Vec<Weir>,
    /// The meta nodes.
    pub metas: Vec<Weir>,
    /// Where the metadata is.
    pub etcd: Etcd,
}

/// A node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The meta node of that index.
    Meta(usize),
    /// The compute node of that index.
    Compute(usize),
    /// The frontend.
    Frontend,
}

impl Cluster {
    /// Starts everything and waits until all of it is ready.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn start(sandbox: &Sandbox, metas: usize, computes: usize) -> Result<Cluster> {
        Cluster::start_on(State::local(sandbox)?, sandbox, metas, computes).await
    }

    /// As [`Cluster::start`], with its state somewhere else than in the sandbox.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn start_on(state: State, sandbox: &Sandbox, metas: usize, computes: usize) -> Result<Cluster> {
        Cluster::start_with(state, Vec::new(), sandbox, metas, computes).await
    }

    /// As [`Cluster::start_on`], with more in the environment of every node.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn start_with(
        state: State,
        environment: Vec<(String, String)>,
        sandbox: &Sandbox,
        metas: usize,
        computes: usize,
    ) -> Result<Cluster> {
        let etcd = Etcd::start(sandbox).await?;
        let meta_addresses = (0..metas).map(|_| free_address()).collect();
        let shared = Shared { etcd_url: etcd.url(), state, meta_addresses, environment };
        let metas = shared.meta_addresses.iter().enumerate();
        let metas = metas.map(|(i, &address)| Weir::meta(sandbox, &format!("meta-{i}"), address, &shared));
        let metas = metas.collect::<Result<Vec<_>>>()?;
        let computes = (0..computes).map(|i| Weir::compute(sandbox, &format!("compute-{i}"), 2, &shared));
        let computes = computes.collect::<Result<Vec<_>>>()?;
        let frontend = Weir::frontend(sandbox, "frontend", &shared)?;
        let mut cluster = Cluster { shared, frontend, computes, metas, etcd };
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Waits until every compute node and the frontend say that they can do their work. A meta node that stands by
    /// need not be ready.
    ///
    /// # Errors
    /// If one does not by its deadline.
    pub async fn ready(&mut self) -> Result<()> {
        for compute in &mut self.computes {
            compute.ready().await?;
        }
        self.frontend.ready().await
    }

    /// The process of a node.
    ///
    /// # Panics
    /// If there are not so many nodes.
    pub fn node(&mut self, node: Node) -> &mut Weir {
        match node {
            Node::Meta(index) => &mut self.metas[index],
            Node::Compute(index) => &mut self.computes[index],
            Node::Frontend => &mut self.frontend,
        }
    }

    /// The meta node that leads now.
    ///
    /// # Errors
    /// If none does by the deadline.
    pub async fn leader(&self) -> Result<usize> {
        eventually("a meta node to lead", READY_DEADLINE, async || {
            for (index, meta) in self.metas.iter().enumerate() {
                // One that is down does not lead.
                if meta.metric("weir_leader").await.is_ok_and(|leads| leads == 1.0) {
                    return Ok(Some(index));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Announces WARN and ERROR lines of every node.
    pub fn expect_warnings(&self, patterns: &[&str]) {
        let nodes = self.metas.iter().chain(&self.computes).chain([&self.frontend]);
        nodes.for_each(|node| node.expect_warnings(patterns));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let nodes = self.metas.iter_mut().chain(&mut self.computes).chain([&mut self.frontend]);
        kill9_together(nodes.map(Weir::process));
    }
}
