// Knex: the query builder, streams, and what it asks of the catalog.

import knex from "knex";
import { DEVICES, LARGE, READINGS, equal, refused, url } from "./expected.mjs";

const db = knex({ client: "pg", connection: url, pool: { min: 1, max: 3 } });

equal(await db("devices").orderBy("id"), DEVICES);
equal(await db.select("*").from("readings").orderBy("seq"), READINGS);
const ids = (query) => query.orderBy("id").pluck("id");
equal(await ids(db("devices").where({ name: "boiler", is_active: true })), [1]);
equal(await ids(db("devices").whereIn("id", [1, 3])), [1, 3]);
equal(await ids(db("devices").whereNull("price").orWhere("price", "<", 0)), [2, 3]);
equal(await ids(db("devices").whereILike("name", "BOIL%")), [1]);
equal(await ids(db("devices").whereBetween("id", [2, 3])), [2, 3]);
equal(await ids(db("devices").where("added_at", ">", new Date("2000-01-01T00:00:00Z"))), [1]);
equal(await ids(db("devices").whereJsonSupersetOf("settings", { unit: "C" })), [1]);
equal(await ids(db("devices").whereRaw("id = ANY(?)", [[1, 2]])), [1, 2]);
equal(await ids(db("devices").whereExists(db("readings").whereRaw("device_id = devices.id").where("seq", 3))), [2]);
equal(await db("devices").where("id", 1).first("name"), { name: "boiler" });
equal(await db("readings").count("* as count").first(), { count: "4" });
equal(await db("readings").max("seq as max").first(), { max: LARGE });
const grouped = db("readings").join("devices", "devices.id", "readings.device_id").groupBy("name").having(db.raw("count(*)"), ">", 1);
equal(await grouped.select("name").sum("channel as sum").orderBy("name"), [
  { name: DEVICES[1].name, sum: "32767" },
  { name: "boiler", sum: "0" },
]);
equal(await db("devices").orderBy("id").limit(1).offset(1).pluck("name"), [DEVICES[1].name]);
equal(await db.with("late", db("alarms").where("id", ">", 10)).from("late").pluck("message"), ["STUCK"]);
equal((await db.raw("SELECT ? ::int + 1 AS two", [1])).rows, [{ two: 2 }]);

equal(await db.schema.hasTable("devices"), true);
equal(await db.schema.hasTable("nowhere"), false);
equal(await db.schema.hasColumn("devices", "serial"), true);
const columns = await db("devices").columnInfo();
equal(Object.keys(columns), Object.keys(DEVICES[0]));
equal(columns.id, { type: "integer", maxLength: null, nullable: false, defaultValue: null });
equal([columns.added_at.type, columns.tags.type, columns.name.nullable], ["timestamp with time zone", "ARRAY", true]);

const seen = [];
for await (const row of db("readings").select("seq").orderBy("seq").stream()) seen.push(row.seq);
equal(seen, ["1", "2", "3", LARGE]);
equal(await db.transaction((transaction) => transaction("devices").pluck("id").orderBy("id")), [1, 2, 3]);
await refused(db.transaction((transaction) => transaction("nowhere")), { code: "42P01" });
await db.destroy();
console.log("ok");
