//! After any sequence of changes the dead letters are those of the rows that fail now, and the job
//! emitted what its query has over the other ones.
//!
//! Rows fail below a shuffle, the sums of groups fail, and so do rows that are made of groups.
//! Actors are built anew from the state, and forget groups, at random. `WEIR_SIM_SEED=n` replays
//! one run.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use weir_common::plan::StreamColumn;

use super::job::{Job, divide};
use super::script::{plan, rows_of};

const RUNS: u64 = 200;

const PLAN: [&str; 5] = [
    "changes id integer, divisor integer, channel varchar, number bigint",
    "project #0, (10::integer / #1), #2, #3",
    "shuffle by #2",
    "aggregate by #2: count(*) bigint, sum(#3) bigint",
    "project #0, (#1 + 9223372036854775805::bigint), #2",
];
/// The last projection fails for groups of more rows.
const COUNT_MAX: i64 = 2;

type Letters = BTreeSet<(usize, u16, Vec<u8>)>;
type Groups = BTreeMap<String, (i64, i64)>;

/// A row of the input.
#[derive(Clone, Debug)]
struct Row {
    id: i32,
    divisor: i32,
    channel: &'static str,
    number: i64,
}

#[test]
fn letters_are_those_of_the_rows_that_fail() {
    let seeds = match std::env::var("WEIR_SIM_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..RUNS,
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| Run::new(seed).run());
        run.unwrap_or_else(|_| panic!("replay this run with WEIR_SIM_SEED={seed}"));
    }
}

struct Run {
    rng: StdRng,
    parallel: usize,
    columns: Vec<StreamColumn>,
    job: Job,
    rows: Vec<Row>,
    next: i32,
    emitted: Groups,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut rng = StdRng::seed_from_u64(seed);
        let parallel = *[1, 3].choose(&mut rng).expect("one of them");
        let (plan, leaf) = plan(&PLAN.map(str::to_owned));
        let columns = leaf.columns.clone();
        let job = Job::new(plan, leaf, parallel);
        Run { rng, parallel, columns, job, rows: Vec::new(), next: 0, emitted: Groups::new() }
    }

    fn run(&mut self) {
        for _ in 0..self.rng.random_range(1..30) {
            match self.rng.random_range(0..10) {
                0..6 => self.change(),
                6..8 => self.flush(),
                8 => {
                    self.job.applied();
                    self.job.evict(0.0);
                }
                _ => {
                    self.flush();
                    self.job.restart();
                }
            }
        }
        self.flush();
    }

    /// Passes a chunk to the actors that own its rows.
    fn change(&mut self) {
        let (mut changed, mut deletes) = (Vec::new(), Vec::new());
        for _ in 0..self.rng.random_range(1..6) {
            let is_delete = !self.rows.is_empty() && self.rng.random_bool(0.45);
            let row = if is_delete {
                let place = self.rng.random_range(0..self.rows.len());
                self.rows.swap_remove(place)
            } else {
                self.next += 1;
                let row = Row {
                    id: self.next,
                    divisor: *[0, 0, 1, 2, 5].choose(&mut self.rng).expect("one of them"),
                    channel: ["a", "b", "c"].choose(&mut self.rng).expect("one of them"),
                    number: *[1, -3, i64::MAX, i64::MIN].choose(&mut self.rng).expect("one of them"),
                };
                self.rows.push(row.clone());
                row
            };
            changed.push([row.id.to_string(), row.divisor.to_string(), row.channel.to_owned(), row.number.to_string()]);
            deletes.push(is_delete);
        }
        let texts: Vec<Vec<Option<&str>>> =
            changed.iter().map(|row| row.iter().map(|text| Some(text.as_str())).collect()).collect();
        for (actor, part) in divide(&rows_of(&texts, &deletes, &self.columns), &[0], self.parallel) {
            self.job.apply(actor, part).expect("no failure");
        }
    }

    /// Ends an epoch, and compares.
    fn flush(&mut self) {
        self.job.flush(&mut self.rng).expect("no failure");
        for chunk in std::mem::take(&mut self.job.emitted) {
            let rows = chunk.rows();
            let numbers = |column: usize| rows.column(column).as_primitive::<Int64Type>();
            for row in 0..rows.num_rows() {
                let channel = rows.column(0).as_string::<i32>().value(row).to_owned();
                let values = (numbers(1).value(row) - (i64::MAX - COUNT_MAX), numbers(2).value(row));
                match chunk.is_delete(row) {
                    true => assert_eq!(self.emitted.remove(&channel), Some(values)),
                    false => assert_eq!(self.emitted.insert(channel, values), None),
                }
            }
        }
        let (letters, groups) = self.expected();
        assert_eq!(self.job.letters.keys().cloned().collect::<Letters>(), letters);
        assert_eq!(self.emitted, groups);
    }

    /// The letters and the groups of the present rows.
    fn expected(&self) -> (Letters, Groups) {
        let (mut letters, mut groups) = (Letters::new(), Groups::new());
        let mut sums: BTreeMap<&str, (i64, i128)> = BTreeMap::new();
        for Row { id, divisor, channel, number } in &self.rows {
            if *divisor == 0 {
                let key = [&[1], &(id.cast_unsigned() ^ (1 << 31)).to_be_bytes()[..]].concat();
                letters.insert((0, 1, key));
                continue;
            }
            let (count, sum) = sums.entry(channel).or_default();
            (*count, *sum) = (*count + 1, *sum + i128::from(*number));
        }
        for (channel, (count, sum)) in sums {
            let key = [&[1], channel.as_bytes(), &[0, 0]].concat();
            match i64::try_from(sum) {
                Err(_) => drop(letters.insert((1, 0, key))),
                Ok(_) if count > COUNT_MAX => drop(letters.insert((1, 1, key))),
                Ok(sum) => drop(groups.insert(channel.to_owned(), (count, sum))),
            }
        }
        (letters, groups)
    }
}
