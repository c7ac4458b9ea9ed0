//! Aggregates and DISTINCT → operators that group.
//!
//! A group is known by the key of its columns. Where values of a type are equal but not the same,
//! the key is a hidden column of bytes, and the group shows one of its values. GROUPING SETS make a
//! row of each row for each set, with the number that says which columns the set lacks.

use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{Aggregate, Expr};
use weir_common::plan::{self, AggregateCall, Operator, SortKey, Stream, StreamColumn};
use weir_common::types::SqlType;

use super::super::aggregates::{call, complete};
use super::super::expression::type_of;
use super::super::refused;
use super::{Divided, Lowering, Open};
use crate::error::Error;
use crate::functions::KEY;

/// Expressions of a CUBE, which makes a set of each choice among them.
const CUBE_MAX: usize = 12;

/// The sets of GROUPING SETS, ROLLUP or CUBE.
struct Sets {
    /// The columns of all sets.
    parts: Vec<Expr>,
    /// For each set, whether it has the column.
    sets: Vec<Vec<bool>>,
}

impl Sets {
    /// `None`, if the rows are grouped in one way.
    fn of(group: &[Expr]) -> Result<Option<Sets>, Error> {
        let set = match group {
            [Expr::GroupingSet(set)] => set,
            _ if group.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) => {
                return Err(refused("such a combination of grouping sets"));
            }
            _ => return Ok(None),
        };
        let parts: Vec<Expr> = set.distinct_expr().into_iter().cloned().collect();
        let lists: Vec<Vec<Expr>> = match set {
            GroupingSet::GroupingSets(sets) => sets.clone(),
            GroupingSet::Rollup(exprs) => (0..=exprs.len()).rev().map(|count| exprs[..count].to_vec()).collect(),
            // PostgreSQL has the same limit.
            GroupingSet::Cube(exprs) if exprs.len() > CUBE_MAX => {
                return Err(refused(&format!("CUBE of more than {CUBE_MAX} expressions")));
            }
            GroupingSet::Cube(exprs) => {
                let chosen = |choice: usize| {
                    let is_chosen = |(place, _): &(usize, &Expr)| choice >> place & 1 == 1;
                    exprs.iter().enumerate().filter(is_chosen).map(|(_, expr)| expr.clone()).collect()
                };
                (0..1 << exprs.len()).map(chosen).collect()
            }
        };
        let sets: Vec<Vec<bool>> =
            lists.iter().map(|list| parts.iter().map(|part| list.contains(part)).collect()).collect();
        if sets.iter().enumerate().any(|(place, set)| sets[..place].contains(set)) {
            return Err(refused("a grouping set that occurs twice"));
        }
        Ok(Some(Sets { parts, sets }))
    }

    /// The lists of columns that an operator makes rows of: the parts, the number of the set, and
    /// other columns.
    fn expanded(&self, columns: &[StreamColumn]) -> Vec<Vec<plan::Expr>> {
        let count = self.parts.len();
        let set = |set: &Vec<bool>| {
            let column = |place: usize| match set.get(place) {
                Some(false) => plan::Expr::Literal { value: None, ty: columns[place].ty.clone() },
                _ if place == count => lacking(set),
                _ => plan::Expr::Column(place),
            };
            (0..columns.len()).map(column).collect()
        };
        self.sets.iter().map(set).collect()
    }
}

