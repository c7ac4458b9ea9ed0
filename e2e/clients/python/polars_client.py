"""polars through ADBC and through ConnectorX, each of which reads with COPY in binary; ADBC's own catalog."""

import datetime
import sys

import adbc_driver_postgresql.dbapi as adbc
import polars as pl
from expected import DEVICES, LARGE, READINGS, equal, refused

URI = f"postgresql://root@{sys.argv[1]}:{sys.argv[2]}/dev"


def through_adbc() -> None:
    devices = pl.read_database_uri("SELECT * FROM devices ORDER BY id", URI, engine="adbc")
    equal(devices.columns, list(DEVICES[0]))
    equal(devices["id"].dtype, pl.Int32)
    equal(devices["added_at"].to_list(), [row["added_at"] for row in DEVICES])
    for name in ("name", "is_active", "tags", "serial"):
        equal(devices[name].to_list(), [row[name] for row in DEVICES])
    # ADBC gives a numeric as text.
    equal([price and float(price) for price in devices["price"]], [129.5, -0.05, None])

    readings = pl.read_database_uri("SELECT * FROM readings ORDER BY seq", URI, engine="adbc")
    equal(readings.to_dicts(), READINGS)
    wanted = [pl.Int64, pl.Int32, pl.Int16, pl.Float64, pl.Float32, pl.Datetime, pl.Date, pl.List(pl.Int32), pl.String]
    equal(readings.dtypes, wanted)

    with adbc.connect(URI) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT seq, note FROM readings WHERE day = $1 AND seq < $2 ORDER BY seq", (datetime.date(2026, 1, 2), 100))
            equal(cursor.fetchall(), [(1, "first"), (2, "")])
            refused(adbc.ProgrammingError, lambda: cursor.execute("SELECT * FROM nowhere"))
        connection.rollback()
        objects = connection.adbc_get_objects(depth="all", db_schema_filter="public").read_all().to_pylist()
        (database,) = (entry for entry in objects if entry["catalog_name"] == "dev")
        tables = {table["table_name"]: table for table in database["catalog_db_schemas"][0]["db_schema_tables"]}
        # ADBC asks for them in no order.
        columns = sorted(tables["devices"]["table_columns"], key=lambda column: column["ordinal_position"])
        equal([column["column_name"] for column in columns], list(DEVICES[0]))
        keys = [key for key in tables["devices"]["table_constraints"] if key["constraint_type"] == "PRIMARY KEY"]
        equal([key["constraint_column_names"] for key in keys], [["id"]])
        schema = connection.adbc_get_table_schema("devices")
        equal(schema.names, list(DEVICES[0]))


def through_connectorx() -> None:
    devices = pl.read_database_uri("SELECT * FROM devices ORDER BY id", URI, engine="connectorx")
    equal(devices.columns, list(DEVICES[0]))
    equal(devices["added_at"].to_list(), [row["added_at"] for row in DEVICES])
    for name in ("name", "is_active", "tags", "serial"):
        equal(devices[name].to_list(), [row[name] for row in DEVICES])
    readings = pl.read_database_uri("SELECT * FROM readings ORDER BY seq", URI, engine="connectorx")
    equal(readings.to_dicts(), READINGS)
    # In parts, for which it asks for the ends first.
    query = "SELECT seq, device_id FROM readings"
    parts = pl.read_database_uri(query, URI, engine="connectorx", partition_on="device_id", partition_num=2)
    equal(sorted(parts["seq"]), [1, 2, 3, LARGE])


{"adbc": through_adbc, "connectorx": through_connectorx}[sys.argv[3]]()
print("ok")
