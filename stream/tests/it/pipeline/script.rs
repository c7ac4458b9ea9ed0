//! Scripts: a plan, chunks and flushes as text, and what comes of them.
//!
//! A line of a script begins with a word:
//!
//! * `input name type, …`: the columns of the input, of which `changes` may be deleted;
//! * `values`: rows that are there from the first flush on, divided by semicolons;
//! * `filter`, `project`, `preaggregate by`, `aggregate by`, `final by`: the next operator;
//! * `expand`: rows for each list of columns, divided by semicolons;
//! * `unnest`: rows of arrays;
//! * `materialize with groups`: the caller stores the rows as one with those of the last aggregate;
//! * `shuffle by`: the end of a fragment;
//! * `+` and `-`: a row that is inserted or deleted, values divided by blanks; rows of successive
//!   lines are one chunk;
//! * `flush`; `restart`: actors are built anew; `evict`: they forget all they can.
//!
//! Expressions and aggregates are as `EXPLAIN` prints them, aggregates with their type.

use std::fmt::Write;

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rand::SeedableRng;
use rand::rngs::StdRng;
use weir_common::catalog::{Column, Origin, schema};
use weir_common::plan::{
    AggregateCall, Conflict, Dispatch, Distribution, Edge, Expr, Fragment, JobPlan, Operator, SortKey, StateTable,
    Stream, StreamColumn,
};
use weir_common::types::SqlType;
use weir_stream::chunk::Chunk;

use super::functions::values;
use super::job::Job;

/// Runs a script and returns its output.
pub(super) fn run(script: &str) -> String {
    let mut lines = script.lines().peekable();
    let mut draft = Draft::default();
    while let Some(line) = lines.next_if(|line| !line.is_empty()) {
        draft.add(line);
    }
    let columns = draft.leaf.columns.clone();
    let (plan, leaf) = draft.finish();
    let mut job = Job::new(plan, leaf, 2);
    let mut rng = StdRng::seed_from_u64(0);
    let mut output = String::new();
    while let Some(line) = lines.next() {
        let result = match line {
            "" => continue,
            "restart" => {
                job.restart();
                continue;
            }
            "evict" => {
                job.applied();
                job.evict(0.0);
                continue;
            }
            "flush" => job.flush(&mut rng).map(|writes| {
                writeln!(output, "flush").expect("a string");
                let (reads, ranges) = (std::mem::take(&mut job.reads), std::mem::take(&mut job.ranges));
                if reads + ranges > 0 {
                    writeln!(output, "  read {reads} entries, {ranges} ranges").expect("a string");
                }
                std::mem::take(&mut job.emitted).iter().for_each(|chunk| show(chunk, &mut output));
                for rows in std::mem::take(&mut job.kept) {
                    writeln!(output, "  kept").expect("a string");
                    show(&Chunk::inserts(rows), &mut output);
                }
                for failed in std::mem::take(&mut job.failed) {
                    let change = if failed.is_delete { "no longer fails" } else { "fails" };
                    writeln!(output, "  {change} in operator {}: {}", failed.operator, failed.error).expect("a string");
                    show(&Chunk::inserts(failed.row), &mut output);
                }
                for write in writes {
                    let value = write.value.map_or("deleted".to_owned(), |value| hex(&value));
                    writeln!(output, "  table {}: {} {value}", write.key.table, hex(&write.key.key)).expect("a string");
                }
            }),
            row => {
                let mut rows = vec![row];
                while let Some(row) = lines.next_if(|line| line.starts_with(['+', '-'])) {
                    rows.push(row);
                }
                job.apply(0, chunk(&rows, &columns))
            }
        };
        if let Err(failure) = result {
            writeln!(output, "failure: {failure}").expect("a string");
            break;
        }
    }
    output
}

/// Reads the operators of a plan, one a line. Returns the stream that they begin with, too.
pub(super) fn plan(lines: &[String]) -> (JobPlan, Stream) {
    let mut draft = Draft::default();
    lines.iter().for_each(|line| draft.add(line));
    draft.finish()
}

