"""Gaps: each window without a run is named, and none that has one, is under way, or is not wanted."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.gaps import Gap, RunSpan, first_known, fresh_until, gaps, uncovered
from nightbatch.core.schedule import Schedule
from nightbatch.core.window import Window

HOUR = timedelta(hours=1)
DAILY = Schedule("0 0 * * *", "UTC")


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def night(day: int, days: int = 1) -> Window:
    return Window(at(day), at(day + days))


def ran(day: int, state: str = "complete", **changes: object) -> RunSpan:
    values = {"is_answered": state == "complete", "started_utc": at(day + 1), **changes}
    return RunSpan(night(day), state, **values)  # type: ignore[arg-type]  # a test's own words


def found(runs: list[RunSpan], *, now: datetime, **changes: object) -> list[Gap]:
    values = {"since": None, "grace": HOUR, **changes}
    return gaps(DAILY, runs, now=now, **values)  # type: ignore[arg-type]  # a test's own words


def test_a_window_is_missing_only_once_its_grace_is_over() -> None:
    runs = [ran(20), ran(21)]

    assert found(runs, now=at(23, 0) + HOUR / 2) == []
    assert found(runs, now=at(23, 1)) == [Gap((night(22),), is_open=True)]


def test_a_hole_is_told_apart_from_an_outage_that_goes_on() -> None:
    runs = [ran(10), ran(13), ran(14)]

    assert found(runs, now=at(17, 12)) == [
        Gap((night(11), night(12)), is_open=False),
        Gap((night(15), night(16)), is_open=True),
    ]


@pytest.mark.parametrize("state", ["complete", "incomplete", "failed", "open"])
def test_a_run_that_ended_badly_was_told_and_one_under_way_is_not_missing(state: str) -> None:
    assert found([ran(20), ran(21, state)], now=at(22, 12)) == []


def test_a_first_look_does_not_stand_for_its_window() -> None:
    assert found([ran(20), ran(21, is_whole=False)], now=at(22, 12)) == [Gap((night(21),), is_open=True)]
    assert first_known([ran(20, is_whole=False)]) is None


def test_nothing_is_expected_before_the_first_run_unless_a_start_is_said() -> None:
    assert found([], now=at(22, 12)) == []
    assert found([ran(20), ran(21)], now=at(22, 12)) == []
    assert found([ran(20), ran(21)], now=at(22, 12), since=at(18)) == [Gap((night(18), night(19)), is_open=False)]
    assert found([], now=at(20, 12), since=at(19)) == [Gap((night(19),), is_open=True)]


def test_runs_by_hand_over_other_windows_count_for_what_they_hold_together() -> None:
    """A week by hand, or two halves of a night."""
    halves = [Window(at(25), at(25, 7)), Window(at(25, 7), at(26))]
    by_hand = [RunSpan(window, "complete", at(27)) for window in (night(18, days=7), *halves)]

    assert found([ran(17), *by_hand], now=at(26, 12)) == []
    assert found([ran(17), *by_hand[:2]], now=at(26, 12)) == [Gap((night(25),), is_open=True)]


def test_what_a_person_said_needs_no_run_is_not_missing() -> None:
    assert found([ran(17), ran(21)], now=at(22, 12), skipped=[night(18, days=2)]) == [Gap((night(20),), is_open=False)]


def test_a_window_that_waits_for_an_open_run_is_under_way() -> None:
    """The next night reads two hours again that an open run holds, so it has not begun."""
    runs = [ran(20), ran(21, "open")]

    assert found(runs, now=at(23, 12), overlap=2 * HOUR) == []
    assert found(runs, now=at(23, 12)) == [Gap((night(22),), is_open=True)]


@given(st.sets(st.integers(1, 25)), st.integers(1, 27))
def test_each_due_window_is_either_run_or_named(days: set[int], today: int) -> None:
    runs = [ran(day) for day in days]
    due = [night(day) for day in range(1, today) if day + 1 <= today]

    named = [window for gap in found(runs, now=at(today, 12), since=at(1)) for window in gap.windows]

    assert named == [window for window in due if window.start.day not in days]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9))), st.integers(0, 30), st.integers(1, 30))
def test_what_is_uncovered_is_what_no_window_holds(spans: list[tuple[int, int]], start: int, length: int) -> None:
    def hour(number: int) -> datetime:
        return at(1) + number * HOUR

    covered = [Window(hour(first), hour(first + size)) for first, size in spans]
    left = uncovered(hour(start), hour(start + length), covered)

    free = {n for n in range(start, start + length) if not any(first <= n < first + size for first, size in spans)}
    assert {n for n in range(90) for low, high in left if low <= hour(n) < high} == free


def test_answers_are_as_old_as_the_first_window_that_is_not_answered() -> None:
    assert fresh_until([]) is None
    assert fresh_until([ran(20, "failed")]) is None
    assert fresh_until([ran(20), ran(21)]) == at(22)
    assert fresh_until([ran(20), ran(22)]) == at(21)
    assert fresh_until([ran(20), ran(21, "incomplete"), ran(22)]) == at(21)
    assert fresh_until([ran(20), ran(21, "incomplete", is_answered=True), ran(22)]) == at(23)
    assert fresh_until([ran(20), ran(22)], skipped=[night(21)]) == at(23)


def test_a_job_that_reads_all_records_each_time_is_as_fresh_as_its_last_answered_run() -> None:
    assert fresh_until([ran(20), ran(21, "failed"), ran(22)], reads_all=True) == at(23)
