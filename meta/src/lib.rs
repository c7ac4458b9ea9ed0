//! The life of a barrier: the meta node.
//!
//! In reading order:
//!
//! * [`store`]: the metadata store, in which the whole cluster agrees, and the election of a leader;
//! * [`keys`]: what lies under which key of it;
//! * [`coordinator`]: the leader's core: membership, terms, barriers, commits;
//! * [`control`]: the gRPC streams to compute nodes;
//! * [`service`]: what frontends ask: DDL, catalog, pins, flush;
//! * `writes`: the commits of statements that write, and the locks of tables;
//! * [`reign`]: one process's life as standby and leader, which holds all of this together.
//!
//! A meta node owns no data but metadata, and never talks to NATS except to look a source over when it is created.

pub mod keys;
pub mod store;

pub mod coordinator;

pub mod control;
pub mod reign;
pub mod service;

mod error;
mod metrics;
mod turns;
mod wire;
mod writes;

pub use error::Error;
pub use reign::{Config, GARBAGE_INTERVAL, Meta};
