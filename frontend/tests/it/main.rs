//! The frontend as its clients meet it: a real server, driven by tokio-postgres and by psql, in front of a cluster whose
//! RPC services answer from memory.

mod cluster;
mod expressions;
mod failures;
mod protocol;
mod psql;
mod semantics;
mod statements;
mod types;
mod values;
