//! Weir's end-to-end tests, one module a topic.
//!
//! Every test but those of `tidy` and `chart` starts the processes it needs by itself, on free
//! ports and in a folder of its own.

mod support;

mod chart;
mod simulation;
mod tidy;

mod aggregates;
mod alter;
mod clients;
mod columns;
mod errors;
mod formats;
mod schemas;
mod slt;
mod sources;
mod splits;
mod statements;
mod streams;
mod types;
mod views;
mod writes;

mod cluster;
mod cluster_command;
mod crash;
mod cut_connections;
mod dead_letters;
mod demo;
mod fencing;
mod identity;
mod keyed;
mod nats_cluster;
mod nexmark;
mod object_store;
mod prompt;
mod replay;
mod retention;
mod telemetry;
mod told;
mod versions;
