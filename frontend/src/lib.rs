//! The life of a SQL statement.
//!
//! A table of contents, in reading order:
//!
//! * `server`: a client connects; its statements arrive by the simple or the extended protocol;
//! * `session`: who the client is, its variables, what it runs, how that is cancelled;
//! * `parser`: the text becomes statements, every error with its place in the text;
//! * `frontend`: what each kind of statement does;
//! * `protobuf`: the schema that it names is fetched and compiled, once;
//! * `bind`: a `CREATE TABLE` is checked and becomes what the catalog keeps;
//! * `meta`: it is asked of the leader among the meta nodes;
//! * `snapshot`: a query pins the committed epoch that it reads, with the `catalog` as of then;
//! * `query`: DataFusion plans and runs it, with the `functions` that it lacks, and the `keywords` that have to be quoted;
//! * `scan`: rows come from the slots of compute nodes;
//! * `encode`: and go to the client as PostgreSQL would print them;
//! * `commands`: the tables that SHOW and DESCRIBE answer with;
//! * `views`: with the same planner compute nodes compile the queries of materialized views;
//! * `error`: what a client is told when something fails;
//! * `config`, `metrics`: what an operator sets and sees.
//!
//! A frontend holds nothing durable. Invariant: every scan of a statement reads one committed epoch, pinned after the
//! statement was received; so a statement sees everything that was acknowledged before it.

mod server;
mod session;

mod parser;

mod frontend;

mod protobuf;

mod bind;
mod meta;

mod catalog;
mod jobs;
mod snapshot;

mod functions;
mod keywords;
mod query;
mod scan;

mod encode;

mod commands;

mod views;

mod error;

mod config;
mod metrics;

pub use config::Config;
pub use server::{Error, Server, run};
pub use views::ViewCompiler;
