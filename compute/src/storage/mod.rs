//! A slot's data: what is stored, in which form, and which write belongs to which epoch.
//!
//! In reading order:
//!
//! * [`block`]: rows of a table without a primary key as one stored value; `tail`: small blocks are joined into one;
//! * [`row`]: a row of a keyed table as a stored entry;
//! * `layout`: reads what was stored under older columns;
//! * [`seal`]: the pure core that decides which writes belong to which epoch;
//! * `entries`: entries of a slot's database on their way to it;
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
