//! Functions of dates and times. The expected answers are those of PostgreSQL 15 in a session whose
//! zone is UTC, mostly for the examples of its documentation.

use crate::cluster::Cluster;
use crate::semantics::check;
use crate::statements::rows;

#[tokio::test(flavor = "multi_thread")]
async fn to_char_takes_postgresqls_templates() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    check(
        &client,
        &[
            ("SELECT to_char(timestamp '2002-04-20 17:31:12.66', 'HH12:MI:SS')", "05:31:12"),
            ("SELECT to_char(interval '15h 2m 12s', 'HH24:MI:SS')", "15:02:12"),
            (
                "SELECT to_char(timestamp '2024-03-05 07:08:09.012345', 'YYYY-MM-DD HH24:MI:SS.MS US FF2')",
                "2024-03-05 07:08:09.012 012345 01",
            ),
            ("SELECT to_char(timestamp '2024-03-05 17:08:09', 'Day, DD  HH12:MI:SS')", "Tuesday  , 05  05:08:09"),
            ("SELECT to_char(timestamp '2024-03-05 17:08:09', 'FMDay, FMDD  HH12:MI:SS')", "Tuesday, 5  05:08:09"),
            (
                "SELECT to_char(timestamp '2024-03-05 17:08:09', 'yyyy-mm-dd hh24:mi AM, a.m.')",
                "2024-03-05 17:08 PM, p.m.",
            ),
            (
                "SELECT to_char(date '2024-03-05', 'FMMonth FMDDth, MONTH|Mon|MON|mon|DY|dy, \"YYYY is\" YYYY')",
                "March 5th, MARCH    |Mar|MAR|mar|TUE|tue, YYYY is 2024",
            ),
            ("SELECT to_char(date '2024-03-21', 'DDTH Dth'), to_char(date '2024-03-12', 'DDth')", "21ST 5th|12th"),
            (
                "SELECT to_char(date '2024-03-05', 'D DDD ID IDDD IW IYYY WW W Q CC J FMRM')",
                "3 065 2 065 10 2024 10 1 1 21 2460375 III",
            ),
            (
                "SELECT to_char(date '2024-03-05', 'Y,YYY YYY YY Y'), to_char(date '2023-01-01', 'IYYY-IW')",
                "2,024 024 24 4|2022-52",
            ),
            (
                "SELECT to_char(timestamptz '2024-03-05 07:08:09+02', 'HH24 TZ tz OF TZH:TZM'), \
                 to_char(timestamp '2024-03-05 07:08:09', '<TZ>')",
                "05 UTC utc +00 +00:00|<>",
            ),
            (
                "SELECT to_char(time '17:31', 'HH12:MI PM'), to_char(interval '26 hours -5 minutes', 'HH24')",
                "05:31 PM|25",
            ),
            ("SELECT to_char(timestamp '2024-03-05 00:00:01', 'SSSS HH12 hello %H \\x')", "1 12 hello %H \\x"),
            ("SELECT to_char(NULL::timestamp, 'YYYY'), to_char(timestamp '2024-03-05 00:00', NULL)", "NULL|NULL"),
            (
                "SELECT to_char(t, f) FROM (VALUES (timestamp '2024-01-01 00:00', 'YYYY'), \
                 (timestamp '2025-06-01 00:00', 'Mon'), (NULL, 'DD')) AS v (t, f)",
                "2024\nJun\nNULL",
            ),
            ("SELECT to_char(interval '1 day', 'Month')", "ERROR 22007"),
            ("SELECT to_char(5, '999')", "ERROR 0A000"),
            ("SELECT to_char('2024-01-01', 'YYYY')", "ERROR 42883"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_date_and_to_timestamp_read_by_templates() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    check(
        &client,
        &[
            ("SELECT to_date('05 Dec 2000', 'DD Mon YYYY'), to_date('20240305', 'YYYYMMDD')", "2000-12-05|2024-03-05"),
            ("SELECT to_timestamp('05 Dec 2000', 'DD Mon YYYY')", "2000-12-05 00:00:00+00"),
            ("SELECT to_timestamp(1284352323), to_timestamp(0.5)", "2010-09-13 04:32:03+00|1970-01-01 00:00:00.5+00"),
            (
                "SELECT to_timestamp('2024-03-05T07:08:09.5', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS')",
                "2024-03-05 07:08:09.5+00",
            ),
            ("SELECT to_timestamp('2011-12-18 11:38 PM', 'YYYY-MM-DD HH12:MI PM')", "2011-12-18 23:38:00+00"),
            ("SELECT to_timestamp('2011-12-18 11:38 +05', 'YYYY-MM-DD HH12:MI TZH')", "2011-12-18 06:38:00+00"),
            ("SELECT to_timestamp('2011-12-18 11:38 -05:20', 'YYYY-MM-DD HH12:MI TZH:TZM')", "2011-12-18 16:58:00+00"),
            ("SELECT to_timestamp('2000    JUN', 'YYYY MON')", "2000-06-01 00:00:00+00"),
            ("SELECT to_timestamp('0097/Feb/16 --> 08:14:30', 'YYYY/Mon/DD --> HH:MI:SS')", "0097-02-16 08:14:30+00"),
            ("SELECT to_timestamp('97/2/16 8:14:30', 'FMYYYY/FMMM/FMDD FMHH:FMMI:FMSS')", "0097-02-16 08:14:30+00"),
            (
                "SELECT to_timestamp('15 \"text between quote marks\" 98 54 45', \
                 'HH24 \"\\\"text between quote marks\\\"\" YY MI SS')",
                "1998-01-01 15:54:45+00",
            ),
            ("SELECT to_date('1 4 1902', 'Q MM YYYY')", "ERROR 0A000"),
            ("SELECT to_date('2024 065', 'YYYY DDD'), to_date('2460375', 'J')", "2024-03-05|2024-03-05"),
            ("SELECT to_date('3 4 21 01', 'W MM CC YY')", "ERROR 0A000"),
            ("SELECT to_date('2024-13-01', 'YYYY-MM-DD')", "ERROR 22008"),
            ("SELECT to_date('2024-02-30', 'YYYY-MM-DD')", "ERROR 22008"),
            ("SELECT to_timestamp('2024-01-01 25', 'YYYY-MM-DD HH24')", "ERROR 22008"),
            ("SELECT to_timestamp('2024-01-01 13', 'YYYY-MM-DD HH12')", "ERROR 22007"),
            ("SELECT to_date('soon', 'YYYY')", "ERROR 22007"),
            ("SELECT to_date('199', 'YYYYMM')", "ERROR 22007"),
            ("SELECT to_date('2024-01-01')", "ERROR 42883"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_times_have_their_fraction() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let timestamp = "timestamp '2001-02-16 20:38:40.5'";
    let all = format!(
        "SELECT extract(second FROM {timestamp}), extract(milliseconds FROM {timestamp}), \
         extract(microseconds FROM {timestamp}), extract(epoch FROM {timestamp})"
    );
    let parts = format!(
        "SELECT date_part('second', {timestamp}), date_part('ms', {timestamp}), date_part('us', {timestamp}), \
         date_part('epoch', {timestamp})"
    );
    check(
        &client,
        &[
            (&all, "40.500000|40500.000|40500000|982355920.500000"),
            (&parts, "40.5|40500|40500000|982355920.5"),
            ("SELECT extract(second FROM time '17:12:28.5'), extract(minute FROM time '17:12:28.5')", "28.500000|12"),
            ("SELECT extract(epoch FROM timestamptz '2001-02-16 20:38:40.12-08')", "982384720.120000"),
            ("SELECT extract(epoch FROM interval '5 days 3 hours'), extract(epoch FROM date '1970-01-02')", "442800.000000|86400"),
            (
                "SELECT extract(century FROM d), extract(decade FROM d), extract(dow FROM d), extract(doy FROM d), \
                 extract(week FROM d), extract(quarter FROM d), extract(millennium FROM d), extract(day FROM d) \
                 FROM (VALUES (timestamp '2001-02-16 20:38:40')) AS t (d)",
                "21|200|5|47|7|1|3|16",
            ),
            ("SELECT extract(century FROM timestamp '2000-12-16 12:21:13')", "20"),
            ("SELECT extract(isodow FROM timestamp '2001-02-18 20:38:40')", "7"),
            ("SELECT extract(isoyear FROM date '2006-01-01'), extract(julian FROM date '2006-01-01')", "2005|2453737"),
            ("SELECT extract(month FROM interval '2 years 13 months'), extract(year FROM interval '2 years 13 months')", "1|3"),
            ("SELECT date_part('hour', interval '4 hours 3 minutes'), date_part('hour', date '2001-02-16')", "4|0"),
            ("SELECT extract(year FROM timestamp '2001-02-16 20:38:40') = 2001, extract(hour FROM time '17:12')::int + 1", "t|18"),
            ("SELECT extract(second FROM NULL::timestamp)", "NULL"),
            ("SELECT extract(hour FROM date '2001-02-16')", "ERROR 0A000"),
            ("SELECT date_part('nonsense', date '2001-02-16')", "ERROR 22023"),
        ],
    )
    .await;
    let statement = client.prepare("SELECT extract(day FROM now()), date_part('day', now())").await.expect("a query");
    let columns: Vec<(&str, &str)> =
        statement.columns().iter().map(|column| (column.name(), column.type_().name())).collect();
    assert_eq!(columns, [("extract", "numeric"), ("date_part", "float8")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn local_times_are_those_of_the_zone() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    check(
        &client,
        &[
            ("SELECT timestamp '2001-02-16 20:38:40' AT TIME ZONE 'America/Denver'", "2001-02-17 03:38:40+00"),
            ("SELECT timestamptz '2001-02-16 20:38:40-05' AT TIME ZONE 'America/Denver'", "2001-02-16 18:38:40"),
            (
                "SELECT timestamp '2001-02-16 20:38:40' AT TIME ZONE 'Asia/Tokyo' AT TIME ZONE 'America/Chicago'",
                "2001-02-16 05:38:40",
            ),
            (
                "SELECT t AT TIME ZONE 'europe/berlin' FROM (VALUES (timestamptz '2024-01-15 12:00Z'), \
                 (timestamptz '2024-07-15 12:00Z'), (NULL)) AS v (t)",
                "2024-01-15 13:00:00\n2024-07-15 14:00:00\nNULL",
            ),
            // A time that was skipped, and one that occurred twice.
            ("SELECT timestamp '2024-03-31 02:30' AT TIME ZONE 'Europe/Berlin'", "2024-03-31 01:30:00+00"),
            ("SELECT timestamp '2024-10-27 02:30' AT TIME ZONE 'Europe/Berlin'", "2024-10-27 01:30:00+00"),
            ("SELECT timestamptz '2024-01-01 00:00Z' AT TIME ZONE interval '-08:00'", "2023-12-31 16:00:00"),
            ("SELECT timestamptz '2024-01-01 00:00Z' AT TIME ZONE 'UTC+3'", "2023-12-31 21:00:00"),
            ("SELECT timestamptz '2024-07-01 00:00Z' AT TIME ZONE 'EST'", "2024-06-30 19:00:00"),
            (
                "SELECT timezone('UTC', timestamp '2024-07-01 00:00'), '2024-07-01 02:00+02' AT TIME ZONE 'UTC'",
                "2024-07-01 00:00:00+00|2024-07-01 00:00:00",
            ),
            ("SELECT to_char(timestamptz '2024-07-15 12:00Z' AT TIME ZONE 'Europe/Berlin', 'HH24:MI')", "14:00"),
            ("SELECT timestamptz '2024-01-01 00:00Z' AT TIME ZONE 'Mars/Base'", "ERROR 22023"),
            ("SELECT time '12:00' AT TIME ZONE 'UTC'", "ERROR 0A000"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn now_is_the_time_of_the_statement() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let first = rows(&client, "SELECT now()").await;
    assert_ne!(rows(&client, "SELECT now()").await, first);
    assert_eq!(rows(&client, "SELECT now() = current_timestamp").await, "t");
}
