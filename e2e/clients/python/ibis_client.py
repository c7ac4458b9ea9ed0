"""ibis: tables found in the catalog, expressions compiled to SQL."""

import datetime
import sys

import ibis
from expected import DEVICES, LARGE, READINGS, equal

connection = ibis.postgres.connect(host=sys.argv[1], port=int(sys.argv[2]), user="root", database="dev")
tables = connection.list_tables()
assert {"devices", "readings"} <= set(tables), tables
assert "public" in connection.list_databases()
equal(connection.current_catalog, "dev")
equal(connection.current_database, "public")

devices, readings, alarms = (connection.table(name) for name in ("devices", "readings", "alarms"))
wanted = {
    "id": "!int32",
    "name": "string",
    "is_active": "boolean",
    "price": "decimal(10, 2)",
    "added_at": "timestamp('UTC', 6)",
    "settings": "jsonb",
    "tags": "array<string>",
    "serial": "binary",
}
schema = devices.schema()
equal(list(schema.names), list(wanted))
equal([schema["id"].nullable, schema["name"].nullable], [False, True])
for name, kind in wanted.items():
    equal((name, schema[name].copy(nullable=True)), (name, ibis.dtype(kind).copy(nullable=True)))
wanted = ["int64", "int32", "int16", "float64", "float32", "timestamp(6)", "date", "array<int32>", "string"]
equal([str(kind) for kind in readings.schema().types], wanted)

equal(devices.count().execute(), 3)
equal(devices.order_by("id").name.execute().tolist(), [row["name"] for row in DEVICES])
equal(devices.filter(devices.id == 1).to_pyarrow().to_pylist()[0]["tags"], DEVICES[0]["tags"])
found = readings.order_by("seq").select("seq", "day", "note").to_pyarrow().to_pylist()
equal(found, [{name: row[name] for name in ("seq", "day", "note")} for row in READINGS])
by_device = readings.group_by("device_id").agg(number=readings.count(), highest=readings.temperature.max())
equal(by_device.order_by("device_id").execute().values.tolist(), [[1, 2, 20.5], [2, 2, 1e300]])
joined = devices.join(readings, devices.id == readings.device_id).filter(readings.day == datetime.date(2026, 1, 2))
equal(joined.select("name", "seq").order_by("seq").execute().values.tolist(), [["boiler", 1], ["boiler", 2]])
equal(readings.seq.max().execute(), LARGE)
equal(readings.filter(readings.measured_at.year() == 2026).count().execute(), 3)
equal(readings.temperature.fill_null(0).min().execute(), -3.25)
ranked = readings.mutate(place=ibis.row_number().over(group_by="device_id", order_by="seq"))
equal(ranked.filter(ranked.place == 0).order_by("seq").seq.execute().tolist(), [1, 3])
equal(alarms.message.upper().execute().tolist(), ["TOO HOT", "STUCK"])
# Without the schema ibis would create a temporary view.
upper = connection.sql("SELECT upper(name) AS name FROM devices WHERE id = 1", schema={"name": "string"})
equal(upper.execute().name[0], "BOILER")
equal(devices.filter(devices.tags.contains("heat")).id.execute().tolist(), [1])
print("ok")
