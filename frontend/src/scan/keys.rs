//! Derives from conditions which primary keys have to be read, and for a table without a primary
//! key, which blocks. It does no IO.
//!
//! Invariant: every row for which the conditions are true is read. More may be read, because the
//! conditions are applied to the rows again. A condition that is not understood narrows nothing.
//!
//! A condition becomes a union of boxes. A box gives the allowed values of each column. Values are
//! compared as the bytes of [`weir_common::key`], which order and equate them as PostgreSQL does,
//! so NaN, −0.0 and scales need no care here. A literal of another type is converted to the
//! column's type. Conversions are monotone and the identity on values that both types hold, so
//! inclusive bounds on the converted value cover all matching rows. A column under a cast counts
//! only if the cast keeps all its values apart. A view's key may be NULL, and may have columns that
//! no condition can name.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::scalar::ScalarValue;
use weir_common::catalog::Relation;
use weir_common::ids::VnodeRange;
use weir_common::key::{self, NULL, VALUE};
use weir_proto::{KeyRange, KeySet, ValueBox, ValueRange};

/// The maximum number of keys to look up one by one. For more, the range around them is read.
const POINTS_MAX: usize = 1024;
/// The maximum number of key ranges, each of which is read in every vnode. For more, the range
/// around them is read.
const RANGES_MAX: usize = 16;
/// The maximum number of boxes of a condition. A condition with more narrows nothing.
const BOXES_MAX: usize = 1024;
/// The maximum number of boxes to compare blocks with. For more, the box around them is used.
const BLOCK_BOXES_MAX: usize = 32;

