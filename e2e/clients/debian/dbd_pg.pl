# DBD::Pg: placeholders, prepared statements, types, and DBI's methods about the catalog.

use strict;
use warnings;
use utf8;

use DBI;
use DBD::Pg qw(:pg_types);
use Test::More;

# Test::More speaks on standard output, of which the last line says that all is well.
Test::More->builder->output(\my $passed);
Test::More->builder->failure_output(\*STDERR);

my ($host, $port) = @ARGV;
my $db = DBI->connect("dbi:Pg:dbname=dev;host=$host;port=$port", 'root', '', { RaiseError => 1, PrintError => 0 });
ok($db->ping, 'ping');
cmp_ok($db->{pg_server_version}, '>=', 130000, 'version');

my $devices = $db->selectall_arrayref('SELECT * FROM devices ORDER BY id', { Slice => {} });
is_deeply([map { $_->{id} } @$devices], [1, 2, 3], 'ids');
is_deeply(
    $devices->[0],
    {
        id => 1,
        name => 'boiler',
        is_active => 1,
        price => '129.50',
        added_at => '2026-01-02 03:04:05.678901+00',
        settings => '{"unit": "C", "limits": [1, 2.5]}',
        tags => ['heat', 'ground floor'],
        serial => "\x00\xff\x10",
    },
    'the first device'
);
is($devices->[1]{name}, 'Grüße, "fan"', 'a name beyond ASCII');
is($devices->[1]{is_active}, 0, 'false');
is_deeply($devices->[1]{tags}, [], 'an empty array');
is_deeply([grep { defined $devices->[2]{$_} } sort keys %{$devices->[2]}], ['id', 'name'], 'NULLs');

my $readings = $db->selectall_arrayref('SELECT seq, channel, temperature, measured_at, day, levels, note FROM readings ORDER BY seq');
is_deeply($readings->[2], [3, 32767, 1e300, '2026-02-28 00:00:00', '2026-02-28', [4, undef], "it's"], 'the third reading');
is($readings->[3][0], '9007199254740993', 'a large number');

sub ids {
    my ($condition, @values) = @_;
    return $db->selectcol_arrayref("SELECT id FROM devices WHERE $condition ORDER BY id", undef, @values);
}
is_deeply(ids('id = ?', 1), [1], 'a number');
is_deeply(ids('id IN (?, ?)', 1, 3), [1, 3], 'two numbers');
is_deeply(ids('id = ANY(?)', [1, 3]), [1, 3], 'an array');
is_deeply(ids('name = ?', 'Grüße, "fan"'), [2], 'a text');
is_deeply(ids('price > ?', '100.5'), [1], 'a numeric');
is_deeply(ids('is_active = ?', 'true'), [1], 'a boolean');
is_deeply(ids('added_at < ?', '2000-01-01 00:00:00+00'), [2], 'a time');
is_deeply(ids('settings @> ?', '{"unit": "C"}'), [1], 'jsonb');
is_deeply(ids('tags @> ?', ['heat']), [1], 'an array of texts');
is_deeply(ids('name = $1 OR name = $2', 'boiler', 'unknown'), [1, 3], 'numbered placeholders');

my $statement = $db->prepare('SELECT seq FROM readings WHERE device_id = ? AND seq < ? ORDER BY seq');
for my $device (1, 2, 1) {
    $statement->execute($device, 100);
    is_deeply($statement->fetchall_arrayref, $device == 1 ? [[1], [2]] : [[3]], 'prepared once');
}
is_deeply($statement->{NAME}, ['seq'], 'names of columns');
my $bytes = $db->prepare('SELECT id FROM devices WHERE serial = ?');
$bytes->bind_param(1, "\x00\xff\x10", { pg_type => PG_BYTEA });
$bytes->execute;
is_deeply($bytes->fetchall_arrayref, [[1]], 'bytes');
is($db->selectrow_array('SELECT ' . $db->quote("it's")), "it's", 'a quoted text');

# The catalog.
my @tables = grep { /^public\./ } $db->tables('', 'public', '', 'TABLE');
is_deeply([grep { /devices|readings/ } sort @tables], ['public.devices', 'public.readings'], 'tables');
my $columns = $db->column_info('', 'public', 'devices', '%')->fetchall_arrayref({});
is_deeply([map { $_->{COLUMN_NAME} } @$columns], [qw(id name is_active price added_at settings tags serial)], 'columns');
is_deeply(
    [map { $_->{pg_type} } @$columns],
    ['integer', 'character varying', 'boolean', 'numeric(10,2)', 'timestamp with time zone', 'jsonb', 'character varying[]', 'bytea'],
    'types'
);
is_deeply([map { $_->{NULLABLE} } @$columns], [0, 1, 1, 1, 1, 1, 1, 1], 'which may be null');
is_deeply([$db->primary_key('', 'public', 'devices')], ['id'], 'a primary key');
is_deeply([$db->primary_key('', 'public', 'readings')], [], 'no primary key');
is_deeply([map { $_->{COLUMN_NAME} } @{$db->primary_key_info('', 'public', 'devices')->fetchall_arrayref({})}], ['id'], 'its columns');
is_deeply($db->foreign_key_info(undef, undef, undef, undef, 'public', 'devices')->fetchall_arrayref, [], 'no foreign keys');
is_deeply([grep { defined } map { $_->{COLUMN_NAME} } @{$db->statistics_info(undef, 'public', 'devices', 1, 1)->fetchall_arrayref({})}], ['id'], 'indexes');
ok(scalar(grep { $_->[0] eq 'int4' } @{$db->type_info_all}[1 .. $#{$db->type_info_all}]), 'types that there are');

# Transactions, savepoints, COPY, cursors, errors.
$db->begin_work;
$db->pg_savepoint('s');
ok(!eval { $db->do('SELECT * FROM nowhere'); 1 }, 'an error');
is($db->state, '42P01', 'its state');
$db->pg_rollback_to('s');
$db->do('DECLARE c CURSOR FOR SELECT seq FROM readings ORDER BY seq');
is_deeply($db->selectcol_arrayref('FETCH 3 FROM c'), [1, 2, 3], 'a cursor');
$db->commit;
$db->do('COPY (SELECT id, name FROM devices WHERE id = 1) TO STDOUT');
my ($line, @lines);
push @lines, $line while $db->pg_getcopydata(\$line) >= 0;
is_deeply(\@lines, ["1\tboiler\n"], 'COPY');
is($db->selectrow_array('SELECT message FROM alarms WHERE id = 12'), 'STUCK', 'a view');
$db->disconnect;

done_testing;
print "ok\n" if Test::More->builder->is_passing;
