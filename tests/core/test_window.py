"""Windows: half-open, in UTC, with a name that sorts by time and can be read back."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.window import Window

instants = st.integers(0, 3_155_760_000).map(
    lambda seconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
spans = st.integers(1, 10**7).map(lambda seconds: timedelta(seconds=seconds))
windows = st.builds(lambda start, span: Window(start, start + span), instants, spans)


@given(windows)
def test_a_window_is_read_back_from_its_key(window: Window) -> None:
    assert Window.from_key(window.key) == window


@given(windows)
def test_a_key_fits_into_a_path(window: Window) -> None:
    assert window.key.replace("-", "").isalnum()
    assert len(window.key) == 33


@given(windows, windows)
def test_keys_sort_as_their_windows_do(one: Window, other: Window) -> None:
    assert (one.key < other.key) == (one < other)


@given(windows, windows)
def test_windows_overlap_if_and_only_if_an_instant_is_in_both(one: Window, other: Window) -> None:
    last_start, first_end = max(one.start, other.start), min(one.end, other.end)

    assert one.overlaps(other) == other.overlaps(one) == (last_start < first_end)


@given(instants, spans, spans)
def test_windows_that_touch_do_not_overlap(start: datetime, first: timedelta, second: timedelta) -> None:
    one, next_one = Window(start, start + first), Window(start + first, start + first + second)

    assert not one.overlaps(next_one)


def test_times_of_any_zone_become_utc() -> None:
    zone = ZoneInfo("Europe/Berlin")
    window = Window(datetime(2026, 7, 1, tzinfo=zone), datetime(2026, 7, 2, tzinfo=zone))

    assert window.start == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert window.start.tzinfo is UTC
    assert str(window) == "2026-06-30 22:00 to 2026-07-01 22:00 UTC"


def test_a_day_without_an_hour_is_a_window_of_23_hours() -> None:
    zone = ZoneInfo("Europe/Berlin")
    window = Window(datetime(2026, 3, 29, tzinfo=zone), datetime(2026, 3, 30, tzinfo=zone))

    assert window.end - window.start == timedelta(hours=23)


@pytest.mark.parametrize("length_s", [0, -1])
def test_a_window_must_end_after_it_starts(length_s: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)

    with pytest.raises(ValueError, match="must end after it starts"):
        Window(start, start + timedelta(seconds=length_s))


def test_times_without_a_zone_are_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        Window(datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None), datetime(2026, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize("key", ["", "20260101T000000Z", "20260101-20260102", "20260102T000000Z-20260101T000000Z"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError):
        Window.from_key(key)
