// node-postgres: a pool, parameters of every kind, named statements, cursors, an error inside of a transaction.

import pg from "pg";
import Cursor from "pg-cursor";
import { DEVICES, LARGE, READINGS, equal, host, port, refused } from "./expected.mjs";

const pool = new pg.Pool({ host, port, user: "root", database: "dev", max: 4, application_name: "test" });
const rows = async (text, values) => (await pool.query(text, values)).rows;

equal(await rows("SELECT * FROM devices ORDER BY id"), DEVICES);
equal(await rows("SELECT * FROM readings ORDER BY seq"), READINGS);
equal((await pool.query({ text: "SELECT id, name FROM devices ORDER BY id", rowMode: "array" })).rows[0], [1, "boiler"]);

const ids = async (condition, ...values) =>
  (await rows(`SELECT id FROM devices WHERE ${condition} ORDER BY id`, values)).map((row) => row.id);
equal(await ids("id = $1", 1), [1]);
equal(await ids("id = $1", "1"), [1]);
equal(await ids("id = ANY($1)", [1, 3]), [1, 3]);
equal(await ids("name = ANY($1)", ["boiler", "unknown"]), [1, 3]);
equal(await ids("name LIKE $1 || '%'", "boi"), [1]);
equal(await ids("is_active = $1", true), [1]);
equal(await ids("price > $1", 100.5), [1]);
equal(await ids("added_at < $1", new Date("2000-01-01T00:00:00Z")), [2]);
equal(await ids("settings @> $1", { unit: "C" }), [1]);
equal(await ids("settings ->> 'unit' = $1", "C"), [1]);
equal(await ids("tags @> $1", ["heat"]), [1]);
equal(await ids("serial = $1", Buffer.from([0x00, 0xff, 0x10])), [1]);
equal(await ids("($1::integer IS NULL OR id = $1)", null), [1, 2, 3]);
equal(await ids("coalesce(price, $1) = 7", 7), [3]);
equal(await ids("id BETWEEN $1 AND $2", 2, 3), [2, 3]);
equal(await rows("SELECT device_id FROM readings WHERE seq = $1", [LARGE]), [{ device_id: 2 }]);
equal(await rows("SELECT id FROM devices ORDER BY id LIMIT $1 OFFSET $2", [1, 1]), [{ id: 2 }]);
equal(await rows("SELECT message FROM alarms WHERE id = $1", [12]), [{ message: "STUCK" }]);
equal(await rows("SELECT $1::text AS t, $2::int AS i, $3::jsonb AS j", ["it's", 5, "[1]"]), [{ t: "it's", i: 5, j: [1] }]);

// The name makes it prepare once; other values then need no new plan.
for (const id of [1, 2, 3]) {
  const { rows, fields } = await pool.query({ name: "by-id", text: "SELECT name FROM devices WHERE id = $1", values: [id] });
  equal([rows[0].name, fields[0].name, fields[0].dataTypeID], [DEVICES[id - 1].name, "name", 1043]);
}
const several = await pool.query("SELECT 1 AS one; SELECT 2 AS two");
equal(several.map((result) => result.rows), [[{ one: 1 }], [{ two: 2 }]]);

const client = await pool.connect();
const cursor = client.query(new Cursor("SELECT seq FROM readings ORDER BY seq"));
equal(await cursor.read(3), [{ seq: "1" }, { seq: "2" }, { seq: "3" }]);
equal(await cursor.read(3), [{ seq: LARGE }]);
await cursor.close();
await client.query("BEGIN");
await refused(client.query("SELECT * FROM nowhere"), { code: "42P01" });
await refused(client.query("SELECT 1"), { code: "25P02" });
await client.query("ROLLBACK");
equal((await client.query("SELECT count(*) FROM devices")).rows, [{ count: "3" }]);
client.release();

const counts = await Promise.all(Array.from({ length: 20 }, (_, id) => rows("SELECT count(*) FROM devices WHERE id < $1", [id])));
equal(counts.map(([row]) => Number(row.count)), Array.from({ length: 20 }, (_, id) => Math.max(0, Math.min(id - 1, 3))));
await pool.end();
console.log("ok");
