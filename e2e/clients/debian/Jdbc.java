// pgjdbc: statements, prepared statements until the server keeps them, a fetch size, batches of reads, and the
// methods of DatabaseMetaData by which tools list what there is.

import java.math.BigDecimal;
import java.sql.Array;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Properties;
import java.util.TimeZone;

public class Jdbc {
    static final long LARGE = 9007199254740993L;

    public static void main(String[] arguments) throws Exception {
        TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
        String url = "jdbc:postgresql://" + arguments[0] + ":" + arguments[1] + "/dev";
        Properties properties = new Properties();
        properties.put("user", "root");
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            catalog(connection.getMetaData());
            values(connection);
            parameters(connection);
            // Not in its simple mode, in which it has no bytes.
            equal(ids(connection, "serial = ?", (Object) new byte[] {0, -1, 16}), List.of(1));
            transactions(connection);
        }
        // As pools and BI tools configure it.
        properties.put("preferQueryMode", "simple");
        properties.put("readOnly", "true");
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            values(connection);
            parameters(connection);
        }
        System.out.println("ok");
    }

    static void catalog(DatabaseMetaData data) throws SQLException {
        equal(data.getDatabaseProductName(), "PostgreSQL");
        equal(contains(column(data.getSchemas(), "TABLE_SCHEM"), "public"), true);
        equal(column(data.getCatalogs(), "TABLE_CAT"), List.of("dev"));
        List<String> tables = column(data.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME");
        equal(contains(tables, "devices", "readings") && !tables.contains("alarms"), true);
        List<String> views = column(data.getTables(null, "public", "%", new String[] {"MATERIALIZED VIEW"}), "TABLE_NAME");
        equal(views, List.of("alarms"));
        equal(contains(column(data.getTableTypes(), "TABLE_TYPE"), "TABLE", "VIEW"), true);

        equal(column(data.getColumns(null, "public", "devices", "%"), "COLUMN_NAME"),
            List.of("id", "name", "is_active", "price", "added_at", "settings", "tags", "serial"));
        equal(column(data.getColumns(null, "public", "devices", "%"), "TYPE_NAME"),
            List.of("int4", "varchar", "bool", "numeric", "timestamptz", "jsonb", "_varchar", "bytea"));
        equal(column(data.getColumns(null, "public", "devices", "%"), "IS_NULLABLE"),
            List.of("NO", "YES", "YES", "YES", "YES", "YES", "YES", "YES"));
        equal(column(data.getColumns(null, "public", "readings", "%"), "DATA_TYPE"), numbers(Types.BIGINT, Types.INTEGER,
            Types.SMALLINT, Types.DOUBLE, Types.REAL, Types.TIMESTAMP, Types.DATE, Types.ARRAY, Types.VARCHAR));
        try (ResultSet price = data.getColumns(null, "public", "devices", "price")) {
            equal(price.next(), true);
            equal(List.of(price.getInt("COLUMN_SIZE"), price.getInt("DECIMAL_DIGITS")), List.of(10, 2));
        }
        equal(column(data.getPrimaryKeys(null, "public", "devices"), "COLUMN_NAME"), List.of("id"));
        equal(column(data.getPrimaryKeys(null, "public", "devices"), "KEY_SEQ"), List.of("1"));
        equal(column(data.getPrimaryKeys(null, "public", "readings"), "COLUMN_NAME"), List.of());
        equal(column(data.getIndexInfo(null, "public", "devices", true, false), "COLUMN_NAME"), List.of("id"));
        equal(column(data.getBestRowIdentifier(null, "public", "devices", DatabaseMetaData.bestRowSession, true), "COLUMN_NAME"),
            List.of("id"));
        equal(column(data.getImportedKeys(null, "public", "devices"), "FKCOLUMN_NAME"), List.of());
        equal(column(data.getExportedKeys(null, "public", "devices"), "FKCOLUMN_NAME"), List.of());
        equal(contains(column(data.getTypeInfo(), "TYPE_NAME"), "int4", "text", "timestamptz"), true);
        column(data.getFunctions(null, "pg_catalog", "abs"), "FUNCTION_NAME");
        column(data.getProcedures(null, "public", "%"), "PROCEDURE_NAME");
        column(data.getTablePrivileges(null, "public", "devices"), "PRIVILEGE");
        column(data.getColumnPrivileges(null, "public", "devices", "%"), "PRIVILEGE");
        column(data.getVersionColumns(null, "public", "devices"), "COLUMN_NAME");
        column(data.getClientInfoProperties(), "NAME");
        column(data.getUDTs(null, "public", "%", null), "TYPE_NAME");
        equal(data.getMaxColumnNameLength(), 63);
        equal(data.getSQLKeywords().isEmpty(), false);
    }

    static void values(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement();
            ResultSet rows = statement.executeQuery("SELECT * FROM devices ORDER BY id")) {
            ResultSetMetaData columns = rows.getMetaData();
            equal(columns.getColumnCount(), 8);
            equal(columns.getColumnName(4) + columns.getPrecision(4) + columns.getScale(4), "price102");
            equal(columns.getColumnTypeName(6), "jsonb");
            equal(rows.next(), true);
            equal(rows.getInt("id"), 1);
            equal(rows.getString("name"), "boiler");
            equal(rows.getBoolean("is_active"), true);
            equal(rows.getBigDecimal("price"), new BigDecimal("129.50"));
            equal(rows.getObject("added_at", OffsetDateTime.class), OffsetDateTime.parse("2026-01-02T03:04:05.678901Z"));
            equal(rows.getString("settings"), "{\"unit\": \"C\", \"limits\": [1, 2.5]}");
            equal(Arrays.asList((String[]) rows.getArray("tags").getArray()), List.of("heat", "ground floor"));
            equal(Arrays.toString(rows.getBytes("serial")), "[0, -1, 16]");
            equal(rows.next(), true);
            equal(rows.getString("name"), "Grüße, \"fan\"");
            equal(rows.getBigDecimal("price"), new BigDecimal("-0.05"));
            equal(((String[]) rows.getArray("tags").getArray()).length, 0);
            equal(rows.getBytes("serial").length, 0);
            equal(rows.next(), true);
            for (String name : new String[] {"is_active", "price", "added_at", "settings", "tags", "serial"}) {
                equal(rows.getObject(name), null);
            }
            equal(rows.next(), false);
        }
        try (Statement statement = connection.createStatement();
            ResultSet rows = statement.executeQuery("SELECT * FROM readings WHERE seq < 4 ORDER BY seq DESC")) {
            equal(rows.next(), true);
            equal(rows.getLong("seq"), 3L);
            equal(rows.getShort("channel"), (short) 32767);
            equal(rows.getDouble("temperature"), 1e300);
            equal(rows.getFloat("factor"), -2f);
            equal(rows.getObject("measured_at", LocalDateTime.class), LocalDateTime.parse("2026-02-28T00:00:00"));
            equal(rows.getObject("day", LocalDate.class), LocalDate.parse("2026-02-28"));
            equal(Arrays.asList((Integer[]) rows.getArray("levels").getArray()), Arrays.asList(4, null));
            equal(rows.getString("note"), "it's");
        }
    }

    static void parameters(Connection connection) throws SQLException {
        equal(ids(connection, "id = ?", 1), List.of(1));
        equal(ids(connection, "id IN (?, ?)", 1, 3), List.of(1, 3));
        equal(ids(connection, "name = ?", "boiler"), List.of(1));
        equal(ids(connection, "name LIKE ?", "Gr%"), List.of(2));
        equal(ids(connection, "is_active = ?", true), List.of(1));
        equal(ids(connection, "price > ?", new BigDecimal("100.5")), List.of(1));
        equal(ids(connection, "added_at < ?", Timestamp.valueOf("2000-01-01 00:00:00")), List.of(2));
        equal(ids(connection, "added_at < ?", OffsetDateTime.parse("2000-01-01T00:00:00Z")), List.of(2));
        equal(ids(connection, "settings ->> 'unit' = ?", "C"), List.of(1));
        equal(ids(connection, "settings @> ?::jsonb", "{\"unit\": \"C\"}"), List.of(1));
        Array numbers = connection.createArrayOf("int4", new Object[] {1, 3});
        equal(ids(connection, "id = ANY(?)", numbers), List.of(1, 3));
        equal(ids(connection, "id IN (SELECT device_id FROM readings WHERE day = ?)", Date.valueOf("2026-01-02")), List.of(1));
        try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM devices WHERE name = coalesce(?, name) ORDER BY id")) {
            statement.setNull(1, Types.VARCHAR);
            equal(column(statement.executeQuery(), "id"), List.of("1", "2", "3"));
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT device_id FROM readings WHERE seq = ?")) {
            // From the fifth time on the server keeps the statement, and sends in binary.
            for (int time = 0; time < 8; time++) {
                statement.setLong(1, LARGE);
                equal(column(statement.executeQuery(), "device_id"), List.of("2"));
            }
            equal(statement.getParameterMetaData().getParameterTypeName(1), "int8");
            equal(statement.getMetaData().getColumnTypeName(1), "int4");
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT added_at, price, serial, tags FROM devices WHERE id = ?")) {
            for (int time = 0; time < 8; time++) {
                statement.setInt(1, 1);
                try (ResultSet rows = statement.executeQuery()) {
                    equal(rows.next(), true);
                    equal(rows.getObject(1, OffsetDateTime.class), OffsetDateTime.parse("2026-01-02T03:04:05.678901Z"));
                    equal(rows.getBigDecimal(2), new BigDecimal("129.50"));
                    equal(rows.getBytes(3).length, 3);
                    equal(((String[]) rows.getArray(4).getArray())[1], "ground floor");
                }
            }
        }
    }

    static void transactions(Connection connection) throws SQLException {
        equal(connection.isValid(5), true);
        connection.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
        connection.setReadOnly(true);
        connection.setAutoCommit(false);
        equal(connection.getTransactionIsolation(), Connection.TRANSACTION_REPEATABLE_READ);
        equal(connection.getSchema(), "public");
        // A portal, fetched in pieces.
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(2);
            equal(column(statement.executeQuery("SELECT seq FROM readings ORDER BY seq"), "seq"),
                List.of("1", "2", "3", Long.toString(LARGE)));
            statement.setMaxRows(1);
            equal(column(statement.executeQuery("SELECT message FROM alarms ORDER BY id"), "message"), List.of("TOO HOT"));
        }
        var savepoint = connection.setSavepoint();
        try (Statement statement = connection.createStatement()) {
            statement.executeQuery("SELECT * FROM nowhere");
            throw new AssertionError("a table that does not exist was read");
        } catch (SQLException error) {
            equal(error.getSQLState(), "42P01");
        }
        connection.rollback(savepoint);
        try (Statement statement = connection.createStatement()) {
            equal(column(statement.executeQuery("SELECT count(*) AS n FROM devices"), "n"), List.of("3"));
        }
        connection.commit();
        connection.setAutoCommit(true);
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.executeQuery("SELECT count(*) FROM generate_series(1, 100000000000)");
            throw new AssertionError("a query that takes hours was answered");
        } catch (SQLException error) {
            equal(error.getSQLState(), "57014");
        }
    }

    static List<Integer> ids(Connection connection, String condition, Object... values) throws SQLException {
        String query = "SELECT id FROM devices WHERE " + condition + " ORDER BY id";
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            for (int index = 0; index < values.length; index++) {
                statement.setObject(index + 1, values[index]);
            }
            List<Integer> found = new ArrayList<>();
            try (ResultSet rows = statement.executeQuery()) {
                while (rows.next()) {
                    found.add(rows.getInt(1));
                }
            }
            return found;
        }
    }

    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        try (rows) {
            while (rows.next()) {
                values.add(rows.getString(name));
            }
        }
        return values;
    }

    static List<String> numbers(int... numbers) {
        return Arrays.stream(numbers).mapToObj(Integer::toString).toList();
    }

    static boolean contains(List<String> values, String... wanted) {
        return values.containsAll(Arrays.asList(wanted));
    }

    static void equal(Object found, Object wanted) {
        if (!Objects.equals(found, wanted)) {
            throw new AssertionError("found " + found + ", wanted " + wanted);
        }
    }
}
