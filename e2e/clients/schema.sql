-- What the clients read. The test fills in the server's address, and puts the messages of data/ into the stream.

CREATE TABLE devices (
    id integer PRIMARY KEY,
    name varchar,
    is_active boolean,
    price numeric(10,2),
    added_at timestamptz,
    settings jsonb,
    tags varchar[],
    serial bytea
)
WITH (connector = 'nats', server_url = '{server}', stream = 'CLIENTS', subject = 'devices', connect_mode = 'plain')
FORMAT PLAIN ENCODE JSON;

CREATE TABLE readings (
    seq bigint,
    device_id integer,
    channel smallint,
    temperature double precision,
    factor real,
    measured_at timestamp,
    day date,
    levels integer[],
    note varchar
)
WITH (connector = 'nats', server_url = '{server}', stream = 'CLIENTS', subject = 'readings', connect_mode = 'plain')
FORMAT PLAIN ENCODE JSON;

CREATE SOURCE reports (
    id bigint,
    device_id integer,
    level integer,
    message varchar,
    raised_at timestamptz
)
WITH (connector = 'nats', server_url = '{server}', stream = 'CLIENTS', subject = 'reports', connect_mode = 'plain')
FORMAT PLAIN ENCODE JSON;

CREATE MATERIALIZED VIEW alarms AS
SELECT id, device_id, upper(message) AS message, raised_at FROM reports WHERE level >= 3;
