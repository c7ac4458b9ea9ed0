//! After any sequence of changes and flushes the rows that a job emitted are those that its query
//! has over all rows of its input.
//!
//! Random jobs aggregate random rows, with nulls, NaN, duplicates and deletes. Actors are built
//! anew from the state, and forget groups and values, at random. `WEIR_SIM_SEED=n` replays one run,
//! `WEIR_SIM_SCHEDULES=n` runs more of them.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type};
use arrow::util::display::array_value_to_string;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use weir_common::plan::Operator;
use weir_stream::chunk::Chunk;
use weir_stream::pipeline::StateWrite;

use super::job::Job;
use super::script::{plan, rows_of};

const RUNS: u64 = 300;

/// Columns of the input: two keys, and columns to aggregate.
const COLUMNS: &str = "place varchar, second integer, whole integer, price numeric(10,2), ratio double precision, \
                       flag boolean, name varchar";
const KEYS: usize = 2;
const FLAG: usize = 5;

type Texts = Vec<Option<String>>;

/// A value in PostgreSQL's order, NULL last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Boolean(bool),
    /// A whole number, or a decimal in units of its last digit.
    Whole(i128),
    /// The bits of a float that sort as the numbers do.
    Float(u64),
    Text(String),
    Null,
}

/// An aggregate of a random job.
#[derive(Clone, Debug)]
struct Call {
    function: &'static str,
    /// The column; `None`: `*`.
    argument: Option<usize>,
    distinct: bool,
    filter: bool,
    ty: &'static str,
}

#[test]
fn emitted_rows_are_those_of_the_query() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = match number("WEIR_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEIR_SIM_SCHEDULES").unwrap_or(RUNS),
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| Run::new(seed).run());
        run.unwrap_or_else(|_| panic!("replay this run with WEIR_SIM_SEED={seed}"));
    }
}