fn chunk(lines: &[&str], columns: &[StreamColumn]) -> Chunk {
    let value = |text| Some(text).filter(|text| *text != "NULL");
    let rows: Vec<Vec<Option<&str>>> =
        lines.iter().map(|line| line[1..].split_whitespace().map(value).collect()).collect();
    let deletes: Vec<bool> = lines.iter().map(|line| line.starts_with('-')).collect();
    rows_of(&rows, &deletes, columns)
}

/// Rows, given as texts, and for each whether it is deleted.
pub(super) fn rows_of(rows: &[Vec<Option<&str>>], deletes: &[bool], columns: &[StreamColumn]) -> Chunk {
    let column = |(place, column): (usize, &StreamColumn)| {
        let texts: Vec<Option<&str>> = rows.iter().map(|row| row[place]).collect();
        values(&texts, &column.ty)
    };
    let named =
        |column: &StreamColumn| Column { name: column.name.clone(), ty: column.ty.clone(), origin: Origin::Expression };
    let schema = schema(&columns.iter().map(named).collect::<Vec<_>>());
    let rows = RecordBatch::try_new(schema, columns.iter().enumerate().map(column).collect()).expect("rows");
    Chunk::new(rows, BooleanBuffer::from(deletes))
}

fn show(chunk: &Chunk, output: &mut String) {
    let options = FormatOptions::new().with_null("NULL");
    let columns = chunk.rows().columns();
    let columns: Vec<ArrayFormatter<'_>> =
        columns.iter().map(|column| ArrayFormatter::try_new(column, &options).expect("a format")).collect();
    for row in 0..chunk.rows().num_rows() {
        let change = if chunk.is_delete(row) { "-" } else { "+" };
        let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
        writeln!(output, "  {change} {}", values.join(" ")).expect("a string");
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "()".to_owned();
    }
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// A plan that is being read. Each fragment but the last one is shuffled.
struct Draft {
    leaf: Stream,
    plan: JobPlan,
    columns: Vec<StreamColumn>,
    operators: Vec<Operator>,
    distribution: Distribution,
    append_only: bool,
    calls: Vec<AggregateCall>,
}

impl Default for Draft {
    fn default() -> Draft {
        Draft {
            leaf: Stream { columns: Vec::new(), key: Vec::new(), append_only: true },
            plan: JobPlan::default(),
            columns: Vec::new(),
            operators: Vec::new(),
            distribution: Distribution::Hash,
            append_only: true,
            calls: Vec::new(),
        }
    }
}

impl Draft {
    fn add(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').expect("a word and the rest");
        match word {
            "input" | "changes" => {
                self.columns = list(rest).into_iter().map(stream_column).collect();
                self.leaf = Stream { columns: self.columns.clone(), key: vec![0], append_only: word == "input" };
                self.append_only = self.leaf.append_only;
                self.operators.push(Operator::Read { columns: (0..self.columns.len()).collect() });
            }
            "values" => {
                let rows: Vec<Vec<Expr>> =
                    rest.split("; ").map(|row| list(row).into_iter().map(|value| self.expr(value)).collect()).collect();
                let named = |expr: &Expr| StreamColumn { name: expr.to_string(), ty: self.type_of(expr) };
                self.columns = rows[0].iter().map(named).collect();
                self.distribution = Distribution::Single;
                let emitted = self.table(Vec::new(), vec![SqlType::Boolean]);
                self.operators.push(Operator::Values { rows, emitted });
            }
            "filter" => self.operators.push(Operator::Filter { condition: self.expr(rest) }),
            "project" => {
                let columns: Vec<Expr> = list(rest).into_iter().map(|expr| self.expr(expr)).collect();
                let named = |expr: &Expr| StreamColumn { name: expr.to_string(), ty: self.type_of(expr) };
                self.columns = columns.iter().map(named).collect();
                self.operators.push(Operator::Project { columns });
            }
            "expand" => {
                let set = |set: &str| list(set).into_iter().map(|expr| self.expr(expr)).collect();
                let sets: Vec<Vec<Expr>> = rest.split("; ").map(set).collect();
                let named = |expr: &Expr| StreamColumn { name: expr.to_string(), ty: self.type_of(expr) };
                self.columns = sets[0].iter().map(named).collect();
                self.operators.push(Operator::Expand { sets });
            }
            "unnest" => {
                let lists = places(rest);
                for list in &lists {
                    let SqlType::Array(element) = self.columns[*list].ty.clone() else { panic!("an array") };
                    self.columns[*list].ty = *element;
                }
                self.columns.push(StreamColumn { name: "place".to_owned(), ty: SqlType::Integer });
                self.operators.push(Operator::Unnest { columns: lists });
            }
            "materialize" => {
                let groups = self.operators.iter().rev().find_map(|operator| match operator {
                    Operator::Aggregate { groups, .. } => Some(*groups),
                    _ => None,
                });
                assert_eq!(rest, "with groups");
                let visible = self.columns.len();
                self.operators.push(Operator::Materialize { visible, conflict: Conflict::None, groups });
            }
            "shuffle" => self.shuffle(places(rest.strip_prefix("by ").expect("by"))),
            "preaggregate" | "aggregate" | "final" => self.group(word, rest),
            other => panic!("no operator {other}"),
        }
    }

    fn group(&mut self, word: &str, rest: &str) {
        let (keys, calls) = rest.strip_prefix("by ").and_then(|rest| rest.split_once(": ")).expect("by keys: calls");
        let keys = places(keys);
        if word != "final" {
            self.calls = calls_of(calls);
        }
        let append_only = self.append_only;
        self.append_only &= word == "preaggregate";
        let own: Vec<StreamColumn> = keys.iter().map(|key| self.columns[*key].clone()).collect();
        let mut calls = self.calls.clone();
        for call in &mut calls {
            if let Some(key) = call.value_key(append_only) {
                let values = key.iter().map(|key| self.columns[key.column].ty.clone());
                let key = own.iter().map(|column| column.ty.clone()).chain(values).collect();
                call.values = Some(self.table(key, vec![SqlType::BigInt]));
            }
        }
        let kept: Vec<SqlType> = calls.iter().flat_map(|call| call.kept(append_only)).collect();
        if word == "preaggregate" {
            let partial = std::iter::once(SqlType::BigInt).chain(kept);
            let partial = partial.map(|ty| StreamColumn { name: "partial".to_owned(), ty });
            self.columns = own.into_iter().chain(partial).collect();
            self.operators.push(Operator::PreAggregate { keys, calls });
            return;
        }
        let key = own.iter().map(|column| column.ty.clone()).collect();
        let value = std::iter::once(SqlType::BigInt).chain(kept).collect();
        let groups = self.table(key, value);
        let results = calls.iter().map(|call| StreamColumn { name: call.function.clone(), ty: call.ty.clone() });
        self.columns = own.into_iter().chain(results).collect();
        self.operators.push(Operator::Aggregate { keys, calls, is_final: word == "final", groups });
    }

    fn table(&mut self, key: Vec<SqlType>, value: Vec<SqlType>) -> u16 {
        self.plan.tables.push(StateTable { version: 1, key, value });
        u16::try_from(self.plan.tables.len() - 1).expect("few tables")
    }

    fn shuffle(&mut self, by: Vec<usize>) {
        let from = u16::try_from(self.plan.fragments.len()).expect("few fragments");
        let (distribution, dispatch) = match by.is_empty() {
            true => (Distribution::Single, Dispatch::Single),
            false => (Distribution::Hash, Dispatch::Hash(by)),
        };
        self.close();
        self.distribution = distribution;
        self.plan.edges.push(Edge { from, to: from + 1, input: 0, dispatch });
    }

    fn close(&mut self) {
        let key = (0..self.columns.len()).collect();
        let output = Stream { columns: self.columns.clone(), key, append_only: false };
        let operators = std::mem::take(&mut self.operators);
        self.plan.fragments.push(Fragment { distribution: self.distribution, operators, output });
    }

    fn finish(mut self) -> (JobPlan, Stream) {
        self.close();
        (self.plan, self.leaf)
    }

    /// `#0`, `5::bigint`, `(#0 + #1)`.
    fn expr(&self, text: &str) -> Expr {
        if let Some(inner) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
            let [left, function, right] = inner.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{inner}") };
            let arguments = vec![self.expr(left), self.expr(right)];
            let ty = match function {
                "+" | "/" => self.type_of(&arguments[0]),
                _ => SqlType::Boolean,
            };
            return Expr::Call { function: function.to_owned(), revision: 1, arguments, ty };
        }
        match (text.strip_prefix('#'), text.split_once("::")) {
            (Some(place), _) => Expr::Column(place.parse().expect("a place")),
            (None, Some((value, ty))) => {
                Expr::Literal { value: Some(value.to_owned()).filter(|value| value != "NULL"), ty: sql_type(ty) }
            }
            (None, None) => panic!("no expression: {text}"),
        }
    }

    fn type_of(&self, expr: &Expr) -> SqlType {
        match expr {
            Expr::Column(place) => self.columns[*place].ty.clone(),
            Expr::Literal { ty, .. } | Expr::Call { ty, .. } => ty.clone(),
            other => panic!("no type of {other}"),
        }
    }
}