/// The keys that have to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    points: BTreeSet<Vec<u8>>,
    /// Disjoint and in order; `None` means that the range has no end.
    ranges: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Keys {
    /// Returns the keys of all rows for which every condition can be true; `None` for all keys.
    /// Column `n` of the conditions is column `projection[n]` of the table.
    pub(super) fn of<'a>(
        conditions: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>,
        relation: &Relation,
        projection: &[usize],
    ) -> Option<Keys> {
        let boxes = Reading::new(relation, &relation.primary_key, projection).all(conditions);
        if boxes.iter().any(|found| found.first().is_none_or(|first| *first == Allowed::All)) {
            return None;
        }
        let mut keys = Keys { points: BTreeSet::new(), ranges: Vec::new() };
        for found in &boxes {
            keys.add(found);
        }
        keys.unite();
        Some(keys)
    }

    /// Returns true if a condition bounds a column of the key, not necessarily the first one.
    pub(super) fn are_bounded_by(condition: &Arc<dyn PhysicalExpr>, relation: &Relation, projection: &[usize]) -> bool {
        let boxes = Reading::new(relation, &relation.primary_key, projection).boxes(condition);
        boxes.iter().all(|found| found.iter().any(|allowed| *allowed != Allowed::All))
    }

    /// Returns the keys to request from a slot; `None` if it owns none of them.
    pub(super) fn of_slot(&self, vnodes: VnodeRange) -> Option<KeySet> {
        let owned = self.points.iter().filter(|point| (vnodes.start..vnodes.end).contains(&key::vnode_of(point)));
        let points: Vec<_> = owned.map(|point| point.clone().into()).collect();
        let range = |(from, to): &(Vec<u8>, Option<Vec<u8>>)| KeyRange {
            from: from.clone().into(),
            to: to.clone().unwrap_or_default().into(),
        };
        let ranges: Vec<_> = self.ranges.iter().map(range).collect();
        (!points.is_empty() || !ranges.is_empty()).then_some(KeySet { points, ranges })
    }

    /// Adds the keys of a box whose first column is bounded.
    fn add(&mut self, found: &[Allowed]) {
        let mut prefixes = vec![Vec::new()];
        for allowed in found {
            match allowed {
                Allowed::Values(values) if prefixes.len() * values.len() <= POINTS_MAX => {
                    let longer =
                        |prefix: &Vec<u8>| values.iter().map(|value| concat(prefix, value)).collect::<Vec<_>>();
                    prefixes = prefixes.iter().flat_map(longer).collect();
                }
                Allowed::Values(values) => {
                    let (Some(first), Some(last)) = (values.first(), values.last()) else { return };
                    return self.add_ranges(&prefixes, Some(first), key::successor(last.clone()).as_ref());
                }
                Allowed::Range { from, to } => return self.add_ranges(&prefixes, from.as_ref(), to.as_ref()),
                Allowed::All => return self.add_ranges(&prefixes, None, None),
            }
        }
        self.points.extend(prefixes);
    }

    fn add_ranges(&mut self, prefixes: &[Vec<u8>], from: Option<&Vec<u8>>, to: Option<&Vec<u8>>) {
        for prefix in prefixes {
            let start = from.map_or_else(|| prefix.clone(), |from| concat(prefix, from));
            let end = match to {
                Some(to) => Some(concat(prefix, to)),
                None => key::successor(prefix.clone()),
            };
            if end.as_ref().is_none_or(|end| start < *end) {
                self.ranges.push((start, end));
            }
        }
    }

    /// Makes ranges disjoint and few, and removes the points inside of them.
    fn unite(&mut self) {
        if self.points.len() > POINTS_MAX {
            let points = std::mem::take(&mut self.points);
            let (first, last) = (points.first().cloned().unwrap_or_default(), points.last().cloned());
            self.ranges.push((first, last.and_then(key::successor)));
        }
        self.ranges.sort();
        let mut united: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for (from, to) in std::mem::take(&mut self.ranges) {
            match united.last_mut() {
                Some((_, end)) if end.as_ref().is_none_or(|end| from <= *end) => {
                    let is_later = end.as_ref().is_some_and(|end| to.as_ref().is_none_or(|to| to > end));
                    if is_later {
                        *end = to;
                    }
                }
                _ => united.push((from, to)),
            }
        }
        if united.len() > RANGES_MAX {
            let (from, to) = (united[0].0.clone(), united[united.len() - 1].1.clone());
            united = vec![(from, to)];
        }
        let is_inside =
            |point: &Vec<u8>| united.iter().any(|(from, to)| from <= point && to.as_ref().is_none_or(|to| point < to));
        self.points.retain(|point| !is_inside(point));
        self.ranges = united;
    }
}

/// Returns the boxes that a block must overlap to be read, for a table without a primary key;
/// `None` if all blocks are read.
pub(super) fn blocks<'a>(
    conditions: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>,
    relation: &Relation,
    projection: &[usize],
) -> Option<Vec<ValueBox>> {
    let has_range = |place: &usize| width(&relation.columns[*place].ty.arrow()).is_some();
    let columns: Vec<usize> = projection.iter().copied().filter(has_range).collect();
    let reading = Reading::new(relation, &columns, projection);
    let mut boxes = reading.all(conditions);
    for allowed in boxes.iter_mut().flatten().filter(|allowed| allowed.has(&vec![NULL])) {
        // The ranges of values that are stored with blocks do not include NULL.
        *allowed = Allowed::All;
    }
    if boxes.iter().any(|found| found.iter().all(|allowed| *allowed == Allowed::All)) {
        return None;
    }
    let of_box = |found: Found| {
        let ranges = found.iter().zip(&columns).zip(&reading.columns).filter_map(|((allowed, place), (_, ty))| {
            let (min, max) = allowed.bounds(width(ty)?)?;
            Some(ValueRange { column: *place as u32, min, max })
        });
        ValueBox { ranges: ranges.collect() }
    };
    let boxes: Vec<ValueBox> = boxes.into_iter().map(of_box).collect();
    if boxes.len() <= BLOCK_BOXES_MAX {
        return Some(boxes);
    }
    let around = |one: ValueBox, other: ValueBox| {
        let both = one.ranges.iter().filter_map(|range| {
            let same = other.ranges.iter().find(|other| other.column == range.column)?;
            Some(ValueRange { column: range.column, min: range.min.min(same.min), max: range.max.max(same.max) })
        });
        ValueBox { ranges: both.collect() }
    };
    boxes.into_iter().reduce(around).filter(|around| !around.ranges.is_empty()).map(|around| vec![around])
}