struct Run {
    rng: StdRng,
    job: Job,
    columns: Vec<weir_common::plan::StreamColumn>,
    keys: Vec<usize>,
    calls: Vec<Call>,
    append_only: bool,
    parallel: usize,
    is_large: bool,
    /// True if the groups are grouped again, by the first key.
    is_nested: bool,
    /// The state table of the groups that are stored as one with their rows.
    stored: Option<u16>,
    /// The rows of the input.
    rows: Vec<Texts>,
    /// The rows that were emitted.
    emitted: BTreeSet<Vec<Value>>,
    /// Groups that were written in this epoch, as far as they are stored with their rows.
    written: usize,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut rng = StdRng::seed_from_u64(seed);
        // A large group has more values than are read at once, and loses the first ones.
        let is_large = rng.random_bool(0.1);
        let append_only = !is_large && rng.random();
        let parallel = *[1, 3].choose(&mut rng).expect("one of them");
        let keys: Vec<usize> = (0..KEYS).filter(|_| !is_large && rng.random_bool(0.6)).collect();
        let mut calls: Vec<Call> = (0..rng.random_range(0..5)).map(|_| Call::random(&mut rng)).collect();
        if is_large {
            let function = *["min", "max"].choose(&mut rng).expect("one of them");
            calls.push(Call { function, argument: Some(2), distinct: false, filter: false, ty: "integer" });
        }
        let is_nested = keys.len() == KEYS && rng.random_bool(0.5);
        if is_nested {
            calls.insert(0, Call { function: "count", argument: None, distinct: false, filter: false, ty: "bigint" });
        }
        let mut lines = lines(&mut rng, append_only, (&keys, is_nested), &calls);
        if is_nested {
            let counts = "min(#2) bigint, max(#2) bigint, count(DISTINCT #2) bigint";
            lines.push(format!("aggregate by #0: count(*) bigint, {counts}"));
        }
        if rng.random() {
            lines.push("materialize with groups".to_owned());
        }
        let (plan, leaf) = plan(&lines);
        let stored = match plan.fragments.last().and_then(|fragment| fragment.operators.last()) {
            Some(Operator::Materialize { groups, .. }) => *groups,
            _ => None,
        };
        let columns = leaf.columns.clone();
        let job = Job::new(plan, leaf, parallel);
        let (rows, emitted) = (Vec::new(), BTreeSet::new());
        Run {
            rng,
            job,
            columns,
            keys,
            calls,
            append_only,
            parallel,
            is_large,
            is_nested,
            stored,
            rows,
            emitted,
            written: 0,
        }
    }

    fn run(&mut self) {
        for _ in 0..self.rng.random_range(1..12) {
            match self.rng.random_range(0..12) {
                0..5 => self.change(),
                5 => self.flush_early(),
                6..9 => self.flush(),
                9 => self.job.applied(),
                10 => self.job.evict(*[0.0, 0.5, 0.9].choose(&mut self.rng).expect("one of them")),
                _ => {
                    self.flush();
                    self.job.restart();
                }
            }
        }
        self.flush();
    }

    /// Passes a chunk to the job.
    fn change(&mut self) {
        let (mut rows, mut deletes) = (Vec::<Texts>::new(), Vec::new());
        let share = *[0.1, 0.45, 0.9].choose(&mut self.rng).expect("one of them");
        let rows_max = if self.is_large { 300 } else { 40 };
        for _ in 0..self.rng.random_range(1..rows_max) {
            let is_delete = !self.append_only && !self.rows.is_empty() && self.rng.random_bool(share);
            let row = match is_delete {
                true => {
                    let place = self.victim();
                    self.rows.swap_remove(place)
                }
                false => self.row(),
            };
            if !is_delete {
                self.rows.push(row.clone());
            }
            rows.push(row);
            deletes.push(is_delete);
        }
        let actor = self.rng.random_range(0..self.parallel);
        let rows: Vec<Vec<Option<&str>>> =
            rows.iter().map(|row| row.iter().map(|text| text.as_deref()).collect()).collect();
        self.job.apply(actor, rows_of(&rows, &deletes, &self.columns)).expect("no failure");
        if self.rng.random() {
            for fragment in 0..2 {
                self.job.deliver(fragment, &mut self.rng).expect("no failure");
            }
        }
    }

    /// A row to delete.
    fn victim(&mut self) -> usize {
        if self.is_large {
            let value = |row: &Texts| Value::parse(row[2].as_deref(), 2);
            let places = 0..self.rows.len();
            let first = match self.calls.last().expect("an aggregate").function {
                "min" => places.min_by_key(|place| value(&self.rows[*place])),
                _ => {
                    places.filter(|place| self.rows[*place][2].is_some()).max_by_key(|place| value(&self.rows[*place]))
                }
            };
            return first.unwrap_or(0);
        }
        self.rng.random_range(0..self.rows.len())
    }

    fn row(&mut self) -> Texts {
        let pools: [&[&str]; 7] = [
            &["a", "b", "ab", ""],
            &["1", "2", "-7"],
            &["0", "1", "2", "-5", "2147483647"],
            &["0.10", "-3.55", "99999999.99", "7"],
            &["0.25", "-0.25", "1024", "-0", "0", "NaN", "inf", "-inf"],
            &["true", "false"],
            &["", "x", "xy", "y"],
        ];
        let rng = &mut self.rng;
        let mut value = |(column, pool): (usize, &&[&str])| match rng.random_range(0..10) {
            0 | 1 => None,
            2..6 if column == 2 => Some(rng.random_range(0..500).to_string()),
            _ => pool.choose(rng).map(|text| (*text).to_owned()),
        };
        pools.iter().enumerate().map(&mut value).collect()
    }

    fn flush_early(&mut self) {
        let fragment = self.rng.random_range(0..self.job.fragments());
        let actor = self.rng.random_range(0..self.job.actors_of(fragment));
        let writes = self.job.flush_early(fragment, actor).expect("no failure");
        self.count(&writes);
    }

    /// Counts the groups that are written with their rows.
    fn count(&mut self, writes: &[StateWrite]) {
        let is_written = |write: &&StateWrite| Some(write.key.table) == self.stored && write.value.is_some();
        self.written += writes.iter().filter(is_written).count();
    }

    fn flush(&mut self) {
        let rng = &mut self.rng;
        let writes = self.job.flush(rng).expect("no failure");
        self.count(&writes);
        let mut inserts = 0;
        for chunk in std::mem::take(&mut self.job.emitted) {
            inserts += (0..chunk.rows().num_rows()).filter(|row| !chunk.is_delete(*row)).count();
            self.take(&chunk);
        }
        let kept: Vec<Vec<Value>> = std::mem::take(&mut self.job.kept).iter().flat_map(values_of).collect();
        let written = std::mem::take(&mut self.written);
        match self.stored {
            Some(_) => assert_eq!(written, inserts + kept.len(), "each group that is written has its row with it"),
            None => assert_eq!(kept, [] as [Vec<Value>; 0], "nobody asks for rows that stay"),
        }
        let expected: BTreeSet<Vec<Value>> = self.answer();
        assert_eq!(self.emitted, expected, "{:?} by {:?} of {:?}", self.calls, self.keys, self.rows);
    }

    fn take(&mut self, chunk: &Chunk) {
        for (row, values) in values_of(chunk.rows()).into_iter().enumerate() {
            let is_change = match chunk.is_delete(row) {
                true => self.emitted.remove(&values),
                false => self.emitted.insert(values.clone()),
            };
            assert!(is_change, "a change of {values:?}, deleted: {}", chunk.is_delete(row));
        }
    }

    /// The rows of the query.
    fn answer(&self) -> BTreeSet<Vec<Value>> {
        let mut groups: BTreeMap<Vec<Value>, Vec<&Texts>> = BTreeMap::new();
        if self.keys.is_empty() {
            groups.insert(Vec::new(), Vec::new());
        }
        for row in &self.rows {
            let key = self.keys.iter().map(|key| Value::parse(row[*key].as_deref(), *key)).collect();
            groups.entry(key).or_default().push(row);
        }
        let row = |(key, rows): (Vec<Value>, Vec<&Texts>)| {
            let results = self.calls.iter().map(|call| call.answer(&rows));
            key.iter().cloned().chain(results).collect()
        };
        let rows = groups.into_iter().map(row).collect();
        if self.is_nested { nested(rows) } else { rows }
    }
}

