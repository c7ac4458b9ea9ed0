// The rows of `devices` and `readings`, and what the programs share. node-postgres and those that build on it give a
// bigint and a numeric as texts, a timestamp as a Date of local time, of which the programs set the zone to UTC.

import assert from "node:assert/strict";

process.env.TZ = "UTC";

export const [host, port] = [process.argv[2], Number(process.argv[3])];
export const url = `postgres://root@${host}:${port}/dev`;
export const equal = assert.deepStrictEqual;
export const refused = assert.rejects;

// Beyond what a JavaScript number can hold.
export const LARGE = "9007199254740993";

export const DEVICES = [
  {
    id: 1,
    name: "boiler",
    is_active: true,
    price: "129.50",
    added_at: new Date("2026-01-02T03:04:05.678Z"),
    settings: { unit: "C", limits: [1, 2.5] },
    tags: ["heat", "ground floor"],
    serial: Buffer.from([0x00, 0xff, 0x10]),
  },
  {
    id: 2,
    name: 'Grüße, "fan"',
    is_active: false,
    price: "-0.05",
    added_at: new Date("1999-12-31T23:59:59Z"),
    settings: [],
    tags: [],
    serial: Buffer.from([]),
  },
  {
    id: 3,
    name: "unknown",
    is_active: null,
    price: null,
    added_at: null,
    settings: null,
    tags: null,
    serial: null,
  },
];

export const READINGS = [
  {
    seq: "1",
    device_id: 1,
    channel: 7,
    temperature: 20.5,
    factor: 0.25,
    measured_at: new Date("2026-01-02T03:04:05Z"),
    day: new Date("2026-01-02T00:00:00Z"),
    levels: [1, 2, 3],
    note: "first",
  },
  {
    seq: "2",
    device_id: 1,
    channel: -7,
    temperature: -3.25,
    factor: 1.5,
    measured_at: new Date("2026-01-02T03:05:05.250Z"),
    day: new Date("2026-01-02T00:00:00Z"),
    levels: [],
    note: "",
  },
  {
    seq: "3",
    device_id: 2,
    channel: 32767,
    temperature: 1e300,
    factor: -2,
    measured_at: new Date("2026-02-28T00:00:00Z"),
    day: new Date("2026-02-28T00:00:00Z"),
    levels: [4, null],
    note: "it's",
  },
  {
    seq: LARGE,
    device_id: 2,
    channel: null,
    temperature: null,
    factor: null,
    measured_at: null,
    day: null,
    levels: null,
    note: null,
  },
];
