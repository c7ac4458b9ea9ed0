//! The life of a barrier: how epochs end, are committed, and how terms begin.
//!
//! * [`placement`]: slots, vnodes and splits onto nodes;
//! * [`positions`]: committed positions and how they are stored;
//! * [`pins`]: epochs that statements still read;
//! * [`statements`]: statements that write, until their outcome is known;
//! * `failures`: jobs that have failed, or cannot be built, until the catalog says so;
//! * `bounds`: how much the catalog may hold;
//! * [`config`], [`event`] and [`state`]: the pure core that decides, its settings and its words;
//! * `task`: the task that carries its decisions out, by way of `storage`, its calls to the metadata store.

mod bounds;
pub mod config;
pub(crate) mod ddl;
pub mod event;
mod failures;
pub mod pins;
pub mod placement;
pub mod positions;
pub mod state;
pub mod statements;
pub(crate) mod storage;
pub(crate) mod task;

#[cfg(test)]
mod tests;

pub use positions::Positions;