fn values_of(rows: &RecordBatch) -> Vec<Vec<Value>> {
    (0..rows.num_rows()).map(|row| rows.columns().iter().map(|column| Value::of(column, row)).collect()).collect()
}

/// The rows of the outer query of a nested one.
fn nested(rows: BTreeSet<Vec<Value>>) -> BTreeSet<Vec<Value>> {
    let mut groups: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    for row in rows {
        groups.entry(row[0].clone()).or_default().push(row[KEYS].clone());
    }
    let row = |(key, counts): (Value, Vec<Value>)| {
        let distinct: BTreeSet<&Value> = counts.iter().collect();
        let (first, last) = (*distinct.first().expect("a row"), *distinct.last().expect("a row"));
        let count = |count: usize| Value::Whole(count as i128);
        vec![key, count(counts.len()), first.clone(), last.clone(), count(distinct.len())]
    };
    groups.into_iter().map(row).collect()
}

/// The lines of a plan.
fn lines(rng: &mut StdRng, append_only: bool, (keys, is_nested): (&[usize], bool), calls: &[Call]) -> Vec<String> {
    let names = |columns: &[usize]| match columns {
        [] => "nothing".to_owned(),
        columns => columns.iter().map(|column| format!("#{column}")).collect::<Vec<_>>().join(", "),
    };
    let called: Vec<String> = calls.iter().map(Call::text).collect();
    let called = if called.is_empty() { "nothing".to_owned() } else { called.join(", ") };
    let input = if append_only { "input" } else { "changes" };
    let mut lines = vec![format!("{input} {COLUMNS}")];
    let adds_up = |call: &Call| match call.function {
        "min" | "max" | "first_value" if !append_only => false,
        "array_agg" | "string_agg" | "mode" => false,
        _ => !call.distinct,
    };
    if !is_nested && calls.iter().all(adds_up) && rng.random() {
        let own: Vec<usize> = (0..keys.len()).collect();
        lines.push(format!("preaggregate by {}: {called}", names(keys)));
        lines.push(format!("shuffle by {}", names(&own)));
        lines.push(format!("final by {}: same", names(&own)));
        return lines;
    }
    // The rows of a group are together, too, if they are divided by a part of its key.
    let part = match keys.len() {
        _ if is_nested => &keys[..1],
        0 => keys,
        count => &keys[rng.random_range(0..count)..],
    };
    lines.push(format!("shuffle by {}", names(part)));
    lines.push(format!("aggregate by {}: {called}", names(keys)));
    lines
}

