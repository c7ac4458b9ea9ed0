//! What can be set, once: every field of a role is a flag, an environment variable and a key of the file.
//!
//! The field `sql_listen` is the flag `--sql-listen`, the variable `WEIR_SQL_LISTEN` and the key `sql_listen` in the
//! file's table of the role. A flag wins over the variable, the variable over the file, the file over the default that
//! stands beside the field. The rule is in `sources`, so that a field is written down nowhere but here.
//!
//! Owns no meaning: values are handed to the roles as they are.

mod address;
mod error;
mod sources;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

pub use address::Address;
pub use error::Error;
pub use sources::load;

/// The groups of the help.
mod heading {
    pub(super) const ADDRESSES: &str = "Addresses";
    pub(super) const STORAGE: &str = "Cluster and storage";
    pub(super) const LIMITS: &str = "Timing and limits";
}

const AFTER_HELP: &str = "\
Each option of a role is also an environment variable, and a key of that role's table in the file
given with --config: --sql-listen is WEIR_SQL_LISTEN and sql_listen. A flag wins over the variable,
the variable over the file. WEIR_LOG sets what is logged to standard error (`info`,
`weir_meta=debug,info`, …), WEIR_LOG_FORMAT=json how.";

/// Streaming SQL over NATS JetStream.
#[derive(Debug, Parser)]
#[command(name = "weir", version, disable_help_subcommand = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

/// What the process is in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Role {
    /// Everything in one process, with data in a local directory
    Standalone(Standalone),
    /// A meta node: catalog, membership, barriers, commits; one leads, the others stand by
    Meta(Meta),
    /// A compute node: reads NATS, holds state, serves scans
    Compute(Compute),
    /// A frontend: speaks the Postgres protocol
    Frontend(Frontend),
}

/// How often one process commits: with nobody to wait for it can do so more often than a cluster.
const STANDALONE_BARRIER_INTERVAL_MS: &str = "200";

/// `weir standalone`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(mut_arg("barrier_interval_ms", |field| field.default_value(STANDALONE_BARRIER_INTERVAL_MS)))]
pub struct Standalone {
    /// The directory that holds all data; created if it does not exist
    #[arg(long, help_heading = heading::STORAGE, value_name = "DIR", default_value = "./weir-data")]
    pub data_dir: PathBuf,

    /// Where clients are served.
    #[command(flatten)]
    pub sql: Sql,

    /// When epochs end.
    #[command(flatten)]
    pub barriers: Barriers,

    /// The share of the machine.
    #[command(flatten)]
    pub capacity: Capacity,

    /// What every role has.
    #[command(flatten)]
    pub process: Process,
}

/// `weir meta`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Where gRPC is served
    #[arg(long, help_heading = heading::ADDRESSES, value_name = "ADDRESS", default_value = "127.0.0.1:5690")]
    pub listen: Address,

    /// The address under which other nodes reach this one; {hostname} in it is the machine's own name [default: that of --listen]
    #[arg(long, help_heading = heading::ADDRESSES, value_name = "ADDRESS")]
    pub advertise: Option<Address>,

    /// The members of the etcd cluster that holds the metadata
    #[arg(
        long,
        help_heading = heading::STORAGE,
        value_name = "URL,…",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379"
    )]
    pub etcd_endpoints: Vec<String>,

    /// What all nodes share.
    #[command(flatten)]
    pub cluster: Cluster,

    /// When epochs end.
    #[command(flatten)]
    pub barriers: Barriers,

    /// How long a meta leader or a node that vanished is waited for, in milliseconds
    #[arg(
        long,
        help_heading = heading::LIMITS,
        value_name = "N",
        default_value_t = 3_000,
        value_parser = clap::value_parser!(u64).range(1_000..=60_000)
    )]
    pub lease_ttl_ms: u64,

    /// How often state that nothing refers to any more is looked for and deleted, in milliseconds
    #[arg(
        long,
        help_heading = heading::LIMITS,
        value_name = "N",
        default_value_t = 60_000,
        value_parser = clap::value_parser!(u64).range(100..=86_400_000)
    )]
    pub garbage_interval_ms: u64,

    /// What every role has.
    #[command(flatten)]
    pub process: Process,
}

