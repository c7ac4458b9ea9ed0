//! The protocol cores of meta and compute in a deterministic simulation: coordinator, node and sealer are the real
//! state machines; the metadata store, the object store, the network, the exchange and the broker are models small enough to be
//! obviously right. A seeded scheduler decides what happens next: messages are delivered late, transactions are delayed
//! beyond the reign that sent them, leaders are deposed and live on as zombies, nodes crash at any point and come back.
//!
//! After every change of the head the whole committed state is compared with the committed positions; after every
//! acknowledgement the broker's view with both; and when the chaos ends, everything has to be committed.
//!
//! `WEIR_SIM_SEED=n` replays one schedule, `WEIR_SIM_SCHEDULES=n` runs more of them.

mod model;
mod node;
mod world;

use world::World;

/// How many schedules a run tries.
const SCHEDULES: u64 = 20_000;

#[test]
fn committed_state_equals_committed_positions_under_any_schedule() {
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
        assert!(statistics.crashes > total, "nodes crashed {} times", statistics.crashes);
        assert!(statistics.depositions > total / 10, "leaders were deposed {} times", statistics.depositions);
        assert!(statistics.refused > 100, "{} transactions of old leaders or terms were refused", statistics.refused);
        assert!(
            statistics.late > 100,
            "{} transactions were applied after their outcome was given up",
            statistics.late
        );
        assert!(statistics.reads > total, "{} reads were compared", statistics.reads);
        assert!(statistics.released > 100, "{} nodes were relieved", statistics.released);
        assert!(statistics.failed_jobs > 100, "{} jobs failed", statistics.failed_jobs);
        assert!(statistics.stopped_jobs > 100, "{} jobs stopped alone", statistics.stopped_jobs);
        assert!(statistics.altered > 1_000, "{} tables were altered", statistics.altered);
        assert!(statistics.timed_out > 100, "{} nodes did not answer in time", statistics.timed_out);
        assert!(statistics.statements > total / 10, "{} statements were committed", statistics.statements);
        assert!(statistics.statements_refused > 100, "{} statements were refused", statistics.statements_refused);
        assert!(statistics.exchanged > total, "{} writes went from node to node", statistics.exchanged);
    }
}
