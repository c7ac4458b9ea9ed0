//! The life of a client's statement.
//!
//! A table of contents, in reading order:
//!
//! * `server`: a client connects and sends statements by the simple or the extended protocol;
//! * `session`: the client's session keeps its user, its variables and its running statement, and
//!   cancels that;
//! * `frontend`: `weir_sql` parses the statement, and each kind of statement does its work;
//! * `protobuf`: the Protobuf schema that a declaration names is fetched and compiled once;
//! * `bind`: a `CREATE TABLE` is checked and becomes an entry for the catalog;
//! * `meta`: the frontend sends requests to the leader among the meta nodes;
//! * `snapshot`: a query pins the committed epoch that it reads, with the `catalog` of that epoch;
//! * `waits`: before that it may wait until the epoch includes certain messages;
//! * `query`: `weir_sql` plans the query, and the frontend runs it;
//! * `write`: a statement that writes is a query for its rows, which the slots of compute nodes
//!   hold until a barrier names the statement;
//! * `system`: a query may name PostgreSQL's catalogs, which are emulated;
//! * `scan`: rows come from the slots of compute nodes;
//! * `results` and `encode`: the client receives the rows in the form in which PostgreSQL sends
//!   them;
//! * `commands`: SHOW and DESCRIBE answer with tables; `jobs` provides one of them;
//! * `creation`: creates a view, and waits until it can be read, which `completion` tells; `verify`
//!   compares a view with its query; `definitions` knows such queries by the names of now;
//! * `objects`: drops relations, and changes names and comments; `schemas` does so with schemas;
//!   `names`: how statements name relations;
//! * `notice`: the client receives messages about statements that succeed;
//! * `config`, `metrics`: an operator sets the former and reads the latter.
//!
//! A frontend holds nothing durable. Invariant: every scan of a statement reads one committed
//! epoch, pinned after the statement was received. A statement therefore sees everything that was
//! acknowledged before it.

mod server;
mod session;

mod creation;
mod frontend;
mod objects;
mod schemas;
mod verify;

mod protobuf;

mod bind;
mod definitions;
mod meta;

mod catalog;
mod names;
mod snapshot;
mod waits;

mod query;
mod write;

mod system;

mod scan;

mod encode;
mod results;

mod commands;
mod completion;
mod jobs;

mod notice;

mod config;
mod metrics;

pub use config::Config;
pub use server::{Error, Server, run};
