//! Measures what a million rows cost an aggregate: processor time, by number of groups.
//!
//! `cargo run --release -p weir-stream --example aggregate`

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use weir_common::plan::{
    AggregateCall, Dispatch, Distribution, Edge, Expr, Fragment, JobPlan, Operator, StateTable, Stream, StreamColumn,
};
use weir_common::types::SqlType;
use weir_common::view::{Error, Expression, Functions};
use weir_stream::chunk::Chunk;
use weir_stream::pipeline::{Next, Outcome, Pipeline, Place};

const ROWS: usize = 1_000_000;
const CHUNK: usize = 8_192;
/// Flushes of the second fragment.
const EPOCHS: usize = 10;

#[derive(Debug)]
struct Nothing;

impl Functions for Nothing {
    fn build(&self, expr: &Expr, _columns: &[StreamColumn]) -> Result<Box<dyn Expression>, Error> {
        Err(Error::new(format!("no expression {expr}")))
    }
}

fn main() {
    for groups in [10_000, 1_000_000] {
        let chunks = chunks(groups);
        let (plan, leaf) = plan();
        let place = Place { single: None, is_fresh: true };
        let mut first = Pipeline::new(&plan, 0, Some(&leaf), &Nothing, place).expect("operators");
        let mut second = Pipeline::new(&plan, 1, None, &Nothing, place).expect("operators");
        let mut partial = Vec::new();
        let before = processor_time();
        for (number, chunk) in chunks.iter().enumerate() {
            partial.extend(apply(&mut first, chunk.clone()));
            if number % (chunks.len() / EPOCHS) == 0 {
                partial.extend(flush(&mut first));
            }
        }
        partial.extend(flush(&mut first));
        let between = processor_time();
        let (rows, share) =
            (partial.iter().map(|chunk| chunk.rows().num_rows()).sum::<usize>(), partial.len() / EPOCHS);
        let mut changes = 0;
        for (number, chunk) in partial.into_iter().enumerate() {
            apply(&mut second, chunk);
            if number % share.max(1) == 0 {
                changes += flush(&mut second).iter().map(|chunk| chunk.rows().num_rows()).sum::<usize>();
                second.take_writes();
            }
        }
        let after = processor_time();
        println!(
            "{groups} groups: {ROWS} rows pre-aggregated in {:?}, {rows} partial results aggregated to {changes} changes \
             in {:?}, {} bytes a group",
            between - before,
            after - between,
            second.bytes() / groups
        );
    }
}

fn chunks(groups: usize) -> Vec<Chunk> {
    let mut rng = StdRng::seed_from_u64(0);
    let chunk = |_| {
        let keys: StringArray = (0..CHUNK).map(|_| Some(format!("channel-{}", rng.random_range(0..groups)))).collect();
        let values: Int64Array = (0..CHUNK).map(|_| Some(rng.random_range(0..1_000))).collect();
        let columns: [(&str, ArrayRef); 2] = [("channel", Arc::new(keys)), ("price", Arc::new(values))];
        Chunk::inserts(RecordBatch::try_from_iter(columns).expect("columns of one length"))
    };
    (0..ROWS / CHUNK).map(chunk).collect()
}

fn plan() -> (JobPlan, Stream) {
    let column = |name: &str, ty| StreamColumn { name: name.to_owned(), ty };
    let columns = vec![column("channel", SqlType::Varchar), column("price", SqlType::BigInt)];
    let leaf = Stream { columns, key: vec![0], append_only: true };
    let call = |function: &str, arguments| AggregateCall {
        function: function.to_owned(),
        revision: 1,
        arguments,
        distinct: false,
        filter: None,
        order: Vec::new(),
        values: None,
        ty: SqlType::BigInt,
    };
    let calls = vec![call("count", Vec::new()), call("sum", vec![1])];
    let partial = |name: &str| column(name, SqlType::BigInt);
    let output = Stream {
        columns: vec![
            column("channel", SqlType::Varchar),
            partial("rows"),
            partial("count"),
            partial("sum"),
            partial("values"),
        ],
        key: vec![0],
        append_only: true,
    };
    let keys = vec![0];
    let first = vec![
        Operator::Read { columns: vec![0, 1] },
        Operator::PreAggregate { keys: keys.clone(), calls: calls.clone() },
    ];
    let second = vec![Operator::Aggregate { keys, calls, is_final: true, groups: 0 }];
    let fragment = |operators| Fragment { distribution: Distribution::Hash, operators, output: output.clone() };
    let groups = StateTable { version: 1, key: vec![SqlType::Varchar], value: vec![SqlType::BigInt; 4] };
    let edge = Edge { from: 0, to: 1, input: 0, dispatch: Dispatch::Hash(vec![0]) };
    let plan = JobPlan { fragments: vec![fragment(first), fragment(second)], edges: vec![edge], tables: vec![groups] };
    (plan, leaf)
}

fn flush(pipeline: &mut Pipeline) -> Vec<Chunk> {
    let outcome = pipeline.flush().expect("a flush");
    rest(pipeline, outcome)
}

fn apply(pipeline: &mut Pipeline, chunk: Chunk) -> Vec<Chunk> {
    let outcome = pipeline.apply(0, chunk).expect("a chunk");
    rest(pipeline, outcome)
}

fn rest(pipeline: &mut Pipeline, mut outcome: Outcome) -> Vec<Chunk> {
    let mut emitted = Vec::new();
    loop {
        emitted.append(&mut outcome.emitted);
        outcome = match outcome.next {
            Next::Done => return emitted,
            Next::More => pipeline.resume().expect("more"),
            Next::Need(_) | Next::Ranges(_) => panic!("a new job has no state"),
        };
    }
}

/// The processor time of this process's only thread.
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    let nanoseconds = statistics.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.expect("nanoseconds on the processor"))
}
