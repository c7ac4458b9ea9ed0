//! The life of a record: the compute node.
//!
//! In reading order:
//!
//! * [`node`]: what meta tells the node, and the term it takes part in: a pure core and the task that drives it;
//! * [`actor`]: one split of one table, or of a source for its views: reader, decoder, blocks, barriers, acknowledgements;
//! * `readings`: who of them is fed from where: a pure core;
//! * [`decode`]: a payload, be it JSON, Protobuf or bytes, becomes a row of Arrow columns;
//! * `query`: rows of a source become rows of a view;
//! * `dead_letters`: what is no row of its table becomes one of another;
//! * [`block`]: rows become a stored value; `tail`: small ones become one;
//! * `replay`: what is no row of its table becomes one, when it is asked for;
//! * `layout`: what is stored with the columns of earlier, as those of now;
//! * [`row`]: a row of a keyed table as a stored entry; `shuffle`: each to the slot that owns its key;
//! * `edge`: what an actor writes on its way to a slot; `exchange`: the same across nodes;
//! * [`seal`]: which writes belong to which epoch: a pure core;
//! * [`slot`]: the task that applies writes, seals epochs and keeps the snapshots that scans read;
//! * [`state`]: the slot's database over the object store;
//! * [`scan`]: what frontends read; `source`: the same of what is stored nowhere; `splits`: how far the readers are.
//!
//! A compute node holds no durable truth on its own disk: what it has not reported durable is read again from NATS.

pub mod node;

pub mod actor;
pub mod decode;

pub mod block;
pub mod row;
pub mod seal;
pub mod slot;
pub mod state;

pub mod scan;

mod dead_letters;
mod edge;
mod error;
mod exchange;
mod layout;
mod metrics;
mod prune;
mod query;
mod readings;
mod replay;
mod shuffle;
mod source;
mod splits;
mod tail;
mod wire;

pub use error::Error;
pub use node::task::{Compute, Config};
