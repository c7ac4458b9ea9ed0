//! Tests of the frontend through its clients: a real server, driven by tokio-postgres and psql, in
//! front of a cluster whose RPC services answer from memory.

mod answers;
mod catalogs;
mod cluster;
mod cursors;
mod datetime;
mod expressions;
mod extended;
mod failures;
mod held;
mod limits;
mod literals;
mod protocol;
mod psql;
mod schemas;
mod semantics;
mod stalled;
mod statements;
mod tools;
mod transactions;
mod types;
mod values;
mod views;
mod wire;
mod writes;
