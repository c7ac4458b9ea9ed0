//! The settings of a frontend.

use std::time::Duration;

/// The configuration of a frontend. Every field has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The meta nodes, each `host:port`, in no particular order. Default: `127.0.0.1:5690`.
    pub meta_addrs: Vec<String>,
    /// The time for which a statement is retried when a node is out of reach or a term ends, as
    /// long as it has sent no rows. Default: 30,000.
    pub retry_ms_max: u64,
    /// The memory that all running statements together may use for sorting, grouping, joining and
    /// window functions. A statement that needs more than is free is refused; nothing is spilled to
    /// disk. Default: 1 GiB.
    pub memory_limit_bytes: usize,
    /// Connections beyond this number are refused. Default: 1,000.
    pub connections_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            meta_addrs: vec!["127.0.0.1:5690".to_owned()],
            retry_ms_max: 30_000,
            memory_limit_bytes: 1 << 30,
            connections_max: 1_000,
        }
    }
}

impl Config {
    /// See [`Config::retry_ms_max`].
    pub fn retry_max(&self) -> Duration {
        Duration::from_millis(self.retry_ms_max)
    }
}
