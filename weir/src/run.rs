//! A role from its listeners to its end.
//!
//! Owns listeners, the data directory of standalone, and the order in which things stop: who uses others stops first.
//! Does not own what a role does.
//!
//! Invariant: a role that is cancelled returns only after all that it started has ended, so exit status 0 means that
//! nothing was cut off.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};
use weir_common::http::{self, Readiness};
use weir_compute::Compute;
use weir_frontend::Server as Frontend;
use weir_meta::store::election::LEASE_TTL;
use weir_meta::store::embedded::EmbeddedStore;
use weir_meta::store::etcd::EtcdStore;
use weir_meta::{GARBAGE_INTERVAL, Meta};
use weir_sql::views::ViewCompiler;

use crate::config::{self, Address, Role};

/// The name that a standalone node gives its cluster. No cluster has it by default: what one does not know in a place that
/// is its own, it deletes.
const STANDALONE_CLUSTER: &str = "standalone";

/// A role could not start, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Other machines would reach a listener that lets everybody in.
    #[error(
        "refusing to listen on {0}, which is not a loopback address: nobody is authenticated and nothing is encrypted; \
         --insecure (WEIR_INSECURE=true) allows it inside a trusted network"
    )]
    Exposed(String),
    /// The machine does not say its own name, which `{hostname}` stands for.
    #[error("cannot find out the name of this machine, for --advertise")]
    OwnName(#[source] std::io::Error),
    /// Others could not connect to the address.
    #[error("a node that listens on {0} has to be told with --advertise how others reach it")]
    Advertise(String),
    /// The data directory cannot be used.
    #[error("cannot use data directory \"{}\"", path.display())]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The metadata store cannot be opened.
    #[error("metadata store failed")]
    Store(#[from] weir_meta::store::Error),
    /// The meta node failed.
    #[error("meta node failed")]
    Meta(#[from] weir_meta::Error),
    /// The compute node failed.
    #[error("compute node failed")]
    Compute(#[from] weir_compute::Error),
    /// Views cannot be compiled.
    #[error("the compiler of views cannot start")]
    Compiler(#[from] weir_sql::Error),
    /// The frontend failed.
    #[error("frontend failed")]
    Frontend(#[from] weir_frontend::Error),
    /// The HTTP listener failed.
    #[error("HTTP listener failed")]
    Http(#[source] std::io::Error),
    /// A part of a standalone node panicked.
    #[error("{part} panicked")]
    Panicked {
        /// Which one.
        part: &'static str,
        /// What is known of it.
        source: tokio::task::JoinError,
    },
}

/// Runs a role until it is cancelled and has stopped in order, or has failed.
///
/// # Errors
/// If the role cannot start, or fails.
pub async fn run(role: Role, cancel: CancellationToken) -> Result<(), Error> {
    info!(role = role.name(), version = env!("CARGO_PKG_VERSION"), "starting");
    if role.process().insecure {
        warn!("--insecure is set: whoever reaches a port of this node is let in, and nothing is encrypted");
    }
    match role {
        Role::Standalone(config) => standalone(config, cancel).await,
        Role::Meta(config) => meta(config, cancel).await,
        Role::Compute(config) => compute(config, cancel).await,
        Role::Frontend(config) => frontend(config, cancel).await,
    }?;
    info!("stopped");
    Ok(())
}

async fn meta(config: config::Meta, cancel: CancellationToken) -> Result<(), Error> {
    let (listener, address) = bind(&config.listen, config.process.insecure).await?;
    let (http_listener, http) = bind(&config.process.http_listen, config.process.insecure).await?;
    let advertise = advertised(config.advertise, address)?;
    let store = EtcdStore::open(&config.etcd_endpoints).await?;
    let node = Meta::new(
        weir_meta::Config {
            advertise: advertise.clone(),
            cluster: config.cluster.cluster,
            state_url: config.cluster.state_url,
            barrier_interval: Duration::from_millis(config.barriers.barrier_interval_ms),
            lease_ttl: Duration::from_millis(config.lease_ttl_ms),
            garbage_interval: Duration::from_millis(config.garbage_interval_ms),
        },
        Arc::new(store),
    );
    info!(advertise, %http, "meta node listens");
    let ready = node.readiness();
    with_http(http_listener, ready, Box::pin(async { Ok(node.run(listener, cancel).await?) })).await
}

async fn compute(config: config::Compute, cancel: CancellationToken) -> Result<(), Error> {
    let (listener, address) = bind(&config.listen, config.process.insecure).await?;
    let (http_listener, http) = bind(&config.process.http_listen, config.process.insecure).await?;
    let advertise = advertised(config.advertise, address)?;
    let node = Compute::new(weir_compute::Config {
        advertise: advertise.clone(),
        meta_addrs: texts(&config.meta.meta_addr),
        state_url: config.cluster.state_url,
        cluster: config.cluster.cluster,
        parallelism: usize::from(config.capacity.parallelism),
        state_memory_bytes: config.capacity.state_memory_bytes,
        compiler: Arc::new(ViewCompiler::new()?),
    });
    info!(advertise, %http, "compute node listens");
    let ready = node.readiness();
    with_http(http_listener, ready, Box::pin(async { Ok(node.run(listener, cancel).await?) })).await
}

async fn frontend(config: config::Frontend, cancel: CancellationToken) -> Result<(), Error> {
    let (listener, sql) = bind(&config.sql.sql_listen, config.process.insecure).await?;
    let (http_listener, http) = bind(&config.process.http_listen, config.process.insecure).await?;
    let node = Frontend::new(frontend_config(config.sql, texts(&config.meta.meta_addr)))?;
    info!(%sql, %http, "frontend listens");
    let ready = node.readiness();
    with_http(http_listener, ready, Box::pin(async { Ok(node.run(listener, cancel).await?) })).await
}

/// All three in one process: they talk over loopback just as nodes of a cluster do.
async fn standalone(config: config::Standalone, cancel: CancellationToken) -> Result<(), Error> {
    let directory = data_directory(&config.data_dir)?;
    let state_url = format!("file://{}", directory.join("state").display());
    let (sql_listener, sql) = bind(&config.sql.sql_listen, config.process.insecure).await?;
    let (http_listener, http) = bind(&config.process.http_listen, config.process.insecure).await?;
    let (meta_listener, meta_address) = bind(&Address::loopback(), false).await?;
    let (compute_listener, compute_address) = bind(&Address::loopback(), false).await?;
    let meta_addrs = vec![meta_address.to_string()];
    let store = EmbeddedStore::open(directory.join("meta.redb")).await?;

    let meta = Meta::new(
        weir_meta::Config {
            advertise: meta_address.to_string(),
            cluster: STANDALONE_CLUSTER.to_owned(),
            state_url: state_url.clone(),
            barrier_interval: Duration::from_millis(config.barriers.barrier_interval_ms),
            lease_ttl: LEASE_TTL,
            garbage_interval: GARBAGE_INTERVAL,
        },
        Arc::new(store),
    );
    let compute = Compute::new(weir_compute::Config {
        advertise: compute_address.to_string(),
        meta_addrs: meta_addrs.clone(),
        state_url,
        cluster: STANDALONE_CLUSTER.to_owned(),
        parallelism: usize::from(config.capacity.parallelism),
        state_memory_bytes: config.capacity.state_memory_bytes,
        compiler: Arc::new(ViewCompiler::new()?),
    });
    let frontend = Frontend::new(frontend_config(config.sql, meta_addrs))?;
    let readiness = all_ready(vec![meta.readiness(), compute.readiness(), frontend.readiness()]);
    info!(data = %directory.display(), %sql, %http, "standalone node listens");

    // The end of any part, which can only be a failure, ends all.
    let ended = CancellationToken::new();
    let meta = Part::start("meta", &ended, |stop| async { Ok(meta.run(meta_listener, stop).await?) });
    let compute = Part::start("compute", &ended, |stop| async { Ok(compute.run(compute_listener, stop).await?) });
    let frontend = Part::start("frontend", &ended, |stop| async { Ok(frontend.run(sql_listener, stop).await?) });
    let parts = async {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = ended.cancelled() => {}
        }
        // A compute node that leaves needs meta, a statement that ends needs both.
        let (frontend, compute, meta) = (frontend.stop().await, compute.stop().await, meta.stop().await);
        meta.and(compute).and(frontend)
    };
    with_http(http_listener, readiness, parts).await
}

/// A role as a task of a standalone node. Joined by `stop`.
struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Part {
    fn start<F: Future<Output = Result<(), Error>> + Send + 'static>(
        name: &'static str,
        ended: &CancellationToken,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Part {
        let stop = CancellationToken::new();
        let work = work(stop.clone());
        // On every way out, a panic included.
        let ended = ended.clone().drop_guard();
        let task = async move {
            let _ended = ended;
            work.await
        };
        Part { name, stop, task: tokio::spawn(task.instrument(info_span!("role", name))) }
    }

    async fn stop(self) -> Result<(), Error> {
        self.stop.cancel();
        self.task.await.unwrap_or_else(|source| Err(Error::Panicked { part: self.name, source }))
    }
}

/// Does a role's work with its HTTP listener beside it, which answers as long as the work lasts, its end included.
async fn with_http(
    listener: TcpListener,
    readiness: Readiness,
    work: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    tokio::select! {
        done = work => done,
        served = http::serve(listener, readiness, CancellationToken::new()) => served.map_err(Error::Http),
    }
}

/// Ready when all are; else the first reason why not.
fn all_ready(parts: Vec<Readiness>) -> Readiness {
    Arc::new(move || parts.iter().try_for_each(|ready| ready()))
}

/// Listens, and says where: port 0 has become a real one. Unless `insecure`, only on loopback: the
/// address is judged after names are resolved, and nothing is accepted before.
async fn bind(address: &Address, insecure: bool) -> Result<(TcpListener, Address), Error> {
    let cannot_bind = |source| Error::Bind { address: address.to_string(), source };
    let listener = TcpListener::bind(address.to_string()).await.map_err(cannot_bind)?;
    let bound = listener.local_addr().map_err(cannot_bind)?;
    if !insecure && !bound.ip().is_loopback() {
        return Err(Error::Exposed(address.to_string()));
    }
    Ok((listener, address.with_port(bound.port())))
}

fn frontend_config(sql: config::Sql, meta_addrs: Vec<String>) -> weir_frontend::Config {
    let config::Sql { sql_listen: _, connections_max, memory_limit_bytes, retry_ms_max } = sql;
    weir_frontend::Config { meta_addrs, retry_ms_max, memory_limit_bytes, connections_max }
}

/// What other nodes are told to connect to.
fn advertised(configured: Option<Address>, listening: Address) -> Result<String, Error> {
    match configured {
        Some(address) => Ok(address.named(own_name)?.to_string()),
        None if listening.is_wildcard() => Err(Error::Advertise(listening.to_string())),
        None => Ok(listening.to_string()),
    }
}

/// The name that the machine has for itself, which in a container is that of the container.
fn own_name() -> Result<String, Error> {
    let name = hostname::get().map_err(Error::OwnName)?;
    name.into_string().map_err(|name| Error::OwnName(std::io::Error::other(format!("{} is no text", name.display()))))
}

/// Creates the directory if need be; its absolute path.
fn data_directory(path: &Path) -> Result<PathBuf, Error> {
    let usable = std::fs::create_dir_all(path).and_then(|()| path.canonicalize());
    usable.map_err(|source| Error::DataDirectory { path: path.to_owned(), source })
}

fn texts(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
