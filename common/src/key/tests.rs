//! Tests of keys: their layout, and their order.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Float64Array, Int32Builder, Int64Array, IntervalMonthDayNanoArray, ListBuilder};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Fields;
use proptest::prelude::*;

use super::*;
use crate::types::{SqlType, StructField};

fn keys(columns: Vec<ArrayRef>) -> Vec<Vec<u8>> {
    let names = (0..columns.len()).map(|number| number.to_string());
    let batch = RecordBatch::try_from_iter(names.zip(columns)).expect("columns of one length");
    let places: Vec<usize> = (0..batch.num_columns()).collect();
    let keys = Keys::new(&batch, &places);
    let key = |row| {
        let mut out = Vec::new();
        keys.write(row, &mut out);
        out
    };
    (0..batch.num_rows()).map(key).collect()
}

#[test]
fn the_layout_does_not_change() {
    let text = StringArray::from(vec![Some("a\0b")]);
    let number = Int64Array::from(vec![-2]);
    let nothing = BooleanArray::from(vec![None]);
    let keys = keys(vec![Arc::new(text), Arc::new(number), Arc::new(nothing)]);
    assert_eq!(keys[0], b"\x01a\0\xffb\0\0\x01\x7f\xff\xff\xff\xff\xff\xff\xfe\x02");
}

/// The keys of one column of a type.
fn keys_of(ty: &SqlType, column: ArrayRef) -> Vec<Vec<u8>> {
    let schema = arrow::datatypes::Schema::new(vec![ty.field("column")]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![column]).expect("a column of the type");
    let keys = Keys::new(&batch, &[0]);
    let key = |row| {
        let mut out = Vec::new();
        keys.write(row, &mut out);
        out
    };
    (0..batch.num_rows()).map(key).collect()
}

fn intervals(texts: &[&str]) -> ArrayRef {
    let stored = |text: &&str| Interval::parse(text).and_then(Interval::to_arrow).expect("an interval");
    Arc::new(IntervalMonthDayNanoArray::from_iter_values(texts.iter().map(stored)))
}

type Numbers = Option<Vec<Option<i32>>>;

/// Arrays of numbers.
fn arrays(rows: &[Numbers]) -> ListArray {
    let mut lists = ListBuilder::new(Int32Builder::new()).with_field(SqlType::Integer.field("item"));
    rows.iter().for_each(|row| lists.append_option(row.clone()));
    lists.finish()
}

type Nested = Option<(Numbers, Option<String>)>;

fn nested_type() -> SqlType {
    let field = |name: &str, ty| StructField { name: name.to_owned(), ty };
    let numbers = field("numbers", SqlType::Array(Box::new(SqlType::Integer)));
    SqlType::Struct(vec![numbers, field("text", SqlType::Varchar)])
}

/// Structs of an array and a text.
fn nested(rows: &[Nested]) -> ArrayRef {
    let DataType::Struct(fields) = nested_type().arrow() else { unreachable!("it is a struct") };
    let numbers: Vec<Numbers> = rows.iter().map(|row| row.clone().and_then(|(numbers, _)| numbers)).collect();
    let texts: StringArray = rows.iter().map(|row| row.clone().and_then(|(_, text)| text)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(arrays(&numbers)), Arc::new(texts)];
    let nulls = NullBuffer::from_iter(rows.iter().map(Option::is_some));
    Arc::new(StructArray::new(Fields::clone(&fields), columns, Some(nulls)))
}

#[test]
fn the_layout_of_comparable_forms_does_not_change() {
    let found = keys_of(&SqlType::Interval, intervals(&["-1 day"]));
    assert_eq!(found[0], b"\x01\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xeb\xe2\x28\xa0\0");
    let documents: ArrayRef = Arc::new(StringArray::from(vec![Some("true"), None]));
    assert_eq!(keys_of(&SqlType::Jsonb, documents), [&b"\x01\x10\0\0\0\x01\0\x03\x01"[..], b"\x02"]);
    let rows = [Some((Some(vec![Some(1), None]), Some("a".to_owned()))), Some((Some(vec![]), None)), None];
    let expected = [&b"\x01\x01\x01\x80\0\0\x01\x02\0\x01a\0\0"[..], b"\x01\x01\0\x02", b"\x02"];
    assert_eq!(keys_of(&nested_type(), nested(&rows)), expected);
}

#[test]
fn intervals_are_equal_and_in_order_as_in_postgresql() {
    let same = keys_of(&SqlType::Interval, intervals(&["1 month", "30 days", "29 days 24:00", "720:00"]));
    assert!(same.iter().all(|key| *key == same[0]));
    let order = ["-178000000 years", "-1 month", "-1 day", "-00:00:01", "0", "00:00:01", "23:59:59", "1 day", "1 mon"];
    assert!(keys_of(&SqlType::Interval, intervals(&order)).is_sorted_by(|a, b| a < b));
}

