//! The life of a change.
//!
//! The incremental engine without IO: no clock, no tasks, no network, no database. The compute node
//! drives it. A table of contents, in reading order:
//!
//! * `chunk`: changes of rows travel in chunks;
//! * `edge`: changes come from other actors over edges, as far as credits reach;
//! * `align`: an actor takes them from all its inputs, and cuts them at barriers;
//! * `actor`: the order of its work, up to the barrier that it sends on;
//! * `pipeline`: its operators, which turn changes of their input into changes of their output;
//! * `late`: a view that is made later reads first what its input had before;
//! * `slices`: byte strings that share a buffer;
//! * `statements`: rows that users write wait for the barrier that names their statement.

pub mod chunk;
pub mod edge;

pub mod align;

pub mod actor;
pub mod pipeline;

pub mod late;
pub mod slices;
pub mod statements;