/// `count(*) bigint, sum(#1) FILTER #2 numeric(20,2), array_agg(#1 ORDER BY #0 DESC) bigint[]`.
fn calls_of(text: &str) -> Vec<AggregateCall> {
    let call = |text: &str| {
        let (function, rest) = text.split_once('(').expect("a function");
        let (arguments, rest) = rest.split_once(')').expect("arguments");
        let (arguments, order) = arguments.split_once(" ORDER BY ").unwrap_or((arguments, ""));
        let distinct = arguments.strip_prefix("DISTINCT ");
        let (filter, ty) = match rest.strip_prefix(" FILTER #") {
            Some(rest) => rest.split_once(' ').map(|(filter, ty)| (Some(filter.parse().expect("a place")), ty)),
            None => Some((None, rest)),
        }
        .expect("a type");
        AggregateCall {
            function: function.to_owned(),
            revision: 1,
            arguments: if arguments == "*" { Vec::new() } else { places(distinct.unwrap_or(arguments)) },
            distinct: distinct.is_some(),
            filter,
            order: list(order).into_iter().map(sort_key).collect(),
            values: None,
            ty: sql_type(ty.trim()),
        }
    };
    list(text).into_iter().map(call).collect()
}

/// `#0`, `#0 DESC`, `#0 NULLS FIRST`.
fn sort_key(text: &str) -> SortKey {
    let (column, rest) = text.split_once(' ').unwrap_or((text, ""));
    let descending = rest.starts_with("DESC");
    let nulls_first = if descending { !rest.ends_with("LAST") } else { rest.ends_with("FIRST") };
    SortKey { column: places(column)[0], descending, nulls_first }
}

