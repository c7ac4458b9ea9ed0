//! Values of every type, as PostgreSQL prints and sends them.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    StringArray, TimestampMicrosecondArray,
};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;
use weir_common::types::SqlType;

use crate::cluster::{Cluster, Shared};

/// Adds a table with a column of every type: a row of extremes, then one of NULLs.
pub(crate) fn add_types(shared: &Shared) {
    let zoned = TimestampMicrosecondArray::from(vec![Some(1_709_210_096_000_100), None]).with_timezone("UTC");
    let columns: Vec<(&str, SqlType, ArrayRef)> = vec![
        ("b", SqlType::Boolean, Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("i2", SqlType::SmallInt, Arc::new(Int16Array::from(vec![Some(i16::MIN), None]))),
        ("i4", SqlType::Integer, Arc::new(Int32Array::from(vec![Some(i32::MAX), None]))),
        ("i8", SqlType::BigInt, Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
        ("f4", SqlType::Real, Arc::new(Float32Array::from(vec![Some(1e6), None]))),
        ("f8", SqlType::Double, Arc::new(Float64Array::from(vec![Some(f64::NEG_INFINITY), None]))),
        ("v", SqlType::Varchar, Arc::new(StringArray::from(vec![Some("a 'b' \\ ä"), None]))),
        ("y", SqlType::Bytea, Arc::new(BinaryArray::from(vec![Some([0_u8, 0xab].as_slice()), None]))),
        ("d", SqlType::Date, Arc::new(Date32Array::from(vec![Some(19_782), None]))),
        ("ts", SqlType::Timestamp, Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None]))),
        ("tz", SqlType::Timestamptz, Arc::new(zoned)),
        ("j", SqlType::Jsonb, Arc::new(StringArray::from(vec![Some(r#"{"a": [1, null]}"#), None]))),
    ];
    shared.add("types", &columns, 1);
}

const PRINTED: [&str; 12] = [
    "t",
    "-32768",
    "2147483647",
    "-9223372036854775808",
    "1e+06",
    "-Infinity",
    "a 'b' \\ ä",
    "\\x00ab",
    "2024-02-29",
    "1969-12-31 23:59:59.999999",
    "2024-02-29 12:34:56.0001+00",
    r#"{"a": [1, null]}"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn text_is_what_postgresql_prints() {
    let cluster = Cluster::start().await;
    add_types(&cluster.shared);
    let client = cluster.client().await;
    let messages = client.simple_query("SELECT * FROM types ORDER BY b NULLS LAST").await.expect("a query");
    let rows: Vec<Vec<Option<String>>> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect();
    let printed: Vec<Option<String>> = PRINTED.iter().map(|text| Some((*text).to_owned())).collect();
    assert_eq!(rows, [printed, vec![None; 12]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_is_what_drivers_read() {
    let cluster = Cluster::start().await;
    add_types(&cluster.shared);
    let client = cluster.client().await;
    let statement = client.prepare("SELECT * FROM types ORDER BY b NULLS LAST").await.expect("a query");
    let types: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    assert_eq!(
        types,
        [
            Type::BOOL,
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::VARCHAR,
            Type::BYTEA,
            Type::DATE,
            Type::TIMESTAMP,
            Type::TIMESTAMPTZ,
            Type::JSONB
        ]
    );
    let rows = client.query(&statement, &[]).await.expect("a query");
    let row = &rows[0];
    assert!(row.get::<_, bool>(0));
    assert_eq!(row.get::<_, i16>(1), i16::MIN);
    assert_eq!(row.get::<_, i32>(2), i32::MAX);
    assert_eq!(row.get::<_, i64>(3), i64::MIN);
    assert_eq!(row.get::<_, f32>(4), 1e6);
    assert_eq!(row.get::<_, f64>(5), f64::NEG_INFINITY);
    assert_eq!(row.get::<_, String>(6), "a 'b' \\ ä");
    assert_eq!(row.get::<_, Vec<u8>>(7), [0, 0xab]);
    assert_eq!(raw(row, 8), 8_825_i32.to_be_bytes());
    assert_eq!(raw(row, 9), (-1 - 946_684_800_000_000_i64).to_be_bytes());
    assert_eq!(raw(row, 10), (1_709_210_096_000_100 - 946_684_800_000_000_i64).to_be_bytes());
    assert_eq!(raw(row, 11), [b"\x01".as_slice(), br#"{"a": [1, null]}"#].concat());
    for column in 0..12 {
        assert_eq!(rows[1].get::<_, Option<Raw>>(column).map(|raw| raw.0), None);
    }
}

/// The bytes of a value of any type.
struct Raw(Vec<u8>);

impl<'a> tokio_postgres::types::FromSql<'a> for Raw {
    fn from_sql(_ty: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_ty: &Type) -> bool {
        true
    }
}

pub(crate) fn raw(row: &tokio_postgres::Row, column: usize) -> Vec<u8> {
    row.get::<_, Raw>(column).0
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_printed_as_well() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    for (sql, expected) in [
        ("SELECT 1 + 1", "2"),
        ("SELECT 1.5", "1.5"),
        ("SELECT 10 / 4", "2"),
        ("SELECT 'a' || 'b'", "ab"),
        ("SELECT '2024-02-29 10:00:00'::timestamp", "2024-02-29 10:00:00"),
        ("SELECT '0001-01-01 00:00:00'::timestamp", "0001-01-01 00:00:00"),
        ("SELECT '2024-02-29T10:00:00Z'::timestamptz", "2024-02-29 10:00:00+00"),
        ("SELECT true AND NULL IS NULL", "t"),
        ("SELECT 12.34::numeric(10, 2)", "12.34"),
        ("SELECT array[1, 2, NULL]", "{1,2,NULL}"),
        ("SELECT row_number() OVER ()", "1"),
        ("SELECT 1::float8 / 3", "0.3333333333333333"),
        ("SELECT 3 = ANY(ARRAY[1, 2, 3])", "t"),
        ("SELECT current_database()", "dev"),
        ("SELECT current_user", "root"),
        ("SELECT current_setting('server_version')", "15.20"),
        ("SELECT current_schema()", "public"),
    ] {
        let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let value = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(value, Some(expected), "{sql}");
    }
}
