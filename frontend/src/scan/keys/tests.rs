//! Conditions and the keys that they leave, and the property that no matching row is omitted, over
//! all types of keys.

use datafusion::arrow::array::new_null_array;
use datafusion::arrow::datatypes::i256;
use datafusion::common::DFSchema;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, binary_expr, cast, col, lit};
use datafusion::physical_expr::create_physical_expr;
use proptest::prelude::*;
use weir_common::catalog::{Origin, RelationKind, RelationName};
use weir_common::ids::TableId;
use weir_common::types::SqlType;
use weir_sql::functions::{comparable, has_equals};

use super::*;

/// Returns a table with columns `c0`, `c1`, … of these types, and a key of the first `keys`
/// columns.
fn table(types: &[SqlType], keys: usize) -> Relation {
    let column = |(number, ty): (usize, &SqlType)| weir_common::catalog::Column {
        name: format!("c{number}"),
        ty: ty.clone(),
        origin: Origin::Payload,
    };
    Relation {
        id: TableId(1),
        kind: RelationKind::Table,
        name: RelationName::public("t"),
        columns: types.iter().enumerate().map(column).collect(),
        hidden: Vec::new(),
        primary_key: (0..keys).collect(),
        layouts: Vec::new(),
        sql: String::new(),
    }
}

/// Returns a view that shows the first columns only, with a key of any.
fn view(types: &[SqlType], visible: usize, primary_key: Vec<usize>) -> Relation {
    let mut view = table(types, 0);
    view.kind = RelationKind::MaterializedView;
    view.hidden = view.columns.split_off(visible);
    view.primary_key = primary_key;
    view
}

