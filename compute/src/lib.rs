//! The life of a record: the compute node.
//!
//! In reading order:
//!
//! * [`control`]: meta tells the node what to run; a pure core decides what follows;
//! * [`ingest`]: a message becomes a row, or a dead letter;
//! * `dataflow`: actors read and decode rows; fragments and edges carry changes and barriers to
//!   slots;
//! * [`storage`]: a slot writes rows into its database, and seals an epoch once every actor that
//!   writes to it has delivered the barrier;
//! * `serve`: frontends read the rows of committed epochs;
//! * `node`: the control loop, which joins the cluster and runs all of the above.
//!
//! Rooms import each other one way: `node → serve → dataflow → ingest → storage → control`.
//! `metrics` and `error` stand beside them.
//!
//! A compute node keeps no durable state on its own disk: messages that it has not reported durable
//! are read again from NATS.

pub mod control;

pub mod ingest;

mod dataflow;

pub mod storage;

mod serve;

mod node;

mod error;
mod metrics;

pub use error::Error;
pub use node::task::{Compute, Config};
