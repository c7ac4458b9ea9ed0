//! The connector against a real nats-server.

mod accounts;
mod certificates;
mod connecting;
mod consumers;
mod found;
mod headers;
mod inspecting;
mod kinds;
mod limits;
mod preflight;
mod reading;
mod retention;
mod stored;
mod support;
mod trouble;
