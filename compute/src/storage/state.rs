//! State: the databases of slots over the object store, from their creation to their removal.
//!
//! In reading order:
//!
//! * [`store`]: the object store behind a state URL, with the block cache that all slots of a
//!   process share;
//! * [`health`]: watches whether the object store works;
//! * [`keys`]: encodes a row's place (table, vnode, split, sequence) as a key;
//! * [`slot`]: a slot's database: writes, snapshots, checkpoints;
//! * `runs`: reads whole ranges from a database's files, many entries at a time;
//! * `contents`: how much of a database belongs to which job;
//! * [`lineage`]: makes a new database of committed checkpoints;
//! * `live`: the ids whose entries are kept, and the state of jobs that are gone;
//! * [`compaction`]: schedules rewrites of full levels, dropped tables and data of ancestors;
//! * [`settings`]: configures SlateDB for one checkpoint an epoch;
//! * [`garbage`]: finds and removes databases that nothing reaches any more.
//!
//! This module knows nothing of epochs, terms or rows. It stores opaque values under keys, and
//! makes checkpoints when it is told to. Invariant: a checkpoint holds exactly the writes that
//! finished before its [`SlotDb::begin_checkpoint`] was called, and no path is used for a second
//! database.

mod error;

pub mod health;
pub mod keys;
pub mod store;

mod contents;
mod live;
mod runs;
pub mod slot;

pub mod compaction;
pub mod garbage;
pub mod lineage;
pub mod settings;

pub use contents::{Content, Count, Stored};
pub use error::Error;
pub use garbage::{Collected, Survey};
pub use lineage::CloneSource;
pub use settings::Tuning;
pub use slot::{Entries, Gauges, Part, Pending, SlotDb, Snapshot, Values};
pub use store::Store;
