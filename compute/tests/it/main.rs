//! Tests of the compute node's parts against the real things that they stand on.

mod operator_state;
mod state;
