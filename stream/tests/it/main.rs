//! Tests of the engine: its protocols together, and the operators of whole jobs.

mod pipeline;
mod simulation;
