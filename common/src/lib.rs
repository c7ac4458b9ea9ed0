//! The words that every node of a Weir cluster shares.
//!
//! A table of contents, in reading order:
//!
//! * [`ids`]: epochs, terms, tables, splits, slots, vnodes — one newtype a word of the glossary;
//! * [`position`]: where reading goes on, and by what a stream is known again;
//! * [`types`]: the SQL types and how each is stored in Arrow;
//! * [`decimal`], [`interval`], [`rounding`]: values that Arrow reads differently than PostgreSQL;
//! * [`key`]: primary keys as bytes that sort as the values do, and their vnodes;
//! * [`protobuf`]: the schemas of messages, and which column a field fits into;
//! * [`catalog`]: what a user declared, as it is kept in the metadata store;
//! * [`view`]: how rows of a source become rows of a view;
//! * [`condition`]: how splits and jobs are doing;
//! * [`head`]: the durable truth of a cluster: the committed epoch and where its state lies;
//! * [`error`]: the five kinds of failure that retry policy reads;
//! * [`rpc`]: how an error crosses a process boundary;
//! * [`task`]: named background tasks whose failure means something declared;
//! * [`running`]: time as far as this process ran in it;
//! * [`telemetry`] and [`http`]: logs, metrics, health;
//! * [`listen`]: how accepted connections are set up.
//!
//! This crate does no IO of its own except the HTTP listener, and knows nothing of NATS, SQL text or SlateDB.

pub mod ids;
pub mod position;
pub mod types;

pub mod decimal;
pub mod interval;
pub mod key;
pub mod rounding;

pub mod protobuf;

pub mod catalog;
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
