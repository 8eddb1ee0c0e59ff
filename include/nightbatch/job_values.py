"""Values of a job file: spans of time, sizes, cron lines, zones and addresses, each read with a remedy at hand."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterable
from datetime import date, time, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

_SPAN = re.compile(r"(?P<number>\d{1,9})\s*(?P<unit>s|m|h|d|w)")
_SPAN_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIZE = re.compile(r"(?P<number>\d{1,12})\s*(?P<unit>B|kB|KB|MB|GB|KiB|MiB|GiB)?")
_SIZE_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_CLOCK_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?")
_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_SCHEMES = ("s3", "gs", "az", "abfs", "abfss", "file", "memory")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}(\.[A-Za-z_][A-Za-z0-9_$]{0,62}){0,2}")
_CRON_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_LONGEST = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


def fault(problem: str, remedy: str) -> PydanticCustomError:
    """Make the error that a check raises: what is wrong and what to do, kept apart for the report."""
    return PydanticCustomError("nightbatch", "{problem}. {remedy}", {"problem": problem, "remedy": remedy})


def raise_faults(title: str, faults: Iterable[tuple[tuple[str | int, ...], str, str]]) -> None:
    """Raise all of these (place, problem, remedy) at once; nothing where there is none."""
    errors = [InitErrorDetails(type=fault(problem, remedy), loc=loc, input=None) for loc, problem, remedy in faults]
    if errors:
        raise ValidationError.from_exception_data(title, errors)


def nearest(word: str, known: Iterable[str]) -> str:
    """Give the known word that is most like this one, or an empty text."""
    import difflib  # here, since only a wrong word needs it, and every parse of a Dag file would pay for it

    return next(iter(difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)), "")


def _span(value: Any) -> Any:
    if isinstance(value, bool | int | float) and value != 0:
        raise fault(f"{value} has no unit", "Write a whole number with a unit, like 90s, 15m, 6h or 30d")
    if not isinstance(value, str):
        return timedelta(0) if value == 0 else value
    match = _SPAN.fullmatch(value.strip())
    if match is None:
        if value.strip().upper().startswith("P"):
            return value
        raise fault(f"{value!r} is no span of time", "Write a whole number with a unit, like 90s, 15m, 6h or 30d")
    return timedelta(**{_SPAN_UNITS[match["unit"]]: int(match["number"])}) if _fits(match) else timedelta.max


def _fits(match: re.Match[str]) -> bool:
    # The largest span that Python can hold is 999,999,999 days.
    return match["unit"] != "w" or int(match["number"]) < 100_000_000


def _not_long(value: timedelta) -> timedelta:
    if value < timedelta(0):
        raise fault("it is negative", "Write a span of zero or more")
    if value > timedelta(days=3660):
        raise fault("it is longer than ten years", "Write a shorter span")
    return value


_SpanText = Annotated[str, StringConstraints(pattern=r"^(\d{1,9}\s*(s|m|h|d|w)|[Pp].+)$")]
Duration = Annotated[
    timedelta, BeforeValidator(_span, json_schema_input_type=_SpanText | Literal[0]), AfterValidator(_not_long)
]
"""`90s`, `15m`, `6h`, `30d`, `2w`, or ISO 8601 (`PT6H`); from zero to ten years."""


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise fault(f"{value!r} is no size", "Write bytes as a whole number, or with a unit, like 50MB or 64MiB")
    return int(match["number"]) * _SIZE_UNITS[match["unit"] or "B"]


_SizeText = Annotated[str, StringConstraints(pattern=r"^\d{1,12}\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?$")]
_SizeWritten = Annotated[int, Field(gt=0)] | _SizeText
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=_SizeWritten), Field(strict=True, gt=0)]
"""Bytes: a whole number, or a number with a unit (`50MB` is 50,000,000 bytes, `64MiB` is 67,108,864)."""


def _clock_time(value: Any) -> Any:
    if isinstance(value, time) or (isinstance(value, str) and _CLOCK_TIME.fullmatch(value)):
        return value
    raise fault(f"{value!r} is no time of day", 'Write hours and minutes in quotes, like "07:00"')


_ClockText = Annotated[str, StringConstraints(pattern=rf"^{_CLOCK_TIME.pattern}$")]
ClockTime = Annotated[time, BeforeValidator(_clock_time, json_schema_input_type=_ClockText)]
"""A local time of day, `"07:00"`, from 00:00 to 23:59."""


def _zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        near = nearest(name, (zone.lower() for zone in zoneinfo.available_timezones()))
        proper = next((zone for zone in zoneinfo.available_timezones() if near and zone.lower() == near), "")
        hint = f"Did you mean {proper}?" if proper else "Write a name of the IANA list, like Europe/Berlin or UTC"
        raise fault(f"there is no time zone {name!r}", hint) from None
    return name


Zone = Annotated[str, AfterValidator(_zone)]
"""The IANA name of a time zone."""


def _day(value: Any) -> Any:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise fault(f"{value!r} is no day", "Write it like 2026-11-21") from None


Day = Annotated[date, BeforeValidator(_day)]
"""A day, `2026-11-21`."""


def _cron(line: str) -> str:
    fields = line.split()
    if line.startswith("@"):
        raise fault(f"{line!r} is a nickname", 'Write the five fields, like "0 2 * * *" for every night at two')
    if len(fields) != len(_CRON_FIELDS):
        raise fault(
            f"{line!r} has {len(fields)} fields instead of 5",
            'Write minute, hour, day of the month, month, day of the week, like "0 2 * * *"',
        )
    days, months = (_cron_values(field, at) for at, field in ((2, fields[2]), (3, fields[3])))
    for at in (0, 1, 4):
        _cron_values(fields[at], at)
    if fields[4] == "*" and all(min(days) > _LONGEST.get(month, 31) for month in months):
        raise fault(f"{line!r} never comes", "Choose a day that the month has")
    return line


def _cron_values(field: str, at: int) -> set[int]:
    """Read one field of a cron line into the values it stands for."""
    name, low, high, _words = _CRON_FIELDS[at]
    values: set[int] = set()
    for part in field.lower().split(","):
        match = re.fullmatch(r"(\*|(?P<from>\w+)(-(?P<to>\w+))?)(/(?P<step>\d{1,3}))?", part)
        if match is None:
            raise fault(
                f"{part!r} is no {name} of a cron line", f"Use numbers from {low} to {high}, *, -, / and commas"
            )
        first = _cron_number(match["from"], at) if match["from"] else low
        # `5/15` means from 5 to the end in steps, while `5` alone is only 5.
        last = (
            _cron_number(match["to"], at) if match["to"] else (first if match["from"] and not match["step"] else high)
        )
        step = int(match["step"] or 1)
        if first > last or step == 0:
            raise fault(
                f"{part!r} counts backwards or not at all", f"Write the smaller {name} first and a step above 0"
            )
        values.update(range(first, last + 1, step))
    return values


def _cron_number(word: str, at: int) -> int:
    name, low, high, words = _CRON_FIELDS[at]
    if word in words:
        return words.index(word) + low
    if word.isascii() and word.isdigit() and len(word) <= 2 and low <= int(word) <= high:
        return int(word)
    raise fault(f"{word!r} is no {name}", f"Use numbers from {low} to {high}")


Cron = Annotated[str, AfterValidator(_cron)]
"""Five fields: minute, hour, day of the month, month, day of the week; with names, lists, ranges and steps."""


def _uri(text: str) -> str:
    match = _URI.fullmatch(text)
    if match is None:
        if not text.strip():
            raise fault("it is empty", "Write where the files are, like s3://bucket/folder/")
        return text
    if match["scheme"].lower() not in _SCHEMES:
        near = nearest(match["scheme"], _SCHEMES)
        raise fault(
            f"files cannot be reached by {match['scheme']}://",
            f"Did you mean {near}://?" if near else f"Use one of {', '.join(_SCHEMES)}, or a path",
        )
    if "@" in match["rest"].split("/")[0] and match["scheme"].lower() not in ("abfs", "abfss"):
        raise fault("it holds a user name or a secret", "Keep secrets in the connection and name only bucket and path")
    if match["scheme"].lower() not in ("file", "memory") and not match["rest"].split("/")[0]:
        raise fault("it names no bucket", "Write it like s3://bucket/folder/")
    return text


Uri = Annotated[str, AfterValidator(_uri)]
"""Where files are: `s3://`, `gs://`, `az://`, `abfs://`, `file://`, or a local path."""


def _table(name: str) -> str:
    if not _TABLE.fullmatch(name):
        raise fault(
            f"{name!r} is no name of a table",
            "Use letters, digits and _ (at most 63, not a digit first), with the schema before a dot if need be",
        )
    return name


TableName = Annotated[str, AfterValidator(_table)]
"""`table`, `schema.table` or `database.schema.table`, in plain letters, digits and `_`."""
