//! Compares Weir's answers to statements of many kinds with those of PostgreSQL 15. Each case in
//! `answers/*.jsonl` has a statement, and either its rows as they are printed or the SQLSTATE with
//! which Weir refuses it. Zeros at the end of a number's fraction are ignored. All statements read
//! the table `samples`, or no table.

use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray,
    StringArray,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};
use weir_common::interval::Interval;
use weir_common::types::SqlType;

use crate::cluster::{Cluster, Shared};

const SAMPLES: &str = include_str!("answers/samples.json");

/// The cells of one column as PostgreSQL prints them; arrays are JSON.
type Cells<'a> = Vec<Option<&'a str>>;

fn column(ty: &SqlType, cells: &Cells<'_>) -> ArrayRef {
    match ty {
        SqlType::Boolean => {
            Arc::new(cells.iter().map(|cell| cell.map(|cell| cell == "true")).collect::<BooleanArray>())
        }
        SqlType::BigInt => {
            let number = |cell: &str| cell.parse::<i64>().expect("a number");
            Arc::new(cells.iter().map(|cell| cell.map(number)).collect::<Int64Array>())
        }
        SqlType::Integer => {
            let number = |cell: &str| cell.parse::<i32>().expect("a number");
            Arc::new(cells.iter().map(|cell| cell.map(number)).collect::<Int32Array>())
        }
        SqlType::Double => {
            let number = |cell: &str| cell.parse::<f64>().expect("a number");
            Arc::new(cells.iter().map(|cell| cell.map(number)).collect::<Float64Array>())
        }
        SqlType::Interval => {
            let interval = |cell: &str| {
                let interval = Interval::parse(cell).and_then(Interval::to_arrow);
                interval.unwrap_or_else(|| panic!("{cell} is no interval"))
            };
            Arc::new(cells.iter().map(|cell| cell.map(interval)).collect::<IntervalMonthDayNanoArray>())
        }
        SqlType::Array(element) => lists(ty, element, cells),
        _ => {
            let texts: ArrayRef = Arc::new(StringArray::from(cells.clone()));
            cast(&texts, &ty.arrow()).expect("texts of the type")
        }
    }
}

fn lists(ty: &SqlType, element: &SqlType, cells: &Cells<'_>) -> ArrayRef {
    let lists: Vec<Option<Vec<Value>>> =
        cells.iter().map(|cell| cell.map(|cell| serde_json::from_str(cell).expect("an array"))).collect();
    let texts = lists.iter().flatten().flatten().map(|element| match element {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    });
    let texts: Vec<Option<String>> = texts.collect();
    let elements = column(element, &texts.iter().map(Option::as_deref).collect());
    let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.as_ref().map_or(0, Vec::len)));
    let nulls = NullBuffer::from_iter(lists.iter().map(Option::is_some));
    let DataType::List(field) = ty.arrow() else { panic!("{ty:?} is an array") };
    Arc::new(ListArray::new(field, offsets, elements, Some(nulls)))
}

fn add_samples(shared: &Shared) {
    let array = |element| SqlType::Array(Box::new(element));
    let types = [
        SqlType::BigInt,
        SqlType::Varchar,
        SqlType::Integer,
        SqlType::Double,
        SqlType::Numeric,
        SqlType::Boolean,
        SqlType::Interval,
        SqlType::Timestamptz,
        SqlType::Date,
        array(SqlType::Varchar),
        array(SqlType::Integer),
        SqlType::Jsonb,
    ];
    let samples: Value = serde_json::from_str(SAMPLES).expect("JSON");
    let names = samples["columns"].as_array().expect("names");
    let rows = samples["rows"].as_array().expect("rows");
    let columns: Vec<(&str, SqlType, ArrayRef)> = names
        .iter()
        .zip(types)
        .enumerate()
        .map(|(index, (name, ty))| {
            let array = column(&ty, &rows.iter().map(|row| row[index].as_str()).collect());
            assert_eq!(array.len(), rows.len());
            (name.as_str().expect("a name"), ty, array)
        })
        .collect();
    shared.add("samples", &columns, 3);
}