impl Call {
    fn random(rng: &mut StdRng) -> Call {
        let types = ["", "", "integer", "numeric(10,2)", "double precision", "boolean", "varchar"];
        if rng.random_bool(0.35) {
            return Call::ordered(rng);
        }
        let (function, argument, ty) = match rng.random_range(0..10) {
            0 => ("count", None, "bigint"),
            1 => ("count", Some(rng.random_range(2..7)), "bigint"),
            2 => ("sum", Some(2), "bigint"),
            3 => ("sum", Some(3), "numeric(20,2)"),
            4 => ("sum", Some(4), "double precision"),
            8 => (*["bit_and", "bit_or", "bit_xor"].choose(rng).expect("one of them"), Some(2), "integer"),
            9 => (*["var_pop", "var_samp"].choose(rng).expect("one of them"), Some(4), "double precision"),
            5 => (*["bool_and", "bool_or"].choose(rng).expect("one of them"), Some(FLAG), "boolean"),
            _ => {
                let argument = *[2, 3, 4, 6].choose(rng).expect("one of them");
                (*["min", "max"].choose(rng).expect("one of them"), Some(argument), types[argument])
            }
        };
        let distinct = argument.is_some() && rng.random_bool(0.3);
        Call { function, argument, distinct, filter: rng.random_bool(0.25), ty }
    }

    /// An aggregate that takes its rows in an order.
    fn ordered(rng: &mut StdRng) -> Call {
        let (function, argument, ty) =
            *[("array_agg", 2, "integer[]"), ("string_agg", 6, "varchar"), ("first_value", 6, "varchar")]
                .choose(rng)
                .expect("one of them");
        let distinct = matches!(function, "array_agg" | "string_agg") && rng.random_bool(0.3);
        Call { function, argument: Some(argument), distinct, filter: rng.random_bool(0.25), ty }
    }

    /// The arguments behind the first, and the order.
    fn order(&self) -> &'static str {
        match self.function {
            "array_agg" => " ORDER BY #2 DESC NULLS LAST",
            "string_agg" => ", #6 ORDER BY #6 DESC",
            "first_value" => " ORDER BY #2 DESC NULLS LAST, #6 NULLS FIRST",
            _ => "",
        }
    }

    fn text(&self) -> String {
        let argument = self.argument.map_or("*".to_owned(), |argument| format!("#{argument}"));
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let filter = if self.filter { format!(" FILTER #{FLAG}") } else { String::new() };
        format!("{}({distinct}{argument}{}){filter} {}", self.function, self.order(), self.ty)
    }

    fn answer(&self, rows: &[&Texts]) -> Value {
        let counted = rows.iter().filter(|row| !self.filter || row[FLAG].as_deref() == Some("true"));
        if let Some(argument) = self.argument.filter(|_| !self.order().is_empty()) {
            return self.in_order(counted.map(|row| Value::parse(row[argument].as_deref(), argument)), rows);
        }
        let Some(argument) = self.argument else { return Value::Whole(counted.count() as i128) };
        let texts: Vec<&str> = counted.filter_map(|row| row[argument].as_deref()).collect();
        let mut values: Vec<Value> = texts.iter().map(|text| Value::parse(Some(text), argument)).collect();
        values.sort();
        if self.distinct {
            values.dedup();
        }
        let best = |value: Option<&Value>| value.cloned().unwrap_or(Value::Null);
        match self.function {
            "count" => Value::Whole(values.len() as i128),
            "min" => best(values.first()),
            "max" => best(values.last()),
            _ if values.is_empty() => Value::Null,
            "bool_and" => Value::Boolean(values.iter().all(|value| *value == Value::Boolean(true))),
            "bool_or" => Value::Boolean(values.contains(&Value::Boolean(true))),
            "bit_and" => Value::Whole(values.iter().map(Value::whole).reduce(|one, other| one & other).expect("one")),
            "bit_or" => Value::Whole(values.iter().map(Value::whole).fold(0, |one, other| one | other)),
            "bit_xor" => Value::Whole(values.iter().map(Value::whole).fold(0, |one, other| one ^ other)),
            function @ ("var_pop" | "var_samp") => variance(&values, function == "var_samp"),
            _ => Value::sum(&values),
        }
    }

    fn in_order(&self, values: impl Iterator<Item = Value>, rows: &[&Texts]) -> Value {
        let mut values: Vec<Value> = values.collect();
        if self.function == "first_value" {
            let counted = rows.iter().filter(|row| !self.filter || row[FLAG].as_deref() == Some("true"));
            let key = |row: &&&Texts| {
                let number = match Value::parse(row[2].as_deref(), 2) {
                    Value::Whole(number) => -number,
                    _ => i128::MAX,
                };
                (number, row[6].clone())
            };
            return counted.min_by_key(key).map_or(Value::Null, |row| Value::parse(row[6].as_deref(), 6));
        }
        if self.function != "array_agg" {
            values.retain(|value| *value != Value::Null);
        }
        // NULL is the greatest value.
        values.sort_by(|one, other| (*one == Value::Null).cmp(&(*other == Value::Null)).then(other.cmp(one)));
        if self.distinct {
            values.dedup();
        }
        if values.is_empty() {
            return Value::Null;
        }
        match self.function {
            "array_agg" => {
                let texts: Vec<String> = values.iter().map(Value::text).collect();
                Value::Text(format!("[{}]", texts.join(", ")))
            }
            _ => {
                let texts: Vec<String> = values.iter().map(Value::text).collect();
                let rest = texts[1..].iter().map(|text| format!("{text}{text}"));
                Value::Text(std::iter::once(texts[0].clone()).chain(rest).collect())
            }
        }
    }
}