/// The columns that a set lacks, as bits, the last column lowest.
fn lacking(set: &[bool]) -> plan::Expr {
    let bits = set.iter().fold(0_u64, |bits, has| bits << 1 | u64::from(!has));
    plan::Expr::Literal { value: Some(bits.to_string()), ty: SqlType::Integer }
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Open, Error> {
        let input = aggregate.input.schema();
        let mut open = self.node(&aggregate.input)?;
        let sets = Sets::of(&aggregate.group_expr)?;
        let group = sets.as_ref().map_or(&aggregate.group_expr, |sets| &sets.parts);
        let columns = group.iter().map(|expr| self.stored(expr, input, open.stream()));
        let mut columns = columns.collect::<Result<Vec<_>, _>>()?;
        columns.extend(sets.iter().map(|_| lacking(&[])));
        let keys = columns.len();
        // The columns of sets are NULL in some rows, so arguments do not share them.
        let shared = if sets.is_some() { keys } else { 0 };
        let mut calls = Vec::new();
        for expr in &aggregate.aggr_expr {
            let mut place = |expr: &Expr| {
                let stored = self.stored(expr, input, open.stream())?;
                Ok(placed(&mut columns, shared, stored))
            };
            let mut call = call(expr, input, &mut place)?;
            complete(&mut call, || {
                let key = open.stream().key.iter().map(|column| plan::Expr::Column(*column));
                key.map(|column| placed(&mut columns, shared, column)).collect()
            });
            calls.push(call);
        }
        let name = |(place, expr): (usize, &plan::Expr)| match expr {
            _ if place < keys => aggregate.schema.field(place).name().clone(),
            plan::Expr::Column(column) => open.stream().columns[*column].name.clone(),
            _ => format!("argument {}", place - keys),
        };
        let named = |(place, expr)| StreamColumn {
            name: name((place, expr)),
            ty: type_of(expr, &open.stream().columns).clone(),
        };
        let named: Vec<StreamColumn> = columns.iter().enumerate().map(named).collect();
        let Some(sets) = sets else { return Ok(self.group(open, (columns, named), keys, calls)) };
        let all: Vec<usize> = (0..columns.len()).collect();
        let append_only = open.stream().append_only;
        open.compute(columns, Stream { columns: named.clone(), key: all.clone(), append_only });
        open.push(Operator::Expand { sets: sets.expanded(&named) });
        if open.divided != Divided::Single {
            open.divided = Divided::ByOrigin;
        }
        Ok(self.group(open, (all.into_iter().map(plan::Expr::Column).collect(), named), keys, calls))
    }

    /// Groups the rows of a fragment by the first of these columns.
    pub(super) fn group(
        &mut self,
        open: Open,
        (mut columns, mut named): (Vec<plan::Expr>, Vec<StreamColumn>),
        keys: usize,
        mut calls: Vec<AggregateCall>,
    ) -> Open {
        let (results, shown) = (calls.len(), named[..keys].to_vec());
        let mut places: Vec<usize> = (0..keys).collect();
        for key in 0..keys {
            if !shown[key].ty.can_be_key() {
                places[key] = keys + calls.len();
                let call = represented(&mut columns, &mut named, key, &mut calls);
                calls.push(call);
            }
        }
        let is_shown = calls.len() == results;
        let mut open = self.grouped(open, (columns, named), keys, calls);
        if is_shown {
            return open;
        }
        places.extend(keys..keys + results);
        let present = open.stream().columns[keys..keys + results].to_vec();
        let exprs = places.into_iter().map(plan::Expr::Column).collect();
        open.project(exprs, shown.into_iter().chain(present).collect());
        open
    }

    /// Groups the rows of a fragment by the first of these columns, which can be read back from
    /// their keys.
    fn grouped(
        &mut self,
        mut open: Open,
        (columns, named): (Vec<plan::Expr>, Vec<StreamColumn>),
        keys: usize,
        mut calls: Vec<AggregateCall>,
    ) -> Open {
        // An aggregate sees a bag of rows: which of two equal ones is deleted makes no difference.
        // So no key is needed, only that the rows of a group are at the vnode of the group.
        let together = match &open.divided {
            Divided::ByOrigin => None,
            Divided::Single => Some(Divided::Single),
            Divided::By(by) => {
                let place =
                    |column: &usize| columns[..keys].iter().position(|expr| *expr == plan::Expr::Column(*column));
                let by: Option<Vec<usize>> = by.iter().map(place).collect();
                by.filter(|by| by.iter().copied().eq(0..keys)).map(Divided::By)
            }
        };
        let append_only = open.stream().append_only;
        let is_final = together.is_none() && calls.iter().all(|call| call.adds_up(append_only));
        let key: Vec<usize> = (0..keys).collect();
        let all = (0..columns.len()).collect();
        open.compute(columns, Stream { columns: named.clone(), key: all, append_only });

        let types: Vec<SqlType> = named[..keys].iter().map(|column| column.ty.clone()).collect();
        let kept: Vec<SqlType> = calls.iter().flat_map(|call| call.kept(append_only)).collect();
        for call in &mut calls {
            if let Some(key) = call.value_key(append_only) {
                let values = key.iter().map(|key| named[key.column].ty.clone());
                let payload = call.payload().iter().map(|column| named[*column].ty.clone());
                let value = std::iter::once(SqlType::BigInt).chain(payload).collect();
                call.values = Some(self.state(types.iter().cloned().chain(values).collect(), value));
            }
        }
        let mut output: Vec<StreamColumn> = named[..keys].to_vec();
        if is_final {
            let partial = kept.iter().zip(0..);
            let partial =
                partial.map(|(ty, number)| StreamColumn { name: format!("partial {number}"), ty: ty.clone() });
            let columns = output.iter().cloned().chain(std::iter::once(row_count())).chain(partial).collect();
            open.push(Operator::PreAggregate { keys: key.clone(), calls: calls.clone() });
            open.fragment.output = Stream { columns, key: key.clone(), append_only: true };
        }
        let mut open = match together {
            Some(divided) => Open { divided, ..open },
            None => self.shuffle(open, key.clone()),
        };
        let groups = self.state(types, std::iter::once(SqlType::BigInt).chain(kept).collect());
        output.extend(calls.iter().map(|call| StreamColumn { name: call.function.clone(), ty: call.ty.clone() }));
        open.push(Operator::Aggregate { keys: key.clone(), calls, is_final, groups });
        open.fragment.output = Stream { columns: output, key, append_only: false };
        open
    }
}

