//! The skeleton of a job's plan: fragments, the edges between them, and the tables of their state.
//!
//! A job is planned once, when it is created. The catalog keeps the statement and this skeleton,
//! and nodes build the job from the skeleton alone, so a newer planner cannot change the meaning of
//! a job that runs. Expressions are small trees that name functions with a revision; a function
//! whose results change gets a new revision, and a node that lacks a revision leaves the job
//! waiting.
//!
//! Serialised as JSON this is stored state: names of variants and fields never change, and a field
//! that is added later needs a default. A version that does not know a variant or a field cannot
//! know the meaning of the plan either, so it does not read it.
//!
//! Invariants, which [`JobPlan::check`] asserts: edges connect fragments that exist, each input of
//! a fragment has one edge, the edges form no cycle, and columns are within their inputs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::TableId;
use crate::types::SqlType;

/// The plan of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPlan {
    /// Pieces of the plan, numbered by their place here, upstream first.
    pub fragments: Vec<Fragment>,
    /// The ways between them.
    pub edges: Vec<Edge>,
    /// The state of their operators, numbered by their place here.
    pub tables: Vec<StateTable>,
}

/// A piece of a plan between two shuffles. Each of its actors runs all its operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fragment {
    /// Where its actors are.
    pub distribution: Distribution,
    /// In the order in which changes pass them. The first takes the inputs.
    pub operators: Vec<Operator>,
    /// The stream that leaves the last operator.
    pub output: Stream,
}

/// Where the actors of a fragment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Distribution {
    /// One beside the reader of each split of a source.
    Splits(TableId),
    /// One a slot.
    Hash,
    /// One in all.
    Single,
    /// One beside each actor that stores rows of a relation.
    SameAs(TableId),
}

/// A stream of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Its columns, hidden ones last.
    pub columns: Vec<StreamColumn>,
    /// The columns that identify a row: a delete names the same values there as the insert did.
    pub key: Vec<usize>,
    /// True if it consists of inserts only.
    pub append_only: bool,
}

/// A column of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamColumn {
    /// For people.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: SqlType,
}

/// A way from one fragment to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// The fragment that sends.
    pub from: u16,
    /// The fragment that receives.
    pub to: u16,
    /// Which of the receiver's inputs it is.
    pub input: u16,
    /// Which actor gets a change.
    pub dispatch: Dispatch,
}

/// Which actor of a fragment gets a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Dispatch {
    /// The one in the sender's slot.
    Forward,
    /// The one that owns the vnode of these columns.
    Hash(Vec<usize>),
    /// The only one.
    Single,
}

/// The state of an operator: a map from a key to the other columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateTable {
    /// The version of the layout in which its operator reads and writes it.
    pub version: u16,
    /// Columns of the key, in the order in which entries are sorted.
    pub key: Vec<SqlType>,
    /// The other columns.
    pub value: Vec<SqlType>,
}

