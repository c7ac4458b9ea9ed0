"""ODBC: psqlODBC through pyodbc; the catalog functions of which Power BI, Excel and Tableau make their lists."""

import datetime
import glob
import sys

import pyodbc
from expected import DEVICES, LARGE, READINGS, equal, refused

(driver,) = glob.glob("/usr/lib/*/odbc/psqlodbcw.so")
# psqlODBC's own defaults, but for the names that are sent with strings.
address = f"DRIVER={driver};SERVER={sys.argv[1]};PORT={sys.argv[2]};DATABASE=dev;UID=root;PWD=none"
connection = pyodbc.connect(address, autocommit=True)
cursor = connection.cursor()

# SQLTables, SQLColumns, SQLPrimaryKeys, SQLStatistics, SQLForeignKeys, SQLGetTypeInfo, SQLProcedures.
tables = {row.table_name: row.table_type for row in cursor.tables(schema="public")}
equal({name: tables.get(name) for name in ("devices", "readings")}, {"devices": "TABLE", "readings": "TABLE"})
equal([row.table_name for row in cursor.tables(table="dev%", schema="public", tableType="TABLE,VIEW")], ["devices"])
columns = list(cursor.columns(table="devices", schema="public"))
equal([column.column_name for column in columns], list(DEVICES[0]))
equal([column.type_name for column in columns][:5], ["int4", "varchar", "bool", "numeric", "timestamptz"])
equal([column.column_name for column in columns if column.nullable == 0], ["id"])
equal([(column.column_size, column.decimal_digits) for column in columns if column.column_name == "price"], [(10, 2)])
equal([row.column_name for row in cursor.primaryKeys("devices", schema="public")], ["id"])
equal(list(cursor.primaryKeys("readings", schema="public")), [])
equal(list(cursor.foreignKeys("devices", schema="public")), [])
equal([row.column_name for row in cursor.statistics("devices", schema="public", unique=True) if row.column_name], ["id"])
assert "int4" in {row.type_name for row in cursor.getTypeInfo()}
list(cursor.procedures())

cursor.execute("SELECT id, name, is_active, price, added_at, serial FROM devices ORDER BY id")
equal([column[0] for column in cursor.description], ["id", "name", "is_active", "price", "added_at", "serial"])
for found, wanted in zip(cursor.fetchall(), DEVICES, strict=True):
    # Booleans are texts by psqlODBC's defaults, and times have no zone in ODBC.
    equal((found.id, found.name, found.price, found.serial), tuple(wanted[name] for name in ("id", "name", "price", "serial")))
    equal(found.is_active, None if wanted["is_active"] is None else str(int(wanted["is_active"])))
    equal(found.added_at, wanted["added_at"] and wanted["added_at"].replace(tzinfo=None))
cursor.execute("SELECT seq, channel, temperature, factor, measured_at, day, note FROM readings ORDER BY seq")
for found, wanted in zip(cursor.fetchall(), READINGS, strict=True):
    equal(list(found), [wanted[name] for name in ("seq", "channel", "temperature", "factor", "measured_at", "day", "note")])

query = "SELECT seq FROM readings WHERE day = ? AND temperature < ? AND note = ? AND measured_at > ?"
parameters = (datetime.date(2026, 1, 2), 21.5, "first", datetime.datetime(2026, 1, 1))
equal([row.seq for row in cursor.execute(query, parameters)], [1])
equal([row.id for row in cursor.execute("SELECT id FROM devices WHERE id IN (?, ?) ORDER BY id", 1, 3)], [1, 3])
equal(cursor.execute("SELECT device_id FROM readings WHERE seq = ?", LARGE).fetchval(), 2)
equal(cursor.execute("SELECT name FROM devices WHERE is_active = ?", True).fetchval(), "boiler")
equal(cursor.execute("{call abs(-5)}").fetchval(), 5)
error = refused(pyodbc.Error, lambda: cursor.execute("SELECT * FROM nowhere"))
equal(error.args[0], "42P01")
equal(cursor.execute("SELECT count(*) FROM alarms").fetchval(), 2)

# Transactions, and rows fetched a few at a time.
with pyodbc.connect(address + ";UseDeclareFetch=1;Fetch=2") as transaction:
    equal([row.seq for row in transaction.execute("SELECT seq FROM readings ORDER BY seq")], [1, 2, 3, LARGE])
    refused(pyodbc.Error, lambda: transaction.execute("SELECT nothing"))
    equal(transaction.execute("SELECT count(*) FROM devices").fetchval(), 3)
    transaction.rollback()
    equal(transaction.execute("SELECT count(*) FROM devices").fetchval(), 3)
print("ok")
