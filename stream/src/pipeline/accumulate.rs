//! Accumulators: columns with the values that aggregates keep of each group.
//!
//! The rows of a group form a bag. `update` adds a row to it or, for a delete, takes it out;
//! `merge` adds another bag. An accumulator that can only add is used where nothing is deleted.
//! Accumulators are wider than results, so a result may be out of range for a while within an
//! epoch; it is judged when it is asked for.
//!
//! * `count`; `sum`, of exact numbers; `float`, the exact sum of floating-point numbers;
//! * `boolean`: `bool_and` and `bool_or`, as the number of true and false values;
//! * `moments`: variances and standard deviations; `bits`: `bit_and`, `bit_or` and `bit_xor`;
//! * `extreme`: `min` and `max` where nothing is deleted; `best`: `first_value` where nothing is.
//!
//! DISTINCT, aggregates that take rows in an order, and `min` and `max` where rows are deleted,
//! follow the values of a group, see `values`.

use std::fmt::Debug;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use bytes::Bytes;
use weir_common::plan::{AggregateCall, StreamColumn};
use weir_common::types::SqlType;
use weir_common::view::Error;

use super::evict::{Clock, Victims};
use super::groups::{Group, Groups};
use super::values::{Finish, Firsts, ValuePlace, Values};
use super::{Failure, StateRange, StateWrite};

mod best;
mod bits;
mod boolean;
mod count;
mod extreme;
mod float;
mod moments;
mod sum;

use best::Best;
use bits::Bits;
use boolean::Boolean;
use count::Count;
use float::FloatSum;
use moments::Moments;
use sum::{Sum, Wide};

/// Rows and the groups that they belong to.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// A group for each row.
    pub(super) groups: &'a [Group],
    /// The rows that are deleted.
    pub(super) deletes: Option<&'a BooleanBuffer>,
    /// The rows that count.
    pub(super) counted: Option<&'a BooleanBuffer>,
}

/// The values that one aggregate keeps of each group.
pub(super) trait Keep: Debug + Send + Sync {
    /// Makes room for this number of groups; new ones are empty.
    fn resize(&mut self, groups: usize);

    /// The results of groups.
    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure>;

    /// Writes what is kept of a group.
    fn put(&self, group: Group, out: &mut Vec<u8>);

    /// Reads what is kept of a group that is empty.
    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure>;

    /// Keeps the groups with these numbers, which ascend, and numbers them anew.
    fn retain(&mut self, kept: &[Group]);

    /// Memory in use, in bytes.
    fn bytes(&self) -> usize;
}

/// The values that one aggregate keeps of each group, if it needs no more for a change of its rows.
pub(super) trait Accumulate: Keep {
    /// Adds rows or takes them out. An argument is not NULL in rows that count.
    fn update(&mut self, rows: Rows<'_>, arguments: &[&ArrayRef]) -> Result<(), Failure>;

    /// Adds partial results: the columns that [`Accumulate::take_partial`] returns.
    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure>;

    /// Takes the partial results of groups, of the types of [`AggregateCall::kept`]. Where a column
    /// does not hold all of it, a rest stays, and a true is put at its place in `rest`.
    fn take_partial(&mut self, groups: &[Group], rest: &mut [bool]) -> Vec<ArrayRef>;
}

/// The aggregates of an operator.
#[derive(Debug)]
pub(super) struct Calls {
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    /// The arguments, and the columns of the order behind them.
    inputs: Vec<usize>,
    /// A row counts if none of these is NULL.
    required: Vec<usize>,
    filter: Option<usize>,
    /// The number of columns of its partial results.
    width: usize,
    kept: Kept,
}

/// How an aggregate follows the rows of a group.
#[derive(Debug)]
enum Kept {
    /// Row by row.
    Rows(Box<dyn Accumulate>),
    /// By the values that appear and disappear.
    Distinct(Values, Box<dyn Accumulate>),
    /// By the first of the values.
    First(Values, Firsts),
}

/// An entry of a value, by the aggregate that needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueEntry {
    call: usize,
    place: ValuePlace,
}

/// For each aggregate the rows that it counts values of, and their places; empty if none does.
pub(super) type Places = Vec<Vec<(usize, ValuePlace)>>;