/// `weir compute`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Compute {
    /// Where gRPC is served
    #[arg(long, help_heading = heading::ADDRESSES, value_name = "ADDRESS", default_value = "127.0.0.1:5688")]
    pub listen: Address,

    /// The address under which other nodes reach this one; {hostname} in it is the machine's own name [default: that of --listen]
    #[arg(long, help_heading = heading::ADDRESSES, value_name = "ADDRESS")]
    pub advertise: Option<Address>,

    /// Where meta nodes are.
    #[command(flatten)]
    pub meta: MetaNodes,

    /// What all nodes share.
    #[command(flatten)]
    pub cluster: Cluster,

    /// The share of the machine.
    #[command(flatten)]
    pub capacity: Capacity,

    /// What every role has.
    #[command(flatten)]
    pub process: Process,
}

/// `weir frontend`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Where clients are served.
    #[command(flatten)]
    pub sql: Sql,

    /// Where meta nodes are.
    #[command(flatten)]
    pub meta: MetaNodes,

    /// What every role has.
    #[command(flatten)]
    pub process: Process,
}

/// Where clients are served, and how many.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Sql {
    /// Where the Postgres protocol is served
    #[arg(long, help_heading = heading::ADDRESSES, value_name = "ADDRESS", default_value = "127.0.0.1:4566")]
    pub sql_listen: Address,

    /// How many clients may be connected
    #[arg(
        long,
        help_heading = heading::LIMITS,
        value_name = "N",
        default_value_t = weir_frontend::Config::default().connections_max,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000)
    )]
    pub connections_max: usize,

    /// What running statements may hold in memory for sorting, grouping, joining and window functions, in bytes; one
    /// that needs more than is free is refused (docs/sql.md has all limits)
    #[arg(
        long,
        help_heading = heading::LIMITS,
        value_name = "N",
        default_value_t = weir_frontend::Config::default().memory_limit_bytes,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1 << 20..)
    )]
    pub memory_limit_bytes: usize,

    /// How long a statement that has sent no row yet is tried again when a node is lost, in milliseconds
    #[arg(
        long,
        help_heading = heading::LIMITS,
        value_name = "N",
        default_value_t = weir_frontend::Config::default().retry_ms_max,
        value_parser = clap::value_parser!(u64).range(0..=86_400_000)
    )]
    pub retry_ms_max: u64,
}

/// Where meta nodes are.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct MetaNodes {
    /// The meta nodes, in any order
    #[arg(
        long,
        help_heading = heading::ADDRESSES,
        value_name = "ADDRESS,…",
        value_delimiter = ',',
        default_value = "127.0.0.1:5690"
    )]
    pub meta_addr: Vec<Address>,
}

/// What all nodes of a cluster share.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The name of the cluster, part of all that it stores
    #[arg(
        long,
        help_heading = heading::STORAGE,
        value_name = "NAME",
        default_value = "weir",
        value_parser = cluster_name
    )]
    pub cluster: String,

    /// Where state is stored: file:///dir, s3://bucket/prefix or memory://; the same for all nodes
    #[arg(long, help_heading = heading::STORAGE, value_name = "URL", default_value_t = default_state_url())]
    pub state_url: String,
}

/// When epochs end.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Barriers {
    /// How often an epoch is committed when nobody asks for it, in milliseconds
    #[arg(
        long,
        help_heading = heading::LIMITS,
        value_name = "N",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(10..=60_000)
    )]
    pub barrier_interval_ms: u64,
}

