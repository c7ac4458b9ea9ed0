//! The connector against a real nats-server.

mod connecting;
mod consumers;
mod inspecting;
mod preflight;
mod reading;
mod support;
mod trouble;
