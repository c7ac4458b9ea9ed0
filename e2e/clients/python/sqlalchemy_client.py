"""SQLAlchemy 2 with one of its drivers: reflection, Core, ORM, automap.

Run with the host, the port and `psycopg`, `psycopg2` or `asyncpg`.
"""

import asyncio
import datetime
import sys

import sqlalchemy as sa
from expected import DEVICES, LARGE, READINGS, UTC, equal, refused
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

HOST, PORT, DRIVER = sys.argv[1:4]
URL = f"postgresql+{DRIVER}://root@{HOST}:{PORT}/dev"


class Base(DeclarativeBase):
    pass


class Device(Base):
    __tablename__ = "devices"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    settings: Mapped[dict | None] = mapped_column(pg.JSONB)
    tags: Mapped[list[str] | None] = mapped_column(pg.ARRAY(sa.String))
    added_at: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    readings: Mapped[list["Reading"]] = relationship(order_by="Reading.seq", viewonly=True)


class Reading(Base):
    __tablename__ = "readings"

    seq: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    device_id: Mapped[int] = mapped_column(sa.ForeignKey("devices.id"))
    temperature: Mapped[float | None]
    day: Mapped[datetime.date | None]


def reflects(connection: sa.Connection) -> None:
    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names())
    assert {"devices", "readings"} <= tables and "alarms" not in tables, tables
    equal(inspector.get_materialized_view_names(), ["alarms"])
    equal(inspector.get_view_names(), [])
    assert "public" in inspector.get_schema_names()
    assert inspector.has_table("devices") and not inspector.has_table("nowhere")

    equal(inspector.get_pk_constraint("devices")["constrained_columns"], ["id"])
    equal(inspector.get_pk_constraint("readings")["constrained_columns"], [])
    equal(inspector.get_foreign_keys("devices"), [])
    equal(inspector.get_unique_constraints("devices"), [])
    equal(inspector.get_check_constraints("devices"), [])
    # An index that belongs to a primary key is not one of these.
    equal(inspector.get_indexes("devices"), [])
    equal(inspector.get_table_comment("devices"), {"text": None})

    columns = {column["name"]: column for column in inspector.get_columns("devices")}
    equal(list(columns), list(DEVICES[0]))
    equal({name for name, column in columns.items() if not column["nullable"]}, {"id"})
    kinds = {name: type(column["type"]) for name, column in columns.items()}
    wanted = (sa.INTEGER, sa.VARCHAR, sa.BOOLEAN, sa.NUMERIC, pg.TIMESTAMP, pg.JSONB, pg.ARRAY, pg.BYTEA)
    equal(list(kinds.values()), list(wanted))
    equal((columns["price"]["type"].precision, columns["price"]["type"].scale), (10, 2))
    assert columns["added_at"]["type"].timezone
    assert isinstance(columns["tags"]["type"].item_type, sa.VARCHAR)

    kinds = [type(column["type"]) for column in inspector.get_columns("readings")]
    wanted = [sa.BIGINT, sa.INTEGER, sa.SMALLINT, sa.DOUBLE_PRECISION, sa.REAL, pg.TIMESTAMP, sa.DATE, pg.ARRAY, sa.VARCHAR]
    equal(kinds, wanted)
    equal([column["name"] for column in inspector.get_columns("alarms")], ["id", "device_id", "message", "raised_at"])
    assert "level" in inspector.get_view_definition("alarms")

    # All tables at once, as `Table(autoload_with=…)` and migrations do it.
    metadata = sa.MetaData()
    metadata.reflect(connection, views=True)
    assert {"devices", "readings", "alarms"} <= set(metadata.tables), metadata.tables
    devices = metadata.tables["devices"]
    equal([column.name for column in devices.primary_key], ["id"])
    equal([dict(row) for row in connection.execute(sa.select(devices).order_by(devices.c.id)).mappings()], DEVICES)
    readings = metadata.tables["readings"]
    equal([dict(row) for row in connection.execute(sa.select(readings).order_by(readings.c.seq)).mappings()], READINGS)