/// Groups of which an aggregate has to read values.
pub(super) type Lacking = Vec<(usize, Group)>;

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
    pub(super) fn new(calls: &[AggregateCall], input: &[StreamColumn], append_only: bool) -> Result<Calls, Error> {
        let call = |call: &AggregateCall| {
            Ok(Call {
                inputs: call.arguments.iter().copied().chain(call.order.iter().map(|key| key.column)).collect(),
                required: required(call),
                filter: call.filter,
                width: call.kept(append_only).len(),
                kept: kept(call, input, append_only)?,
            })
        };
        Ok(Calls { calls: calls.iter().map(call).collect::<Result<_, Error>>()? })
    }

    pub(super) fn resize(&mut self, groups: usize) {
        self.calls.iter_mut().for_each(|call| call.kept.keep_mut().resize(groups));
    }

    /// The places of values that the aggregates count. Appends those that are new.
    pub(super) fn places(
        &mut self,
        rows: &RecordBatch,
        groups_of_rows: &[Group],
        groups: &Groups,
        new: &mut Vec<ValueEntry>,
    ) -> Places {
        let places = |(number, call): (usize, &mut Call)| {
            let counted = call.counted(rows);
            let Some(values) = call.kept.values_mut() else { return Vec::new() };
            let first = values.len();
            let places = values.places(rows, counted.as_ref(), groups_of_rows, groups);
            new.extend((first..values.len()).map(|place| ValueEntry { call: number, place: place as ValuePlace }));
            places
        };
        self.calls.iter_mut().enumerate().map(places).collect()
    }

    /// The table, the group and the key of a value.
    pub(super) fn value(&self, ValueEntry { call, place }: ValueEntry) -> (u16, Group, &[u8]) {
        let values = self.calls[call].kept.values().expect("the aggregate has values");
        (values.table, values.group(place), values.key(place))
    }

    pub(super) fn read_value(&mut self, ValueEntry { call, place }: ValueEntry, value: &[u8]) -> Result<(), Failure> {
        self.calls[call].kept.values_mut().expect("the aggregate has values").read(place, value)
    }

    pub(super) fn update(
        &mut self,
        rows: &RecordBatch,
        deletes: Option<&BooleanBuffer>,
        groups: &[Group],
        places: &Places,
        epoch: u32,
    ) -> Result<(), Failure> {
        let places = places.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..]));
        for (call, places) in self.calls.iter_mut().zip(places) {
            let counted = call.counted(rows);
            match &mut call.kept {
                Kept::Rows(accumulator) => {
                    let arguments: Vec<&ArrayRef> = call.inputs.iter().map(|column| rows.column(*column)).collect();
                    accumulator.update(Rows { groups, deletes, counted: counted.as_ref() }, &arguments)?;
                }
                Kept::Distinct(values, _) | Kept::First(values, _) => values.count(places, rows, deletes, epoch)?,
            }
        }
        Ok(())
    }

    /// Adds partial results, in the columns from `first` on.
    pub(super) fn merge(&mut self, rows: &RecordBatch, first: usize, groups: &[Group]) -> Result<(), Failure> {
        let mut partial = &rows.columns()[first..];
        for call in &mut self.calls {
            let (own, others) = partial.split_at(call.width);
            call.kept.partial().merge(groups, own)?;
            partial = others;
        }
        Ok(())
    }

    pub(super) fn take_partial(&mut self, groups: &[Group], rest: &mut [bool]) -> Vec<ArrayRef> {
        self.calls.iter_mut().flat_map(|call| call.kept.partial().take_partial(groups, rest)).collect()
    }

    /// True if no value was deleted more often than inserted so far.
    pub(super) fn can_flush(&self) -> bool {
        self.calls.iter().all(|call| call.kept.values().is_none_or(Values::can_flush))
    }

    /// Ends an epoch: aggregates learn which values appeared and disappeared.
    pub(super) fn settle(&mut self, groups: &Groups) -> Result<(), Failure> {
        for call in &mut self.calls {
            match &mut call.kept {
                Kept::Rows(_) => {}
                Kept::Distinct(values, accumulator) => {
                    let (places, are_there): (Vec<ValuePlace>, Vec<bool>) = values.changes()?.into_iter().unzip();
                    let columns = values.columns(&places, groups)?;
                    let of: Vec<Group> = places.iter().map(|place| values.group(*place)).collect();
                    let deletes: BooleanBuffer = are_there.iter().map(|is_there| !is_there).collect();
                    let deletes = (deletes.count_set_bits() > 0).then_some(&deletes);
                    let arguments: Vec<&ArrayRef> = columns.iter().collect();
                    accumulator.update(Rows { groups: &of, deletes, counted: None }, &arguments)?;
                }
                Kept::First(values, firsts) => firsts.change(values, groups)?,
            }
        }
        Ok(())
    }

    /// A group has no rows any more.
    pub(super) fn empty(&mut self, group: Group) {
        for call in &mut self.calls {
            if let Kept::First(_, firsts) = &mut call.kept {
                firsts.empty(group);
            }
        }
    }

    /// The groups among them whose results are not known.
    pub(super) fn lacking(&self, groups: impl Iterator<Item = Group> + Clone) -> Lacking {
        let lacking = |(number, call): (usize, &Call)| match &call.kept {
            Kept::First(_, firsts) => {
                let mut lacking: Vec<Group> = groups.clone().filter(|group| firsts.is_lacking(*group)).collect();
                lacking.sort_unstable();
                lacking.dedup();
                lacking.into_iter().map(|group| (number, group)).collect()
            }
            Kept::Rows(_) | Kept::Distinct(..) => Vec::new(),
        };
        self.calls.iter().enumerate().flat_map(lacking).collect()
    }

    /// The part of the state with the next values of a group.
    pub(super) fn range(&self, (call, group): (usize, Group), groups: &Groups, vnode: u16) -> StateRange {
        let Kept::First(values, firsts) = &self.calls[call].kept else { panic!("the aggregate has values in order") };
        let prefix = Bytes::copy_from_slice(groups.key(group));
        let after = firsts.after(group).map(|value| Bytes::from([&prefix, value].concat()));
        StateRange { table: values.table, vnode, prefix, after, limit: firsts.page() }
    }

    /// Takes the values that the groups lacked.
    pub(super) fn fill(
        &mut self,
        lacking: Lacking,
        found: Vec<Vec<(Bytes, Bytes)>>,
        groups: &Groups,
    ) -> Result<(), Failure> {
        let mut by_call: Vec<Vec<_>> = self.calls.iter().map(|_| Vec::new()).collect();
        lacking.into_iter().zip(found).for_each(|((call, group), found)| by_call[call].push((group, found)));
        for (call, found) in self.calls.iter_mut().zip(by_call) {
            if let Kept::First(values, firsts) = &mut call.kept {
                firsts.fill(found, values, groups)?;
            }
        }
        Ok(())
    }

    pub(super) fn take_writes(
        &mut self,
        groups: &Groups,
        vnode: impl Fn(Group) -> u16 + Copy,
        writes: &mut Vec<StateWrite>,
    ) {
        let values = self.calls.iter_mut().filter_map(|call| call.kept.values_mut());
        values.for_each(|values| values.take_writes(groups, vnode, writes));
    }

    /// A column of results for each aggregate.
    pub(super) fn results(&self, groups: &[Group]) -> Result<Vec<ArrayRef>, Failure> {
        self.calls.iter().map(|call| call.kept.keep().results(groups)).collect()
    }

    pub(super) fn put(&self, group: Group, out: &mut Vec<u8>) {
        self.calls.iter().for_each(|call| call.kept.keep().put(group, out));
    }

    pub(super) fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        self.calls.iter_mut().try_for_each(|call| call.kept.keep_mut().take(group, input))
    }
}

