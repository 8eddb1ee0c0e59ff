"""Values of a job file: spans, sizes, times of day, cron lines, zones and addresses."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from nightbatch.job_values import ClockTime, Cron, Duration, Size, TableName, Uri, Zone, nearest

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def read(kind: Any, value: Any) -> Any:
    return TypeAdapter(kind).validate_python(value)


def refused(kind: Any, value: Any) -> bool:
    try:
        read(kind, value)
    except ValidationError:
        return True
    return False


@given(st.integers(0, 500), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_a_span_is_a_number_and_a_unit(number: int, unit: str, gap: str) -> None:
    assert read(Duration, f"{number}{gap}{unit}") == timedelta(seconds=number * UNITS[unit])


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3_660)))
def test_a_span_is_read_back_from_json(span: timedelta) -> None:
    adapter = TypeAdapter(Duration)

    assert adapter.validate_json(adapter.dump_json(span)) == span


@pytest.mark.parametrize(
    "value", ["", "6", "h", "-6h", "6 hours", "1.5h", "6h30m", "PT-6H", "P11Y", 6, 6.5, True, None, []]
)
def test_what_is_no_span_is_refused(value: Any) -> None:
    assert refused(Duration, value)


@pytest.mark.parametrize("value", ["99999d", "999999999w", "999999999d", "P99999999D", timedelta.max])
def test_a_span_has_an_end(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"longer than ten years|too large|invalid"):
        read(Duration, value)


def test_iso_8601_and_zero_are_spans_too() -> None:
    assert read(Duration, "PT6H") == read(Duration, "6h")
    assert read(Duration, "P1DT2H") == timedelta(hours=26)
    assert read(Duration, 0) == read(Duration, "0s") == timedelta(0)


@pytest.mark.parametrize(
    ("text", "size"), [(1, 1), ("1", 1), ("5 kB", 5_000), ("50MB", 50_000_000), ("64MiB", 67_108_864), ("1GB", 10**9)]
)
def test_a_size_is_a_number_of_bytes_with_or_without_a_unit(text: str | int, size: int) -> None:
    assert read(Size, text) == size


@pytest.mark.parametrize("value", [0, -1, "0", "-1", "1.5MB", "MB", "1 mb", "", 1.0, True, None])
def test_what_is_no_size_is_refused(value: Any) -> None:
    assert refused(Size, value)


@given(st.times().map(lambda moment: moment.replace(second=0, microsecond=0)))
def test_a_time_of_day_is_hours_and_minutes(moment: time) -> None:
    assert read(ClockTime, f"{moment:%H:%M}") == moment


@pytest.mark.parametrize(
    "value", ["7:00", "24:00", "07:60", "7", "07:00Z", "07:00+02:00", "07:00 pm", "", 7, 1170, None]
)
def test_what_is_no_time_of_day_is_refused(value: Any) -> None:
    assert refused(ClockTime, value)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"])
def test_zones_have_the_names_of_the_iana_list(zone: str) -> None:
    assert read(Zone, zone) == zone


@pytest.mark.parametrize("zone", ["", "Berlin", "CEST ", "../../etc/passwd", "/etc/passwd", "Europe", "a\0b", "UTC+2"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    assert refused(Zone, zone)


# --- cron -----------------------------------------------------------------------------------------------------

FIELDS = [(0, 59), (0, 23), (1, 28), (1, 12), (0, 6)]


def cron_fields(low: int, high: int) -> st.SearchStrategy[str]:
    """Write fields of a cron line as people do."""
    number = st.integers(low, high)
    step = st.integers(1, 30)
    span = st.tuples(number, number).map(sorted).map(lambda ends: f"{ends[0]}-{ends[1]}")
    part = st.one_of(
        st.just("*"),
        number.map(str),
        span,
        st.tuples(span, step).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        step.map(lambda every: f"*/{every}"),
    )
    return st.one_of(part, st.lists(number.map(str), min_size=2, max_size=4).map(",".join))


lines = st.tuples(*[cron_fields(low, high) for low, high in FIELDS]).map(" ".join)


@given(lines)
def test_every_cron_line_that_is_taken_is_understood_by_airflows_parser(line: str) -> None:
    from croniter import croniter

    assert read(Cron, line) == line
    assert croniter(line, datetime(2026, 1, 1, tzinfo=UTC)).get_next(datetime) > datetime(2026, 1, 1, tzinfo=UTC)


@given(st.lists(st.text(alphabet="0123456789*/-,lLw#monja", min_size=1, max_size=5), min_size=5, max_size=5))
def test_no_cron_line_is_taken_that_airflows_parser_refuses(fields: list[str]) -> None:
    from croniter import croniter

    line = " ".join(fields)

    assert refused(Cron, line) or croniter.is_valid(line)


@pytest.mark.parametrize(
    "line", ["0 0 * * *", "*/15 8-18 * * mon-fri", "0 2 1,15 * *", "0 0 29 2 *", "0 0 * JAN,jul SUN"]
)
def test_ordinary_cron_lines_are_taken(line: str) -> None:
    assert read(Cron, line) == line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "0 0 * *",
        "0 0 * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "* * * mon *",
        "1,,2 * * * *",
        "-1 * * * *",
        "١ * * * *",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "@daily",
        "0 0 L * *",
        "H H * * *",
    ],
)
def test_what_is_no_cron_line_is_refused(line: str) -> None:
    assert refused(Cron, line)


# --- addresses and tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "s3://a",
        "s3://a/b/",
        "gs://a/b",
        "az://c/d",
        "abfs://c@account.dfs.core.windows.net/d",
        "file:///d",
        "d/e",
        "/d",
        ".",
    ],
)
def test_buckets_and_paths_are_addresses(uri: str) -> None:
    assert read(Uri, uri) == uri


@pytest.mark.parametrize(
    "uri", ["", " ", "http://a/b", "s3://", "s3:///b", "s3://key:secret@a/b", "S4://a", "postgres://x"]
)
def test_what_is_no_address_is_refused(uri: str) -> None:
    assert refused(Uri, uri)


@pytest.mark.parametrize("name", ["t", "_t", "s.t", "d.s.t", "T1$", "a" * 63])
def test_plain_names_are_tables(name: str) -> None:
    assert read(TableName, name) == name


@pytest.mark.parametrize("name", ["", "1t", "t;", "a b", 'a"b', "a.b.c.d", "a..b", ".a", "a\n", "ä", "a" * 64, "a-b"])
def test_names_that_could_be_anything_else_are_no_tables(name: str) -> None:
    assert refused(TableName, name)


def test_the_nearest_word_is_found_or_none() -> None:
    assert nearest("schedul", ["name", "schedule"]) == "schedule"
    assert nearest("Models", ["models"]) == "models"
    assert nearest("zzz", ["name", "schedule"]) == ""