def selects(connection: sa.Connection) -> None:
    """What Core makes of expressions: parameters of every kind, of which the drivers know or guess the types."""
    devices, readings = Device.__table__, Reading.__table__

    def names(*conditions):
        return list(connection.scalars(sa.select(devices.c.name).where(*conditions).order_by(devices.c.id)))

    equal(names(devices.c.id.in_([1, 3])), ["boiler", "unknown"])
    equal(names(devices.c.id.in_([])), [])
    equal(names(devices.c.name.like("%il%")), ["boiler"])
    equal(names(devices.c.name.ilike("UNK%")), ["unknown"])
    equal(names(devices.c.settings["unit"].astext == "C"), ["boiler"])
    equal(names(devices.c.settings.contains({"unit": "C"})), ["boiler"])
    equal(names(devices.c.tags.contains(["heat"])), ["boiler"])
    equal(names(sa.literal("heat") == sa.any_(devices.c.tags)), ["boiler"])
    equal(names(devices.c.settings.is_(None)), ["unknown"])
    equal(names(devices.c.added_at > datetime.datetime(2000, 1, 1, tzinfo=UTC)), ["boiler"])
    equal(names(sa.func.coalesce(devices.c.name, "none") == "unknown"), ["unknown"])
    equal(names(devices.c.id == sa.any_(sa.bindparam("ids", [1, 2], sa.ARRAY(sa.Integer)))), ["boiler", DEVICES[1]["name"]])

    query = (
        sa.select(devices.c.name, sa.func.count(readings.c.seq), sa.func.max(readings.c.temperature))
        .join_from(devices, readings, isouter=True)
        .group_by(devices.c.name)
        .having(sa.func.count(readings.c.seq) > 0)
        .order_by(devices.c.name)
        .limit(10)
        .offset(0)
    )
    equal([tuple(row) for row in connection.execute(query)], [(DEVICES[1]["name"], 2, 1e300), ("boiler", 2, 20.5)])
    equal(connection.scalar(sa.select(sa.func.max(readings.c.seq))), LARGE)
    equal(connection.execute(sa.text("SELECT count(*) FROM readings WHERE day = :day"), {"day": datetime.date(2026, 1, 2)}).scalar(), 2)
    equal(connection.scalar(sa.text("SELECT message FROM alarms WHERE id = 12")), "STUCK")
    equal(connection.scalar(sa.select(sa.literal("it's") + sa.literal("?"))), "it's?")


def maps(session: Session) -> None:
    device = session.get(Device, 1)
    equal((device.name, device.settings, device.tags), tuple(DEVICES[0][name] for name in ("name", "settings", "tags")))
    equal([reading.seq for reading in device.readings], [1, 2])
    query = sa.select(Device).options(sa.orm.selectinload(Device.readings)).order_by(Device.id)
    equal([len(device.readings) for device in session.scalars(query)], [2, 2, 0])
    query = sa.select(Device).options(sa.orm.joinedload(Device.readings)).order_by(Device.id.desc())
    equal([device.id for device in session.scalars(query).unique()], [3, 2, 1])
    equal(session.scalars(sa.select(sa.func.count()).select_from(Reading)).one(), 4)
    equal(session.scalar(sa.select(sa.exists().where(Device.name == "boiler"))), True)


def works(connection: sa.Connection) -> None:
    reflects(connection)
    selects(connection)
    with Session(connection) as session:
        maps(session)


def synchronous() -> None:
    engine = sa.create_engine(URL, pool_pre_ping=True)
    with engine.connect() as connection:
        works(connection)
        refused(sa.exc.ProgrammingError, lambda: connection.execute(sa.text("SELECT * FROM nowhere")))
        connection.rollback()
        equal(connection.scalar(sa.text("SELECT 1")), 1)

    # A cursor on the server's side, a few rows at a time.
    with engine.connect().execution_options(stream_results=True, max_row_buffer=2) as connection:
        equal(len(list(connection.execute(sa.select(Reading.seq)))), 4)

    for level in ("AUTOCOMMIT", "REPEATABLE READ"):
        with engine.connect().execution_options(isolation_level=level) as connection:
            equal(connection.scalar(sa.select(sa.func.count()).select_from(Device)), 3)

    # Classes made of the tables that there are: those with a primary key.
    mapped = automap_base()
    mapped.prepare(autoload_with=engine)
    equal(sorted(mapped.classes.keys()), ["devices"])
    with Session(engine) as session:
        equal(session.get(mapped.classes.devices, 2).name, DEVICES[1]["name"])
    engine.dispose()


async def asynchronous() -> None:
    engine = create_async_engine(URL)
    async with engine.connect() as connection:
        await connection.run_sync(works)
        async with connection.stream(sa.select(Reading.seq).order_by(Reading.seq)) as rows:
            equal([row.seq async for row in rows], [1, 2, 3, LARGE])
    await engine.dispose()


if DRIVER == "asyncpg":
    asyncio.run(asynchronous())
else:
    synchronous()
print("ok")
