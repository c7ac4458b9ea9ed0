"""What a Python program does with Weir through psycopg; run by the end-to-end tests with host and port."""

import datetime
import sys

import psycopg

connection = psycopg.connect(host=sys.argv[1], port=sys.argv[2], user="root", dbname="dev", autocommit=True)

with connection.cursor() as cursor:
    cursor.execute("SELECT seq, price, note FROM events ORDER BY seq LIMIT 3")
    assert [column.name for column in cursor.description] == ["seq", "price", "note"], cursor.description
    rows = cursor.fetchall()
    assert [row[0] for row in rows] == [0, 1, 2], rows
    assert isinstance(rows[0][2], str), rows

    # Parameters make psycopg use the extended protocol; the second time the statement is prepared on the server.
    for _ in range(2):
        cursor.execute("SELECT count(*) FROM events WHERE seq < %s", (10,), prepare=True)
        assert cursor.fetchone() == (10,)
    cursor.execute("SELECT %s::varchar", ("it's",))
    assert cursor.fetchone() == ("it's",)

    cursor.execute("SELECT true, 1.5::double precision, DATE '2026-01-02', TIMESTAMP '2026-01-02 03:04:05'")
    expected = (True, 1.5, datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5))
    row = cursor.fetchone()
    assert row == expected, row

    try:
        cursor.execute("SELECT * FROM nowhere")
    except psycopg.errors.UndefinedTable:
        pass
    else:
        raise AssertionError("a table that does not exist was read")

# Without autocommit psycopg opens a transaction by itself.
with psycopg.connect(host=sys.argv[1], port=sys.argv[2], user="root", dbname="dev") as transaction:
    assert transaction.execute("SELECT count(*) FROM events").fetchone()[0] >= 10

print("ok")
