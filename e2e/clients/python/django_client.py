"""Django: models over tables that exist, queries of its ORM, `inspectdb`, `dbshell`'s check of the connection."""

import datetime
import io
import sys

import django
from django.conf import settings
from expected import DEVICES, LARGE, READINGS, UTC, equal, refused

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": sys.argv[1],
            "PORT": sys.argv[2],
            "USER": "root",
            "NAME": "dev",
            "CONN_HEALTH_CHECKS": True,
        }
    },
    INSTALLED_APPS=["django.contrib.postgres"],
    USE_TZ=True,
    TIME_ZONE="UTC",
)
django.setup()

from django.contrib.postgres.aggregates import ArrayAgg  # noqa: E402
from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.db.models.functions import Coalesce, ExtractYear, Length, TruncDay, Upper  # noqa: E402
from django.db.utils import ProgrammingError  # noqa: E402

# Models belong to an application; any will do.
LABEL = "postgres"


class Device(models.Model):
    id = models.IntegerField(primary_key=True)
    name = models.CharField(null=True)
    is_active = models.BooleanField(null=True)
    price = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    added_at = models.DateTimeField(null=True)
    settings = models.JSONField(null=True)
    tags = ArrayField(models.CharField(), null=True)
    serial = models.BinaryField(null=True)

    class Meta:
        app_label = LABEL
        managed = False
        db_table = "devices"


class Reading(models.Model):
    seq = models.BigIntegerField(primary_key=True)
    device = models.ForeignKey(Device, models.DO_NOTHING, related_name="readings", null=True)
    channel = models.SmallIntegerField(null=True)
    temperature = models.FloatField(null=True)
    day = models.DateField(null=True)
    levels = ArrayField(models.IntegerField(), null=True)
    note = models.CharField(null=True)

    class Meta:
        app_label = LABEL
        managed = False
        db_table = "readings"


def ids(*conditions, **fields):
    return list(Device.objects.filter(*conditions, **fields).order_by("id").values_list("id", flat=True))


def queries() -> None:
    found = list(Device.objects.order_by("id").values())
    for row in found:
        row["serial"] = row["serial"] and bytes(row["serial"])
    DEVICES[1]["serial"] = found[1]["serial"]
    equal(found, DEVICES)
    equal(Device.objects.get(pk=1).name, "boiler")
    refused(Device.DoesNotExist, lambda: Device.objects.get(pk=99))
    equal(Reading.objects.count(), 4)
    equal(Reading.objects.filter(seq=LARGE).exists(), True)
    equal(Device.objects.order_by("-id").first().id, 3)
    equal([row.seq for row in Reading.objects.order_by("seq")[1:3]], [2, 3])

    equal(ids(id__in=[1, 3]), [1, 3])
    equal(ids(name__icontains="BOIL"), [1])
    equal(ids(name__startswith="Gr"), [2])
    equal(ids(name__iexact="UNKNOWN"), [3])
    equal(ids(name__regex="^b"), [1])
    equal(ids(is_active=True), [1])
    equal(ids(settings__isnull=True), [3])
    equal(ids(settings__unit="C"), [1])
    equal(ids(settings__limits__1=2.5), [1])
    equal(ids(settings__has_key="unit"), [1])
    equal(ids(settings__contains={"unit": "C"}), [1])
    equal(ids(tags__contains=["heat"]), [1])
    equal(ids(tags__overlap=["heat", "cold"]), [1])
    equal(ids(tags__len=2), [1])
    equal(ids(tags__0="heat"), [1])
    equal(ids(added_at__gte=datetime.datetime(2000, 1, 1, tzinfo=UTC)), [1])
    equal(ids(added_at__year=1999), [2])
    equal(ids(added_at__date=datetime.date(2026, 1, 2)), [1])
    equal(ids(price__lt=0), [2])
    equal(ids(models.Q(id=1) | ~models.Q(name="unknown")), [1, 2])
    equal(ids(readings__temperature__gt=100), [2])

    counted = Device.objects.annotate(number=models.Count("readings")).order_by("id").values_list("number", flat=True)
    equal(list(counted), [2, 2, 0])
    equal(Reading.objects.aggregate(models.Max("seq"), models.Avg("channel"))["seq__max"], LARGE)
    days = Reading.objects.exclude(day=None).values("day").annotate(number=models.Count("seq")).order_by("day")
    equal([row["number"] for row in days], [2, 1])
    texts = Device.objects.annotate(upper=Upper("name"), length=Length("name"), none=Coalesce("price", 0, output_field=models.DecimalField()))
    equal(texts.order_by("id").values_list("upper", "length").first(), ("BOILER", 6))
    times = Device.objects.filter(id=1).annotate(day=TruncDay("added_at"), year=ExtractYear("added_at")).get()
    equal((times.day, times.year), (datetime.datetime(2026, 1, 2, tzinfo=UTC), 2026))
    equal(Device.objects.aggregate(all=ArrayAgg("id", ordering="id"))["all"], [1, 2, 3])
    equal(Reading.objects.select_related("device").get(seq=1).device.name, "boiler")
    equal([len(device.readings.all()) for device in Device.objects.order_by("id").prefetch_related("readings")], [2, 2, 0])
    latest = Reading.objects.filter(device=models.OuterRef("pk")).order_by("-seq").values("seq")[:1]
    equal(list(Device.objects.annotate(latest=models.Subquery(latest)).order_by("id").values_list("latest", flat=True)), [2, LARGE, None])
    equal(list(Reading.objects.order_by("seq").iterator(chunk_size=2))[3].seq, LARGE)
    equal([row["note"] for row in READINGS], list(Reading.objects.order_by("seq").values_list("note", flat=True)))
    equal([row.id for row in Device.objects.raw("SELECT * FROM devices WHERE name = %s", ["boiler"])], [1])