/// Puts the key of a column's values in its place, and the values behind all columns. Returns the
/// aggregate that shows one of them: the first in the order of their texts, so that it does not
/// depend on the order of rows.
fn represented(
    columns: &mut Vec<plan::Expr>,
    named: &mut Vec<StreamColumn>,
    key: usize,
    calls: &mut [AggregateCall],
) -> AggregateCall {
    let StreamColumn { name, ty } = named[key].clone();
    let value = columns[key].clone();
    let mut push = |expr: plan::Expr, ty: SqlType| {
        columns.push(expr);
        named.push(StreamColumn { name: name.clone(), ty });
        columns.len() - 1
    };
    let place = push(value.clone(), ty.clone());
    let order = match &ty {
        SqlType::Jsonb | SqlType::Interval => {
            let text = plan::Expr::Cast { value: Box::new(value.clone()), ty: SqlType::Varchar };
            push(text, SqlType::Varchar)
        }
        _ => place,
    };
    columns[key] =
        plan::Expr::Call { function: KEY.to_owned(), revision: 1, arguments: vec![value], ty: SqlType::Bytea };
    named[key] = StreamColumn { name: format!("key of {name}"), ty: SqlType::Bytea };
    for call in calls {
        let uses = call.arguments.iter_mut().chain(call.order.iter_mut().map(|key| &mut key.column));
        uses.filter(|column| **column == key).for_each(|column| *column = place);
    }
    AggregateCall {
        function: "first_value".to_owned(),
        revision: 1,
        arguments: vec![place],
        distinct: true,
        filter: None,
        order: vec![SortKey::ascending(order)],
        values: None,
        ty,
    }
}

/// The place of an expression among the columns from `first` on. It is added unless it is there.
fn placed(columns: &mut Vec<plan::Expr>, first: usize, expr: plan::Expr) -> usize {
    let found = columns[first..].iter().position(|column| *column == expr);
    found.map(|place| first + place).unwrap_or_else(|| {
        columns.push(expr);
        columns.len() - 1
    })
}

fn row_count() -> StreamColumn {
    StreamColumn { name: "rows".to_owned(), ty: SqlType::BigInt }
}
