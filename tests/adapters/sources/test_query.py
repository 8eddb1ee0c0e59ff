"""A query's parameters are found where they are parameters, and local time loses no record."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.adapters.sources.query import WindowQuery, local_bounds, parse
from nightbatch.core.window import Window
from nightbatch.errors import BadSource

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("sql", "numbered"),
    [
        ("at >= :window_start AND at < :window_end", "at >= $1 AND at < $2"),
        ("at < :window_end OR at = :window_end", "at < $1 OR at = $2"),
        ("(:window_start,:window_end)", "($1,$2)"),
        (":window_start::timestamptz", "$1::timestamptz"),
        ("at::window_start", "at::window_start"),
        ("':window_start'", "':window_start'"),
        ("'it''s :window_start'", "'it''s :window_start'"),
        (r"'\' || :window_start || '\'", r"'\' || $1 || '\'"),
        (r"E'\' :window_start' || :window_end", r"E'\' :window_start' || $1"),
        (r"E'a''b\\' || :window_end", r"E'a''b\\' || $1"),
        ('":window_start" = :window_start', '":window_start" = $1'),
        ('"a"":window_start"', '"a"":window_start"'),
        ("-- :window_start\n:window_end", "-- :window_start\n$1"),
        ("/* a /* :window_start */ :window_end */ :window_end", "/* a /* :window_start */ :window_end */ $1"),
        ("$$ :window_start $$ $a$ $$ :window_end $a$ :window_end", "$$ :window_start $$ $a$ $$ :window_end $a$ $1"),
        ("a$b$ :window_start", "a$b$ $1"),
        (":window_started", ":window_started"),
        ("xs[1:window_end]", "xs[1:window_end]"),
        ("a % b LIKE '%' = :window_start", "a % b LIKE '%' = $1"),
        ("'never ends :window_start", "'never ends :window_start"),
        ("/* never ends :window_start", "/* never ends :window_start"),
        ("E'never ends :window_start", "E'never ends :window_start"),
        ("", ""),
    ],
)
def test_only_parameters_are_numbered(sql: str, numbered: str) -> None:
    assert parse(sql).text == numbered


sql_pieces = st.lists(
    st.sampled_from([":window_start", ":window_end", "'", '"', "--", "\n", "/*", "*/", "$$", "$a$", "::", "E'", "\\"])
    | st.text(max_size=4)
)


@given(sql_pieces)
def test_numbering_changes_nothing_but_parameters(pieces: list[str]) -> None:
    query = parse("".join(pieces))

    restored = query.text
    for number in range(len(query.mentions), 0, -1):
        before, after = restored.rsplit(f"${number}", 1)
        restored = f"{before}:{query.mentions[number - 1]}{after}"
    assert restored == "".join(pieces)


def test_the_tables_that_a_query_names_are_told() -> None:
    sql = """
        WITH recent AS (SELECT * FROM shop.Reviews r JOIN "Shop"."Items" i USING (id)) -- FROM nowhere
        SELECT 'from no.table' FROM recent, other
    """

    query = checked(sql, whole_table=True)

    assert query.source == "db://host/Shop.Items,public.recent,shop.reviews"


def checked(
    sql: str, *, timezone: str | None = None, columns: list[str] | None = None, whole_table: bool = False
) -> WindowQuery:
    return WindowQuery.of(
        sql,
        address="db://host",
        default_schema="public",
        timezone=timezone,
        columns=columns,
        whole_table=whole_table,
    )


def test_a_query_must_use_both_parameters_or_say_that_it_reads_everything() -> None:
    with pytest.raises(BadSource, match=r"does not use :window_end.*whole_table: true"):
        checked("SELECT 1 FROM t WHERE at > :window_start -- :window_end")
    with pytest.raises(BadSource, match="does not use :window_start and :window_end"):
        checked("SELECT ':window_start', ':window_end' FROM t")

    assert checked("SELECT 1 FROM t", whole_table=True).query.mentions == ()


def test_an_unknown_zone_is_told_at_once() -> None:
    for name in ("Europe/Nowhere", "../etc/passwd", "'; DROP TABLE t"):
        with pytest.raises(BadSource, match="no time zone"):
            checked("SELECT 1", timezone=name, whole_table=True)


def test_result_columns_are_checked_and_picked() -> None:
    query = checked("SELECT 1", columns=["b", "a"], whole_table=True)

    assert query.picks(["a", "c", "b"]) == [2, 0]
    with pytest.raises(BadSource, match="no column b, only a"):
        query.picks(["a"])
    with pytest.raises(BadSource, match="more than one column named a"):
        query.picks(["a", "b", "a"])


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def local(*parts: int) -> datetime:
    return datetime(*parts)  # noqa: DTZ001 -- a clock time


NIGHT = utc(2026, 10, 25, 0, 30)
"""The first 02:30 of a night in which Berlin's clocks show 02:30 twice."""


@pytest.mark.parametrize(
    ("window", "span"),
    [
        (Window(utc(2026, 7, 1), utc(2026, 7, 2)), (local(2026, 7, 1, 2), local(2026, 7, 2, 2))),
        (Window(utc(2026, 10, 24, 22), utc(2026, 10, 25, 23)), (local(2026, 10, 25), local(2026, 10, 26))),
        (Window(NIGHT - HOUR, NIGHT), (local(2026, 10, 25, 1, 30), local(2026, 10, 25, 2, 30))),
        (Window(NIGHT, NIGHT + HOUR), (local(2026, 10, 25, 2), local(2026, 10, 25, 3))),
        (Window(utc(2026, 3, 29, 0), utc(2026, 3, 29, 1)), (local(2026, 3, 29, 1), local(2026, 3, 29, 3))),
        (Window(utc(2025, 1, 1), utc(2026, 1, 1)), (local(2025, 1, 1, 1), local(2026, 1, 1, 1))),
    ],
    ids=["summer", "whole day with 25 hours", "into the doubled hour", "within it", "skipped hour", "year"],
)
def test_a_window_becomes_a_span_of_clock_times(window: Window, span: tuple[datetime, datetime]) -> None:
    assert local_bounds(window, BERLIN) == span


zones = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kolkata"])
near_changes = st.sampled_from(
    [utc(2026, 10, 25), utc(2026, 3, 29), utc(2026, 11, 1, 6), utc(2026, 4, 4, 15), utc(2011, 12, 30, 10)]
)
minutes = st.integers(-3000, 3000)


@given(zones, near_changes, minutes, st.integers(1, 6000), st.floats(0, 1, exclude_max=True))
def test_no_record_of_a_window_is_outside_its_clock_times(
    zone_name: str, change: datetime, start: int, length: int, share: float
) -> None:
    zone = ZoneInfo(zone_name)
    window = Window(change + timedelta(minutes=start), change + timedelta(minutes=start + length))
    instant = min(window.start + share * (window.end - window.start), window.end - timedelta(microseconds=1))

    low, high = local_bounds(window, zone)

    assert low <= instant.astimezone(zone).replace(tzinfo=None) < high


@given(zones, near_changes, minutes, st.integers(1, 600), st.integers(1, 600))
def test_windows_side_by_side_leave_no_clock_time_out(
    zone_name: str, change: datetime, start: int, first: int, second: int
) -> None:
    zone = ZoneInfo(zone_name)
    ends = [change + timedelta(minutes=start + offset) for offset in (0, first, first + second)]

    _, high = local_bounds(Window(ends[0], ends[1]), zone)
    low, _ = local_bounds(Window(ends[1], ends[2]), zone)

    assert low <= high
