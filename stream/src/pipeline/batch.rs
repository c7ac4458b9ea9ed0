//! Aggregates of queries that run once, with the accumulators that keep jobs' aggregates up to
//! date: both have the same results.

use arrow::array::ArrayRef;
use arrow::buffer::BooleanBuffer;
use weir_common::plan::AggregateCall;
use weir_common::types::SqlType;
use weir_common::view::Error;

use super::Failure;
use super::accumulate::{Accumulate, Rows, accumulator};
use super::groups::Group;

/// The values that an aggregate of one argument keeps of each group.
#[derive(Debug)]
pub struct Batch {
    kept: Box<dyn Accumulate>,
    groups: usize,
}

impl Batch {
    /// The types of what is kept of a group.
    pub fn kept(function: &str, ty: &SqlType) -> Vec<SqlType> {
        call(function, ty).kept(false)
    }

    /// An aggregate with results of a type.
    ///
    /// # Errors
    /// [`Error`], if there is no such aggregate.
    pub fn new(function: &str, ty: &SqlType) -> Result<Batch, Error> {
        Ok(Batch { kept: accumulator(&call(function, ty), &[], false)?, groups: 0 })
    }

    /// Makes room for this number of groups; new ones are empty.
    pub fn resize(&mut self, groups: usize) {
        self.kept.resize(groups);
        self.groups = groups;
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Adds rows, or takes them out. Those with a set bit in `counted` count; their argument is not
    /// NULL.
    ///
    /// # Errors
    /// [`Failure`], if the argument has another type.
    pub fn update(
        &mut self,
        groups: &[Group],
        argument: &ArrayRef,
        counted: Option<&BooleanBuffer>,
        takes_out: bool,
    ) -> Result<(), Failure> {
        let deletes = takes_out.then(|| BooleanBuffer::new_set(groups.len()));
        self.kept.update(Rows { groups, deletes: deletes.as_ref(), counted }, &[argument])
    }

    /// Adds what was taken by [`Batch::take`].
    ///
    /// # Errors
    /// [`Failure`], if the columns have other types.
    pub fn merge(&mut self, groups: &[Group], kept: &[ArrayRef]) -> Result<(), Failure> {
        self.kept.merge(groups, kept)
    }

    /// Takes what is kept of the first groups. The others get their numbers.
    pub fn take(&mut self, groups: usize) -> Vec<ArrayRef> {
        let taken = self.kept.take_partial(&first(groups), &mut vec![false; groups]);
        self.forget(groups);
        taken
    }

    /// The results of the first groups.
    ///
    /// # Errors
    /// [`Failure`], if one is out of range.
    pub fn results(&self, groups: usize) -> Result<ArrayRef, Failure> {
        self.kept.results(&first(groups))
    }

    /// Forgets the first groups. The others get their numbers.
    pub fn forget(&mut self, groups: usize) {
        let all = first(self.groups);
        self.kept.retain(&all[groups..]);
        self.groups -= groups;
    }

    /// Memory in use, in bytes.
    pub fn bytes(&self) -> usize {
        self.kept.bytes()
    }
}

fn first(groups: usize) -> Vec<Group> {
    (0..Group::try_from(groups).expect("memory has room for fewer groups")).collect()
}

fn call(function: &str, ty: &SqlType) -> AggregateCall {
    AggregateCall {
        function: function.to_owned(),
        revision: 1,
        arguments: vec![0],
        distinct: false,
        filter: None,
        order: Vec::new(),
        values: None,
        ty: ty.clone(),
    }
}
