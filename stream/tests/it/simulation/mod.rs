//! The protocols of the engine in a deterministic simulation: actors, edges, credits, statements
//! and late views are the real state machines; operators, slots, nodes and meta are models small
//! enough to be obviously right.
//!
//! Random jobs stand on one another. A seeded scheduler decides what happens next: frames, credits
//! and barriers arrive late and in any order that a network allows, work takes its time, an
//! operator never returns, jobs come and go, writers die in the middle of a statement, and the
//! cluster is killed and rises with other slots. After every commit the committed rows of every job
//! are compared with its query over the committed rows of its inputs; when the chaos ends,
//! everything has to be committed.
//!
//! `WEIR_SIM_SEED=n` replays one schedule, `WEIR_SIM_SCHEDULES=n` runs more of them.

mod jobs;
mod logic;
mod slot;
mod world;

use world::World;

/// How many schedules a run tries.
const SCHEDULES: u64 = 1_000;

#[test]
fn every_committed_view_equals_its_query_under_any_schedule() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = match number("WEIR_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEIR_SIM_SCHEDULES").unwrap_or(SCHEDULES),
    };
    let total = seeds.end - seeds.start;
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut statistics = world::Statistics::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let seeds = seeds.clone();
                scope.spawn(move || {
                    let mut sum = world::Statistics::default();
                    for seed in seeds.skip(worker as usize).step_by(threads as usize) {
                        let run = std::panic::catch_unwind(|| World::new(seed).run());
                        sum.add(&run.unwrap_or_else(|_| panic!("replay this schedule with WEIR_SIM_SEED={seed}")));
                    }
                    sum
                })
            })
            .collect();
        for worker in workers {
            statistics.add(&worker.join().expect("a schedule failed; its seed is printed above"));
        }
    });
    println!("{total} schedules: {statistics:?}");
    if total >= SCHEDULES {
        // A simulation in which nothing goes wrong shows nothing.
        let often = [
            ("kills", statistics.kills),
            ("created jobs", statistics.created),
            ("dropped jobs", statistics.dropped),
            ("stuck operators", statistics.stuck),
            ("pages", statistics.pages),
            ("epochs that began without a page", statistics.skipped),
            ("waits for a seal", statistics.waited),
            ("loans", statistics.loans),
            ("named statements", statistics.named),
            ("refused statements", statistics.refused),
            ("orphaned statements", statistics.orphaned),
            ("flushes that waited for a seal", statistics.held_flushes),
            ("early frames", statistics.early),
        ];
        for (name, count) in often {
            assert!(count > total / 20, "{name}: only {count}");
        }
    }
}
