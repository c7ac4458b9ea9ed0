//! Turns: locks by name, of which each exists as long as somebody has it or waits for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Turns with things. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Turns<K>(Arc<Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Turns<K> {
        Turns(Arc::default())
    }
}

impl<K: Eq + Hash> Turns<K> {
    /// Waits for its turn with a thing. Those who wait get theirs in order.
    pub(crate) async fn take(&self, thing: K) -> OwnedMutexGuard<()> {
        let turn = {
            // A panic elsewhere leaves this map in order.
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(thing).or_default())
        };
        turn.lock_owned().await
    }

    /// Waits for its turn with several things. Everybody takes them in one order.
    pub(crate) async fn take_all(&self, mut things: Vec<K>) -> Vec<OwnedMutexGuard<()>>
    where
        K: Ord,
    {
        things.sort_unstable();
        things.dedup();
        let mut turns = Vec::with_capacity(things.len());
        for thing in things {
            turns.push(self.take(thing).await);
        }
        turns
    }
}
