//! What aggregates keep of each group, in columns: accumulators.
//!
//! The rows of a group form a bag. `update` adds a row to it or, for a delete, takes it out;
//! `merge` adds another bag. An accumulator that can only add is used where nothing is deleted.
//! Accumulators are wider than results, so a result may be out of range for a while within an
//! epoch; it is judged when it is asked for.
//!
//! * `count`; `sum`, of exact numbers; `float`, the exact sum of floating-point numbers;
//! * `boolean`: `bool_and` and `bool_or`, as the number of true and false values;
//! * `extreme`: `min` and `max` where nothing is deleted.

use std::fmt::Debug;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use weir_common::plan::AggregateCall;
use weir_common::types::SqlType;
use weir_common::view::Error;

use super::Failure;
use super::groups::Group;

mod boolean;
mod count;
mod extreme;
mod float;
mod sum;

use boolean::Boolean;
use count::Count;
use float::FloatSum;
use sum::{Sum, Wide};

/// Rows and the groups that they belong to.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// A group for each row.
    pub(super) groups: &'a [Group],
    /// The rows that are deleted.
    pub(super) deletes: Option<&'a BooleanBuffer>,
    /// The rows that count.
    counted: Option<&'a BooleanBuffer>,
}

/// What one aggregate keeps of each group.
pub(super) trait Accumulate: Debug + Send {
    /// Makes room for this number of groups; new ones are empty.
    fn resize(&mut self, groups: usize);

    /// Adds rows or takes them out. An argument is not NULL in rows that count.
    fn update(&mut self, rows: Rows<'_>, arguments: &[&ArrayRef]) -> Result<(), Failure>;

    /// Adds partial results: the columns that [`Accumulate::take_partial`] returns.
    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure>;

    /// Takes the partial results of groups, of the types of [`AggregateCall::kept`]. Where a column
    /// does not hold all of it, a rest stays, and a true is put at its place in `rest`.
    fn take_partial(&mut self, groups: &[Group], rest: &mut [bool]) -> Vec<ArrayRef>;

    /// The results of groups.
    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure>;

    /// Writes what is kept of a group.
    fn put(&self, group: Group, out: &mut Vec<u8>);

    /// Reads what is kept of a group that is empty.
    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure>;
}

/// The aggregates of an operator.
#[derive(Debug)]
pub(super) struct Calls {
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    arguments: Vec<usize>,
    filter: Option<usize>,
    /// The number of columns of its partial results.
    width: usize,
    accumulator: Box<dyn Accumulate>,
}

impl Rows<'_> {
    /// Calls a function with each row that counts, its group, and whether it is deleted.
    #[inline]
    fn each(&self, mut f: impl FnMut(usize, usize, bool)) {
        let groups = self.groups;
        match (self.counted, self.deletes) {
            (None, None) => groups.iter().enumerate().for_each(|(row, group)| f(row, *group as usize, false)),
            (None, Some(deletes)) => {
                groups.iter().enumerate().for_each(|(row, group)| f(row, *group as usize, deletes.value(row)));
            }
            (Some(counted), None) => counted.set_indices().for_each(|row| f(row, groups[row] as usize, false)),
            (Some(counted), Some(deletes)) => {
                counted.set_indices().for_each(|row| f(row, groups[row] as usize, deletes.value(row)));
            }
        }
    }
}

impl Calls {
    pub(super) fn new(calls: &[AggregateCall], append_only: bool) -> Result<Calls, Error> {
        let call = |call: &AggregateCall| {
            Ok(Call {
                arguments: call.arguments.clone(),
                filter: call.filter,
                width: call.kept(append_only).len(),
                accumulator: accumulator(call, append_only)?,
            })
        };
        Ok(Calls { calls: calls.iter().map(call).collect::<Result<_, Error>>()? })
    }

    pub(super) fn resize(&mut self, groups: usize) {
        self.calls.iter_mut().for_each(|call| call.accumulator.resize(groups));
    }

