//! A slot's data: its stored form, and the assignment of writes to epochs.
//!
//! In reading order:
//!
//! * [`block`]: rows of a table without a primary key as one stored value; `tail`: joins small
//!   blocks;
//! * [`row`]: a row of a keyed table as a stored entry;
//! * `layout`: reads data that was stored under older columns;
//! * `entries`: entries of a slot's database, and the frame in which they travel;
//! * [`seal`]: the pure core that decides which writes belong to which epoch;
//! * [`slot`]: the task that applies writes, seals epochs and keeps the snapshots that scans read;
//! * `slots`: the slots that a node runs in a term;
//! * [`state`]: the slot's database over the object store.

pub mod block;
pub mod row;
pub mod seal;
pub mod slot;
pub mod state;

pub(crate) mod entries;
pub(crate) mod layout;
pub(crate) mod slots;
pub(crate) mod tail;
