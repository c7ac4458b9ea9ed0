//! Tests of the compute node's parts against the real things that they stand on.

mod contents;
mod operator_state;
mod state;
