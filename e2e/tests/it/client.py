"""What a Python program does with Weir through psycopg; run by the end-to-end tests with host and port."""

import datetime
import sys
import threading

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

    # Results in binary, and parameters of every kind that Python has.
    cursor.execute("SELECT seq, note FROM events WHERE seq = %b", (3,), binary=True)
    assert cursor.fetchone()[0] == 3
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
    values = (True, 7, 2**40, 1.5, "ä", b"\x00\xff", datetime.date(2026, 1, 2), moment, None)
    for kind in ("%s", "%t", "%b"):
        casts = ("bool", "int", "bigint", "float8", "text", "bytea", "date", "timestamptz", "text")
        cursor.execute("SELECT " + ", ".join(f"{kind}::{cast}" for cast in casts), values)
        assert cursor.fetchone() == values, (kind, cursor.fetchone())

    with cursor.copy("COPY (SELECT seq FROM events WHERE seq < 3 ORDER BY seq) TO STDOUT") as copy:
        assert list(copy.rows()) == [("0",), ("1",), ("2",)]
    with cursor.copy("COPY (SELECT seq FROM events WHERE seq < 3 ORDER BY seq) TO STDOUT (FORMAT binary)") as copy:
        copy.set_types(["int8"])
        assert list(copy.rows()) == [(0,), (1,), (2,)]

# Without autocommit psycopg opens a transaction by itself.
with psycopg.connect(host=sys.argv[1], port=sys.argv[2], user="root", dbname="dev") as transaction:
    assert transaction.execute("SELECT count(*) FROM events").fetchone()[0] >= 10

    # A cursor on the server's side: a few rows at a time.
    with transaction.cursor(name="c") as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT seq FROM events WHERE seq < %s ORDER BY seq", (50,))
        assert [row[0] for row in cursor] == list(range(50))

    # A part that fails is undone by itself.
    try:
        with transaction.transaction():
            transaction.execute("SELECT nothing")
    except psycopg.errors.UndefinedColumn:
        pass
    assert transaction.execute("SELECT 1").fetchone() == (1,)

# Statements sent without waiting for each other's answers.
with connection.pipeline():
    answers = [connection.execute("SELECT count(*) FROM events WHERE seq < %s", (n,)) for n in range(20)]
assert [answer.fetchone()[0] for answer in answers] == list(range(20))

# What runs too long is cancelled from another thread.
timer = threading.Timer(0.2, connection.cancel)
timer.start()
try:
    connection.execute("SELECT count(*) FROM generate_series(1, 100000000000)")
except psycopg.errors.QueryCanceled:
    pass
else:
    raise AssertionError("a query that takes hours was answered")
timer.join()
assert connection.execute("SELECT 1").fetchone() == (1,)

print("ok")
