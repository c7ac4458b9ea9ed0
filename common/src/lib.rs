//! The vocabulary that all nodes of a Weir cluster share.
//!
//! A table of contents, in reading order:
//!
//! * [`ids`]: epochs, terms, tables, splits, slots, vnodes — one newtype for each word of the
//!   glossary;
//! * [`position`]: the place where the reading of a split continues, and the mark that identifies
//!   its stream;
//! * [`types`]: the SQL types and their storage in Arrow;
//! * [`decimal`], [`interval`], [`rounding`]: values that Arrow parses differently from PostgreSQL;
//! * [`key`]: primary keys as bytes that sort as the values do, and their vnodes;
//! * [`protobuf`]: the schemas of messages, and the columns that their fields fit into;
//! * [`catalog`]: relations and the jobs that fill them, as the metadata store keeps them;
//! * [`plan`]: the skeleton of a job's plan, as the catalog keeps it;
//! * [`view`]: the evaluation of a view's query;
//! * [`condition`]: the conditions of splits and jobs;
//! * [`head`]: the committed state of a cluster: the epoch and its checkpoints;
//! * [`error`]: the five kinds of failure that the retry policy reads;
//! * [`rpc`]: errors on their way across a process boundary;
//! * [`task`]: named background tasks with a declared meaning of failure;
//! * [`running`]: a clock that counts only the time in which this process ran;
//! * [`telemetry`] and [`http`]: logs, metrics, health;
//! * [`listen`]: the set-up of accepted connections.
//!
//! This crate does no IO of its own except for the HTTP listener, and knows nothing of NATS, SQL
//! text or SlateDB.

pub mod ids;
pub mod position;
pub mod types;

pub mod decimal;
pub mod interval;
pub mod key;
pub mod rounding;

pub mod protobuf;

pub mod catalog;
pub mod plan;
pub mod view;

pub mod condition;
pub mod head;

pub mod error;
pub mod rpc;

pub mod http;
pub mod listen;
pub mod running;
pub mod task;
pub mod telemetry;
mod wire;