fn physical(condition: &Expr, table: &Relation) -> Arc<dyn PhysicalExpr> {
    let schema = DFSchema::try_from(table.schema().as_ref().clone()).expect("columns with names");
    create_physical_expr(condition, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
        .expect("a condition")
}

fn keys(condition: &Expr, table: &Relation) -> Option<Keys> {
    let projection: Vec<usize> = (0..table.columns.len()).collect();
    Keys::of([&physical(condition, table)], table, &projection)
}

/// Returns the numbers of points and ranges.
fn count(condition: &Expr, table: &Relation) -> Option<(usize, usize)> {
    keys(condition, table).map(|keys| (keys.points.len(), keys.ranges.len()))
}

#[test]
fn a_condition_tells_the_keys_that_have_to_be_read() {
    let table = table(&[SqlType::Integer, SqlType::Varchar, SqlType::BigInt], 2);
    let (a, b, c) = (|| col("c0"), || col("c1"), || col("c2"));
    for (condition, expected) in [
        (a().eq(lit(1)).and(b().eq(lit("x"))), Some((1, 0))),
        (lit(1).eq(a()).and(c().gt(lit(5_i64))).and(b().eq(lit("x"))), Some((1, 0))),
        (a().eq(lit(1)), Some((0, 1))),
        (a().in_list(vec![lit(1), lit(2), lit(2), lit(9)], false).and(b().eq(lit("x"))), Some((3, 0))),
        (a().eq(lit(1)).and(b().gt(lit("x"))).and(b().lt_eq(lit("z"))), Some((0, 1))),
        (a().gt(lit(1)), Some((0, 1))),
        (a().between(lit(1), lit(5)), Some((0, 1))),
        (a().eq(lit(1)).or(a().eq(lit(5))), Some((0, 2))),
        (a().lt(lit(1)).or(a().lt(lit(5))), Some((0, 1))),
        // Contradictions, and literals of a wider type.
        (a().eq(lit(1)).and(a().eq(lit(2))), Some((0, 0))),
        (a().gt(lit(5)).and(a().lt(lit(5))), Some((0, 1))),
        (a().gt(lit(5)).and(a().lt(lit(4))), Some((0, 0))),
        (a().eq(lit(ScalarValue::Int32(None))), Some((0, 0))),
        (cast(a(), DataType::Int64).eq(lit(3_000_000_000_i64)), Some((0, 0))),
        (cast(a(), DataType::Int64).eq(lit(5_i64)), Some((0, 1))),
        // NULL is a key of views.
        (a().is_null(), Some((0, 1))),
        (a().is_null().and(b().is_null()), Some((1, 0))),
        (a().eq(lit(1)).and(b().is_null()), Some((1, 0))),
        (a().eq(lit(1)).or(a().is_null()), Some((0, 2))),
        (a().is_null().and(a().gt(lit(1))), Some((0, 0))),
        (binary_expr(a(), Operator::IsNotDistinctFrom, lit(ScalarValue::Int32(None))), Some((0, 1))),
        (a().is_not_null(), None),
        // The first column is not bounded.
        (b().eq(lit("x")), None),
        (c().eq(lit(1_i64)), None),
        (a().eq(lit(1)).or(c().eq(lit(1_i64))), None),
        (a().not_eq(lit(1)), None),
        (a().in_list(vec![lit(1)], true), None),
        (a().eq(col("c0")), None),
        (cast(a(), DataType::Int64).gt(lit(3_000_000_000_i64)), None),
        // The cast maps several values to the same one.
        (cast(c(), DataType::Float64).eq(lit(9_007_199_254_740_992.0)), None),
    ] {
        assert_eq!(count(&condition, &table), expected, "{condition}");
    }
}

#[test]
fn a_text_with_a_fixed_beginning_is_a_range() {
    let table = table(&[SqlType::Varchar], 1);
    let like = |pattern: &str| col("c0").like(lit(pattern));
    for (condition, expected) in [
        (like("ab%"), Some((0, 1))),
        (like("a_b%"), Some((0, 1))),
        (like("%b"), None),
        (like("_b"), None),
        (like("a\\%%"), None),
        (col("c0").not_like(lit("a%")), None),
        (col("c0").ilike(lit("a%")), None),
    ] {
        assert_eq!(count(&condition, &table), expected, "{condition}");
    }
    let found = keys(&like("a\0%"), &table).expect("a range");
    let key = |text: &str| encoded(&ScalarValue::from(text), &DataType::Utf8).expect("a text");
    let (from, to) = &found.ranges[0];
    let is_read = |text| *from <= key(text) && to.as_ref().is_none_or(|to| key(text) < *to);
    assert!(is_read("a\0") && is_read("a\0b") && is_read("a\0\0") && !is_read("a") && !is_read("ab"));
}

#[test]
fn a_key_is_asked_of_its_slot_only() {
    let table = table(&[SqlType::Integer], 1);
    let one = keys(&col("c0").eq(lit(5)), &table).expect("a key");
    let halves = [VnodeRange { start: 0, end: 128 }, VnodeRange { start: 128, end: 256 }];
    let asked: Vec<_> = halves.iter().filter_map(|half| one.of_slot(*half)).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].points.len(), 1);
    let range = keys(&col("c0").gt(lit(5)), &table).expect("a range");
    assert!(halves.iter().all(|half| range.of_slot(*half).is_some_and(|asked| asked.ranges.len() == 1)));
    assert!(keys(&lit(false), &table).expect("no key").of_slot(VnodeRange::ALL).is_none());
}

#[test]
fn a_hidden_column_of_the_key_is_bounded_by_nothing() {
    let types = [SqlType::Integer, SqlType::Varchar, SqlType::SmallInt];
    let first_is_hidden = view(&types, 2, vec![2, 0]);
    assert_eq!(count(&col("c0").eq(lit(1)), &first_is_hidden), None);
    let second_is_hidden = view(&types, 2, vec![0, 2]);
    assert_eq!(count(&col("c0").eq(lit(1)), &second_is_hidden), Some((0, 1)));
    assert_eq!(count(&col("c1").eq(lit("x")), &second_is_hidden), None);
}

#[test]
fn no_block_is_left_out_for_null() {
    let table = table(&[SqlType::Integer, SqlType::BigInt], 0);
    let boxes = |condition: &Expr| blocks([&physical(condition, &table)], &table, &[0, 1]);
    assert_eq!(boxes(&col("c0").is_null()), None);
    let both = boxes(&col("c0").is_null().and(col("c1").eq(lit(5_i64)))).expect("a box");
    assert_eq!(both.iter().map(|found| found.ranges.len()).collect::<Vec<_>>(), [1]);
}

