"""How Grafana's query builder and Metabase's sync find out what there is.

The programs themselves come from no registry. These statements ask the same of the catalog with the same means, written
anew, as each of them sends it: Grafana as text without parameters, Metabase with parameters through JDBC, which casts
nothing.
"""

import sys

import psycopg
from expected import DEVICES, equal

connection = psycopg.connect(host=sys.argv[1], port=sys.argv[2], user="root", dbname="dev", autocommit=True)


def rows(query, *values):
    return connection.execute(query, values or None, prepare=bool(values)).fetchall()


# The schemas of the search path, as a set: elements of an array that is made of a text, in FROM.
IN_SEARCH_PATH = """quote_ident(table_schema) IN (
    SELECT CASE WHEN trim(parts[n]) = '"$user"' THEN user ELSE trim(parts[n]) END
    FROM generate_series(
            array_lower(string_to_array(current_setting('search_path'), ','), 1),
            array_upper(string_to_array(current_setting('search_path'), ','), 1)
        ) AS n,
        string_to_array(current_setting('search_path'), ',') parts
)"""


def grafana() -> None:
    assert rows("SELECT current_setting('server_version_num')::int / 100 AS version")[0][0] >= 1300
    equal(rows("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"), [])
    schemas = rows(
        "SELECT schema_name AS name FROM information_schema.schemata"
        " WHERE schema_name NOT IN ('information_schema', 'pg_catalog', 'pg_toast') ORDER BY schema_name"
    )
    assert ("public",) in schemas, schemas
    tables = rows(
        f"""SELECT CASE WHEN {IN_SEARCH_PATH} THEN quote_ident(table_name)
                ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table"
            FROM information_schema.tables
            WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', 'timescaledb_information')
            ORDER BY CASE WHEN {IN_SEARCH_PATH} THEN 0 ELSE 1 END, 1"""
    )
    # Those of the search path come first, and without a schema.
    names = [name for (name,) in tables if name in ("devices", "readings")]
    equal(names, ["devices", "readings"])
    equal(rows("SELECT quote_ident(table_name) FROM information_schema.tables WHERE quote_ident(table_schema) = 'nowhere' ORDER BY 1"), [])
    for table in ("devices", "public.devices", "dev.public.devices"):
        columns = rows(
            f"""SELECT quote_ident(column_name) AS "column", data_type AS "type"
                FROM information_schema.columns
                WHERE CASE WHEN array_length(parse_ident('{table}'), 1) = 2
                    THEN quote_ident(table_schema) = (parse_ident('{table}'))[1]
                        AND quote_ident(table_name) = (parse_ident('{table}'))[2]
                    ELSE quote_ident(table_name) = '{table}' AND {IN_SEARCH_PATH} END"""
        )
        wanted = ["integer", "character varying", "boolean", "numeric", "timestamp with time zone", "jsonb", "ARRAY", "bytea"]
        equal(columns, [] if table.startswith("dev.") else list(zip(DEVICES[0], wanted, strict=True)))
    # Panels over time.
    series = rows(
        """SELECT date_trunc('minute', measured_at) AS "time", avg(temperature) AS value FROM readings
           WHERE measured_at BETWEEN '2026-01-01T00:00:00Z' AND '2026-02-01T00:00:00Z' GROUP BY 1 ORDER BY 1"""
    )
    equal([value for _, value in series], [20.5, -3.25])
    series = rows(
        """SELECT floor(extract(epoch FROM added_at) / 300) * 300 AS "time", count(*) AS value FROM devices
           WHERE added_at >= '2026-01-01T00:00:00Z' AND added_at <= '2026-02-01T00:00:00Z' GROUP BY 1 ORDER BY 1"""
    )
    equal([(int(time), value) for time, value in series], [(1767322800 // 300 * 300, 1)])


def metabase() -> None:
    schemas = rows("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'")
    assert ("public",) in schemas, schemas
    equal(rows("SHOW timezone"), [("UTC",)])
    equal(rows("SELECT n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid IN (SELECT DISTINCT enumtypid FROM pg_enum)"), [])

    tables = rows(
        """SELECT "n"."nspname" AS "schema", "c"."relname" AS "name",
                CASE "c"."relkind" WHEN 'r' THEN 'TABLE' WHEN 'p' THEN 'PARTITIONED TABLE' WHEN 'v' THEN 'VIEW'
                    WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE NULL END AS "type",
                "d"."description" AS "description", "s"."n_live_tup" AS "rows"
            FROM "pg_catalog"."pg_class" AS "c"
            INNER JOIN "pg_catalog"."pg_namespace" AS "n" ON "c"."relnamespace" = "n"."oid"
            LEFT JOIN "pg_catalog"."pg_description" AS "d"
                ON ("c"."oid" = "d"."objoid") AND ("d"."objsubid" = %s) AND ("d"."classoid" = 'pg_class'::regclass)
            LEFT JOIN "pg_stat_user_tables" AS "s" ON ("n"."nspname" = "s"."schemaname") AND ("c"."relname" = "s"."relname")
            WHERE ("n"."nspname" !~ '^pg_') AND ("n"."nspname" <> %s) AND c.relkind IN ('r', 'p', 'v', 'f', 'm')
                AND ("n"."nspname" IN (%s))
            ORDER BY "type" ASC, "schema" ASC, "name" ASC""",
        0, "information_schema", "public",
    )
    kinds = {name: (schema, kind, description) for schema, name, kind, description, _ in tables}
    equal(kinds["devices"], ("public", "TABLE", None))
    equal(kinds["alarms"], ("public", "MATERIALIZED VIEW", None))

    fields = rows(
        """SELECT "c"."column_name" AS "name",
                CASE WHEN "c"."udt_schema" IN ('public', 'pg_catalog') THEN FORMAT('%%s', "c"."udt_name")
                    ELSE FORMAT('"%%s"."%%s"', "c"."udt_schema", "c"."udt_name") END AS "type",
                "c"."ordinal_position" - 1 AS "position", "c"."table_schema" AS "schema", "c"."table_name" AS "table",
                "pk"."column_name" IS NOT NULL AS "is_key",
                COL_DESCRIPTION(CAST(CAST(FORMAT('%%I.%%I', CAST("c"."table_schema" AS TEXT), CAST("c"."table_name" AS TEXT)) AS REGCLASS) AS OID), "c"."ordinal_position") AS "comment",
                (("column_default" IS NULL) OR (LOWER("column_default") = 'null')) AND ("is_nullable" = 'NO')
                    AND NOT ((("column_default" IS NOT NULL) AND ("column_default" LIKE '%%nextval(%%')) OR ("is_identity" <> 'NO')) AS "required",
                (("column_default" IS NOT NULL) AND ("column_default" LIKE '%%nextval(%%')) OR ("is_identity" <> 'NO') AS "increments"
            FROM "information_schema"."columns" AS "c"
            LEFT JOIN (
                SELECT "tc"."table_schema", "tc"."table_name", "kc"."column_name"
                FROM "information_schema"."table_constraints" AS "tc"
                INNER JOIN "information_schema"."key_column_usage" AS "kc"
                    ON ("tc"."constraint_name" = "kc"."constraint_name") AND ("tc"."table_schema" = "kc"."table_schema")
                    AND ("tc"."table_name" = "kc"."table_name")
                WHERE "tc"."constraint_type" = 'PRIMARY KEY'
            ) AS "pk" ON ("c"."table_schema" = "pk"."table_schema") AND ("c"."table_name" = "pk"."table_name")
                AND ("c"."column_name" = "pk"."column_name")
            WHERE c.table_schema !~ '^information_schema|pg_' AND ("c"."table_schema" IN (%s))
            UNION ALL
            SELECT "a"."attname" AS "name",
                CASE WHEN "tn"."nspname" IN ('public', 'pg_catalog') THEN FORMAT('%%s', "t"."typname")
                    ELSE FORMAT('"%%s"."%%s"', "tn"."nspname", "t"."typname") END AS "type",
                "a"."attnum" - 1 AS "position", "n"."nspname" AS "schema", "r"."relname" AS "table",
                FALSE AS "is_key", NULL AS "comment", FALSE AS "required", FALSE AS "increments"
            FROM "pg_catalog"."pg_class" AS "r"
            INNER JOIN "pg_catalog"."pg_namespace" AS "n" ON "n"."oid" = "r"."relnamespace"
            INNER JOIN "pg_catalog"."pg_attribute" AS "a" ON "a"."attrelid" = "r"."oid"
            INNER JOIN "pg_catalog"."pg_type" AS "t" ON "t"."oid" = "a"."atttypid"
            INNER JOIN "pg_catalog"."pg_namespace" AS "tn" ON "tn"."oid" = "t"."typnamespace"
            WHERE ("r"."relkind" = 'm') AND ("a"."attnum" >= 1) AND ("n"."nspname" IN (%s))
            ORDER BY "schema" ASC, "table" ASC, "position" ASC""",
        "public", "public",
    )
    devices = [field for field in fields if field[4] == "devices"]
    equal([field[0] for field in devices], list(DEVICES[0]))
    equal([field[1] for field in devices], ["int4", "varchar", "bool", "numeric", "timestamptz", "jsonb", "_varchar", "bytea"])
    equal(devices[0][2:], (0, "public", "devices", True, None, True, False))
    equal(devices[1][2:], (1, "public", "devices", False, None, False, False))
    equal([field[:3] for field in fields if field[4] == "alarms"][:2], [("id", "int8", 0), ("device_id", "int4", 1)])

    keys = rows(
        """SELECT "fn"."nspname", "ft"."relname", "fa"."attname", "pn"."nspname", "pt"."relname", "pa"."attname"
            FROM "pg_constraint" AS "c"
            INNER JOIN "pg_class" AS "ft" ON "c"."conrelid" = "ft"."oid"
            INNER JOIN "pg_namespace" AS "fn" ON "c"."connamespace" = "fn"."oid"
            INNER JOIN "pg_attribute" AS "fa" ON "c"."conrelid" = "fa"."attrelid"
            INNER JOIN "pg_class" AS "pt" ON "c"."confrelid" = "pt"."oid"
            INNER JOIN "pg_namespace" AS "pn" ON "pt"."relnamespace" = "pn"."oid"
            INNER JOIN "pg_attribute" AS "pa" ON "c"."confrelid" = "pa"."attrelid"
            WHERE fn.nspname !~ '^information_schema|pg_' AND ("c"."contype" = 'f'::char)
                AND ("fa"."attnum" = ANY(c.conkey)) AND ("pa"."attnum" = ANY(c.confkey)) AND ("fn"."nspname" IN (%s))
            ORDER BY 1, 2""",
        "public",
    )
    equal(keys, [])
    indexes = rows(
        """SELECT "i"."schema", "i"."table", TRIM(BOTH '"' FROM pg_catalog.pg_get_indexdef("i"."oid", "i"."position", FALSE)) AS "field"
            FROM (
                SELECT "n"."nspname" AS "schema", "t"."relname" AS "table", "r"."oid" AS "oid",
                    (information_schema._pg_expandarray("x"."indkey"))."n" AS "position"
                FROM "pg_catalog"."pg_class" AS "t"
                INNER JOIN "pg_catalog"."pg_namespace" AS "n" ON "t"."relnamespace" = "n"."oid"
                INNER JOIN "pg_catalog"."pg_index" AS "x" ON "t"."oid" = "x"."indrelid"
                INNER JOIN "pg_catalog"."pg_class" AS "r" ON "r"."oid" = "x"."indexrelid"
                WHERE (pg_catalog.pg_get_expr("x"."indpred", "x"."indrelid") IS NULL)
                    AND n.nspname !~ '^information_schema|pg_' AND ("t"."relname" IN (%s))
            ) AS "i"
            WHERE "i"."position" = %s""",
        "devices", 1,
    )
    equal(indexes, [("public", "devices", "id")])

    rights = rows(
        """WITH rights AS (
                SELECT NULL AS role, t.schemaname AS schema, t.name AS "table",
                    pg_catalog.has_any_column_privilege(current_user, format('%I.%I', t.schemaname, t.name), 'update') AS may_update,
                    pg_catalog.has_any_column_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"."' || replace(t.name, '"', '""') || '"', 'select') AS may_select,
                    pg_catalog.has_table_privilege(current_user, format('%I.%I', t.schemaname, t.name), 'delete') AS may_delete
                FROM (
                    SELECT schemaname, tablename AS name FROM pg_catalog.pg_tables
                    UNION SELECT schemaname, viewname FROM pg_catalog.pg_views
                    UNION SELECT schemaname, matviewname FROM pg_catalog.pg_matviews
                ) t
                WHERE t.schemaname !~ '^pg_' AND t.schemaname <> 'information_schema'
                    AND pg_catalog.has_schema_privilege(current_user, t.schemaname, 'usage')
            )
            SELECT t.* FROM rights t"""
    )
    readable = {name for _, schema, name, _, may_select, _ in rights if may_select and schema == "public"}
    assert {"devices", "readings", "alarms"} <= readable, rights

    # Fingerprints of fields, and questions.
    sample = rows('SELECT "public"."devices"."id" AS "id", SUBSTRING("public"."devices"."name", 1, 1234) AS "name" FROM "public"."devices" LIMIT 10000')
    equal(sorted(sample)[0], (1, "boiler"))
    found = rows(
        """SELECT CAST("r"."measured_at" AS date) AS "day", COUNT(*) AS "count" FROM "public"."readings" AS "r"
            WHERE ("r"."measured_at" >= DATE_TRUNC('year', %s::timestamp)) AND ("r"."note" <> %s OR "r"."note" IS NULL)
            GROUP BY CAST("r"."measured_at" AS date) ORDER BY CAST("r"."measured_at" AS date) ASC""",
        "2026-06-01", "nothing",
    )
    equal([count for _, count in found], [2, 1])


{"grafana": grafana, "metabase": metabase}[sys.argv[3]]()
print("ok")
