// TypeORM: entities over tables that exist, its query builder, and what it loads of the catalog.

import "reflect-metadata";
import { Between, DataSource, EntitySchema, ILike, In, IsNull, MoreThan } from "typeorm";
import { DEVICES, LARGE, READINGS, equal, refused, url } from "./expected.mjs";

const Device = new EntitySchema({
  name: "devices",
  columns: {
    id: { type: "integer", primary: true },
    name: { type: "varchar", nullable: true },
    is_active: { type: "boolean", nullable: true },
    price: { type: "numeric", precision: 10, scale: 2, nullable: true },
    added_at: { type: "timestamptz", nullable: true },
    settings: { type: "jsonb", nullable: true },
    tags: { type: "varchar", array: true, nullable: true },
    serial: { type: "bytea", nullable: true },
  },
  relations: { readings: { type: "one-to-many", target: "readings", inverseSide: "device" } },
});
const Reading = new EntitySchema({
  name: "readings",
  columns: {
    seq: { type: "bigint", primary: true },
    channel: { type: "smallint", nullable: true },
    temperature: { type: "double precision", nullable: true },
    day: { type: "date", nullable: true },
    levels: { type: "integer", array: true, nullable: true },
    note: { type: "varchar", nullable: true },
  },
  relations: { device: { type: "many-to-one", target: "devices", inverseSide: "readings", joinColumn: { name: "device_id" } } },
});

const db = await new DataSource({ type: "postgres", url, entities: [Device, Reading], installExtensions: false }).initialize();
const [devices, readings] = [db.getRepository(Device), db.getRepository(Reading)];

equal(await devices.find({ order: { id: "ASC" } }), DEVICES);
const found = await readings.find({ order: { seq: "ASC" }, select: { seq: true, temperature: true, levels: true, note: true } });
equal(found, READINGS.map(({ seq, temperature, levels, note }) => ({ seq, temperature, levels, note })));

const ids = async (where) => (await devices.find({ where, order: { id: "ASC" } })).map((device) => device.id);
equal((await devices.findOneBy({ id: 1 })).name, "boiler");
equal(await devices.findOneBy({ id: 99 }), null);
equal(await ids({ id: In([1, 3]) }), [1, 3]);
equal(await ids({ name: ILike("UNK%") }), [3]);
equal(await ids([{ price: IsNull() }, { id: Between(1, 2) }]), [1, 2, 3]);
equal(await ids({ added_at: MoreThan(new Date("2000-01-01T00:00:00Z")) }), [1]);
equal(await readings.countBy({ day: "2026-01-02" }), 2);
equal(await readings.existsBy({ seq: LARGE }), true);
const [page, count] = await devices.findAndCount({ order: { id: "ASC" }, skip: 1, take: 1 });
equal([count, page[0].name], [3, DEVICES[1].name]);
// Joined and limited it asks for the keys of the page first.
const joined = await devices.find({ relations: { readings: true }, order: { id: "ASC" }, take: 2 });
equal(joined.map((device) => device.readings.map((reading) => reading.seq).sort()), [["1", "2"], ["3", LARGE]]);
equal((await readings.findOne({ where: { seq: "1" }, relations: { device: true } })).device.name, "boiler");
const grouped = readings.createQueryBuilder("r").select("r.device_id", "device").addSelect("count(*)", "count");
equal(await grouped.groupBy("r.device_id").orderBy("r.device_id").having("count(*) > :n", { n: 1 }).getRawMany(), [
  { device: 1, count: "2" },
  { device: 2, count: "2" },
]);
const conditions = devices.createQueryBuilder("d").where("d.id = ANY(:ids)", { ids: [1, 2] }).andWhere("d.settings @> :s", { s: { unit: "C" } });
equal((await conditions.getMany()).map((device) => device.id), [1]);
equal(await db.query("SELECT message FROM alarms WHERE id = $1", [12]), [{ message: "STUCK" }]);

// What synchronising a schema or making a migration begins with.
const runner = db.createQueryRunner();
equal([await runner.hasTable("devices"), await runner.hasTable("nowhere")], [true, false]);
equal([await runner.getCurrentDatabase(), await runner.getCurrentSchema()], ["dev", "public"]);
const table = await runner.getTable("devices");
equal(table.columns.map((column) => column.name), Object.keys(DEVICES[0]));
equal(table.columns.map((column) => column.type), ["integer", "character varying", "boolean", "numeric", "timestamp with time zone", "jsonb", "character varying", "bytea"]);
equal(table.primaryColumns.map((column) => column.name), ["id"]);
equal(table.columns.filter((column) => !column.isNullable).map((column) => column.name), ["id"]);
const price = table.findColumnByName("price");
equal([price.precision, price.scale, table.findColumnByName("tags").isArray], [10, 2, true]);
equal([table.indices, table.foreignKeys, table.uniques, table.checks], [[], [], [], []]);
await runner.release();

equal(await db.transaction("REPEATABLE READ", (manager) => manager.count(Device)), 3);
await refused(db.transaction((manager) => manager.query("SELECT * FROM nowhere")), { code: "42P01" });
await db.destroy();
console.log("ok");
