// Kysely: its query builder, and its introspection, of which it generates types.

import { Kysely, PostgresDialect, sql } from "kysely";
import pg from "pg";
import { DEVICES, LARGE, READINGS, equal, refused, url } from "./expected.mjs";

const db = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url, max: 3 }) }) });

equal(await db.selectFrom("devices").selectAll().orderBy("id").execute(), DEVICES);
equal(await db.selectFrom("readings").selectAll().orderBy("seq").execute(), READINGS);
const ids = async (...condition) =>
  (await db.selectFrom("devices").select("id").where(...condition).orderBy("id").execute()).map((row) => row.id);
equal(await ids("name", "=", "boiler"), [1]);
equal(await ids("id", "in", [1, 3]), [1, 3]);
equal(await ids("name", "ilike", "unk%"), [3]);
equal(await ids("added_at", ">", new Date("2000-01-01T00:00:00Z")), [1]);
equal(await ids((e) => e.or([e("price", "is", null), e("price", "<", 0)])), [2, 3]);
equal(await ids((e) => e("id", "=", e.fn.any(e.val([1, 2])))), [1, 2]);
equal(await ids((e) => e.exists(e.selectFrom("readings").select("seq").whereRef("device_id", "=", "devices.id").where("seq", "=", 3))), [2]);
const joined = db.selectFrom("devices").leftJoin("readings", "devices.id", "readings.device_id").groupBy("devices.id");
equal(await joined.select((e) => ["devices.id", e.fn.count("seq").as("count"), e.fn.max("seq").as("max")]).orderBy("devices.id").execute(), [
  { id: 1, count: "2", max: "2" },
  { id: 2, count: "2", max: LARGE },
  { id: 3, count: "0", max: null },
]);
equal(await db.selectFrom("devices").select("id").orderBy("id", "desc").limit(1).offset(1).executeTakeFirst(), { id: 2 });
equal((await sql`SELECT ${LARGE}::bigint - 1 AS less, ${[1, 2]}::int[] AS list`.execute(db)).rows, [{ less: "9007199254740992", list: [1, 2] }]);
const tables = await db.introspection.getTables();
const names = tables.map((table) => `${table.schema}.${table.name}`);
for (const name of ["devices", "readings"]) equal(names.includes(`public.${name}`), true, names);
const columns = tables.find((table) => table.schema === "public" && table.name === "devices").columns;
equal(columns.map((column) => column.name), Object.keys(DEVICES[0]));
equal(columns.map((column) => column.dataType), ["int4", "varchar", "bool", "numeric", "timestamptz", "jsonb", "_varchar", "bytea"]);
equal(columns.filter((column) => !column.isNullable).map((column) => column.name), ["id"]);
equal(columns.some((column) => column.hasDefaultValue || column.isAutoIncrementing), false);

const counted = (db) => db.selectFrom("devices").select((e) => e.fn.countAll().as("count")).executeTakeFirstOrThrow();
equal(await db.transaction().setIsolationLevel("repeatable read").execute(counted), { count: "3" });
await refused(db.transaction().execute((db) => db.selectFrom("nowhere").selectAll().execute()), { code: "42P01" });
await db.destroy();
console.log("ok");
