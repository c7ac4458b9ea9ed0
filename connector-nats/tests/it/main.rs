//! The connector against a real nats-server.

mod preflight;
mod reading;
mod support;
mod retention;
mod trouble;