#[test]
fn many_keys_become_a_range() {
    let table = table(&[SqlType::Integer, SqlType::Integer], 2);
    let many = |count: i32| (0..count).map(lit).collect::<Vec<_>>();
    assert_eq!(count(&col("c0").in_list(many(2_000), false), &table), Some((0, 1)));
    let product = col("c0").in_list(many(100), false).and(col("c1").in_list(many(100), false));
    let (points, ranges) = count(&product, &table).expect("keys");
    assert!(points <= POINTS_MAX && ranges <= RANGES_MAX, "{points} points, {ranges} ranges");
}

#[test]
fn what_joins_say_of_several_columns_is_read() {
    let table = table(&[SqlType::Integer, SqlType::Varchar], 2);
    let schema = table.schema();
    let columns: Vec<Arc<dyn PhysicalExpr>> =
        (0..2).map(|place| Arc::new(Column::new(&format!("c{place}"), place)) as Arc<dyn PhysicalExpr>).collect();
    let call = datafusion::functions::core::r#struct().call(vec![col("c0"), col("c1")]);
    let call = physical(&call, &table);
    assert!(call.downcast_ref::<ScalarFunctionExpr>().is_some_and(|call| call.args() == columns));
    let rows: ArrayRef = Arc::new(datafusion::arrow::array::StructArray::from(vec![
        (
            Arc::new(Field::new("c0", DataType::Int32, true)),
            Arc::new(datafusion::arrow::array::Int32Array::from(vec![1, 2])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("c1", DataType::Utf8, true)),
            Arc::new(datafusion::arrow::array::StringArray::from(vec!["x", "y"])) as ArrayRef,
        ),
    ]));
    let of_rows = |row: usize| {
        Arc::new(Literal::new(ScalarValue::try_from_array(&rows, row).expect("a row"))) as Arc<dyn PhysicalExpr>
    };
    let list = InListExpr::try_new(call, vec![of_rows(0), of_rows(1)], false, &schema);
    let Ok(list) = list else { panic!("a list of rows") };
    let keys = Keys::of([&(Arc::new(list) as Arc<dyn PhysicalExpr>)], &table, &[0, 1]).expect("keys");
    assert_eq!((keys.points.len(), keys.ranges.len()), (2, 0));
}

/// Returns some values of each type that can be part of a key, including those that are easy to get
/// wrong.
fn values(ty: &SqlType) -> Vec<ScalarValue> {
    let utc = || Some("UTC".into());
    match ty {
        SqlType::Boolean => [true, false].map(|value| ScalarValue::Boolean(Some(value))).to_vec(),
        SqlType::SmallInt => [i16::MIN, -1, 0, 7, i16::MAX].map(|value| ScalarValue::Int16(Some(value))).to_vec(),
        SqlType::Integer => [i32::MIN, -1, 0, 7, i32::MAX].map(|value| ScalarValue::Int32(Some(value))).to_vec(),
        SqlType::BigInt => [i64::MIN, -1, 0, 7, i64::MAX].map(|value| ScalarValue::Int64(Some(value))).to_vec(),
        SqlType::Real => [f32::NEG_INFINITY, -1.5, -0.0, 0.0, 0.1, f32::NAN, -f32::NAN, f32::INFINITY]
            .map(|value| ScalarValue::Float32(Some(value)))
            .to_vec(),
        SqlType::Double => [f64::NEG_INFINITY, -1.5, -0.0, 0.0, 0.1, f64::NAN, -f64::NAN, f64::INFINITY]
            .map(|value| ScalarValue::Float64(Some(value)))
            .to_vec(),
        SqlType::Decimal { precision, scale } => [-150, -1, 0, 1, 150, 700]
            .map(|value| ScalarValue::Decimal128(Some(value), *precision, *scale as i8))
            .to_vec(),
        SqlType::Varchar => {
            ["", "\0", "a", "a\0", "a\0b", "ab", "é"].map(|value| ScalarValue::Utf8(Some(value.to_owned()))).to_vec()
        }
        SqlType::Bytea => [&b""[..], b"\0", b"\xff", b"\xff\xff", b"\0\xff"]
            .map(|value| ScalarValue::Binary(Some(value.to_vec())))
            .to_vec(),
        SqlType::Date => [i32::MIN, -1, 0, 20_000].map(|value| ScalarValue::Date32(Some(value))).to_vec(),
        SqlType::Time => [0, 1, 86_400_000_000].map(|value| ScalarValue::Time64Microsecond(Some(value))).to_vec(),
        SqlType::Timestamp => {
            [i64::MIN, -1, 0, 1].map(|value| ScalarValue::TimestampMicrosecond(Some(value), None)).to_vec()
        }
        SqlType::Timestamptz => {
            [i64::MIN, -1, 0, 1].map(|value| ScalarValue::TimestampMicrosecond(Some(value), utc())).to_vec()
        }
        _ => {
            let DataType::Decimal256(precision, scale) = ty.arrow() else { panic!("{ty} is part of no key") };
            let value = |value| ScalarValue::Decimal256(Some(value), precision, scale);
            vec![value(i256::MINUS_ONE), value(i256::ZERO), value(i256::from_i128(10_i128.pow(28)))]
        }
    }
}

