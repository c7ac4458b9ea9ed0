// Drizzle: `drizzle-kit pull` writes the schema of what there is, which its ORM then reads with.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { and, count, eq, gt, ilike, inArray, isNull, max, or, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import * as p from "drizzle-orm/pg-core";
import pg from "pg";
import { DEVICES, LARGE, equal, host, port, refused, url } from "./expected.mjs";

const kit = join(dirname(createRequire(import.meta.url).resolve("drizzle-kit")), "bin.cjs");
const folder = mkdtempSync(join(tmpdir(), "drizzle-"));
try {
  const credentials = { host, port, user: "root", database: "dev", ssl: false };
  writeFileSync(join(folder, "drizzle.config.json"), JSON.stringify({ dialect: "postgresql", out: "out", dbCredentials: credentials }));
  execFileSync(process.execPath, [kit, "pull", "--config", "drizzle.config.json"], { cwd: folder, stdio: "pipe" });
  const pulled = readFileSync(join(folder, "out", "schema.ts"), "utf8");
  const wanted = [
    'export const devices = pgTable("devices", {',
    "id: integer().primaryKey().notNull()",
    "name: varchar()",
    'isActive: boolean("is_active")',
    "price: numeric({ precision: 10, scale:  2 })",
    "addedAt: timestamp(\"added_at\", { withTimezone: true, mode: 'string' })",
    "settings: jsonb()",
    "tags: varchar().array()",
    'export const readings = pgTable("readings", {',
    "channel: smallint()",
    "temperature: doublePrecision()",
    "factor: real()",
    "day: date()",
    "levels: integer().array()",
    'export const alarms = pgMaterializedView("alarms", {',
  ];
  for (const part of wanted) equal(pulled.includes(part), true, `${part} is missing in\n${pulled}`);
} finally {
  rmSync(folder, { recursive: true });
}

const devices = p.pgTable("devices", {
  id: p.integer().primaryKey(),
  name: p.varchar(),
  is_active: p.boolean(),
  price: p.numeric({ precision: 10, scale: 2 }),
  added_at: p.timestamp({ withTimezone: true }),
  settings: p.jsonb(),
  tags: p.varchar().array(),
});
const readings = p.pgTable("readings", { seq: p.bigint({ mode: "bigint" }), device_id: p.integer(), day: p.date() });

const pool = new pg.Pool({ connectionString: url, max: 3 });
const db = drizzle(pool);
equal(await db.select().from(devices).orderBy(devices.id), DEVICES.map(({ serial, ...rest }) => rest));
const ids = async (condition) => (await db.select({ id: devices.id }).from(devices).where(condition).orderBy(devices.id)).map((row) => row.id);
equal(await ids(and(eq(devices.name, "boiler"), eq(devices.is_active, true))), [1]);
equal(await ids(inArray(devices.id, [1, 3])), [1, 3]);
equal(await ids(or(ilike(devices.name, "UNK%"), isNull(devices.price))), [3]);
equal(await ids(gt(devices.added_at, new Date("2000-01-01T00:00:00Z"))), [1]);
const grouped = db.select({ name: devices.name, count: count(), max: max(readings.seq) }).from(devices).innerJoin(readings, eq(devices.id, readings.device_id));
equal(await grouped.groupBy(devices.name).orderBy(devices.name), [
  { name: DEVICES[1].name, count: 2, max: BigInt(LARGE) },
  { name: "boiler", count: 2, max: 2n },
]);
equal(await db.$count(readings, eq(readings.day, "2026-01-02")), 2);
equal(await db.select({ id: devices.id }).from(devices).orderBy(devices.id).limit(1).offset(1), [{ id: 2 }]);
equal((await db.execute(sql`SELECT message FROM alarms WHERE id = ${12}`)).rows, [{ message: "STUCK" }]);
const prepared = db.select({ name: devices.name }).from(devices).where(eq(devices.id, sql.placeholder("id"))).prepare("by_id");
equal([await prepared.execute({ id: 1 }), await prepared.execute({ id: 3 })], [[{ name: "boiler" }], [{ name: "unknown" }]]);
const inside = await db.transaction((db) => db.$count(devices), { isolationLevel: "repeatable read", accessMode: "read only" });
equal(inside, 3);
await refused(db.execute(sql`SELECT * FROM nowhere`), (error) => (error.cause ?? error).code === "42P01");
await pool.end();
console.log("ok");
