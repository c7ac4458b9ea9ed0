//! Expected texts were printed by PostgreSQL.

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
    assert_eq!(text(|out| hex(&[0, 0xab, 0xff], out)), "\\x00abff");
}
