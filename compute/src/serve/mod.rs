//! What frontends ask of a node.
//!
//! In reading order:
//!
//! * `scan`: reads stored rows at a sealed epoch; `prune`: skips blocks that a scan's conditions exclude;
//! * `source`: reads a source, whose rows are stored nowhere, for one statement;
//! * `replay`: turns dead letters into rows;
//! * `splits`: how far the readers of this node are.

pub(crate) mod replay;
pub(crate) mod scan;
pub(crate) mod splits;

mod prune;
mod source;
