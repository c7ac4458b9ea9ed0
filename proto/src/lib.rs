//! The wire: what meta, compute and frontend nodes say to each other.
//!
//! Everything here is generated from `weir.proto`, which is also where the messages are explained. Beyond the RPC
//! files of each crate no code sees these types; domain types live in `weir-common` and convert at the edge.

#![allow(missing_docs, unreachable_pub, clippy::all)]

tonic::include_proto!("weir.v1");
