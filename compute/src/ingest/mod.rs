//! Turns messages into rows or dead letters.
//!
//! In reading order:
//!
//! * [`decode`]: a payload in JSON, Protobuf or bytes becomes a row of Arrow columns;
//! * `dead_letters`: a message that cannot be decoded becomes a row of the dead letters;
//! * `progress`: how far a reader is.
//!
//! The reader that pulls messages from NATS lives in `weir_connector_nats`; an actor of `dataflow`
//! drives it.

pub mod decode;

pub(crate) mod dead_letters;
pub(crate) mod progress;
