"""What warehouse sources share: a query with its window as bound parameters, and the rules of local time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from itertools import chain, pairwise
from typing import Any
from zoneinfo import ZoneInfo

from nightbatch.adapters.sql_names import NAME
from nightbatch.core.window import Window
from nightbatch.errors import BadSource
from nightbatch.ports import Chunk

PARAMETERS = ("window_start", "window_end")

_OPENING = re.compile(
    r"""--|/\*|(?<![\w$])\$(?:[^\W\d]\w*)?\$|(?<!\w)[eE]'|'|"|::|(?<![\w:]):(?P<name>window_start|window_end)\b"""
)
_ESCAPED_END = re.compile(r"(?:[^'\\]|\\.|'')*'", re.DOTALL)
_TABLE = re.compile(rf"\b(?:from|join)\s+((?:{NAME}\s*\.\s*)*{NAME})", re.IGNORECASE)
_CLOSING = re.compile(r";\s*(?:--[^\n]*\s*)*$")
"""A closing semicolon, which would end the statement inside brackets; a newline ends the comment behind it."""
_STEP = timedelta(minutes=15)
_REACH = timedelta(hours=26)
"""Further back than this no change of a zone's offset reaches."""


@dataclass(frozen=True)
class Query:
    """A query with `$1`, `$2`, … in place of each mention of a parameter, in order."""

    text: str
    mentions: tuple[str, ...]
    tables: tuple[str, ...]
    """What the text names after FROM and JOIN, sorted; for people, and to see that a sink is the same thing."""


def parse(sql: str) -> Query:
    """
    Number the parameters of a query; those in literals, quoted names, comments and casts (`::`) are none.

    Every mention gets a number of its own, so that each is typed by what it is compared with. Pure.
    """
    text: list[str] = []
    code: list[str] = []
    mentions: list[str] = []
    position = 0
    while found := _OPENING.search(sql, position):
        between = sql[position : found.start()]
        position = found.end()
        if found["name"]:
            mentions.append(found["name"])
            token = f"${len(mentions)}"
        else:
            position = _end_of(found[0], sql, position)
            token = sql[found.start() : position]
        text += [between, token]
        code += [between, token if found[0] == '"' else " "]
    text.append(sql[position:])
    code.append(sql[position:])
    return Query("".join(text), tuple(mentions), tuple(sorted({*_TABLE.findall("".join(code))})))


def _end_of(opening: str, sql: str, start: int) -> int:
    """Say where a literal, comment or quoted name ends; one that does not end is for the database to refuse."""
    if opening == "::":
        return start
    if opening == "/*":
        return _end_of_comment(sql, start)
    if opening in ("e'", "E'"):
        found = _ESCAPED_END.match(sql, start)
        return found.end() if found else len(sql)
    # A doubled quote inside a literal reads as two literals side by side, which comes to the same.
    closing = "\n" if opening == "--" else opening
    end = sql.find(closing, start)
    return len(sql) if end < 0 else end + len(closing)


