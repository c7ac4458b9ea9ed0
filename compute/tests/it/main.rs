//! Tests of compute nodes' parts against the real things they stand on.

mod state;
