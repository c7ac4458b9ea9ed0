//! The plan of tables whose rows come from a stream and are stored by key.

use std::borrow::Cow;

use super::{Entry, Plan, Query, Reads, Relation};
use crate::plan::{Conflict, Dispatch, Distribution, Edge, Expr, Fragment, JobPlan, Operator, Stream, StreamColumn};
use crate::types::SqlType;

impl Entry {
    /// The plan of its job, if the job has fragments: that of a query, or of a table that stores
    /// the messages of a stream by key. The latter is no stored state: it follows from the
    /// relation.
    pub fn query(&self) -> Option<Cow<'_, Query>> {
        match &self.job.plan {
            Plan::Query(query) => Some(Cow::Borrowed(query)),
            Plan::Stream(_) if self.relation.is_keyed() => Some(Cow::Owned(keyed(&self.relation))),
            Plan::Stream(_) | Plan::View(_) | Plan::Definition(_) | Plan::Unknown(_) => None,
        }
    }
}

/// Two fragments: one in the readers of the splits, and one in the slots that own the keys. Between
/// them each row has the sequence of its message behind the columns.
fn keyed(relation: &Relation) -> Query {
    let columns: Vec<StreamColumn> = relation
        .columns
        .iter()
        .map(|column| StreamColumn { name: column.name.clone(), ty: column.ty.clone() })
        .collect();
    let visible = columns.len();
    let mut with_sequence = columns.clone();
    with_sequence.push(StreamColumn { name: "_sequence".to_owned(), ty: SqlType::BigInt });
    let key = relation.primary_key.clone();
    // A reader adds split, sequence and ordinal.
    let kept = (0..visible).chain([visible + 1]).map(Expr::Column).collect();
    let read = Fragment {
        distribution: Distribution::Splits(relation.id),
        operators: vec![Operator::Read { columns: (0..visible).collect() }, Operator::Project { columns: kept }],
        output: Stream { columns: with_sequence, key: key.clone(), append_only: true },
    };
    let stored = Fragment {
        distribution: Distribution::Hash,
        operators: vec![Operator::Materialize { visible, conflict: Conflict::Overwrite, groups: None }],
        output: Stream { columns, key: key.clone(), append_only: false },
    };
    let edge = Edge { from: 0, to: 1, input: 0, dispatch: Dispatch::Hash(key) };
    let reads = vec![Reads::of(relation, relation.columns.clone())];
    let plan = JobPlan { fragments: vec![read, stored], edges: vec![edge], tables: Vec::new() };
    Query { reads, plan, through: Vec::new() }
}
