//! Actors, and the edges that lead from them to slots.
//!
//! In reading order:
//!
//! * `actor`: reads and decodes one split of a table, or of a source for its views, delivers
//!   barriers and acknowledges messages;
//! * `readings`: the pure core that decides which reading feeds which output;
//! * `query`: turns rows of a source into rows of a view, each alone;
//! * `edge`: an actor's way to its slot;
//! * `leaf`: the part of a job's plan that runs inside a reader; `fragment`: runs the other parts
//!   in slots;
//! * `upstream`: a relation that a fragment follows, by its stored rows (`follow`) or its blocks
//!   (`history`) before the changes;
//! * `divide` and `materialize`: what becomes of the changes that fragments emit;
//! * `table`: the rows of statements and of replayed dead letters, until an epoch ends;
//! * `failed` and `letters`: what becomes of rows for which an expression fails;
//! * `router`: brings frames and credits to fragments; `changes` and `exchange`: carry them to
//!   other nodes.

pub(crate) mod actor;
pub(crate) mod edge;
pub(crate) mod exchange;
pub(crate) mod failed;
pub(crate) mod follow;
pub(crate) mod fragment;
pub(crate) mod leaf;
pub(crate) mod query;
pub(crate) mod router;

pub(crate) mod changes;
pub(crate) mod divide;
mod history;
pub(crate) mod letters;
pub(crate) mod materialize;
mod readings;
mod table;
mod upstream;
pub(crate) mod usage;
