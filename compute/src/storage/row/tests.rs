//! Rows come back as they were stored, whole and in part; other bytes are an error.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int16Array, Int64Array, ListBuilder, StringArray, StringBuilder,
    StructArray,
};
use proptest::prelude::*;

use super::*;

const SEQUENCE: u64 = 300;

fn stored(batch: &RecordBatch) -> Vec<Vec<u8>> {
    let writer = Writer::new(batch, batch.num_columns(), 3);
    let row = |row| {
        let mut out = Vec::new();
        writer.write(row, SEQUENCE, &mut out);
        out
    };
    (0..batch.num_rows()).map(row).collect()
}

fn read(rows: &[Vec<u8>], batch: &RecordBatch, projection: &[usize]) -> Result<RecordBatch, Error> {
    let mut reader = Reader::new(&batch.schema(), projection)?;
    rows.iter().try_for_each(|row| {
        let row = Stored::parse(row)?.expect("a row");
        assert!(row.layout == 0 || (row.layout, row.sequence) == (3, Some(SEQUENCE)));
        reader.append(&row)
    })?;
    assert_eq!(reader.rows(), rows.len());
    reader.finish()
}

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().enumerate().map(|(number, column)| (format!("c{number}"), column, true)),
    )
    .expect("columns of one length")
}

#[test]
fn the_format_does_not_change() {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int16Array::from(vec![258])),
        Arc::new(StringArray::from(vec![None::<&str>])),
        Arc::new(StringArray::from(vec!["ab"])),
        Arc::new(BooleanArray::from(vec![true])),
    ];
    let batch = batch(columns);
    assert_eq!(stored(&batch)[0], b"\x02\x03\xac\x02\x02\x02\x01\x02\0\0\0ab\x01");
    let mut with_group = Vec::new();
    write_with_group(b"group", Some(&stored(&batch)[0]), &mut with_group);
    assert_eq!(with_group, b"\x03\x05group\x02\x03\xac\x02\x02\x02\x01\x02\0\0\0ab\x01");
    assert_eq!(group_of(&with_group.clone().into()).expect("a group"), &b"group"[..]);
    assert_eq!(read(&[with_group], &batch, &[0, 1, 2, 3]).expect("a row"), batch);
    let version_1 = b"\x01\x02\x02\x01\x02\0\0\0ab\x01".to_vec();
    assert_eq!(read(&[version_1], &batch, &[0, 1, 2, 3]).expect("a row"), batch);
}

#[test]
fn a_group_may_have_no_row() {
    let mut entry = Vec::new();
    write_with_group(b"group", None, &mut entry);
    assert_eq!(Stored::parse(&entry).expect("an entry"), None);
    assert!(!has_row(&entry).expect("an entry"));
    for damaged in [&entry[..4], b"\x03", b"\x03\x00\x03\x00"] {
        assert!(matches!(Stored::parse(damaged), Err(Error::Damaged { .. })), "{damaged:?}");
    }
    assert!(matches!(group_of(&Bytes::from_static(b"\x02\0\0\0")), Err(Error::Version { version: 2 })));
}

#[test]
fn what_is_no_row_is_an_error() {
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["ä"])), Arc::new(BooleanArray::from(vec![true]))];
    let batch = batch(columns);
    let good = stored(&batch).remove(0);
    assert!(read(std::slice::from_ref(&good), &batch, &[0, 1]).is_ok());
    for cut in 0..good.len() {
        assert!(read(&[good[..cut].to_vec()], &batch, &[0]).is_err(), "cut at {cut}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(read(&[longer], &batch, &[0]), Err(Error::Damaged { .. })));
    let mut other_version = good.clone();
    other_version[0] = 9;
    assert!(matches!(read(&[other_version], &batch, &[0]), Err(Error::Version { version: 9 })));
    let mut no_text = good;
    no_text[9] = 0xff;
    assert!(matches!(read(&[no_text], &batch, &[0]), Err(Error::Schema(_))));
}

#[test]
fn nested_values_survive() {
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("a"), None]);
    lists.append_null();
    lists.append_value(std::iter::empty::<Option<&str>>());
    let lists: ArrayRef = Arc::new(lists.finish());
    let fields =
        [("l", Arc::clone(&lists), true), ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])), true)];
    let structs = StructArray::from(RecordBatch::try_from_iter_with_nullable(fields).expect("columns of one length"));
    let batch = batch(vec![lists, Arc::new(structs)]);
    assert_eq!(read(&stored(&batch), &batch, &[0, 1]).expect("rows"), batch);
    assert_eq!(read(&stored(&batch), &batch, &[1]).expect("rows"), batch.project(&[1]).expect("a column"));
}

type Row = (Option<bool>, Option<i16>, Option<f64>, Option<String>, Option<Vec<u8>>);

proptest! {
    #[test]
    fn rows_survive_whole_and_in_part(
        rows in prop::collection::vec(any::<Row>(), 0..20),
        projection in Just(vec![0_usize, 1, 2, 3, 4]).prop_shuffle(),
        kept in 0_usize..6,
        offset in 0_usize..3,
    ) {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<Int16Array>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.3.clone()).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.4.clone()).collect::<BinaryArray>()),
        ];
        let batch = batch(columns);
        // A slice, whose buffers begin before its values.
        let offset = offset.min(batch.num_rows());
        let batch = batch.slice(offset, batch.num_rows() - offset);
        let projection = &projection[..kept];
        let found = read(&stored(&batch), &batch, projection).expect("rows");
        prop_assert_eq!(found, batch.project(projection).expect("columns that exist"));
    }
}