/// Returns the size of a value in bytes, for the types whose ranges are stored with blocks.
fn width(ty: &DataType) -> Option<usize> {
    match ty {
        DataType::Int16 => Some(2),
        DataType::Int32 | DataType::Date32 => Some(4),
        DataType::Int64 | DataType::Time64(_) | DataType::Timestamp(..) => Some(8),
        _ => None,
    }
}

/// Decodes the number in key bytes. Bytes that are too short are filled with zeros.
fn number(bytes: &[u8], width: usize) -> i64 {
    let mut number = [0; 8];
    let value = bytes.get(1..).unwrap_or_default();
    let length = value.len().min(width);
    number[8 - width..8 - width + length].copy_from_slice(&value[..length]);
    let offset = 1_i128 << (8 * width - 1);
    i64::try_from(i128::from(u64::from_be_bytes(number)) - offset).expect("of at most eight bytes")
}

/// The values that a column of the key may have, as their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    All,
    Values(BTreeSet<Vec<u8>>),
    /// From the first bound, which is included, to the second one, which is not.
    Range {
        from: Option<Vec<u8>>,
        to: Option<Vec<u8>>,
    },
}

/// The allowed values of each column, in the order of the columns.
type Found = Vec<Allowed>;

impl Allowed {
    /// Returns the values that both sides allow.
    fn and(self, other: Allowed) -> Allowed {
        match (self, other) {
            (Allowed::All, allowed) | (allowed, Allowed::All) => allowed,
            (Allowed::Values(values), other) | (other, Allowed::Values(values)) => {
                Allowed::Values(values.into_iter().filter(|value| other.has(value)).collect())
            }
            (Allowed::Range { from, to }, Allowed::Range { from: other_from, to: other_to }) => {
                let to = match (to, other_to) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
                Allowed::Range { from: from.max(other_from), to }
            }
        }
    }

    fn has(&self, value: &Vec<u8>) -> bool {
        match self {
            Allowed::All => true,
            Allowed::Values(values) => values.contains(value),
            Allowed::Range { from, to } => {
                from.as_ref().is_none_or(|from| from <= value) && to.as_ref().is_none_or(|to| value < to)
            }
        }
    }

    /// Returns the least and the greatest allowed number, both included; `None` if there are no
    /// bounds.
    fn bounds(&self, width: usize) -> Option<(i64, i64)> {
        match self {
            Allowed::All => None,
            Allowed::Values(values) => Some((number(values.first()?, width), number(values.last()?, width))),
            Allowed::Range { from, to } => {
                let min = from.as_ref().map_or(i64::MIN, |from| number(from, width));
                let to = to.as_ref().filter(|to| to.first() == Some(&VALUE));
                Some((min, to.map_or(i64::MAX, |to| number(to, width).saturating_sub(1))))
            }
        }
    }

    fn is_nothing(&self) -> bool {
        match self {
            Allowed::All => false,
            Allowed::Values(values) => values.is_empty(),
            Allowed::Range { from: Some(from), to: Some(to) } => from >= to,
            Allowed::Range { .. } => false,
        }
    }
}

/// Intersects each box of one side with each of the other. If there are too many, `left` covers
/// them.
fn all_of(left: Vec<Found>, right: Vec<Found>) -> Vec<Found> {
    if left.len() * right.len() > BOXES_MAX {
        return left;
    }
    let both = |one: &Found, other: &Found| {
        one.iter().cloned().zip(other.iter().cloned()).map(|(one, other)| one.and(other)).collect::<Found>()
    };
    let pairs = left.iter().flat_map(|one| right.iter().map(move |other| both(one, other)));
    pairs.filter(|found| !found.iter().any(Allowed::is_nothing)).collect()
}

