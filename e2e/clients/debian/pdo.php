<?php
// PDO: prepared by the server and emulated, types of columns, cursors, transactions; and the functions of ext/pgsql
// that ask the catalog.

declare(strict_types=1);

function equal(mixed $found, mixed $wanted): void
{
    if ($found !== $wanted) {
        throw new Exception("\nfound  " . var_export($found, true) . "\nwanted " . var_export($wanted, true));
    }
}

function refused(string $state, callable $action): void
{
    try {
        $action();
    } catch (PDOException $error) {
        equal($error->getCode(), $state);
        return;
    }
    throw new Exception("$state was expected");
}

const LARGE = 9007199254740993;

[, $host, $port] = $argv;
$options = [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC];

function values(PDO $db): void
{
    $devices = $db->query('SELECT * FROM devices ORDER BY id')->fetchAll();
    $serial = $devices[0]['serial'];
    equal(stream_get_contents($serial), "\x00\xff\x10");
    unset($devices[0]['serial']);
    equal($devices[0], [
        'id' => 1,
        'name' => 'boiler',
        'is_active' => true,
        'price' => '129.50',
        'added_at' => '2026-01-02 03:04:05.678901+00',
        'settings' => '{"unit": "C", "limits": [1, 2.5]}',
        'tags' => '{heat,"ground floor"}',
    ]);
    equal([$devices[1]['name'], $devices[1]['is_active'], $devices[1]['tags']], ['Grüße, "fan"', false, '{}']);
    equal(array_filter($devices[2], fn ($value) => $value !== null), ['id' => 3, 'name' => 'unknown']);
    $readings = $db->query('SELECT seq, channel, temperature, day, levels, note FROM readings ORDER BY seq')->fetchAll(PDO::FETCH_NUM);
    equal($readings[2], [3, 32767, '1e+300', '2026-02-28', '{4,NULL}', "it's"]);
    equal($readings[3][0], LARGE);
}

function parameters(PDO $db): void
{
    $ids = function (string $condition, mixed ...$values) use ($db): array {
        $statement = $db->prepare("SELECT id FROM devices WHERE $condition ORDER BY id");
        $statement->execute($values);
        return $statement->fetchAll(PDO::FETCH_COLUMN);
    };
    equal($ids('id = ?', 1), [1]);
    equal($ids('id IN (?, ?)', 1, 3), [1, 3]);
    equal($ids('name = ?', 'Grüße, "fan"'), [2]);
    equal($ids('price > ?', '100.5'), [1]);
    equal($ids('added_at < ?', '2000-01-01T00:00:00Z'), [2]);
    equal($ids('settings @> ?', '{"unit": "C"}'), [1]);
    equal($ids('id = ANY(?)', '{1,3}'), [1, 3]);
    equal($ids('is_active = ?', 'true'), [1]);
    equal($ids('name LIKE ?', '%now%'), [3]);
    equal($ids('id < ? ORDER BY id LIMIT ? --', 10, 1), [1]);

    $statement = $db->prepare('SELECT device_id FROM readings WHERE seq = :seq AND :seq > 5');
    $statement->bindValue('seq', LARGE, PDO::PARAM_INT);
    $statement->execute();
    equal($statement->fetchColumn(), 2);
    $statement = $db->prepare('SELECT id FROM devices WHERE is_active = :active AND serial = :serial');
    $statement->bindValue('active', true, PDO::PARAM_BOOL);
    $serial = "\x00\xff\x10";
    $statement->bindParam('serial', $serial, PDO::PARAM_LOB);
    $statement->execute();
    equal($statement->fetchColumn(), 1);
    $statement = $db->prepare('SELECT count(*) FROM readings WHERE device_id = ?');
    foreach ([1, 2, 3] as $device) {
        $statement->execute([$device]);
        equal($statement->fetchColumn(), $device < 3 ? 2 : 0);
    }
}

$db = new PDO("pgsql:host=$host;port=$port;dbname=dev", 'root', '', $options);
equal($db->getAttribute(PDO::ATTR_DRIVER_NAME), 'pgsql');
equal(version_compare($db->getAttribute(PDO::ATTR_SERVER_VERSION), '13') >= 0, true);
values($db);
parameters($db);

// Of each column it asks the catalog for the names of its type and table.
$statement = $db->query('SELECT id, name, settings FROM devices');
$columns = array_map(fn ($index) => $statement->getColumnMeta($index), [0, 1, 2]);
equal(array_column($columns, 'native_type'), ['int4', 'varchar', 'jsonb']);
equal(array_column($columns, 'name'), ['id', 'name', 'settings']);

$emulated = new PDO("pgsql:host=$host;port=$port;dbname=dev", 'root', '', $options + [PDO::ATTR_EMULATE_PREPARES => true]);
values($emulated);
parameters($emulated);

$db->beginTransaction();
equal($db->inTransaction(), true);
refused('42P01', fn () => $db->query('SELECT * FROM nowhere'));
refused('25P02', fn () => $db->query('SELECT 1'));
$db->rollBack();
$db->beginTransaction();
$db->exec('DECLARE c CURSOR FOR SELECT seq FROM readings ORDER BY seq');
equal($db->query('FETCH 2 FROM c')->fetchAll(PDO::FETCH_COLUMN), [1, 2]);
$db->commit();
equal($db->query('SELECT message FROM alarms WHERE id = 12')->fetchColumn(), 'STUCK');
equal($db->query('SELECT ' . $db->quote("it's") . ' AS text')->fetchColumn(), "it's");
equal($db->pgsqlCopyToArray('readings', "\t", 'null', 'seq') !== false, true);

$connection = pg_connect("host=$host port=$port dbname=dev user=root");
$described = pg_meta_data($connection, 'devices');
equal(array_keys($described), ['id', 'name', 'is_active', 'price', 'added_at', 'settings', 'tags', 'serial']);
equal(array_column($described, 'type'), ['int4', 'varchar', 'bool', 'numeric', 'timestamptz', 'jsonb', '_varchar', 'bytea']);
equal(array_keys(array_filter($described, fn ($column) => $column['not null'])), ['id']);
$found = pg_query_params($connection, 'SELECT name FROM devices WHERE id = $1', [1]);
equal([pg_fetch_result($found, 0, 0), pg_field_type($found, 0), pg_field_table($found, 0)], ['boiler', 'varchar', 'devices']);
equal(pg_select($connection, 'devices', ['id' => 1])[0]['name'], 'boiler');
equal(count(pg_copy_to($connection, 'readings')), 4);
echo "ok\n";
