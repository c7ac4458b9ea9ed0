// Sequelize: models over tables that exist, associations, and what its query interface asks of the catalog.

import { DataTypes, Op, QueryTypes, Sequelize, Transaction, col, fn } from "sequelize";
import { DEVICES, LARGE, READINGS, equal, refused, url } from "./expected.mjs";

const db = new Sequelize(url, { logging: false, pool: { max: 3 } });
await db.authenticate();

const options = { timestamps: false, freezeTableName: true };
const Device = db.define(
  "devices",
  {
    id: { type: DataTypes.INTEGER, primaryKey: true },
    name: DataTypes.STRING,
    is_active: DataTypes.BOOLEAN,
    price: DataTypes.DECIMAL(10, 2),
    added_at: DataTypes.DATE,
    settings: DataTypes.JSONB,
    tags: DataTypes.ARRAY(DataTypes.STRING),
    serial: DataTypes.BLOB,
  },
  options,
);
const Reading = db.define(
  "readings",
  {
    seq: { type: DataTypes.BIGINT, primaryKey: true },
    device_id: DataTypes.INTEGER,
    channel: DataTypes.SMALLINT,
    temperature: DataTypes.DOUBLE,
    day: DataTypes.DATEONLY,
    levels: DataTypes.ARRAY(DataTypes.INTEGER),
    note: DataTypes.STRING,
  },
  options,
);
Device.hasMany(Reading, { foreignKey: "device_id", as: "readings" });
Reading.belongsTo(Device, { foreignKey: "device_id", as: "device" });

equal(await Device.findAll({ order: ["id"], raw: true }), DEVICES);
const readings = await Reading.findAll({ order: ["seq"], raw: true, attributes: ["seq", "temperature", "levels", "note"] });
equal(readings, READINGS.map(({ seq, temperature, levels, note }) => ({ seq, temperature, levels, note })));

const ids = async (where) => (await Device.findAll({ where, order: ["id"] })).map((device) => device.id);
equal((await Device.findByPk(1)).name, "boiler");
equal(await Device.findByPk(99), null);
equal(await ids({ name: "boiler", is_active: true }), [1]);
equal(await ids({ id: [1, 3] }), [1, 3]);
equal(await ids({ id: { [Op.between]: [2, 3] } }), [2, 3]);
equal(await ids({ name: { [Op.iLike]: "UNK%" } }), [3]);
equal(await ids({ [Op.or]: [{ price: null }, { price: { [Op.lt]: 0 } }] }), [2, 3]);
equal(await ids({ added_at: { [Op.gt]: new Date("2000-01-01T00:00:00Z") } }), [1]);
equal(await ids({ settings: { unit: "C" } }), [1]);
equal(await ids({ tags: { [Op.contains]: ["heat"] } }), [1]);
equal(await ids({ tags: { [Op.overlap]: ["heat", "cold"] } }), [1]);
equal(await Reading.count({ where: { day: "2026-01-02" } }), 2);
equal(await Reading.max("channel"), 32767);
const { count, rows } = await Device.findAndCountAll({ order: ["id"], limit: 1, offset: 1 });
equal([count, rows[0].name], [3, DEVICES[1].name]);

const joined = await Device.findAll({ include: "readings", order: ["id", ["readings", "seq", "ASC"]] });
equal(joined.map((device) => device.readings.map((reading) => reading.seq)), [["1", "2"], ["3", LARGE], []]);
const limited = await Device.findAll({ include: { model: Reading, as: "readings", required: true }, order: ["id"], limit: 1 });
equal(limited.map((device) => device.readings.length), [2]);
equal((await Reading.findOne({ where: { seq: 1 }, include: "device" })).device.name, "boiler");
const grouped = { attributes: ["device_id", [fn("COUNT", col("seq")), "count"]], group: ["device_id"], order: ["device_id"], raw: true };
equal(await Reading.findAll(grouped), [{ device_id: 1, count: "2" }, { device_id: 2, count: "2" }]);
equal(await db.query("SELECT message FROM alarms WHERE id = :id", { replacements: { id: 12 }, type: QueryTypes.SELECT }), [{ message: "STUCK" }]);
equal(await db.query("SELECT name FROM devices WHERE id = $1", { bind: [1], type: QueryTypes.SELECT }), [{ name: "boiler" }]);

const catalog = db.getQueryInterface();
const tables = await catalog.showAllTables();
for (const name of ["devices", "readings"]) equal(tables.some((table) => (table.tableName ?? table) === name), true);
equal(await catalog.tableExists("devices"), true);
equal(await catalog.tableExists("nowhere"), false);
const columns = await catalog.describeTable("devices");
equal(Object.keys(columns), Object.keys(DEVICES[0]));
equal(
  Object.values(columns).map((column) => column.type),
  ["INTEGER", "CHARACTER VARYING", "BOOLEAN", "NUMERIC", "TIMESTAMP WITH TIME ZONE", "JSONB", "ARRAY", "BYTEA"],
);
equal(Object.keys(columns).filter((name) => columns[name].primaryKey), ["id"]);
equal(Object.keys(columns).filter((name) => !columns[name].allowNull), ["id"]);
const indexes = await catalog.showIndex("devices");
equal(indexes.map(({ primary, unique, fields }) => [primary, unique, fields.map((field) => field.attribute)]), [[true, true, ["id"]]]);
equal(await catalog.getForeignKeyReferencesForTable("devices"), []);

const isolationLevel = Transaction.ISOLATION_LEVELS.REPEATABLE_READ;
equal(await db.transaction({ isolationLevel }, (transaction) => Device.count({ transaction })), 3);
await refused(db.transaction((transaction) => db.query("SELECT * FROM nowhere", { transaction })), { name: "SequelizeDatabaseError" });
await db.close();
console.log("ok");
