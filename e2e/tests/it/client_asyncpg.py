"""What a Python program does with Weir through asyncpg; run by the end-to-end tests with host and port.

asyncpg speaks the extended protocol only, in binary, and prepares everything.
"""

import asyncio
import datetime
import sys

import asyncpg


async def read(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        assert connection.get_server_version()[0] == 15
        rows = await connection.fetch("SELECT seq, price, note FROM events WHERE seq < $1 ORDER BY seq", 3)
        assert [row["seq"] for row in rows] == [0, 1, 2], rows
        assert isinstance(rows[0]["note"], str)

        moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
        values = (True, 7, 2**40, 1.5, "ä", b"\x00\xff", datetime.date(2026, 1, 2), moment, None)
        row = await connection.fetchrow(
            "SELECT $1::bool, $2::int, $3::bigint, $4::float8, $5::varchar, $6::bytea, $7::date, $8::timestamptz, $9",
            *values,
        )
        assert tuple(row) == values, row

        # A portal, fetched in pieces.
        async with connection.transaction():
            seen = [row["seq"] async for row in connection.cursor("SELECT seq FROM events ORDER BY seq", prefetch=7)]
        assert seen[:50] == list(range(50)), seen[:50]

        # Arrays make asyncpg ask what their elements are.
        assert await connection.fetchval("SELECT ARRAY[1, NULL, 3]") == [1, None, 3]
        count = await connection.fetchval("SELECT count(*) FROM events WHERE seq = ANY($1::bigint[])", [1, 2, 3])
        assert count == 3, count

        try:
            await connection.fetch("SELECT * FROM nowhere")
        except asyncpg.UndefinedTableError:
            pass
        else:
            raise AssertionError("a table that does not exist was read")

        # What takes too long is cancelled.
        try:
            await connection.fetchval("SELECT count(*) FROM generate_series(1, 100000000000)", timeout=0.2)
        except TimeoutError:
            pass
        else:
            raise AssertionError("a query that takes hours was answered")
        assert await connection.fetchval("SELECT 1") == 1


async def main() -> None:
    pool = await asyncpg.create_pool(host=sys.argv[1], port=int(sys.argv[2]), user="root", database="dev", max_size=10)
    async with pool:
        # Each connection is reset when it goes back to the pool.
        for _ in range(2):
            await read(pool)
        counts = await asyncio.gather(*(pool.fetchval("SELECT count(*) FROM events WHERE seq < $1", n) for n in range(50)))
        assert counts == list(range(50)), counts


asyncio.run(main())
print("ok")
