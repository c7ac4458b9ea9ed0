//! Settings of the coordinator's core: the durations that it waits, and where state lies.

use std::time::{Duration, SystemTime};

/// The settings of a coordinator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where slot databases lie, relative to the state URL. No other cluster has its databases
    /// there: those that this one does not know are deleted.
    pub state_prefix: String,
    /// The wall clock's time at which the core's own begins, for what people read.
    pub began: SystemTime,
    /// How often a barrier is injected when nobody asks for one.
    pub barrier_interval: Duration,
    /// How long a change of the nodes is left to settle before a term is made for it.
    pub settle: Duration,
    /// How long a new leader waits for the nodes that its predecessor knew.
    pub grace: Duration,
    /// How long a node may take to start a term or to report an epoch before it counts as lost.
    pub node_timeout: Duration,
}
