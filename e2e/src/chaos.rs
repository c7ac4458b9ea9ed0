//! Who is killed when: a plan that follows from a seed, so that a failing run can be repeated.
//!
//! Moments are counted in messages acknowledged, not in time, so that a kill always falls while messages are published,
//! though perhaps not while Weir runs.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// The environment variable that sets the seed.
const SEED: &str = "WEIR_E2E_SEED";

/// A kill and the start after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill<V> {
    /// Who.
    pub victim: V,
    /// When it is killed: after so many messages.
    pub at: u64,
    /// When it is started again: after so many messages.
    pub back_at: u64,
}

/// The seed of this run: given by the environment, else random. It is printed, so that a failed test shows it.
///
/// # Panics
/// If the environment holds something that is no number.
pub fn seed() -> u64 {
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED} is not a number: {text}")),
        Err(_) => rand::rng().random_range(0..1_000_000),
    };
    eprintln!("seed: {seed} (repeat with {SEED}={seed})");
    seed
}

/// A plan of so many kills, spread at random over the messages of the range; every victim is killed once at least if
/// there are enough kills. The kills do not overlap and come in order.
///
/// # Panics
/// If there is no victim, or the range is shorter than the kills are many.
pub fn plan<V: Clone>(seed: u64, victims: &[V], kills: usize, range: Range<u64>) -> Vec<Kill<V>> {
    let mut random = StdRng::seed_from_u64(seed);
    let share = (range.end - range.start) / kills as u64;
    let mut chosen = victims.iter().take(kills).cloned().collect::<Vec<_>>();
    while chosen.len() < kills {
        chosen.push(victims.choose(&mut random).expect("there is a victim").clone());
    }
    rand::seq::SliceRandom::shuffle(chosen.as_mut_slice(), &mut random);
    let plan = chosen.into_iter().zip(0..).map(|(victim, i)| {
        let first = range.start + i * share;
        let at = first + random.random_range(0..share / 2);
        let back_at = at + random.random_range(0..share / 2);
        Kill { victim, at, back_at }
    });
    plan.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed_and_names_everybody() {
        let plan_a = plan(7, &["a", "b", "c"], 10, 1_000..200_000);
        assert_eq!(plan_a, plan(7, &["a", "b", "c"], 10, 1_000..200_000));
        assert_ne!(plan_a, plan(8, &["a", "b", "c"], 10, 1_000..200_000));
        assert!(["a", "b", "c"].iter().all(|name| plan_a.iter().any(|kill| kill.victim == *name)));
        assert!(plan_a.windows(2).all(|pair| pair[0].back_at <= pair[1].at));
        assert!(plan_a.iter().all(|kill| kill.at >= 1_000 && kill.back_at < 200_000));
    }
}
