// postgres.js: everything is prepared, and the types of parameters are those that the server says.

import postgres from "postgres";
import { DEVICES, LARGE, READINGS, equal, refused, url } from "./expected.mjs";

const sql = postgres(url, { max: 3 });
const plain = (rows) => rows.map((row) => ({ ...row }));

equal(plain(await sql`SELECT * FROM devices ORDER BY id`), DEVICES);
// A NULL inside of an array of integers becomes NaN.
const readings = READINGS.map((row) => ({ ...row, levels: row.levels && row.levels.map((level) => level ?? NaN) }));
equal(plain(await sql`SELECT * FROM readings ORDER BY seq`), readings);

const ids = async (condition) => (await sql`SELECT id FROM devices WHERE ${condition} ORDER BY id`).map((row) => row.id);
equal(await ids(sql`id = ${1}`), [1]);
equal(await ids(sql`id = ANY(${[1, 3]})`), [1, 3]);
equal(await ids(sql`id IN ${sql([1, 3])}`), [1, 3]);
equal(await ids(sql`name = ANY(${["boiler", "unknown"]})`), [1, 3]);
equal(await ids(sql`is_active = ${true}`), [1]);
equal(await ids(sql`price > ${"100.5"}`), [1]);
equal(await ids(sql`added_at < ${new Date("2000-01-01T00:00:00Z")}`), [2]);
equal(await ids(sql`settings @> ${sql.json({ unit: "C" })}`), [1]);
equal(await ids(sql`settings @> ${{ unit: "C" }}`), [1]);
equal(await ids(sql`tags @> ${["heat"]}`), [1]);
equal(await ids(sql`serial = ${Buffer.from([0x00, 0xff, 0x10])}`), [1]);
equal(await ids(sql`price IS NULL AND name LIKE ${"%know%"}`), [3]);
equal(await ids(sql`coalesce(price, ${7}) = 7`), [3]);
equal(plain(await sql`SELECT ${sql(["id", "name"])} FROM ${sql("devices")} WHERE id = ${2}`), [{ id: 2, name: DEVICES[1].name }]);
equal(plain(await sql`SELECT id FROM devices ORDER BY id LIMIT ${1} OFFSET ${1}`), [{ id: 2 }]);
equal(plain(await sql`SELECT device_id FROM readings WHERE seq = ${LARGE}`), [{ device_id: 2 }]);
equal(plain(await sql`SELECT message FROM alarms WHERE raised_at > ${"2026-01-02T03:04:06Z"}`), [{ message: "STUCK" }]);

const described = await sql`SELECT id, tags FROM devices WHERE id = ${1}`.describe();
equal([described.types, described.columns.map((column) => column.type)], [[23], [23, 1015]]);
const seen = [];
await sql`SELECT seq FROM readings ORDER BY seq`.cursor(3, (rows) => void seen.push(rows.map((row) => row.seq)));
equal(seen, [["1", "2", "3"], [LARGE]]);
const copied = await sql`COPY (SELECT id, name FROM devices WHERE id = 1) TO STDOUT`.readable();
let text = "";
for await (const chunk of copied) text += chunk;
equal(text, "1\tboiler\n");

const found = await sql.begin("READ ONLY", async (sql) => {
  await refused(sql.savepoint((sql) => sql`SELECT * FROM nowhere`), { code: "42P01" });
  return sql`SELECT count(*)::int AS count FROM devices`;
});
equal(found[0].count, 3);
await refused(sql`SELECT nothing`, { code: "42703" });
const counts = await Promise.all([1, 2, 3, 4].map((id) => sql`SELECT count(*) FROM devices WHERE id < ${id}`));
equal(counts.map(([row]) => row.count), ["0", "1", "2", "3"]);
await sql.end();
console.log("ok");
