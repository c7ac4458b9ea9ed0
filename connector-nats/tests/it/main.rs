//! The connector against a real nats-server.

mod connecting;
mod consumers;
mod headers;
mod inspecting;
mod preflight;
mod reading;
mod retention;
mod support;
mod trouble;
