//! Requests of frontends.
//!
//! In reading order:
//!
//! * `service`: the gRPC service, which prepares each request;
//! * `serving`: the running term, as far as frontends may read it;
//! * `scan`: reads stored rows at a sealed epoch; `prune`: skips blocks that a scan's conditions
//!   exclude;
//! * `source`: reads a source, whose rows are stored nowhere, for one statement;
//! * `replay`: turns dead letters into rows;
//! * `dml`: the gRPC service that takes the rows of statements that write;
//! * `splits`: how far the readers of this node are;
//! * `states`: how much the node stores of each job.

pub(crate) mod dml;
pub(crate) mod service;
pub(crate) mod serving;
pub(crate) mod splits;
pub(crate) mod states;

mod prune;
mod replay;
mod scan;
mod source;
