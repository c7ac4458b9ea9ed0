//! Tests of meta against real servers.

mod election;
mod etcd;
mod store;
mod support;
