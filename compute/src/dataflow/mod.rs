//! Actors, and the edges that lead from them to slots.
//!
//! In reading order:
//!
//! * `actor`: reads and decodes one split of a table, or of a source for its views, delivers
//!   barriers and acknowledges messages;
//! * `readings`: the pure core that decides which reading feeds which output;
//! * `query`: turns rows of a source into rows of a view;
//! * `shuffle`: divides the rows of a keyed table among the slots that own their keys;
//! * `edge`: an actor's way to one slot; `exchange`: carries edges to slots of other nodes.

pub(crate) mod actor;
pub(crate) mod edge;
pub(crate) mod exchange;
pub(crate) mod query;
pub(crate) mod shuffle;

mod readings;