/// One step of a fragment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operator {
    /// Takes the messages of a split: these columns of the source, then split, sequence and
    /// ordinal.
    Read {
        /// The source's columns, by their places.
        columns: Vec<usize>,
    },
    /// Takes the changes of a relation, and first the rows that it has already.
    Follow {
        /// The relation.
        relation: TableId,
        /// The relation's columns, by their places.
        columns: Vec<usize>,
        /// Its cursors: one a vnode.
        cursors: u16,
    },
    /// Emits these rows once.
    Values {
        /// The rows.
        rows: Vec<Vec<Expr>>,
        /// The state that says that they were emitted.
        emitted: u16,
    },
    /// Takes all inputs as one stream; their columns are the same.
    Union,
    /// Computes other columns.
    Project {
        /// The columns.
        columns: Vec<Expr>,
    },
    /// Makes several rows of each one: for each list of columns, one.
    Expand {
        /// The lists, all with the types of the first one.
        sets: Vec<Vec<Expr>>,
    },
    /// Makes a row of each element of arrays, which advance in step. The place of the element, from
    /// 0, stands behind the other columns.
    Unnest {
        /// The columns of arrays.
        columns: Vec<usize>,
    },
    /// Keeps the rows of which a condition is true.
    Filter {
        /// The condition.
        condition: Expr,
    },
    /// Aggregates the rows of a chunk by key, as far as the actor has them, before they are
    /// shuffled.
    PreAggregate {
        /// The columns to group by.
        keys: Vec<usize>,
        /// The aggregates.
        calls: Vec<AggregateCall>,
    },
    /// Aggregates rows by key.
    Aggregate {
        /// The columns to group by.
        keys: Vec<usize>,
        /// The aggregates.
        calls: Vec<AggregateCall>,
        /// True if its input is the output of a [`Operator::PreAggregate`] with the same calls.
        is_final: bool,
        /// A row a group, with what the aggregates keep.
        groups: u16,
    },
    /// Stores the rows of the relation by their stream key.
    Materialize {
        /// How many of the columns users see; the others are hidden.
        visible: usize,
        /// The rule for a row whose key is there already.
        #[serde(default, skip_serializing_if = "Conflict::is_none")]
        conflict: Conflict,
        /// The table of groups of which each makes one row, under the group's key: a row and the
        /// entry of its group are stored as one. Absent: there is none, or it is stored apart.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        groups: Option<u16>,
    },
}

/// The rule for a row that is inserted under a key that a stored row has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Conflict {
    /// It does not happen: the changes of a query delete a row before they insert another one.
    #[default]
    None,
    /// The new row replaces the stored one.
    Overwrite,
    /// The stored row stays.
    DoNothing,
    /// The new row's values replace the stored ones, except NULLs.
    UpdateIfNotNull,
}

impl Conflict {
    fn is_none(&self) -> bool {
        *self == Conflict::None
    }
}

/// An aggregate over the rows of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregateCall {
    /// The function.
    pub function: String,
    /// The revision of what it computes.
    pub revision: u16,
    /// Columns of the input.
    pub arguments: Vec<usize>,
    /// True if equal arguments count once.
    #[serde(default)]
    pub distinct: bool,
    /// A boolean column of the input; rows where it is not true do not count.
    #[serde(default)]
    pub filter: Option<usize>,
    /// The order in which the aggregate takes the rows of a group, where its result depends on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<SortKey>,
    /// How often each value occurs in a group, where that is needed: a state table.
    #[serde(default)]
    pub values: Option<u16>,
    /// The type of the result.
    #[serde(rename = "type")]
    pub ty: SqlType,
}

/// A column that rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SortKey {
    /// The column.
    pub column: usize,
    /// True if the greatest value comes first.
    #[serde(default, skip_serializing_if = "is_false")]
    pub descending: bool,
    /// True if NULL comes first.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nulls_first: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl SortKey {
    /// The least value first, NULL last.
    pub fn ascending(column: usize) -> SortKey {
        SortKey { column, descending: false, nulls_first: false }
    }

    /// The opposite order.
    #[must_use]
    pub fn reversed(self) -> SortKey {
        SortKey { column: self.column, descending: !self.descending, nulls_first: !self.nulls_first }
    }
}

/// A scalar expression over the columns of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Expr {
    /// A column of the input.
    Column(usize),
    /// A constant.
    Literal {
        /// As PostgreSQL prints it; absent: NULL.
        value: Option<String>,
        /// Its type.
        #[serde(rename = "type")]
        ty: SqlType,
    },
    /// A function or an operator.
    Call {
        /// The name.
        function: String,
        /// The revision of what it computes.
        revision: u16,
        /// Its arguments.
        arguments: Vec<Expr>,
        /// The type of the result.
        #[serde(rename = "type")]
        ty: SqlType,
    },
    /// A value as another type.
    Cast {
        /// The value.
        value: Box<Expr>,
        /// The type.
        #[serde(rename = "type")]
        ty: SqlType,
    },
    /// The result of the first branch whose condition is true.
    Case {
        /// Conditions and results.
        branches: Vec<(Expr, Expr)>,
        /// The result if no condition is true; absent: NULL.
        otherwise: Option<Box<Expr>>,
        /// The type of the result.
        #[serde(rename = "type")]
        ty: SqlType,
    },
}

