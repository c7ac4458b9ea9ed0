//! Views that a plan of fragments keeps up to date.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use weir_common::catalog::{Column, Origin, Plan, Query, Reads, Relation};
use weir_common::ids::TableId;
use weir_common::plan::{Distribution, JobPlan, Operator, StreamColumn};

use super::{Described, POSSIBLE};
use crate::error::{Error, sqlstate};
use crate::relation::NamedRelation;
use crate::streaming;

/// Describes a view. `plan` is that of its query, with names resolved; `names` are the names of its
/// columns.
pub(super) fn describe(state: &SessionState, plan: LogicalPlan, names: Vec<String>) -> Result<Described, Error> {
    let relations = relations(&plan)?;
    let mut job = streaming::plan(state, plan).map_err(|error| {
        let is_bare = error.sqlstate == sqlstate::FEATURE_NOT_SUPPORTED && error.hint.is_none();
        if is_bare { error.with_hint(POSSIBLE) } else { error }
    })?;
    let reads = relations.values().map(|relation| reads(&mut job, relation)).collect();
    let stored = job.fragments.last().map(|fragment| fragment.output.clone());
    let stored = stored.ok_or_else(|| Error::internal("a plan has no fragment"))?;
    let column =
        |(name, column): (String, &StreamColumn)| Column { name, ty: column.ty.clone(), origin: Origin::Expression };
    let hidden = hidden(&names, &stored.columns);
    let hidden = hidden.iter().map(|hidden| column((hidden.name.clone(), hidden))).collect();
    let columns = names.into_iter().zip(&stored.columns).map(column).collect();
    Ok(Described {
        columns,
        hidden,
        primary_key: stored.key,
        plan: Plan::Query(Query { reads, plan: job, through: Vec::new() }),
    })
}

/// The relations of the catalog that a plan reads.
fn relations(plan: &LogicalPlan) -> Result<BTreeMap<TableId, Arc<Relation>>, Error> {
    let mut found = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(relation) = NamedRelation::of(scan)?
        {
            found.insert(relation.id, relation);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The columns of a relation that a plan reads. The plan names them by their places among these
/// from now on.
fn reads(job: &mut JobPlan, relation: &Relation) -> Reads {
    let own = [Distribution::Splits(relation.id), Distribution::SameAs(relation.id)];
    let read = job.fragments.iter_mut().filter(|fragment| own.contains(&fragment.distribution));
    let mut read: Vec<&mut Vec<usize>> = read
        .flat_map(|fragment| &mut fragment.operators)
        .filter_map(|operator| match operator {
            Operator::Read { columns } | Operator::Follow { columns, .. } => Some(columns),
            _ => None,
        })
        .collect();
    let mut all: Vec<usize> = read.iter().flat_map(|columns| columns.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    for place in read.iter_mut().flat_map(|columns| columns.iter_mut()) {
        *place = all.binary_search(place).expect("the place is among all that are read");
    }
    let columns = all.iter().map(|place| relation.column(*place).clone()).collect();
    Reads::of(relation, columns)
}

/// Names for hidden columns that no other column of the view has, so that whoever reads the view
/// finds a column by its name.
fn hidden(names: &[String], stored: &[StreamColumn]) -> Vec<StreamColumn> {
    let mut taken: Vec<String> = names.to_vec();
    let mut hidden = stored[names.len()..].to_vec();
    for column in &mut hidden {
        while taken.contains(&column.name) {
            column.name.insert(0, '_');
        }
        taken.push(column.name.clone());
    }
    hidden
}
