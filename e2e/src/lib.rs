//! Weir from the outside: real processes, a real nats-server, a real etcd, driven as a user would drive them.
//!
//! The story of a test, in reading order:
//!
//! * [`sandbox`]: a folder, free ports, and the logs of everything that runs in it; a test is a `scenario` in one;
//! * [`process`]: a child process that can be killed, ended and started again;
//! * [`servers`], [`s3`] and [`weir`]: nats-server and etcd, an object store, then the roles of Weir, each with its own
//!   readiness;
//! * [`proxy`]: a network between a client and a server that fails when told to; [`faults`]: the same for HTTP requests;
//! * [`workload`] and [`publish`]: messages whose content follows from their number, and how they get into a stream;
//! * [`sql`]: a Postgres client that survives the loss of its server;
//! * [`chaos`]: who is killed when, from a seed;
//! * [`recovery`]: how long new rows are in coming;
//! * [`wait`]: waiting for a condition, never for luck; [`http`]: one request.
//!
//! The crate holds no knowledge of Weir's insides: it sees command lines, sockets and logs.

pub mod sandbox;

pub mod process;

pub mod s3;
pub mod servers;
pub mod weir;

pub mod faults;
pub mod proxy;

pub mod publish;
pub mod workload;

pub mod sql;

pub mod chaos;
pub mod recovery;

pub mod http;
pub mod wait;