/// Memory, and what may be forgotten of it.
impl Calls {
    pub(super) fn bytes(&self) -> usize {
        let bytes = |kept: &Kept| kept.keep().bytes() + kept.values().map_or(0, Values::bytes);
        self.calls.iter().map(|call| bytes(&call.kept)).sum()
    }

    /// Keeps the groups with these numbers, which ascend, and their values.
    pub(super) fn retain(&mut self, kept: &[Group], numbers: &[Group]) {
        for call in &mut self.calls {
            call.kept.keep_mut().retain(kept);
            call.kept.values_mut().into_iter().for_each(|values| values.retain_groups(numbers));
        }
    }

    /// The epochs in which values last changed that may be forgotten.
    pub(super) fn evictable(&self, clock: &Clock) -> impl Iterator<Item = u32> {
        self.calls.iter().filter_map(|call| call.kept.values()).flat_map(|values| values.evictable(clock))
    }

    /// Forgets values. `vnode`: of each group.
    pub(super) fn evict(&mut self, victims: &mut Victims, vnode: impl Fn(Group) -> u16 + Copy, clock: &mut Clock) {
        let values = self.calls.iter_mut().filter_map(|call| call.kept.values_mut());
        values.for_each(|values| values.evict(victims, vnode, clock));
    }

    /// Forgets values that are known not to be in the state.
    pub(super) fn drop_absent(&mut self, clock: &Clock) {
        self.calls.iter_mut().filter_map(|call| call.kept.values_mut()).for_each(|values| values.drop_absent(clock));
    }
}

impl Call {
    /// The rows that count: those that pass the filter and lack no argument.
    fn counted(&self, rows: &RecordBatch) -> Option<BooleanBuffer> {
        let filter = self.filter.map(|column| rows.column(column).as_boolean());
        let filter = filter.map(|filter| match filter.nulls() {
            Some(nulls) => filter.values() & nulls.inner(),
            None => filter.values().clone(),
        });
        let arguments = self.required.iter().map(|column| rows.column(*column));
        let nulls = arguments.filter_map(|argument| argument.nulls()).map(|nulls| nulls.inner().clone());
        filter.into_iter().chain(nulls).reduce(|one, other| &one & &other)
    }
}

