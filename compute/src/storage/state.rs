//! State: each slot's database over the object store, what is read from it, and what is no longer needed.
//!
//! A table of contents, in reading order:
//!
//! * [`store`]: the object store behind a state URL, with the block cache that all slots of a process share;
//! * [`health`]: whether the object store does what it is asked;
//! * [`keys`]: how a row's place (table, vnode, split, sequence) becomes a key;
//! * [`slot`]: a slot's database: writes, snapshots, checkpoints;
//! * `runs`: whole ranges read from a database's files, many entries at a time;
//! * [`lineage`]: how a new database is made of committed checkpoints;
//! * [`compaction`]: what is rewritten when: full levels, dropped tables, data of ancestors;
//! * [`settings`]: how SlateDB is set up for one checkpoint an epoch;
//! * [`garbage`]: which databases nothing reaches any more, and their removal.
//!
//! This module knows nothing of epochs, terms or rows: it stores opaque values under keys and cuts them where it is
//! told to. The invariant: a checkpoint holds exactly the writes that finished before its [`SlotDb::begin_checkpoint`]
//! was called, and no path is ever used for a second database.

mod error;

pub mod health;
pub mod keys;
pub mod store;

mod runs;
pub mod slot;

pub mod compaction;
pub mod garbage;
pub mod lineage;
pub mod settings;

pub use error::Error;
pub use garbage::{Collected, Survey};
pub use lineage::CloneSource;
pub use settings::Tuning;
pub use slot::{Entries, Gauges, Part, Pending, SlotDb, Snapshot, Values};
pub use store::Store;