#[test]
fn documents_are_equal_as_in_postgresql() {
    let ty = SqlType::Array(Box::new(SqlType::Jsonb));
    let mut lists = ListBuilder::new(arrow::array::StringBuilder::new()).with_field(SqlType::Jsonb.field("item"));
    for row in [["1", r#"{"a": [1.50]}"#], ["1.0", r#"{"a": [1.5]}"#], ["\"1\"", r#"{"a": [1.5]}"#]] {
        lists.append_value(row.map(Some));
    }
    let found = keys_of(&ty, Arc::new(lists.finish()));
    assert_eq!(found[0], found[1]);
    assert!(found[2] < found[1], "a string is less than a number");
}

#[test]
fn arrays_are_in_order_as_in_postgresql() {
    let order: [&[Option<i32>]; 6] = [&[], &[Some(1)], &[Some(1), Some(1)], &[Some(1), None], &[Some(2)], &[None]];
    let rows: Vec<Numbers> = order.iter().map(|row| Some(row.to_vec())).chain([None]).collect();
    let all = arrays(&rows);
    let ty = SqlType::Array(Box::new(SqlType::Integer));
    let found = keys_of(&ty, Arc::new(all.clone()));
    assert!(found.is_sorted_by(|a, b| a < b));
    // A part of a column has the keys of its rows.
    assert_eq!(keys_of(&ty, Arc::new(all.slice(2, 3))), found[2..5]);
}

#[test]
fn the_vnode_of_a_key_does_not_change() {
    assert_eq!([b"".as_slice(), b"a", b"123456789"].map(vnode_of), [0x00, 0x43, 0x26]);
}

#[test]
fn the_successor_is_above_everything_with_the_prefix() {
    assert_eq!(successor(vec![1, 2]), Some(vec![1, 3]));
    assert_eq!(successor(vec![1, 0xff, 0xff]), Some(vec![2]));
    assert_eq!(successor(vec![0xff]), None);
}

#[test]
fn floats_are_equal_and_in_order_as_in_postgresql() {
    let order = [f64::NEG_INFINITY, -1.5, -f64::MIN_POSITIVE, 0.0, f64::MIN_POSITIVE, 2.0, f64::INFINITY, f64::NAN];
    let found = keys(vec![Arc::new(Float64Array::from(order.to_vec()))]);
    assert!(found.is_sorted_by(|a, b| a < b));
    let same = keys(vec![Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]))]);
    assert_eq!(same[0], same[1]);
    assert_eq!(same[2], same[3]);
}

#[test]
fn decimals_of_both_widths_are_in_order() {
    let values = [i128::MIN, -1_000, -1, 0, 1, 1_000, i128::MAX];
    let narrow = PrimitiveArray::<Decimal128Type>::from_iter_values(values);
    assert!(keys(vec![Arc::new(narrow)]).is_sorted_by(|a, b| a < b));
    let wide = values.map(i256::from_i128).into_iter();
    let wide = std::iter::once(i256::MIN).chain(wide).chain(std::iter::once(i256::MAX));
    let wide = PrimitiveArray::<Decimal256Type>::from_iter_values(wide);
    assert!(keys(vec![Arc::new(wide)]).is_sorted_by(|a, b| a < b));
}

/// NULL comes last.
fn compare<T: Ord>(a: &Option<T>, b: &Option<T>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

type Row = (Option<bool>, Option<i16>, Option<i32>, Option<i64>, Option<String>, Option<Vec<u8>>);

/// Orders arrays and structs as PostgreSQL does.
fn compare_nested(a: &Nested, b: &Nested) -> Ordering {
    let numbers = |a: &Vec<Option<i32>>, b: &Vec<Option<i32>>| {
        let pairs = a.iter().zip(b).map(|(a, b)| compare(a, b));
        pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
    };
    let both = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        (a, b) => return b.is_some().cmp(&a.is_some()),
    };
    let first = match (&both.0.0, &both.1.0) {
        (Some(a), Some(b)) => numbers(a, b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    first.then_with(|| compare(&both.0.1, &both.1.1))
}

fn any_nested() -> impl Strategy<Value = Nested> {
    let numbers = prop::option::of(prop::collection::vec(prop::option::of(-1..2_i32), 0..4));
    prop::option::weighted(0.9, (numbers, prop::option::of("[a\0]{0,2}")))
}

proptest! {
    #[test]
    fn bytes_of_nested_values_sort_as_the_values(a in any_nested(), b in any_nested()) {
        let found = keys_of(&nested_type(), nested(&[a.clone(), b.clone()]));
        let expected = compare_nested(&a, &b);
        prop_assert_eq!(found[0].cmp(&found[1]), expected);
        prop_assert!(expected == Ordering::Equal || !found[0].starts_with(&found[1]) && !found[1].starts_with(&found[0]));
    }

    #[test]
    fn bytes_sort_as_the_values(rows in prop::collection::vec(any::<Row>(), 2), same in 0_usize..7) {
        let (a, mut b) = (rows[0].clone(), rows[1].clone());
        // The rows share their first columns, so that the later ones decide.
        if same > 0 { b.0 = a.0; }
        if same > 1 { b.1 = a.1; }
        if same > 2 { b.2 = a.2; }
        if same > 3 { b.3 = a.3; }
        if same > 4 { b.4 = a.4.clone(); }
        if same > 5 { b.5 = a.5.clone(); }
        let rows = [a.clone(), b.clone()];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<PrimitiveArray<Int16Type>>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<PrimitiveArray<Int32Type>>()),
            Arc::new(rows.iter().map(|row| row.3).collect::<PrimitiveArray<Int64Type>>()),
            Arc::new(rows.iter().map(|row| row.4.clone()).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.5.clone()).collect::<BinaryArray>()),
        ];
        let found = keys(columns);
        let expected = compare(&a.0, &b.0)
            .then(compare(&a.1, &b.1))
            .then(compare(&a.2, &b.2))
            .then(compare(&a.3, &b.3))
            .then(compare(&a.4, &b.4))
            .then(compare(&a.5, &b.5));
        prop_assert_eq!(found[0].cmp(&found[1]), expected);
        // No key is a prefix of another, so the keys of one table never run into each other.
        prop_assert!(expected == Ordering::Equal || !found[0].starts_with(&found[1]) && !found[1].starts_with(&found[0]));
    }
}
