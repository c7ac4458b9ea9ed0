//! The life of a message, from a JetStream stream to the decoder.
//!
//! A table of contents, in reading order:
//!
//! * [`options`]: what a user wrote into WITH, typed and checked against itself;
//! * [`subject`]: what subjects and their wildcards cover; [`stored`]: which of them a stream stores messages under;
//! * [`retention`]: what a stream keeps, and what follows from it for its consumer; [`limits`]:
//!   what the server, the account and the stream allow at most;
//! * [`mod@preflight`]: what CREATE TABLE asks the server before anything is stored: does the stream exist, may it be read,
//!   at which sequence does the table start;
//! * [`inspect`]: the same for EXPLAIN, which changes nothing;
//! * [`connect`] and [`api`]: a connection, with what it proves Weir's identity by, and JetStream's requests over it;
//!   [`probe`]: which of them are permitted;
//! * [`consumer`]: the consumer through which a split is read, and what becomes of one that is there already (`found`); `making`: how
//!   it is made anew without losing anything;
//! * [`reply`]: the sequences that a delivery carries in its reply subject; [`headers`]: what the client cannot parse;
//! * [`identity`]: whether a stream is the one that was read before;
//! * [`delivery`]: which delivery is accepted, which is dropped, when the consumer is rebuilt, what is acknowledged: a
//!   state machine without IO and clock;
//! * [`reader`]: the task that drives it, and the handle that hands out batches;
//! * [`removal`]: what DROP TABLE leaves behind on the server, which is nothing that Weir made;
//! * [`error`]: what can go wrong, told apart.
//!
//! Payloads are opaque bytes here. A position is Weir's, not the broker's: the reader says what to read next, and the
//! consumer is rebuilt there whenever its deliveries are not known to be complete.

pub mod limits;
pub mod options;
pub mod retention;
pub mod stored;
pub mod subject;

pub mod inspect;
pub mod preflight;

pub mod api;
pub mod connect;
pub mod consumer;
mod credentials;
mod found;
pub mod headers;
mod making;
mod panics;
pub mod probe;
pub mod reply;

pub mod identity;

pub mod delivery;
pub mod reader;
pub mod removal;

pub mod error;

pub use error::Error;
pub use options::{OptionError, Options};
pub use preflight::{Preflight, preflight};
pub use reader::{Batch, Condition, Control, Message, Progress, Reader, ReaderConfig};
pub use removal::remove_consumers;
