//! Plans that run.
//!
//! [`QueryThreads`] are the threads that queries are planned and run on, `window` is the memory
//! of window functions, and [`Explain`] shows a plan instead of its rows.

mod explain;
mod threads;
mod window;

pub use explain::{Explain, SCHEMA as EXPLAIN_SCHEMA};
pub use threads::QueryThreads;
pub(crate) use window::BoundWindows;