/// The share of the machine that a compute node takes.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// How many slots are offered [default: one a core]
    #[arg(
        long,
        help_heading = heading::LIMITS,
        value_name = "N",
        default_value_t = cores(),
        hide_default_value = true,
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    pub parallelism: u16,
    /// How much of the state of aggregating views is kept in memory, in bytes; the rest is read
    /// from the store when it is needed
    #[arg(long, help_heading = heading::LIMITS, value_name = "N", default_value_t = 512 << 20)]
    pub state_memory_bytes: usize,
}

/// What every role has.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Where health (/health, /ready) and Prometheus metrics (/metrics) are served
    #[arg(long, help_heading = heading::ADDRESSES, value_name = "ADDRESS", default_value = "127.0.0.1:5691")]
    pub http_listen: Address,

    /// Where metrics and traces are exported to, by OTLP over gRPC, like http://127.0.0.1:4317 [default: nowhere, or where
    /// OTEL_EXPORTER_OTLP_ENDPOINT says]
    #[arg(long, help_heading = heading::ADDRESSES, value_name = "URL", value_parser = otlp_endpoint)]
    pub otlp_endpoint: Option<String>,

    /// Serve addresses that other machines reach, although nobody is authenticated and nothing is encrypted
    #[arg(
        long,
        help_heading = heading::ADDRESSES,
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value_t = false
    )]
    pub insecure: bool,

    /// A TOML file with a table for each role
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Role {
    /// The role's name on the command line and in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Role::Standalone(_) => "standalone",
            Role::Meta(_) => "meta",
            Role::Compute(_) => "compute",
            Role::Frontend(_) => "frontend",
        }
    }

    /// What every role has.
    pub(crate) fn process(&self) -> &Process {
        match self {
            Role::Standalone(Standalone { process, .. })
            | Role::Meta(Meta { process, .. })
            | Role::Compute(Compute { process, .. })
            | Role::Frontend(Frontend { process, .. }) => process,
        }
    }

    /// The file to be read, if one is named.
    fn file(&self) -> Option<&Path> {
        self.process().config.as_deref()
    }

    /// Where metrics and traces go: as configured, or else as the variable says that programs have in common.
    /// `environment` looks a variable up.
    ///
    /// # Errors
    /// If that variable holds no endpoint.
    pub fn otlp_endpoint(&self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Option<String>, Error> {
        if let Some(configured) = &self.process().otlp_endpoint {
            return Ok(Some(configured.clone()));
        }
        let value = environment(OTLP_ENDPOINT).filter(|value| !value.is_empty());
        let Some(value) = value.map(|value| value.to_string_lossy().into_owned()) else { return Ok(None) };
        match otlp_endpoint(&value) {
            Ok(endpoint) => Ok(Some(endpoint)),
            Err(reason) => Err(Error::Value {
                origin: format!("environment variable {OTLP_ENDPOINT}"),
                value,
                source: reason.into(),
            }),
        }
    }
}

/// One slot a core.
fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores).unwrap_or(u16::MAX).min(weir_common::ids::VNODES)
}

/// A directory beside the one where a standalone node has its data by default.
fn default_state_url() -> String {
    let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
    format!("file://{}", here.join("weir-state").display())
}

/// The variable that OpenTelemetry has for the endpoint.
const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// An address without TLS: that is a collector's business, which runs beside.
fn otlp_endpoint(url: &str) -> Result<String, &'static str> {
    let address = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').parse::<Address>());
    match address {
        Some(Ok(address)) => Ok(format!("http://{address}")),
        _ => {
            Err("an OTLP endpoint is written http://host:port, like http://127.0.0.1:4317; it is spoken to without TLS")
        }
    }
}

/// The name becomes part of keys and paths.
fn cluster_name(name: &str) -> Result<String, &'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !name.is_empty() && name.chars().all(fits) {
        true => Ok(name.to_owned()),
        false => Err("a cluster's name consists of letters, digits, - and _"),
    }
}
