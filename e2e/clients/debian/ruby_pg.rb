# Ruby's pg: parameters, prepared statements, type maps that look the types up, COPY, single rows, pipelines.

require "pg"
require "date"
require "bigdecimal"

def equal(found, wanted)
  raise "\nfound  #{found.inspect}\nwanted #{wanted.inspect}" unless found == wanted
end

def refused(error)
  yield
rescue error
  nil
else
  raise "#{error} was expected"
end

LARGE = 9_007_199_254_740_993

db = PG.connect(host: ARGV[0], port: ARGV[1].to_i, user: "root", dbname: "dev")
equal(db.exec("SELECT 1 AS one").to_a, [{ "one" => "1" }])
equal(db.server_version >= 130_000, true)

# Texts become values of Ruby by the types that the server's catalog has.
db.type_map_for_results = PG::BasicTypeMapForResults.new(db)
devices = db.exec("SELECT * FROM devices ORDER BY id").to_a
equal(devices[0], {
  "id" => 1,
  "name" => "boiler",
  "is_active" => true,
  "price" => BigDecimal("129.50"),
  "added_at" => Time.utc(2026, 1, 2, 3, 4, 5, 678_901),
  "settings" => { "unit" => "C", "limits" => [1, 2.5] },
  "tags" => ["heat", "ground floor"],
  "serial" => "\x00\xFF\x10".b,
})
equal(devices[1]["name"], "Grüße, \"fan\"")
equal(devices[1].values_at("is_active", "tags", "serial"), [false, [], ""])
equal(devices[2].compact, { "id" => 3, "name" => "unknown" })
readings = db.exec("SELECT * FROM readings ORDER BY seq").to_a
equal(readings[2].values_at("seq", "channel", "temperature", "factor", "note"), [3, 32_767, 1e300, -2.0, "it's"])
equal(readings[2].values_at("day", "levels"), [Date.new(2026, 2, 28), [4, nil]])
equal(readings[3]["seq"], LARGE)

ids = ->(condition, *values) { db.exec_params("SELECT id FROM devices WHERE #{condition} ORDER BY id", values).column_values(0) }
equal(ids.("id = $1", 1), [1])
equal(ids.("name = $1", "Grüße, \"fan\""), [2])
equal(ids.("price > $1", "100.5"), [1])
equal(ids.("added_at < $1", "2000-01-01T00:00:00Z"), [2])
equal(ids.("settings @> $1", '{"unit": "C"}'), [1])
equal(ids.("id = ANY($1)", "{1,3}"), [1, 3])
equal(ids.("name = coalesce($1, name)", nil), [1, 2, 3])
equal(ids.("serial = $1", { value: "\x00\xFF\x10".b, format: 1 }), [1])
db.type_map_for_queries = PG::BasicTypeMapForQueries.new(db)
equal(ids.("id = ANY($1)", [1, 3]), [1, 3])
equal(ids.("is_active = $1", true), [1])
equal(ids.("id = $1 AND price < $2", 2, BigDecimal("0.5")), [2])
equal(ids.("settings @> $1", { "unit" => "C" }), [1])
equal(ids.("added_at > $1", Time.utc(2000, 1, 1)), [1])

db.prepare("by_device", "SELECT seq FROM readings WHERE device_id = $1 ORDER BY seq")
equal([1, 2, 1].map { |id| db.exec_prepared("by_device", [id]).column_values(0) }, [[1, 2], [3, LARGE], [1, 2]])
described = db.describe_prepared("by_device")
equal([described.paramtype(0), described.fname(0), described.ftype(0)], [23, "seq", 20])
binary = db.exec_params("SELECT id, serial FROM devices WHERE id = $1", [1], 1)
equal(binary.to_a, [{ "id" => 1, "serial" => "\x00\xFF\x10".b }])

lines = []
db.copy_data("COPY (SELECT id, name FROM devices WHERE id = 1) TO STDOUT") do
  while (line = db.get_copy_data)
    lines << line
  end
end
equal(lines, ["1\tboiler\n"])

db.enter_pipeline_mode
3.times { |id| db.send_query_params("SELECT count(*) FROM devices WHERE id <= $1", [id]) }
db.pipeline_sync
counts = 3.times.map { db.get_result.getvalue(0, 0).tap { db.get_result } }
equal(counts, [0, 1, 2])
equal(db.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
db.exit_pipeline_mode

db.send_query("SELECT seq FROM readings ORDER BY seq")
db.set_single_row_mode
equal(db.get_result.stream_each_row.map(&:first), [1, 2, 3, LARGE])
equal(db.get_result, nil)

db.transaction { |inside| equal(inside.exec("SELECT count(*) FROM devices").getvalue(0, 0), 3) }
refused(PG::UndefinedTable) { db.transaction { |inside| inside.exec("SELECT * FROM nowhere") } }
refused(PG::UndefinedColumn) { db.exec("SELECT nothing") }
equal(db.exec("SELECT message FROM alarms WHERE id = 12").getvalue(0, 0), "STUCK")
equal(db.exec("SELECT #{db.escape_literal("it's")} AS #{db.quote_ident("a b")}").to_a, [{ "a b" => "it's" }])
db.reset
equal(db.exec("SELECT 1").ntuples, 1)
db.close
puts "ok"
