//! Runs plans.
//!
//! [`QueryThreads`] are the threads on which queries are planned and run, [`counted`] evaluates the
//! expressions of LIMIT, `window` reserves the memory of window functions, `pieces` bounds that of
//! functions that return sets, and [`Explain`] shows a plan instead of its rows.

mod counts;
mod explain;
mod pieces;
mod threads;
mod window;

pub use counts::{counted, uncounted};
pub use explain::{Explain, SCHEMA as EXPLAIN_SCHEMA};
pub(crate) use pieces::CutSets;
pub use threads::QueryThreads;
pub(crate) use window::BoundWindows;