impl Kept {
    fn keep(&self) -> &dyn Keep {
        match self {
            Kept::Rows(accumulator) | Kept::Distinct(_, accumulator) => accumulator.as_ref(),
            Kept::First(_, firsts) => firsts,
        }
    }

    fn keep_mut(&mut self) -> &mut dyn Keep {
        match self {
            Kept::Rows(accumulator) | Kept::Distinct(_, accumulator) => accumulator.as_mut(),
            Kept::First(_, firsts) => firsts,
        }
    }

    fn values(&self) -> Option<&Values> {
        match self {
            Kept::Rows(_) => None,
            Kept::Distinct(values, _) | Kept::First(values, _) => Some(values),
        }
    }

    fn values_mut(&mut self) -> Option<&mut Values> {
        match self {
            Kept::Rows(_) => None,
            Kept::Distinct(values, _) | Kept::First(values, _) => Some(values),
        }
    }

    fn partial(&mut self) -> &mut dyn Accumulate {
        match self {
            Kept::Rows(accumulator) => accumulator.as_mut(),
            Kept::Distinct(..) | Kept::First(..) => panic!("an aggregate of values has no partial results"),
        }
    }
}

/// The arguments that are not NULL in a row that counts.
fn required(call: &AggregateCall) -> Vec<usize> {
    let count = match call.function.as_str() {
        "first_value" | "array_agg" => 0,
        // The delimiter may be NULL.
        "string_agg" => 1,
        _ => call.arguments.len(),
    };
    call.arguments[..count].to_vec()
}

/// True if nothing is ever deleted from the groups: more is kept of them otherwise. `kept`: the
/// types of the number of a group's rows, and of what the aggregates keep.
pub(super) fn is_append_only<'a>(calls: &[AggregateCall], kept: impl Iterator<Item = &'a SqlType> + Clone) -> bool {
    let is = |append_only| {
        let calls = calls.iter().flat_map(move |call| call.kept(append_only));
        std::iter::once(SqlType::BigInt).chain(calls).eq(kept.clone().cloned())
    };
    let is_so = is(true);
    assert!(is_so || is(false), "there is room for what is kept");
    is_so
}

fn kept(call: &AggregateCall, input: &[StreamColumn], append_only: bool) -> Result<Kept, Error> {
    if call.revision != 1 {
        return Err(unknown(call));
    }
    let Some(key) = call.value_key(append_only) else {
        return Ok(Kept::Rows(accumulator(call, input, append_only)?));
    };
    let values = Values::new(call.values.ok_or_else(|| unknown(call))?, call, key, input)?;
    let takes_first = call.is_ordered() || (!append_only && matches!(call.function.as_str(), "min" | "max"));
    match takes_first {
        true => Ok(Kept::First(values, Firsts::new(Finish::new(call, input).ok_or_else(|| unknown(call))?))),
        false => Ok(Kept::Distinct(values, accumulator(call, input, append_only)?)),
    }
}

/// The accumulator of an aggregate that needs no more than its rows.
pub(super) fn accumulator(
    call: &AggregateCall,
    input: &[StreamColumn],
    append_only: bool,
) -> Result<Box<dyn Accumulate>, Error> {
    Ok(match (call.function.as_str(), &call.ty) {
        ("count", SqlType::BigInt) => Box::new(Count::default()),
        ("sum", SqlType::BigInt) => Box::new(Sum::<i128>::new(&call.ty)),
        ("sum", SqlType::Numeric | SqlType::Decimal { .. }) => Box::new(Sum::<Wide>::new(&call.ty)),
        ("sum", SqlType::Real) => Box::new(FloatSum::new(float::Width::Single)),
        ("sum", SqlType::Double) => Box::new(FloatSum::new(float::Width::Double)),
        ("bool_and", SqlType::Boolean) => Box::new(Boolean::new(boolean::Kind::And, append_only)),
        ("bool_or", SqlType::Boolean) => Box::new(Boolean::new(boolean::Kind::Or, append_only)),
        ("min", ty) if append_only => extreme::extreme(extreme::Kind::Least, ty).ok_or_else(|| unknown(call))?,
        ("max", ty) if append_only => extreme::extreme(extreme::Kind::Greatest, ty).ok_or_else(|| unknown(call))?,
        ("first_value", _) if append_only => Box::new(Best::new(call, input)),
        (function, SqlType::Numeric | SqlType::Double) if moments::Kind::of(function).is_some() => {
            let kind = moments::Kind::of(function).ok_or_else(|| unknown(call))?;
            Box::new(Moments::new(kind, &call.ty))
        }
        (function, ty) => Box::new(Bits::new(function, ty).ok_or_else(|| unknown(call))?),
    })
}

fn unknown(call: &AggregateCall) -> Error {
    Error::new(format!("this version does not have revision {} of the aggregate {call}", call.revision))
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
