//! Runs plans.
//!
//! [`QueryThreads`] are the threads on which queries are planned and run, `window` reserves the
//! memory of window functions, and [`Explain`] shows a plan instead of its rows.

mod explain;
mod threads;
mod window;

pub use explain::{Explain, SCHEMA as EXPLAIN_SCHEMA};
pub use threads::QueryThreads;
pub(crate) use window::BoundWindows;
