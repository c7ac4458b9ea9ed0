"""DuckDB's postgres extension: a database attached, filters pushed down, queries passed through.

The extension comes in a package of its own, since DuckDB would download it otherwise.
"""

import pathlib
import sys

import duckdb
import duckdb_extension_postgres_scanner
from expected import DEVICES, LARGE, READINGS, equal, refused

folder = pathlib.Path(duckdb_extension_postgres_scanner.__file__).parent
(extension,) = folder.glob(f"extensions/v{duckdb.__version__}/postgres_scanner.duckdb_extension")
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
connection.execute(f"LOAD '{extension}'")
address = f"host={sys.argv[1]} port={sys.argv[2]} user=root dbname=dev"
connection.execute(f"ATTACH '{address}' AS weir (TYPE postgres, READ_ONLY)")


def rows(query):
    return connection.execute(query).fetchall()


tables = {row[2] for row in rows("SHOW ALL TABLES")}
assert {"devices", "readings", "alarms"} <= tables, tables
described = {row[0]: row for row in rows("DESCRIBE weir.devices")}
equal(list(described), list(DEVICES[0]))
wanted = ["INTEGER", "VARCHAR", "BOOLEAN", "DECIMAL(10,2)", "TIMESTAMP WITH TIME ZONE", "VARCHAR", "VARCHAR[]", "BLOB"]
equal([row[1] for row in described.values()], wanted)
equal([name for name, row in described.items() if row[2] == "NO"], ["id"])
wanted = ["BIGINT", "INTEGER", "SMALLINT", "DOUBLE", "FLOAT", "TIMESTAMP", "DATE", "INTEGER[]", "VARCHAR"]
equal([row[1] for row in rows("DESCRIBE weir.readings")], wanted)

# Rows come with COPY in binary.
equal(rows("SELECT * EXCLUDE settings FROM weir.devices ORDER BY id"), [tuple(value for name, value in row.items() if name != "settings") for row in DEVICES])
equal(rows("SELECT settings::json ->> 'unit' FROM weir.devices WHERE id = 1"), [("C",)])
equal(rows("SELECT * FROM weir.readings ORDER BY seq"), [tuple(row.values()) for row in READINGS])
equal(rows("SELECT count(*) FROM weir.readings"), [(4,)])
equal(rows("SELECT message FROM weir.alarms ORDER BY id"), [("TOO HOT",), ("STUCK",)])

# Conditions of these kinds are sent to the server.
conditions = {
    "id = 1": [1],
    "id IN (1, 3)": [1, 3],
    "id BETWEEN 2 AND 3": [2, 3],
    "name = 'boiler'": [1],
    "name LIKE 'Gr%'": [2],
    "name IS NOT NULL AND is_active": [1],
    "added_at > TIMESTAMPTZ '2000-01-01'": [1],
    "price < 0": [2],
    "settings IS NULL": [3],
    "serial = '\\x00\\xff\\x10'::BLOB": [1],
}
for condition, wanted in conditions.items():
    equal(rows(f"SELECT id FROM weir.devices WHERE {condition} ORDER BY id"), [(id,) for id in wanted])
equal(rows("SELECT seq FROM weir.readings WHERE day = DATE '2026-02-28' AND temperature > 1e10"), [(3,)])
equal(rows(f"SELECT device_id FROM weir.readings WHERE seq = {LARGE}"), [(2,)])
joined = "SELECT name, count(*) FROM weir.devices JOIN weir.readings ON id = device_id GROUP BY name ORDER BY name"
equal(rows(joined), [(DEVICES[1]["name"], 2), ("boiler", 2)])
connection.execute("CREATE TABLE copied AS FROM weir.readings")
equal(rows("SELECT max(seq) FROM copied"), [(LARGE,)])

equal(rows("SELECT * FROM postgres_query('weir', 'SELECT upper(name) FROM devices WHERE id = 1')"), [("BOILER",)])
equal(rows(f"SELECT name FROM postgres_scan('{address}', 'public', 'devices') WHERE id = 3"), [("unknown",)])
refused(duckdb.Error, lambda: rows("SELECT * FROM postgres_query('weir', 'SELECT * FROM nowhere')"))
equal(len(rows("SELECT id FROM weir.devices LIMIT 1")), 1)
print("ok")
