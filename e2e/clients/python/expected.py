"""The rows of `devices`, as Python programs should get them."""

import datetime
import decimal

UTC = datetime.timezone.utc

DEVICES = [
    {
        "id": 1,
        "name": "boiler",
        "is_active": True,
        "price": decimal.Decimal("129.50"),
        "added_at": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "settings": {"unit": "C", "limits": [1, 2.5]},
        "tags": ["heat", "ground floor"],
        "serial": b"\x00\xff\x10",
    },
    {
        "id": 2,
        "name": 'Grüße, "fan"',
        "is_active": False,
        "price": decimal.Decimal("-0.05"),
        "added_at": datetime.datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
        "settings": [],
        "tags": [],
        "serial": b"",
    },
    {
        "id": 3,
        "name": "unknown",
        "is_active": None,
        "price": None,
        "added_at": None,
        "settings": None,
        "tags": None,
        "serial": None,
    },
]

# Beyond what a double can hold exactly.
LARGE = 9007199254740993

READINGS = [
    {
        "seq": 1,
        "device_id": 1,
        "channel": 7,
        "temperature": 20.5,
        "factor": 0.25,
        "measured_at": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "day": datetime.date(2026, 1, 2),
        "levels": [1, 2, 3],
        "note": "first",
    },
    {
        "seq": 2,
        "device_id": 1,
        "channel": -7,
        "temperature": -3.25,
        "factor": 1.5,
        "measured_at": datetime.datetime(2026, 1, 2, 3, 5, 5, 250000),
        "day": datetime.date(2026, 1, 2),
        "levels": [],
        "note": "",
    },
    {
        "seq": 3,
        "device_id": 2,
        "channel": 32767,
        "temperature": 1e300,
        "factor": -2.0,
        "measured_at": datetime.datetime(2026, 2, 28),
        "day": datetime.date(2026, 2, 28),
        "levels": [4, None],
        "note": "it's",
    },
    {
        "seq": LARGE,
        "device_id": 2,
        "channel": None,
        "temperature": None,
        "factor": None,
        "measured_at": None,
        "day": None,
        "levels": None,
        "note": None,
    },
]


def equal(found, wanted):
    """Asserts that two values are equal, and shows both where they are not."""
    assert found == wanted, f"\nfound  {found!r}\nwanted {wanted!r}"


def refused(exception, action):
    """Asserts that the action raises the exception, and returns it."""
    try:
        action()
    except exception as error:
        return error
    raise AssertionError(f"{exception.__name__} was expected")