def _end_of_comment(sql: str, start: int) -> int:
    depth = 1
    for mark in re.compile(r"/\*|\*/").finditer(sql, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(sql)


def bounded(sql: str, *, column: str, key: str) -> str:
    """
    Bound a query that selects all records to those whose time is in the window, in a stable order.

    Records without a time are in every window: they belong to none, and must not be left out in silence. Pure.
    """
    time, name = (f'"{one.replace(chr(34), chr(34) * 2)}"' for one in (column, key))
    return (
        f"SELECT * FROM ({_CLOSING.sub('', sql)}\n) AS nb_records "  # noqa: S608 - the job's own query, and names that are quoted
        f"WHERE {time} IS NULL OR ({time} >= :window_start AND {time} < :window_end) ORDER BY {time}, {name}"
    )


def local_bounds(window: Window, zone: tzinfo) -> tuple[datetime, datetime]:
    """
    Give the half-open span of local clock times that holds every record of a window.

    Where clocks go back, an hour of local times means two spans of UTC; the span then holds both, since a record
    that is read twice is found unchanged and one that is never read is lost. Naive results. Pure.
    """
    instants = [window.start, *_grid(window), window.end]
    low = min(_local(instant, zone) for instant in instants[:-1])
    # Just before an instant, clocks show what they showed at the step before plus the step.
    high = max(_local(step, zone) + (instant - step) for step, instant in pairwise(instants))
    return low, max(high, _local(window.end, zone))


def _grid(window: Window) -> Iterator[datetime]:
    """Give every quarter of an hour near either end: clocks change at no other instants."""
    start = window.start
    first = start.replace(minute=start.minute - start.minute % 15, second=0, microsecond=0) + _STEP
    total, near = -((first - window.end) // _STEP), _REACH // _STEP
    near_ends = range(total) if total <= 2 * near else chain(range(near), range(total - near, total))
    return (first + number * _STEP for number in near_ends)


def _local(instant: datetime, zone: tzinfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)


@dataclass(frozen=True)
class WindowQuery:
    """A checked query of one source, with the rules that all warehouses share."""

    source: str
    query: Query
    zone: ZoneInfo | None
    columns: tuple[str, ...] | None
    bounds: tuple[str, ...] = ()
    """What is bound behind the mentions: ends of a range of keys, as text, which the database reads as keys."""

    @classmethod
    def of(
        cls,
        sql: str,
        *,
        address: str,
        default_schema: str,
        timezone: str | None,
        columns: Iterable[str] | None,
        whole_table: bool,
    ) -> WindowQuery:
        """
        Read a query; `address` is of its database, without secrets.

        Raises:
            BadSource: When it leaves a parameter out without `whole_table`, or the zone is unknown.
        """
        query = parse(sql)
        source = f"{address}/{','.join(_full_name(name, default_schema) for name in query.tables) or 'query'}"
        missing = [f":{name}" for name in PARAMETERS if name not in query.mentions]
        if missing and not whole_table:
            raise BadSource(
                source,
                problem=f"the query does not use {' and '.join(missing)}, so every run would read the same rows",
                remedy="Bound its rows, for example `created_at >= :window_start AND created_at < :window_end`, "
                "outside quotes and comments; or say `whole_table: true` if every run is to read all of them.",
            )
        return cls(source, query, _zone(timezone, source), None if columns is None else tuple(columns))

    def part(self, test: str) -> WindowQuery:
        """Give the query of one part: of the rows for which an SQL condition is true."""
        text = f"SELECT * FROM ({_CLOSING.sub('', self.query.text)}\n) AS nb_whole WHERE {test}"  # noqa: S608 - by the adapters
        return replace(self, query=replace(self.query, text=text))

    def asking(self, selected: str) -> WindowQuery:
        """Give a query about the rows of this one, all columns of its answer."""
        text = f"SELECT {selected} FROM ({_CLOSING.sub('', self.query.text)}\n) AS nb_whole"  # noqa: S608 - by the adapters
        return replace(self, query=replace(self.query, text=text), columns=None)

    def hash_parts(self, most: int) -> list[dict[str, Any]]:
        """Cut it into parts by a hash of the first asked column, the key: how large it is, nobody knows yet."""
        return [{"key": self.columns[0], "part": part, "of": most} for part in range(most)] if self.columns else []

    @property
    def session_zone(self) -> str:
        """The zone that the database's session works in."""
        return self.zone.key if self.zone else "UTC"

    def values(self, window: Window, is_local: Sequence[bool]) -> list[datetime | str]:
        """
        Give what to bind: for each mention a UTC instant, or a local clock time where `is_local` says so; then bounds.
        """
        if not any(is_local):
            times = [window.start if name == "window_start" else window.end for name in self.query.mentions]
            return [*times, *self.bounds]
        zone = self.zone or self.no_zone("the query compares the window with a date or a timestamp without zone")
        spans = {False: (window.start, window.end), True: local_bounds(window, zone)}
        times = [
            spans[local][PARAMETERS.index(name)] for name, local in zip(self.query.mentions, is_local, strict=True)
        ]
        return [*times, *self.bounds]

    def picks(self, names: Sequence[str]) -> list[int]:
        """Give the positions of the asked columns in a result. Raises BadSource for an absent or doubled one."""
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise BadSource(
                self.source,
                problem=f"the query gives more than one column named {', '.join(doubled)}",
                remedy="Give them different names with AS.",
            )
        asked = self.columns if self.columns is not None else tuple(names)
        if missing := [name for name in asked if name not in names]:
            raise BadSource(
                self.source,
                problem=f"the query gives no column {', '.join(missing)}, only {', '.join(names)}",
                remedy="Add it to the query, or correct the job file's key, prompt or `deferrable`.",
            )
        return [names.index(name) for name in asked]

    def check_naive(self, names: Sequence[str]) -> None:
        """Raise BadSource where result columns hold local times and nobody said where."""
        if names and self.zone is None:
            self.no_zone(f"the column {', '.join(names)} is a timestamp without zone")

    def no_zone(self, problem: str) -> ZoneInfo:
        """Raise BadSource: a zone is needed."""
        remedy = "Say `timezone:` in the source, for example `timezone: UTC` or `timezone: Europe/Berlin`."
        raise BadSource(self.source, problem=problem, remedy=remedy)

    def aware(self, value: Any) -> Any:
        """Give a local time its zone; lists element by element, anything else as it is."""
        if isinstance(value, datetime) and value.tzinfo is None:
            return value.replace(tzinfo=self.zone)
        return [self.aware(item) for item in value] if isinstance(value, list) else value


def chunks(columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], chunk_rows: int) -> Iterator[Chunk]:
    """Group rows; the last chunk may be shorter, none is empty."""
    group: list[tuple[Any, ...]] = []
    for row in rows:
        group.append(row)
        if len(group) == chunk_rows:
            yield Chunk(columns, group)
            group = []
    if group:
        yield Chunk(columns, group)


def _full_name(name: str, default_schema: str) -> str:
    parts = [part[1:-1].replace('""', '"') if part.startswith('"') else part.lower() for part in re.findall(NAME, name)]
    return ".".join(parts if len(parts) > 1 else [default_schema, *parts])


def _zone(name: str | None, source: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError) as error:
        remedy = "Use a name of the IANA database, for example `Europe/Berlin`."
        raise BadSource(source, problem=f"there is no time zone {name!r}", remedy=remedy) from error
