//! The connector against a real nats-server.

mod preflight;
mod reading;
mod retention;
mod support;
mod trouble;
