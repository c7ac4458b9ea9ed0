//! Tests of the engine's protocols together.

mod simulation;