const TYPES: [SqlType; 14] = [
    SqlType::Boolean,
    SqlType::SmallInt,
    SqlType::Integer,
    SqlType::BigInt,
    SqlType::Real,
    SqlType::Double,
    SqlType::Numeric,
    SqlType::Decimal { precision: 10, scale: 2 },
    SqlType::Varchar,
    SqlType::Bytea,
    SqlType::Date,
    SqlType::Time,
    SqlType::Timestamp,
    SqlType::Timestamptz,
];

/// Returns a column in the form in which the rules of SQL compare it.
fn compared(column: usize, ty: &SqlType) -> Expr {
    let name = format!("c{column}");
    if has_equals(&ty.field(&name)) { comparable(col(name)) } else { col(name) }
}

fn literal(value: &ScalarValue, ty: &SqlType) -> Expr {
    if has_equals(&ty.field("value")) { comparable(lit(value.clone())) } else { lit(value.clone()) }
}

/// Returns a wider type in which columns of a type are compared, and some values of it.
fn wider(ty: &SqlType) -> Option<(DataType, Vec<ScalarValue>)> {
    match ty {
        SqlType::SmallInt | SqlType::Integer => {
            let values = [i64::MIN, -1, 0, 7, 3_000_000_000].map(|value| ScalarValue::Int64(Some(value)));
            Some((DataType::Int64, values.to_vec()))
        }
        SqlType::BigInt => {
            let values = [-15, 0, 5, 70, 75].map(|value| ScalarValue::Decimal128(Some(value), 21, 1));
            Some((DataType::Decimal128(21, 1), values.to_vec()))
        }
        SqlType::Decimal { .. } => {
            let values = [-1_500, -1, 0, 5, 14, 1_500].map(|value| ScalarValue::Decimal128(Some(value), 12, 3));
            Some((DataType::Decimal128(12, 3), values.to_vec()))
        }
        _ => None,
    }
}

/// Returns a comparison of a column with one of its values. Any numbers select one.
fn comparison(types: &[SqlType], numbers: (usize, usize, usize, usize)) -> Expr {
    let (column, op, value, more) = (numbers.0 % types.len(), numbers.1, numbers.2, numbers.3);
    let ty = &types[column];
    let all = values(ty);
    let pick = |number: usize| literal(&all[number % all.len()], ty);
    let ops = [Operator::Eq, Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq, Operator::NotEq];
    match op % 11 {
        6 => compared(column, ty).in_list(vec![pick(value), pick(more), pick(value + 1)], false),
        7 => compared(column, ty).between(pick(value), pick(more)),
        8 => match wider(ty) {
            Some((to, wide)) => {
                let column = cast(compared(column, ty), to);
                binary_expr(column, ops[more % ops.len()], lit(wide[value % wide.len()].clone()))
            }
            None => binary_expr(pick(value), ops[more % ops.len()], compared(column, ty)),
        },
        9 => compared(column, ty).is_null(),
        10 => {
            let null = ScalarValue::try_new_null(&ty.arrow()).expect("a type with NULL");
            let value = if more % 2 == 0 { lit(null) } else { pick(value) };
            binary_expr(compared(column, ty), Operator::IsNotDistinctFrom, value)
        }
        op => binary_expr(compared(column, ty), ops[op], pick(value)),
    }
}

