//! Expected texts were printed by PostgreSQL.

use datafusion::arrow::array::{
    AsArray, Decimal256Array, Int32Builder, Int64Array, IntervalMonthDayNanoArray, ListBuilder, StringArray,
    StructArray, TimestampSecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{Decimal256Type, i256};
use postgres_types::{FromSql, Type};
use proptest::prelude::*;
use weir_common::decimal::{self, Excess, power_of_ten};
use weir_common::interval::Interval;
use weir_common::types::{SqlType, StructField};

use super::*;

fn text(write: impl FnOnce(&mut BytesMut)) -> String {
    let mut out = BytesMut::new();
    write(&mut out);
    String::from_utf8(out.to_vec()).expect("text")
}

#[test]
fn double_precision() {
    let cases: [(f64, &str); 21] = [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-2.5, "-2.5"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e14, "100000000000000"),
        (1e15, "1e+15"),
        (123_456_789_012_345.0, "123456789012345"),
        (1_234_567_890_123_456.0, "1.234567890123456e+15"),
        (12_345_678_901_234.5, "12345678901234.5"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (0.000_012_3, "1.23e-05"),
        (1e100, "1e+100"),
        (1e-300, "1e-300"),
        (f64::MAX, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
        (1.0 / 3.0, "0.3333333333333333"),
    ];
    for (value, expected) in cases {
        assert_eq!(text(|out| float::write_f64(value, out)), expected);
    }
}

#[test]
fn real() {
    let cases: [(f32, &str); 8] = [
        (0.1, "0.1"),
        (1.5, "1.5"),
        (100_000.0, "100000"),
        (1_000_000.0, "1e+06"),
        (123_456.7, "123456.7"),
        (1_234_567.0, "1.234567e+06"),
        (3.402_823_5e38, "3.4028235e+38"),
        (0.00001, "1e-05"),
    ];
    for (value, expected) in cases {
        assert_eq!(text(|out| float::write_f32(value, out)), expected);
    }
}

#[test]
fn dates_and_timestamps() {
    assert_eq!(text(|out| datetime::write_date(0, out)), "1970-01-01");
    assert_eq!(text(|out| datetime::write_date(19_782, out)), "2024-02-29");
    assert_eq!(text(|out| datetime::write_date(-1, out)), "1969-12-31");
    assert_eq!(text(|out| datetime::write_date(-735_162, out)), "0044-03-13 BC");
    assert_eq!(text(|out| datetime::write_date(2_932_897, out)), "10000-01-01");
    assert_eq!(text(|out| datetime::write_timestamp(0, false, out)), "1970-01-01 00:00:00");
    assert_eq!(text(|out| datetime::write_timestamp(1_500_000, true, out)), "1970-01-01 00:00:01.5+00");
    assert_eq!(text(|out| datetime::write_timestamp(-1, false, out)), "1969-12-31 23:59:59.999999");
    assert_eq!(text(|out| datetime::write_timestamp(1_709_210_096_000_100, true, out)), "2024-02-29 12:34:56.0001+00");
}

#[test]
fn intervals() {
    let printed = |months, days, micros| text(|out| datetime::write_interval(Interval { months, days, micros }, out));
    assert_eq!(printed(0, 0, 0), "00:00:00");
    assert_eq!(printed(14, 3, 14_706_789_000), "1 year 2 mons 3 days 04:05:06.789");
    assert_eq!(printed(0, -1, 7_380_000_000), "-1 days +02:03:00");
    assert_eq!(printed(1, -1, 0), "1 mon -1 days");
    assert_eq!(printed(-13, 0, 0), "-1 years -1 mons");
    assert_eq!(printed(-1, 1, -1), "-1 mons +1 day -00:00:00.000001");
    assert_eq!(printed(0, 0, -1_500_000), "-00:00:01.5");
    assert_eq!(printed(0, 0, 90_000_000_000), "25:00:00");
    assert_eq!(printed(-1, 0, 1), "-1 mons +00:00:00.000001");
    let between = |micros| datetime::justified(micros).expect("in range");
    assert_eq!(text(|out| datetime::write_interval(between(176_400_000_000), out)), "2 days 01:00:00");
    assert_eq!(text(|out| datetime::write_interval(between(-176_400_000_000), out)), "-2 days -01:00:00");
}

#[test]
fn every_day_of_eight_hundred_years_follows_the_one_before() {
    let mut previous = (1599, 12, 31);
    for days in -135_140..157_050_i64 {
        let line = text(|out| {
            let written = i32::try_from(days).map(|days| datetime::write_date(days, out));
            assert!(written.is_ok());
        });
        let mut parts = line.split('-').map(|part| part.parse::<i64>().expect("a number"));
        let next = (parts.next().expect("year"), parts.next().expect("month"), parts.next().expect("day"));
        let (year, month, day) = previous;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let expected = match (month, day) {
            (12, 31) => (year + 1, 1, 1),
            (_, day) if day == length => (year, month + 1, 1),
            _ => (year, month, day + 1),
        };
        assert_eq!(next, expected);
        previous = next;
    }
}

#[test]
fn bytes_are_hexadecimal() {
    assert_eq!(text(|out| column::hex(&[0, 0xab, 0xff], out)), "\\x00abff");
}

#[test]
fn a_timestamp_that_does_not_fit_is_an_error() {
    let column = |seconds: i64| {
        let array: ArrayRef = Arc::new(TimestampSecondArray::from(vec![seconds]));
        Column::new(&array, &Arc::new(Field::new("t", array.data_type().clone(), true)))
    };
    assert_eq!(text(|out| column(90).expect("it fits").write_text(0, out).expect("text")), "1970-01-01 00:01:30");
    assert_eq!(column(i64::MAX).map(|_| ()).expect_err("too late").sqlstate, "22003");
}

/// The values of a column as they are printed and sent.
fn written(array: ArrayRef, ty: &SqlType) -> Vec<(Vec<u8>, Vec<u8>)> {
    let column = Column::new(&array, &Arc::new(ty.field(""))).expect("a type of a table's");
    let one = |row, format| {
        let mut out = BytesMut::new();
        assert!(column.write(row, format, &mut out).expect("a value that can be sent"));
        out.to_vec()
    };
    (0..array.len()).map(|row| (one(row, Form::Text), one(row, Form::Binary))).collect()
}

fn bytes<const N: usize>(from: &mut &[u8]) -> [u8; N] {
    let (first, rest) = from.split_first_chunk().expect("enough bytes");
    *from = rest;
    *first
}

/// Reads the text of a numeric from the wire format that PostgreSQL's documentation describes.
fn numeric_of(mut wire: &[u8]) -> String {
    let count = u16::from_be_bytes(bytes(&mut wire));
    let weight = i16::from_be_bytes(bytes(&mut wire));
    let negative = u16::from_be_bytes(bytes(&mut wire)) != 0;
    let places = usize::from(u16::from_be_bytes(bytes(&mut wire)));
    let groups: Vec<u16> = (0..count).map(|_| u16::from_be_bytes(bytes(&mut wire))).collect();
    assert!(wire.is_empty() && groups.iter().all(|group| *group < 10_000));
    let group = |exponent: i16| groups.get(usize::try_from(weight - exponent).ok()?).copied();
    let whole: String = (0..=weight.max(0)).rev().map(|at| format!("{:04}", group(at).unwrap_or(0))).collect();
    let fraction: String = (1..=20_i16).map(|at| format!("{:04}", group(-at).unwrap_or(0))).collect();
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let point = if places > 0 { "." } else { "" };
    format!("{}{whole}{point}{}", if negative { "-" } else { "" }, &fraction[..places])
}

proptest! {
    #[test]
    fn numerics_come_back(values in prop::collection::vec((any::<i128>(), 0_u32..127), 1..8), scale in 0_u8..38) {
        for ty in [SqlType::Numeric, SqlType::Decimal { precision: 38, scale }, SqlType::Decimal { precision: 60, scale }] {
            let values: Vec<i256> = values.iter().map(|(value, shift)| {
                let value = i256::from_i128(value >> shift);
                if ty == SqlType::Numeric { value.wrapping_mul(i256::from_i128(1 << 70)) } else { value }
            }).collect();
            let wide = Decimal256Array::from(values).with_data_type(DataType::Decimal256(76, 28));
            let places = match ty { SqlType::Decimal { scale, .. } => scale, _ => 28 };
            let digits = match ty { SqlType::Decimal { precision, .. } => precision, _ => 76 };
            let wide = wide.unary::<_, Decimal256Type>(|value| value.wrapping_rem(power_of_ten(digits)));
            let wide = wide.with_data_type(DataType::Decimal256(digits, i8::try_from(places).expect("small")));
            let array = cast(&wide, &ty.arrow()).expect("values that fit");
            for (row, (text, binary)) in written(array, &ty).into_iter().enumerate() {
                let text = String::from_utf8(text).expect("text");
                prop_assert_eq!(decimal::parse(&text, digits, places, Excess::Refuse), Some(wide.value(row)), "{}", text);
                prop_assert_eq!(&numeric_of(&binary), &text);
                let trailing = text.contains('.') && text.ends_with('0');
                prop_assert!(ty != SqlType::Numeric || !trailing, "{}", text);
            }
        }
    }

    #[test]
    fn intervals_come_back(months: i32, days: i32, micros in i64::MIN / 1_000..i64::MAX / 1_000) {
        let interval = Interval { months, days, micros };
        let array = IntervalMonthDayNanoArray::from(vec![interval.to_arrow().expect("below 292 years")]);
        let (text, binary) = written(Arc::new(array), &SqlType::Interval).remove(0);
        prop_assert_eq!(Interval::parse(std::str::from_utf8(&text).expect("text")), Some(interval));
        let mut wire = binary.as_slice();
        prop_assert_eq!(i64::from_be_bytes(bytes(&mut wire)), micros);
        prop_assert_eq!(i32::from_be_bytes(bytes(&mut wire)), days);
        prop_assert_eq!(i32::from_be_bytes(bytes(&mut wire)), months);
    }

    #[test]
    fn arrays_and_structs_come_back(
        rows in prop::collection::vec(
            prop::collection::vec(prop::option::of("([a-c\"\\\\{}(), ]|NULL|\\PC){0,4}"), 0..5), 1..5),
        numbers in prop::collection::vec(any::<Option<i64>>(), 5),
    ) {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for row in &rows {
            lists.append_value(row.iter().map(Option::as_deref));
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        let ty = SqlType::Array(Box::new(SqlType::Varchar));
        let printed = written(Arc::clone(&lists), &ty);
        for ((text, binary), row) in printed.iter().zip(&rows) {
            prop_assert_eq!(&Vec::<Option<String>>::from_sql(&Type::VARCHAR_ARRAY, binary).expect("an array"), row);
            // The cast reads it back; the tests of casts compare that cast with PostgreSQL.
            let text = StringArray::from(vec![std::str::from_utf8(text).expect("text")]);
            let read = crate::functions::read_text(&text, &ty.arrow()).expect("an array");
            let read = read.as_list::<i32>().value(0);
            let read: Vec<Option<String>> = read.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
            prop_assert_eq!(&read, row);
        }
        // The same lists as fields, beside numbers.
        let fields = [("n", SqlType::BigInt), ("l", ty)]
            .map(|(name, ty)| StructField { name: name.to_owned(), ty });
        let numbers: Int64Array = numbers.iter().take(rows.len()).copied().collect();
        let numbers_array: ArrayRef = Arc::new(numbers.clone());
        let structs = StructArray::new(StructField::arrow(&fields), vec![numbers_array, lists], None);
        let records = written(Arc::new(structs), &SqlType::Struct(fields.to_vec()));
        for (row, (text, binary)) in records.iter().enumerate() {
            let number = numbers.is_valid(row).then(|| numbers.value(row));
            let mut wire = binary.as_slice();
            prop_assert_eq!(i32::from_be_bytes(bytes(&mut wire)), 2);
            prop_assert_eq!(u32::from_be_bytes(bytes(&mut wire)), Type::INT8.oid());
            let length = i32::from_be_bytes(bytes(&mut wire));
            prop_assert_eq!((length == 8).then(|| i64::from_be_bytes(bytes(&mut wire))), number);
            prop_assert_eq!(u32::from_be_bytes(bytes(&mut wire)), Type::VARCHAR_ARRAY.oid());
            let length = i32::from_be_bytes(bytes(&mut wire));
            prop_assert_eq!(usize::try_from(length).expect("no NULL"), wire.len());
            prop_assert_eq!(wire, &printed[row].1[..]);
            // A field's quotes and backslashes are doubled.
            let text = std::str::from_utf8(text).expect("text");
            let start = format!("({},", number.map_or(String::new(), |number| number.to_string()));
            let list = text.strip_prefix(&start).and_then(|rest| rest.strip_suffix(')')).expect("a record");
            let list = match list.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(quoted) => quoted.replace("\"\"", "\"").replace("\\\\", "\\"),
                None => list.to_owned(),
            };
            prop_assert_eq!(list.as_bytes(), &printed[row].0[..]);
        }
    }
}

#[test]
fn arrays_that_are_not_rectangular_have_no_binary_form() {
    let nested = |rows: &[Option<&[i32]>]| -> ArrayRef {
        let mut lists = ListBuilder::new(ListBuilder::new(Int32Builder::new()));
        for row in rows {
            match row {
                Some(numbers) => lists.values().append_value(numbers.iter().map(|number| Some(*number))),
                None => lists.values().append_null(),
            }
        }
        lists.append(true);
        Arc::new(lists.finish())
    };
    let ty = SqlType::Array(Box::new(SqlType::Array(Box::new(SqlType::Integer))));
    let both = |rows: &[Option<&[i32]>]| {
        let column = Column::new(&nested(rows), &Arc::new(ty.field(""))).expect("arrays");
        let mut binary = BytesMut::new();
        let sent = column.write(0, Form::Binary, &mut binary).map(|_| binary.to_vec());
        (text(|out| column.write_text(0, out).expect("text")), sent.map_err(|error| error.to_string()))
    };
    // As PostgreSQL's `array_send(array[[1,2],[3,4]])`.
    let square = [2, 0, 23, 2, 1, 2, 1, 4, 1, 4, 2, 4, 3, 4, 4].map(i32::to_be_bytes).concat();
    assert_eq!(both(&[Some(&[1, 2]), Some(&[3, 4])]), ("{{1,2},{3,4}}".to_owned(), Ok(square)));
    let empty = [0, 0, 23].map(i32::to_be_bytes).concat();
    assert_eq!(both(&[]), ("{}".to_owned(), Ok(empty.clone())));
    assert_eq!(both(&[Some(&[]), Some(&[])]), ("{{},{}}".to_owned(), Ok(empty)));
    for (rows, printed) in [
        (&[Some(&[1][..]), Some(&[2, 3])][..], "{{1},{2,3}}"),
        (&[Some(&[1]), None], "{{1},NULL}"),
        (&[Some(&[]), Some(&[1])], "{{},{1}}"),
    ] {
        let (text, sent) = both(rows);
        assert_eq!(text, printed);
        assert!(sent.is_err_and(|error| error.contains("matching dimensions")), "{printed}");
    }
}