fn concat(prefix: &[u8], rest: &[u8]) -> Vec<u8> {
    [prefix, rest].concat()
}

/// Parses conditions.
struct Reading {
    /// For each relevant column, its place in the conditions' schema, and its type.
    columns: Vec<(Option<usize>, DataType)>,
}

impl Reading {
    fn new(relation: &Relation, columns: &[usize], projection: &[usize]) -> Reading {
        let column = |place: &usize| {
            let shown = projection.iter().position(|projected| projected == place);
            (shown, relation.column(*place).ty.arrow())
        };
        Reading { columns: columns.iter().map(column).collect() }
    }

    /// Returns the boxes of all conditions together.
    fn all<'a>(&self, conditions: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>) -> Vec<Found> {
        let boxes = vec![self.everything()];
        conditions.into_iter().fold(boxes, |boxes, condition| all_of(boxes, self.boxes(condition)))
    }

    fn everything(&self) -> Found {
        vec![Allowed::All; self.columns.len()]
    }

    fn only(&self, column: usize, allowed: Allowed) -> Vec<Found> {
        if allowed.is_nothing() {
            return Vec::new();
        }
        let mut found = self.everything();
        found[column] = allowed;
        vec![found]
    }

    /// Returns the boxes of a condition.
    fn boxes(&self, condition: &Arc<dyn PhysicalExpr>) -> Vec<Found> {
        let unknown = || vec![self.everything()];
        if let Some(binary) = condition.downcast_ref::<BinaryExpr>() {
            let (left, right) = (binary.left(), binary.right());
            return match binary.op() {
                Operator::And => all_of(self.boxes(left), self.boxes(right)),
                Operator::Or => self.any_of([left, right]),
                op => {
                    let found = self.compared(left, *op, right);
                    let swapped = || self.compared(right, op.swap()?, left);
                    found.or_else(swapped).unwrap_or_else(unknown)
                }
            };
        }
        if let Some(list) = condition.downcast_ref::<InListExpr>().filter(|list| !list.negated()) {
            return self.listed(list).unwrap_or_else(unknown);
        }
        if let Some(like) = condition.downcast_ref::<LikeExpr>() {
            let is_prefix = !like.negated() && !like.case_insensitive();
            let prefix = constant(like.pattern()).and_then(|pattern| fixed_prefix(&pattern)).filter(|_| is_prefix);
            return prefix.and_then(|prefix| self.begins(like.expr(), &prefix)).unwrap_or_else(unknown);
        }
        if let Some(case) = condition.downcast_ref::<CaseExpr>() {
            let results = case.when_then_expr().iter().map(|(_, then)| then).chain(case.else_expr());
            return self.any_of(results);
        }
        if let Some(is_null) = condition.downcast_ref::<IsNullExpr>() {
            return self.column(is_null.arg()).map_or_else(unknown, |column| self.null(column));
        }
        if let Some(literal) = condition.downcast_ref::<Literal>() {
            let is_true = matches!(literal.value(), ScalarValue::Boolean(Some(true)));
            return if is_true { unknown() } else { Vec::new() };
        }
        let (of, is_true) = match condition.downcast_ref::<NotExpr>() {
            Some(not) => (not.arg(), false),
            None => (condition, true),
        };
        match self.column(of) {
            Some(column) if self.columns[column].1 == DataType::Boolean => {
                let value = encoded(&ScalarValue::Boolean(Some(is_true)), &DataType::Boolean);
                value.map_or_else(unknown, |value| self.only(column, Allowed::Values(BTreeSet::from([value]))))
            }
            _ => unknown(),
        }
    }

    /// Returns the box in which a column is NULL.
    fn null(&self, column: usize) -> Vec<Found> {
        self.only(column, Allowed::Values(BTreeSet::from([vec![NULL]])))
    }

    fn any_of<'a>(&self, conditions: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>) -> Vec<Found> {
        let boxes: Vec<Found> = conditions.into_iter().flat_map(|condition| self.boxes(condition)).collect();
        if boxes.len() > BOXES_MAX { vec![self.everything()] } else { boxes }
    }

    /// Returns the boxes of `column op constant`.
    fn compared(
        &self,
        column: &Arc<dyn PhysicalExpr>,
        op: Operator,
        value: &Arc<dyn PhysicalExpr>,
    ) -> Option<Vec<Found>> {
        let column = self.column(column)?;
        let value = constant(value)?;
        let is_comparison = matches!(
            op,
            Operator::Eq | Operator::IsNotDistinctFrom | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
        );
        if !is_comparison {
            return None;
        }
        if value.is_null() {
            // No comparison with NULL is true, but NULL is not distinct from NULL.
            return Some(if op == Operator::IsNotDistinctFrom { self.null(column) } else { Vec::new() });
        }
        let bytes = encoded(&value, &self.columns[column].1);
        let allowed = match op {
            // A literal that the column's type cannot hold equals none of its values.
            Operator::Eq | Operator::IsNotDistinctFrom => Allowed::Values(bytes.into_iter().collect()),
            Operator::Lt | Operator::LtEq => Allowed::Range {
                from: Some(vec![VALUE]),
                to: Some(key::successor(bytes?).unwrap_or_else(|| vec![NULL])),
            },
            _ => Allowed::Range { from: Some(bytes?), to: Some(vec![NULL]) },
        };
        Some(self.only(column, allowed))
    }

    /// Returns the boxes of a text column that begins with a text.
    fn begins(&self, column: &Arc<dyn PhysicalExpr>, prefix: &str) -> Option<Vec<Found>> {
        let column = self.column(column).filter(|column| self.columns[*column].1 == DataType::Utf8)?;
        // Except for the two bytes that end it, the encoding of a text is a prefix of the encoding
        // of every text that begins with it.
        let mut from = encoded(&ScalarValue::from(prefix), &DataType::Utf8)?;
        from.truncate(from.len() - 2);
        let to = key::successor(from.clone());
        Some(self.only(column, Allowed::Range { from: Some(from), to }))
    }

    /// Returns the boxes of `column IN (literals)`, and of `struct(columns) IN (structs)`, which
    /// joins on several columns produce.
    fn listed(&self, list: &InListExpr) -> Option<Vec<Found>> {
        let literals = || list.list().iter().map(|value| Some(value.downcast_ref::<Literal>()?.value()));
        if let Some(column) = self.column(list.expr()) {
            let mut values = BTreeSet::new();
            for value in literals() {
                values.extend(
                    Some(value?)
                        .filter(|value| !value.is_null())
                        .and_then(|value| encoded(value, &self.columns[column].1)),
                );
            }
            return Some(self.only(column, Allowed::Values(values)));
        }
        let call = list.expr().downcast_ref::<ScalarFunctionExpr>().filter(|call| call.name() == "struct")?;
        let columns: Vec<Option<usize>> = call.args().iter().map(|column| self.column(column)).collect();
        let mut boxes = Vec::new();
        for value in literals() {
            let ScalarValue::Struct(row) = value? else { return None };
            let mut found = self.everything();
            for (field, column) in row.columns().iter().zip(&columns) {
                let Some(column) = *column else { continue };
                let value = ScalarValue::try_from_array(field, 0).ok()?;
                let bytes = Some(value)
                    .filter(|value| !value.is_null())
                    .and_then(|value| encoded(&value, &self.columns[column].1));
                let allowed = std::mem::replace(&mut found[column], Allowed::All);
                found[column] = allowed.and(Allowed::Values(bytes.into_iter().collect()));
            }
            if !found.iter().any(Allowed::is_nothing) {
                boxes.push(found);
            }
        }
        (boxes.len() <= BOXES_MAX).then_some(boxes)
    }

    /// Returns the relevant column that an expression stands for, possibly under a cast that keeps
    /// values apart and in order.
    fn column(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
        if let Some(column) = expr.downcast_ref::<Column>() {
            return self.columns.iter().position(|(place, _)| *place == Some(column.index()));
        }
        let (operand, to) = if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            (cast.expr(), cast.cast_type())
        } else {
            let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
            let operand = call.args().first()?;
            match call.name() {
                "comparable" => return self.column(operand),
                "cast" => (operand, call.return_type()),
                _ => return None,
            }
        };
        let column = self.column(operand)?;
        // Nested casts are rare, so they are not supported.
        operand.downcast_ref::<Column>()?;
        is_exact(&self.columns[column].1, to).then_some(column)
    }
}