/// Aggregates of moments: the sums of the values and of their squares.
const MOMENTS: [&str; 4] = ["var_pop", "var_samp", "stddev_pop", "stddev_samp"];

/// Aggregates that take the rows of a group in an order.
const ORDERED: [&str; 3] = ["first_value", "array_agg", "string_agg"];

impl AggregateCall {
    /// True if the aggregate takes the rows of a group in an order.
    pub fn is_ordered(&self) -> bool {
        ORDERED.contains(&self.function.as_str())
    }

    /// True if partial results of the aggregate can be put together. `append_only`: nothing is ever
    /// deleted.
    pub fn adds_up(&self, append_only: bool) -> bool {
        match self.function.as_str() {
            // A value that comes first stays so, however often it occurs.
            "first_value" => append_only,
            _ if self.distinct || self.is_ordered() => false,
            "min" | "max" => append_only,
            _ => true,
        }
    }

    /// The columns of the key of a value in a group, if the aggregate needs to know how often each
    /// value occurs.
    pub fn value_key(&self, append_only: bool) -> Option<Vec<SortKey>> {
        let arguments = self.arguments.iter().map(|column| SortKey::ascending(*column));
        match self.function.as_str() {
            _ if self.adds_up(append_only) => None,
            _ if self.is_ordered() => {
                let ordered = |column: &SortKey| self.order.iter().any(|key| key.column == column.column);
                Some(self.order.iter().copied().chain(arguments.filter(|column| !ordered(column))).collect())
            }
            "max" if !append_only => Some(arguments.map(SortKey::reversed).collect()),
            _ => Some(arguments.collect()),
        }
    }

    /// The columns that are kept with each value, because they cannot be told from its key.
    pub fn payload(&self) -> &[usize] {
        if self.is_ordered() { &self.arguments } else { &[] }
    }

    /// The types of what the aggregate keeps of a group in its row, beside the number of the
    /// group's rows. `append_only`: nothing is ever deleted.
    pub fn kept(&self, append_only: bool) -> Vec<SqlType> {
        match (self.function.as_str(), &self.ty) {
            ("count", _) => vec![SqlType::BigInt],
            // The number of values tells whether the sum is NULL. Floating-point numbers are summed
            // up exactly, so that nothing remains of those that are deleted.
            ("sum", SqlType::Real | SqlType::Double) => vec![SqlType::Bytea, SqlType::BigInt],
            ("sum", ty) => vec![ty.clone(), SqlType::BigInt],
            // Sums in bytes, the number of values, and that of values that are not finite.
            (function, _) if MOMENTS.contains(&function) => {
                vec![SqlType::Bytea, SqlType::Bytea, SqlType::BigInt, SqlType::BigInt]
            }
            ("bit_and" | "bit_or" | "bit_xor", _) => vec![SqlType::Bytea, SqlType::BigInt],
            // The place of the first value in the order, and the value.
            ("first_value", _) if append_only => vec![SqlType::Bytea, SqlType::Bytea],
            _ if self.is_ordered() => Vec::new(),
            (_, ty) if append_only => vec![ty.clone()],
            ("bool_and" | "bool_or", _) => vec![SqlType::BigInt, SqlType::BigInt],
            // All values are kept in a table of their own.
            _ => Vec::new(),
        }
    }
}