def inspects() -> None:
    with connection.cursor() as cursor:
        tables = {table.name: table.type for table in connection.introspection.get_table_list(cursor)}
        equal({name: tables.get(name) for name in ("devices", "readings")}, {"devices": "t", "readings": "t"})
        constraints = connection.introspection.get_constraints(cursor, "devices")
        equal([constraint["columns"] for constraint in constraints.values() if constraint["primary_key"]], [["id"]])
        equal(connection.introspection.get_primary_key_columns(cursor, "devices"), ["id"])
        equal(connection.introspection.get_sequences(cursor, "devices"), [])
        equal(connection.introspection.get_relations(cursor, "devices"), {})
        description = connection.introspection.get_table_description(cursor, "devices")
        equal([field.name for field in description if not field.null_ok], ["id"])
    printed = io.StringIO()
    call_command("inspectdb", "devices", "readings", "alarms", "--include-views", stdout=printed)
    wanted = [
        "id = models.IntegerField(primary_key=True)",
        "is_active = models.BooleanField(blank=True, null=True)",
        "price = models.DecimalField(max_digits=10, decimal_places=2, blank=True, null=True)",
        "added_at = models.DateTimeField(blank=True, null=True)",
        "settings = models.JSONField(blank=True, null=True)",
        "serial = models.BinaryField(blank=True, null=True)",
        "seq = models.BigIntegerField(blank=True, null=True)",
        "channel = models.SmallIntegerField(blank=True, null=True)",
        "temperature = models.FloatField(blank=True, null=True)",
        "day = models.DateField(blank=True, null=True)",
        "class Alarms(models.Model):",
    ]
    for line in wanted:
        assert line in printed.getvalue(), f"{line}\nis missing:\n{printed.getvalue()}"


assert connection.pg_version >= 140000, connection.pg_version
queries()
inspects()


def fails() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT * FROM nowhere")


refused(ProgrammingError, fails)
# A part of a transaction that fails is undone by itself.
with transaction.atomic():
    equal(Reading.objects.filter(seq__lte=3).count(), 3)
    refused(ProgrammingError, fails)
    equal(Device.objects.count(), 3)
print("ok")