/// Folds literals, as the optimizer does.
fn folded(expr: Expr, table: &Relation) -> Expr {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let fold = |expr: Expr| match &expr {
        Expr::ScalarFunction(call) if matches!(call.args.first(), Some(Expr::Literal(..))) => {
            let schema = table.schema();
            let row = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
            let row = RecordBatch::try_new(schema, row)?;
            let value = physical(&expr, table).evaluate(&row)?.into_array(1)?;
            Ok(Transformed::yes(lit(ScalarValue::try_from_array(&value, 0)?)))
        }
        _ => Ok(Transformed::no(expr)),
    };
    expr.transform_up(fold).expect("literals").data
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_row_that_fulfils_a_condition_is_left_out(
        types in prop::collection::vec(prop::sample::select(&TYPES[..]), 1..4),
        (keys, visible, reversed) in (1_usize..4, 1_usize..4, any::<bool>()),
        rows in prop::collection::vec(any::<[u8; 3]>(), 1..30),
        leaves in prop::collection::vec(any::<(usize, usize, usize, usize)>(), 1..6),
        joints in any::<u8>(),
    ) {
        let visible = visible.min(types.len());
        let mut key: Vec<usize> = (0..keys.min(types.len())).collect();
        if reversed {
            key.reverse();
        }
        let table = view(&types, visible, key.clone());
        let column = |place: usize| {
            let mut all = values(&types[place]);
            all.push(ScalarValue::try_new_null(&types[place].arrow()).expect("a type with NULL"));
            let picked = rows.iter().map(|row| all[usize::from(row[place]) % all.len()].clone());
            ScalarValue::iter_to_array(picked).expect("values of one type")
        };
        let stored = RecordBatch::try_new(table.stored_schema(), (0..types.len()).map(column).collect()).expect("rows");
        let projection: Vec<usize> = (0..visible).collect();
        let batch = stored.project(&projection).expect("columns that users see");
        let wrap = |numbers: &(usize, usize, usize, usize)| comparison(&types[..visible], (numbers.0 >> 8, numbers.1 >> 8, numbers.2 >> 8, numbers.3 >> 8));
        let mut condition = wrap(&leaves[0]);
        for (place, leaf) in leaves[1..].iter().enumerate() {
            let leaf = wrap(leaf);
            condition = if joints & (1 << place) == 0 { condition.and(leaf) } else { condition.or(leaf) };
        }
        let condition = physical(&folded(condition, &table), &table);
        let Some(found) = Keys::of([&condition], &table, &projection) else { return Ok(()) };
        let fulfilled = condition.evaluate(&batch).expect("it can be evaluated");
        let fulfilled = fulfilled.into_array(batch.num_rows()).expect("booleans");
        let fulfilled = datafusion::arrow::array::AsArray::as_boolean(&fulfilled).clone();
        let writer = key::Keys::new(&stored, &key);
        for row in (0..batch.num_rows()).filter(|row| fulfilled.is_valid(*row) && fulfilled.value(*row)) {
            let mut bytes = Vec::new();
            writer.write(row, &mut bytes);
            let is_inside = |(from, to): &(Vec<u8>, Option<Vec<u8>>)| {
                *from <= bytes && to.as_ref().is_none_or(|to| bytes < *to)
            };
            prop_assert!(
                found.points.contains(&bytes) || found.ranges.iter().any(is_inside),
                "{condition}: row {row} of {stored:?} is left out by {found:?}"
            );
        }
    }
}