    pub(super) fn update(
        &mut self,
        rows: &RecordBatch,
        deletes: Option<&BooleanBuffer>,
        groups: &[Group],
    ) -> Result<(), Failure> {
        for call in &mut self.calls {
            let arguments: Vec<&ArrayRef> = call.arguments.iter().map(|column| rows.column(*column)).collect();
            let filter = call.filter.map(|column| rows.column(column).as_boolean());
            let filter = filter.map(|filter| match filter.nulls() {
                Some(nulls) => filter.values() & nulls.inner(),
                None => filter.values().clone(),
            });
            let nulls = arguments.iter().filter_map(|argument| argument.nulls()).map(|nulls| nulls.inner().clone());
            let counted = filter.into_iter().chain(nulls).reduce(|one, other| &one & &other);
            call.accumulator.update(Rows { groups, deletes, counted: counted.as_ref() }, &arguments)?;
        }
        Ok(())
    }

    /// Adds partial results, in the columns from `first` on.
    pub(super) fn merge(&mut self, rows: &RecordBatch, first: usize, groups: &[Group]) -> Result<(), Failure> {
        let mut partial = &rows.columns()[first..];
        for call in &mut self.calls {
            let (own, others) = partial.split_at(call.width);
            call.accumulator.merge(groups, own)?;
            partial = others;
        }
        Ok(())
    }

    pub(super) fn take_partial(&mut self, groups: &[Group], rest: &mut [bool]) -> Vec<ArrayRef> {
        self.calls.iter_mut().flat_map(|call| call.accumulator.take_partial(groups, rest)).collect()
    }

    /// A column of results for each aggregate.
    pub(super) fn results(&self, groups: &[Group]) -> Result<Vec<ArrayRef>, Failure> {
        self.calls.iter().map(|call| call.accumulator.results(groups)).collect()
    }

    pub(super) fn put(&self, group: Group, out: &mut Vec<u8>) {
        self.calls.iter().for_each(|call| call.accumulator.put(group, out));
    }

    pub(super) fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        self.calls.iter_mut().try_for_each(|call| call.accumulator.take(group, input))
    }
}

fn accumulator(call: &AggregateCall, append_only: bool) -> Result<Box<dyn Accumulate>, Error> {
    let unknown = || Error(format!("this version does not have revision {} of the aggregate {call}", call.revision));
    if call.revision != 1 || call.values.is_some() {
        return Err(unknown());
    }
    Ok(match (call.function.as_str(), &call.ty) {
        ("count", SqlType::BigInt) => Box::new(Count::default()),
        ("sum", SqlType::BigInt) => Box::new(Sum::<i128>::new(&call.ty)),
        ("sum", SqlType::Numeric | SqlType::Decimal { .. }) => Box::new(Sum::<Wide>::new(&call.ty)),
        ("sum", SqlType::Real) => Box::new(FloatSum::new(float::Width::Single)),
        ("sum", SqlType::Double) => Box::new(FloatSum::new(float::Width::Double)),
        ("bool_and", SqlType::Boolean) => Box::new(Boolean::new(boolean::Kind::And, append_only)),
        ("bool_or", SqlType::Boolean) => Box::new(Boolean::new(boolean::Kind::Or, append_only)),
        ("min", ty) if append_only => extreme::extreme(extreme::Kind::Least, ty).ok_or_else(unknown)?,
        ("max", ty) if append_only => extreme::extreme(extreme::Kind::Greatest, ty).ok_or_else(unknown)?,
        _ => return Err(unknown()),
    })
}

/// The failure of a group from which more was deleted than was in it.
fn negative() -> Failure {
    Failure::Broken("more rows of a group were deleted than inserted".to_owned())
}

/// The failure of a column that does not have the type of the plan.
fn mistyped(column: &ArrayRef) -> Failure {
    Failure::Broken(format!("an aggregate does not take values of type {}", column.data_type()))
}

/// Results that are numbers of rows.
fn counts(counts: impl Iterator<Item = i64>) -> Result<ArrayRef, Failure> {
    let counts: Vec<i64> = counts.collect();
    match counts.iter().all(|count| *count >= 0) {
        true => Ok(std::sync::Arc::new(arrow::array::Int64Array::from(counts))),
        false => Err(negative()),
    }
}