impl JobPlan {
    /// The edges into a fragment, by input.
    pub fn inputs(&self, fragment: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| usize::from(edge.to) == fragment)
    }

    /// Asserts what every plan fulfils.
    ///
    /// # Panics
    /// If the planner made a mistake.
    pub fn check(&self) {
        for edge in &self.edges {
            assert!(edge.from < edge.to, "edges lead downstream: {} to {}", edge.from, edge.to);
            assert!(usize::from(edge.to) < self.fragments.len(), "there is no fragment {}", edge.to);
            let from = &self.fragments[usize::from(edge.from)];
            if let Dispatch::Hash(columns) = &edge.dispatch {
                // All changes of one row take one way, in order, only if its key says which.
                let is_fixed = from.output.append_only || columns.iter().all(|column| from.output.key.contains(column));
                assert!(is_fixed, "the stream key of fragment {} lacks columns that it is divided by", edge.from);
            }
        }
        for (number, fragment) in self.fragments.iter().enumerate() {
            let inputs: Vec<u16> = self.inputs(number).map(|edge| edge.input).collect();
            let numbered = (0u16..).take(inputs.len());
            assert!(inputs.iter().copied().eq(numbered), "the inputs of fragment {number} are {inputs:?}");
            let width = fragment.output.columns.len();
            assert!(
                fragment.output.key.iter().all(|column| *column < width),
                "a key of fragment {number} is no column"
            );
        }
    }
}

/// The text that `EXPLAIN` shows: fragments with their operators, and state tables.
impl fmt::Display for JobPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &|_| None)
    }
}

impl JobPlan {
    /// The plan's text with the names of relations in the place of their ids, where `name` knows
    /// them.
    pub fn named<'a>(&'a self, name: &'a dyn Fn(TableId) -> Option<String>) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| self.write(f, name))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, name: &dyn Fn(TableId) -> Option<String>) -> fmt::Result {
        let name = |id: TableId| name(id).unwrap_or_else(|| id.to_string());
        for (number, fragment) in self.fragments.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            let Stream { append_only, key, .. } = &fragment.output;
            let changes = if *append_only { "inserts only" } else { "changes" };
            let key = names(&fragment.output, key);
            writeln!(f, "Fragment {number}: {}", fragment.distribution.text(&name))?;
            for operator in &fragment.operators {
                match operator {
                    Operator::Follow { relation, columns, cursors } => {
                        let (relation, columns) = (name(*relation), places(columns));
                        writeln!(f, "  Follow {relation}: {columns}; cursors in state table {cursors}")?;
                    }
                    operator => writeln!(f, "  {operator}")?,
                }
            }
            write!(f, "  Output: {changes}, stream key ({key})")?;
            for edge in self.edges.iter().filter(|edge| usize::from(edge.from) == number) {
                let way = match &edge.dispatch {
                    Dispatch::Forward => "in the same slot".to_owned(),
                    Dispatch::Hash(columns) => format!("by hash of ({})", names(&fragment.output, columns)),
                    Dispatch::Single => "to the only actor".to_owned(),
                };
                write!(f, "\n  To fragment {} input {}: {way}", edge.to, edge.input)?;
            }
        }
        for (number, table) in self.tables.iter().enumerate() {
            write!(f, "\nState table {number}: ({}) to ({})", types(&table.key), types(&table.value))?;
        }
        Ok(())
    }
}