/// Parts between commas that are not in parentheses.
fn list(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let is_between = |character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    };
    text.split(is_between).map(str::trim).filter(|part| !part.is_empty() && *part != "nothing").collect()
}

/// `#0, #1` or `nothing`.
fn places(text: &str) -> Vec<usize> {
    list(text).into_iter().map(|place| place.trim_start_matches('#').parse().expect("a place")).collect()
}

fn stream_column(text: &str) -> StreamColumn {
    let (name, ty) = text.split_once(' ').expect("a name and a type");
    StreamColumn { name: name.to_owned(), ty: sql_type(ty) }
}

fn sql_type(name: &str) -> SqlType {
    if let Some(digits) = name.strip_prefix("numeric(").and_then(|rest| rest.strip_suffix(')')) {
        let (precision, scale) = digits.split_once(',').expect("a precision and a scale");
        return SqlType::Decimal {
            precision: precision.parse().expect("digits"),
            scale: scale.parse().expect("digits"),
        };
    }
    if let Some(element) = name.strip_suffix("[]") {
        return SqlType::Array(Box::new(sql_type(element)));
    }
    let types = [
        SqlType::Boolean,
        SqlType::SmallInt,
        SqlType::Integer,
        SqlType::BigInt,
        SqlType::Real,
        SqlType::Double,
        SqlType::Numeric,
        SqlType::Bytea,
        SqlType::Date,
        SqlType::Timestamp,
        SqlType::Jsonb,
    ];
    match name {
        "varchar" => SqlType::Varchar,
        name => types.into_iter().find(|ty| ty.to_string() == name).unwrap_or_else(|| panic!("no type {name}")),
    }
}
