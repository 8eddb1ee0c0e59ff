"""An outage: told at its first hit, and once more a day; a new one begins after it is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from nightbatch.core.outage import Hit, latest

TWO = datetime(2026, 11, 21, 2, tzinfo=UTC)


def hits(*hours: float, number: int = 1, kind: str = "late") -> list[Hit]:
    return [Hit(number, kind, f"job{n}/w/g1", 10, TWO + timedelta(hours=h)) for n, h in enumerate(hours)]


def test_a_subject_without_hits_has_no_outage() -> None:
    nothing = latest("s", [], [])

    assert (nothing.is_open, nothing.next_number) == (False, 1)


def test_only_the_first_hit_is_told_until_a_day_has_gone_by() -> None:
    outage = latest("s", hits(0, 1, 19.9, 20.1, 21, 45), [])

    assert [outage.is_told_by(run, "late") for run in outage.runs] == [True, False, False, True, False, True]
    assert (len(outage.runs), len(outage.jobs), outage.rows) == (6, 6, 60)


def test_each_kind_of_hit_is_told_by_its_own_first() -> None:
    outage = latest("s", [*hits(0, kind="at_risk"), *hits(1), *hits(2)], [])

    assert (outage.is_told_by("job0/w/g1", "at_risk"), outage.is_told_by("job0/w/g1", "late")) == (True, True)


def test_after_its_end_the_next_hit_begins_another() -> None:
    outage = latest("s", hits(0, 1), [1])

    assert (outage.is_open, outage.next_number) == (False, 2)
    assert latest("s", [*hits(0, 1), *hits(9, number=2)], [1]).runs == ["job0/w/g1"]