/// Removes the zeros at the end of a number's fraction from a printed value.
fn plain(value: &str) -> String {
    let (mut plain, mut rest) = (String::new(), value);
    while let Some(point) = rest.find('.') {
        let (before, after) = rest.split_at(point);
        let digits = after[1..].bytes().take_while(u8::is_ascii_digit).count();
        plain.push_str(before);
        plain.push_str(after[..=digits].trim_end_matches('0').trim_end_matches('.'));
        rest = &after[digits + 1..];
    }
    plain + rest
}

async fn answer(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
        Some(error) => error.code().code().to_owned(),
        None => error.to_string(),
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|index| row.get(index).map(plain)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

async fn check(cases: &str) {
    let cluster = Cluster::start().await;
    add_samples(&cluster.shared);
    let client = cluster.client().await;
    let mut wrong = String::new();
    for line in cases.lines().filter(|line| !line.is_empty()) {
        let case: Value = serde_json::from_str(line).expect(line);
        let sql = case["sql"].as_str().expect(line);
        let mut expected = match (&case["rows"], &case["error"]) {
            (Value::Array(rows), _) => {
                let cells = |row: &Value| {
                    row.as_array().expect(line).iter().map(|cell| cell.as_str().map(plain)).collect::<Vec<_>>()
                };
                Ok(rows.iter().map(cells).collect::<Vec<_>>())
            }
            (_, error) => Err(error.as_str().expect(line).to_owned()),
        };
        let mut given = answer(&client, sql).await;
        if !sql.to_lowercase().contains("order by") {
            let _sorted = [&mut given, &mut expected].map(|rows| rows.iter_mut().for_each(|rows| rows.sort()));
        }
        if given != expected {
            let _written = writeln!(wrong, "{sql}\n   gave: {given:?}\nexpected: {expected:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jsonb_is_joined_reduced_compared_and_sorted() {
    check(include_str!("answers/jsonb.jsonl")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn intersect_all_and_except_all_count_rows() {
    check(include_str!("answers/sets.jsonl")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_have_the_types_that_are_written() {
    check(include_str!("answers/floats.jsonl")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_show_one_of_their_values() {
    check(include_str!("answers/intervals.jsonl")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_return_sets_give_rows() {
    check(include_str!("answers/srf.jsonl")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_keep_the_order_of_a_query() {
    check(include_str!("answers/ordered.jsonl")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_made_as_they_are_printed() {
    check(include_str!("answers/text.jsonl")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clauses_are_obeyed_or_refused() {
    check(include_str!("answers/clauses.jsonl")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subqueries_are_values_and_refer_to_rows_around_them() {
    check(include_str!("answers/subqueries.jsonl")).await;
}

/// Compares the types of parameters with those that PostgreSQL's Describe returns.
#[tokio::test(flavor = "multi_thread")]
async fn parameters_have_the_types_of_what_stands_around_them() {
    let cluster = Cluster::start().await;
    add_samples(&cluster.shared);
    let client = cluster.client().await;
    let mut wrong = String::new();
    for line in include_str!("answers/parameters.jsonl").lines() {
        let case: Value = serde_json::from_str(line).expect(line);
        let sql = case["sql"].as_str().expect(line);
        let expected = case["parameter_types"].as_array().expect(line).iter().filter_map(Value::as_str);
        let expected: Vec<String> = expected.map(str::to_owned).collect();
        let given: Vec<String> = match client.prepare(sql).await {
            Ok(statement) => statement.params().iter().map(name).collect(),
            Err(error) => vec![error.to_string()],
        };
        if given != expected {
            let _written = writeln!(wrong, "{sql}\n   gave: {given:?}\nexpected: {expected:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn name(ty: &Type) -> String {
    match ty.name().strip_prefix('_') {
        Some(element) => format!("{element}[]"),
        None => ty.name().to_owned(),
    }
}
