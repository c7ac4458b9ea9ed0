//! The life of a client's statement.
//!
//! A table of contents, in reading order:
//!
//! * `server`: a client connects; its statements arrive by the simple or the extended protocol;
//! * `session`: who the client is, its variables, what it runs, how that is cancelled;
//! * `frontend`: what each kind of statement does, once `weir_sql` has parsed it;
//! * `protobuf`: the schema that it names is fetched and compiled, once;
//! * `bind`: a `CREATE TABLE` is checked and becomes what the catalog keeps;
//! * `meta`: it is asked of the leader among the meta nodes;
//! * `snapshot`: a query pins the committed epoch that it reads, with the `catalog` as of then;
//! * `query`: it is planned, by `weir_sql`, and runs;
//! * `system`: it may name PostgreSQL's catalogs, which are emulated;
//! * `scan`: rows come from the slots of compute nodes;
//! * `results` and `encode`: and go to the client as PostgreSQL would send them;
//! * `commands`: the tables that SHOW and DESCRIBE answer with, those of `jobs` among them;
//! * `notice`: what the client should know besides;
//! * `config`, `metrics`: what an operator sets and sees.
//!
//! A frontend holds nothing durable. Invariant: every scan of a statement reads one committed
//! epoch, pinned after the statement was received; so a statement sees everything that was
//! acknowledged before it.

mod server;
mod session;

mod frontend;

mod protobuf;

mod bind;
mod meta;

mod catalog;
mod snapshot;

mod query;
mod system;

mod scan;

mod encode;
mod results;

mod commands;
mod jobs;

mod notice;

mod config;
mod metrics;

pub use config::Config;
pub use server::{Error, Server, run};
