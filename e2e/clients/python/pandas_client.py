"""pandas through SQLAlchemy: whole tables, queries with parameters, pieces."""

import datetime
import sys

import pandas as pd
import sqlalchemy as sa
from expected import DEVICES, LARGE, READINGS, equal

engine = sa.create_engine(f"postgresql+psycopg://root@{sys.argv[1]}:{sys.argv[2]}/dev")

devices = pd.read_sql_table("devices", engine, index_col="id")
equal(list(devices.columns), list(DEVICES[0])[1:])
equal(sorted(devices.index), [1, 2, 3])
equal(str(devices["added_at"].dtype).split("[")[0], "datetime64")
equal(devices.loc[1, "settings"], DEVICES[0]["settings"])
equal(devices.loc[1, "added_at"].to_pydatetime(), DEVICES[0]["added_at"])
equal(float(devices.loc[2, "price"]), -0.05)
equal(bytes(devices.loc[1, "serial"]), DEVICES[0]["serial"])

readings = pd.read_sql_table("readings", engine, schema="public", columns=["seq", "temperature", "day"])
equal(sorted(readings["seq"]), [row["seq"] for row in READINGS])
equal(str(readings["seq"].dtype), "int64")
equal(readings["temperature"].min(), -3.25)

query = sa.text("SELECT seq, note FROM readings WHERE day >= :day ORDER BY seq")
found = pd.read_sql_query(query, engine, params={"day": datetime.date(2026, 1, 2)})
equal(list(found["note"]), ["first", "", "it's"])
found = pd.read_sql("SELECT * FROM alarms ORDER BY id", engine)
equal(list(found["message"]), ["TOO HOT", "STUCK"])
pieces = pd.read_sql_query("SELECT seq FROM readings ORDER BY seq", engine, chunksize=3)
equal([list(piece["seq"]) for piece in pieces], [[1, 2, 3], [LARGE]])
equal(sorted(pd.read_sql("devices", engine)["id"]), [1, 2, 3])
print("ok")