fn names(stream: &Stream, columns: &[usize]) -> String {
    let name = |column: &usize| stream.columns.get(*column).map_or("?", |column| &column.name);
    columns.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn types(types: &[SqlType]) -> String {
    types.iter().map(SqlType::to_string).collect::<Vec<_>>().join(", ")
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn called(calls: &[AggregateCall]) -> String {
    if calls.is_empty() { String::new() } else { format!(": {}", list(calls)) }
}

fn places(columns: &[usize]) -> String {
    columns.iter().map(|column| format!("#{column}")).collect::<Vec<_>>().join(", ")
}

impl Distribution {
    fn text(&self, name: &dyn Fn(TableId) -> String) -> String {
        match self {
            Distribution::Splits(source) => format!("an actor for each split of {}", name(*source)),
            Distribution::Hash => "an actor for each slot".to_owned(),
            Distribution::Single => "one actor".to_owned(),
            Distribution::SameAs(relation) => format!("an actor beside each of {}", name(*relation)),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operator::Read { columns } if columns.is_empty() => write!(f, "Read"),
            Operator::Read { columns } => write!(f, "Read {}", places(columns)),
            Operator::Follow { relation, columns, cursors } => {
                write!(f, "Follow {relation}: {}; cursors in state table {cursors}", places(columns))
            }
            Operator::Values { rows, .. } => write!(f, "Values: {} rows", rows.len()),
            Operator::Union => write!(f, "Union"),
            Operator::Project { columns } if columns.is_empty() => write!(f, "Project no columns"),
            Operator::Project { columns } => write!(f, "Project {}", list(columns)),
            Operator::Expand { sets } => {
                let sets: Vec<String> = sets.iter().map(|set| format!("({})", list(set))).collect();
                write!(f, "Expand {}", sets.join(", "))
            }
            Operator::Unnest { columns } => write!(f, "Unnest {}", places(columns)),
            Operator::Filter { condition } => write!(f, "Filter {condition}"),
            Operator::PreAggregate { keys, calls } => {
                write!(f, "PreAggregate by ({}){}", places(keys), called(calls))
            }
            Operator::Aggregate { keys, calls, is_final, groups } => {
                let kind = if *is_final { "Aggregate partial results" } else { "Aggregate" };
                write!(f, "{kind} by ({}){}; groups in state table {groups}", places(keys), called(calls))
            }
            Operator::Materialize { visible, conflict, groups } => {
                write!(f, "Materialize; visible columns: {visible}")?;
                if let Some(groups) = groups {
                    write!(f, "; with the groups of state table {groups}")?;
                }
                match conflict {
                    Conflict::None => Ok(()),
                    Conflict::Overwrite => write!(f, "; on conflict: overwrite"),
                    Conflict::DoNothing => write!(f, "; on conflict: do nothing"),
                    Conflict::UpdateIfNotNull => write!(f, "; on conflict: update unless NULL"),
                }
            }
        }
    }
}

impl fmt::Display for AggregateCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let arguments = if self.arguments.is_empty() { "*".to_owned() } else { places(&self.arguments) };
        write!(f, "{}({distinct}{arguments}", self.function)?;
        let order: Vec<String> = self.order.iter().map(SortKey::to_string).collect();
        if !order.is_empty() {
            write!(f, " ORDER BY {}", order.join(", "))?;
        }
        write!(f, ")")?;
        if let Some(filter) = self.filter {
            write!(f, " FILTER #{filter}")?;
        }
        match self.values {
            Some(values) => write!(f, " with values in state table {values}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.descending { " DESC" } else { "" };
        let nulls = match (self.descending, self.nulls_first) {
            (true, false) => " NULLS LAST",
            (false, true) => " NULLS FIRST",
            _ => "",
        };
        write!(f, "#{}{direction}{nulls}", self.column)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Column(column) => write!(f, "#{column}"),
            Expr::Literal { value: None, ty } => write!(f, "NULL::{ty}"),
            Expr::Literal { value: Some(value), ty } => write!(f, "'{}'::{ty}", value.replace('\'', "''")),
            Expr::Call { function, arguments, .. } => match arguments.as_slice() {
                [left, right] if !function.starts_with(char::is_alphabetic) => write!(f, "({left} {function} {right})"),
                _ => write!(f, "{function}({})", list(arguments)),
            },
            Expr::Cast { value, ty } => write!(f, "{value}::{ty}"),
            Expr::Case { branches, otherwise, .. } => {
                write!(f, "CASE")?;
                for (condition, result) in branches {
                    write!(f, " WHEN {condition} THEN {result}")?;
                }
                match otherwise {
                    Some(otherwise) => write!(f, " ELSE {otherwise} END"),
                    None => write!(f, " END"),
                }
            }
        }
    }
}