/// All values are multiples of a quarter, so only the last step is rounded.
fn variance(values: &[Value], is_sample: bool) -> Value {
    let values: Vec<f64> = values.iter().map(Value::number).collect();
    let count = values.len() as f64;
    if is_sample && values.len() < 2 {
        return Value::Null;
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Value::float(f64::NAN);
    }
    let (sum, squares): (f64, f64) = (values.iter().sum(), values.iter().map(|value| value * value).sum());
    Value::float((count * squares - sum * sum) / (count * (if is_sample { count - 1.0 } else { count })))
}

impl Value {
    fn float(value: f64) -> Value {
        let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
        let bits = value.to_bits();
        Value::Float(if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
    }

    fn parse(text: Option<&str>, column: usize) -> Value {
        let Some(text) = text else { return Value::Null };
        match column {
            1 | 2 => Value::Whole(text.parse().expect("a number")),
            3 => {
                let (whole, fraction) = text.split_once('.').unwrap_or((text, "00"));
                Value::Whole(format!("{whole}{fraction}").parse().expect("a number"))
            }
            4 => Value::float(text.parse().expect("a number")),
            FLAG => Value::Boolean(text == "true"),
            _ => Value::Text(text.to_owned()),
        }
    }

    /// The values are multiples of a quarter, so no sum is rounded.
    fn sum(values: &[Value]) -> Value {
        let whole = |value: &Value| if let Value::Whole(value) = value { Some(*value) } else { None };
        if let Some(wholes) = values.iter().map(whole).collect::<Option<Vec<i128>>>() {
            return Value::Whole(wholes.into_iter().sum());
        }
        Value::float(values.iter().map(Value::number).sum())
    }

    fn number(&self) -> f64 {
        let Value::Float(bits) = self else { panic!("{self:?} is not a number") };
        f64::from_bits(if bits >> 63 == 1 { bits ^ 1 << 63 } else { !bits })
    }

    fn whole(&self) -> i128 {
        let Value::Whole(value) = self else { panic!("{self:?} is not a whole number") };
        *value
    }

    fn text(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Null => String::new(),
            value => value.whole().to_string(),
        }
    }

    fn of(column: &ArrayRef, row: usize) -> Value {
        if column.is_null(row) {
            return Value::Null;
        }
        match column.data_type() {
            DataType::Boolean => Value::Boolean(column.as_boolean().value(row)),
            DataType::Int32 => Value::Whole(column.as_primitive::<Int32Type>().value(row).into()),
            DataType::Int64 => Value::Whole(column.as_primitive::<Int64Type>().value(row).into()),
            DataType::Decimal128(..) => Value::Whole(column.as_primitive::<Decimal128Type>().value(row)),
            DataType::Float64 => Value::float(column.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_owned()),
            DataType::List(_) => Value::Text(array_value_to_string(column, row).expect("a text")),
            other => panic!("no values of type {other}"),
        }
    }
}