/// Returns the text ahead of the first wildcard of a LIKE pattern; `None` if that is empty or the
/// pattern has an escape.
fn fixed_prefix(pattern: &ScalarValue) -> Option<String> {
    let pattern = pattern.try_as_str()??;
    let prefix = &pattern[..pattern.find(['%', '_', '\\']).unwrap_or(pattern.len())];
    (!prefix.is_empty() && !pattern.contains('\\')).then(|| prefix.to_owned())
}

/// Returns the value of an expression without columns; `None` if it is not known yet, or fails.
fn constant(expr: &Arc<dyn PhysicalExpr>) -> Option<ScalarValue> {
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return Some(literal.value().clone());
    }
    if !collect_columns(expr).is_empty() || is_volatile(expr) {
        return None;
    }
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let no_columns = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row).ok()?;
    match expr.evaluate(&no_columns).ok()? {
        ColumnarValue::Scalar(value) => Some(value),
        ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0).ok(),
    }
}

/// Returns true if a cast keeps all values apart, and in order.
fn is_exact(from: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, Decimal256, Float32, Float64, Int16, Int32, Int64};
    let digits = |ty: &DataType| match ty {
        Int16 => Some((5, 0)),
        Int32 => Some((10, 0)),
        Int64 => Some((19, 0)),
        Decimal128(precision, scale) | Decimal256(precision, scale) => {
            Some((i16::from(*precision) - i16::from(*scale), i16::from(*scale)))
        }
        _ => None,
    };
    match (from, to) {
        (from, to) if from == to => true,
        (Int16, Int32 | Int64 | Float32 | Float64) | (Int32, Int64 | Float64) | (Float32, Float64) => true,
        (DataType::Utf8, DataType::LargeUtf8 | DataType::Utf8View) => true,
        (DataType::Binary, DataType::LargeBinary | DataType::BinaryView) => true,
        (from, Decimal128(..) | Decimal256(..)) => match (digits(from), digits(to)) {
            (Some((whole, scale)), Some((to_whole, to_scale))) => whole <= to_whole && scale <= to_scale,
            _ => false,
        },
        _ => false,
    }
}

/// Returns the key bytes of a value, converted to the column's type; `None` if the type cannot hold
/// it.
fn encoded(value: &ScalarValue, ty: &DataType) -> Option<Vec<u8>> {
    let array: ArrayRef = value.to_array().ok()?;
    let array = match array.data_type() == ty {
        true => array,
        false => {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(&array, ty, &options).ok()?
        }
    };
    if array.is_null(0) {
        return None;
    }
    let schema = Arc::new(Schema::new(vec![Field::new("key", ty.clone(), true)]));
    let batch = RecordBatch::try_new(schema, vec![array]).ok()?;
    let mut bytes = Vec::new();
    key::Keys::new(&batch, &[0]).write(0, &mut bytes);
    Some(bytes)
}

#[cfg(test)]
mod tests;
