"""Which window a run is about, walked through a year of clock changes and through backfills."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import CronDataIntervalTimetable
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.timetables.base import DataInterval, TimeRestriction
from pendulum import instance
from pydantic import ValidationError

from nightbatch.core.window import Window
from nightbatch.errors import JobInvalid
from nightbatch.orchestration.dag import build_dag
from nightbatch.orchestration.windows import options_of, params, window_of
from tests.memory_stack import job_of
from tests.orchestration.night import NIGHT, Night, utc, window

DAY = Window(utc(2026, 11, 20), utc(2026, 11, 21))


def context(interval: tuple[datetime, datetime] | None = (DAY.start, DAY.end), **chosen: Any) -> dict[str, Any]:
    """Give what a task is handed: a run's interval, and the trigger form."""
    start, end = interval or (None, None)
    run = SimpleNamespace(run_id="manual__1")
    return {"params": chosen, "data_interval_start": start, "data_interval_end": end, "dag_run": run}


def intervals(cron: str, zone: str, begin: datetime, end: datetime) -> Iterator[DataInterval]:
    """Walk the runs that the scheduler makes of a job's schedule, one after the other."""
    dag = build_dag(job_of(schedule=cron, timezone=zone))
    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    timetable = coerce_to_core_timetable(dag.timetable)
    rule = TimeRestriction(earliest=instance(begin), latest=instance(end), catchup=True)
    last: DataInterval | None = None
    while info := timetable.next_dagrun_info(last_automated_data_interval=last, restriction=rule):
        last = info.data_interval
        assert info.run_after == last.end
        yield last


@pytest.mark.parametrize("cron", ["0 0 * * *", "30 2 * * *", "15 1 * * 1-5"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_the_windows_of_a_year_leave_no_gap_and_overlap_nowhere(cron: str, zone: str) -> None:
    """2:30 and 1:15 do not exist, or exist twice, on the days when clocks change."""
    year = list(intervals(cron, zone, utc(2026, 1, 1, 12), utc(2027, 1, 1, 12)))

    windows = [window_of(context((each.start, each.end))) for each in year]

    assert len(windows) == (365 if cron.endswith("* * *") else 261)
    assert [(each.start, each.end) for each in windows] == [(each.start, each.end) for each in year]
    assert all(before.end == after.start for before, after in pairwise(windows))
    assert len({each.key for each in windows}) == len(windows)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_a_day_on_which_clocks_change_is_23_or_25_hours_long(zone: str) -> None:
    year = intervals("0 0 * * *", zone, utc(2026, 1, 1, 12), utc(2027, 1, 1, 12))

    days = [window_of(context((each.start, each.end))) for each in year]
    hours = [(each.end - each.start) / timedelta(hours=1) for each in days]

    assert (hours.count(23), hours.count(24), hours.count(25)) == (1, 363, 1)


def test_the_trigger_form_wins_over_the_interval() -> None:
    chosen = window_of(context(window_start="2026-11-01T00:00:00Z", window_end="2026-11-02T01:00:00+01:00"))

    assert chosen == Window(utc(2026, 11, 1), utc(2026, 11, 2))


def test_a_time_without_a_zone_is_utc() -> None:
    chosen = window_of(context(window_start="2026-11-01T00:00:00", window_end="2026-11-02T00:00:00"))

    assert chosen == Window(utc(2026, 11, 1), utc(2026, 11, 2))


@pytest.mark.parametrize("end", ["window_start", "window_end"])
def test_one_end_alone_is_refused_in_a_sentence(end: str) -> None:
    with pytest.raises(JobInvalid, match=r"only one end of the window is given\. Give both"):
        window_of(context(**{end: "2026-11-01T00:00:00Z"}))


@pytest.mark.parametrize("interval", [None, (DAY.start, DAY.start)])
def test_a_run_without_a_window_is_refused_in_a_sentence(interval: tuple[datetime, datetime] | None) -> None:
    """A manual run without a logical date has no interval, one of a Dag without schedule an empty one."""
    with pytest.raises(JobInvalid, match=r"this run has no data interval\. Give both Window start and Window end"):
        window_of(context(interval))


def test_ends_in_the_wrong_order_are_refused_in_a_sentence() -> None:
    with pytest.raises(JobInvalid, match=r"must end after it starts.*Swap the two ends"):
        window_of(context(window_start="2026-11-02T00:00:00Z", window_end="2026-11-01T00:00:00Z"))


def test_a_window_has_times_that_every_database_driver_knows() -> None:
    chosen = window_of(context((instance(DAY.start), instance(DAY.end))))

    assert chosen == DAY
    assert {type(chosen.start), type(chosen.end)} == {datetime}


@pytest.mark.parametrize("name", ["window_start", "window_end", "deadline"])
def test_a_time_that_is_none_is_refused_in_a_sentence(name: str) -> None:
    """Airflow lets it pass where the API, not the form, is used."""
    given = {"window_start": "2026-11-01T00:00:00Z", "window_end": "2026-11-02T00:00:00Z", name: "yesterday"}
    read = options_of if name == "deadline" else window_of

    with pytest.raises(JobInvalid, match=f"{name}: 'yesterday' is no time. Write it like"):
        read(context(**given))


def test_what_the_trigger_form_asks_for_reaches_the_flow() -> None:
    chosen = options_of(
        context(limit=5, model="gpt-5", refresh=True, force=True, deadline="2026-11-21T07:00:00", dry_run=False)
    )

    assert (chosen.limit, chosen.model, chosen.refresh) == (5, "gpt-5", True)
    assert chosen.force == "airflow manual__1"
    assert chosen.deadline_utc == datetime(2026, 11, 21, 7, tzinfo=UTC)


def test_a_form_left_as_it_is_changes_nothing() -> None:
    untouched = {name: param.resolve() for name, param in params().items()}

    chosen = options_of(context(**untouched))

    assert window_of(context(**untouched)) == DAY
    assert (chosen.limit, chosen.model, chosen.refresh, chosen.force, chosen.deadline_utc) == (
        None,
        "",
        False,
        "",
        None,
    )


@pytest.mark.parametrize(("name", "value"), [("limit", 0), ("limit", "many"), ("dry_run", "perhaps")])
def test_the_form_refuses_what_it_cannot_mean(name: str, value: Any) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises((ParamValidationError, ValidationError)):
        params()[name].resolve(value)


# --- runs of one window ---------------------------------------------------------------------------------------

RECORDS = [(f"k{n}", f"text {n}", "2026-11-20") for n in range(4)]


def test_reprocessing_by_backfill_is_the_same_run_and_pays_nothing(night: Night) -> None:
    """As Airflow does it: the run is cleared, and called a backfill from now on."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType
    from sqlalchemy import update

    from tests.orchestration.night import Ended, drive, new_run

    night.fill(RECORDS)
    dag = night.dag()
    scheduled = Ended(dag, drive(dag, new_run(dag, DagRunType.SCHEDULED, (DAY.start, DAY.end))))
    assert scheduled.state == "success"
    with create_session() as session:
        mine = (DagRun.dag_id == dag.dag_id, DagRun.run_id == scheduled.run_id)
        session.execute(update(DagRun).where(*mine).values(run_type="backfill", conf={}))

    again = night.clear(scheduled)

    assert again.state == "success"
    assert [run.run for run in night.runs()] == [scheduled.xcoms["prepare", "run"]] == [again.xcoms["prepare", "run"]]
    assert len(night.batches()) == 2


def test_a_manual_run_that_names_the_window_of_a_backfill_is_the_same_run(night: Night) -> None:
    night.fill(RECORDS)
    dag = night.dag()
    backfill = night.backfill(dag, DAY.start, DAY.end)
    assert window(NIGHT) == DAY

    manual = night.run(dag, NIGHT)

    assert (backfill.state, manual.state) == ("success", "success")
    assert manual.xcoms["prepare", "run"] == backfill.xcoms["prepare", "run"]
    assert len(night.runs()) == 1
    assert len(night.batches()) == 2


def test_a_backfill_over_three_days_loads_exactly_the_rows_of_those_days(night: Night) -> None:
    night.fill([(f"{day}-{n}", f"text {day} {n}", f"2026-11-{day}") for day in range(18, 24) for n in range(2)])
    dag = night.dag()

    for day in (19, 20, 21):
        assert night.backfill(dag, utc(2026, 11, day), utc(2026, 11, day + 1)).state == "success"

    assert set(night.answers()) == {f"{day}-{n}" for day in (19, 20, 21) for n in range(2)}
    assert [str(run.window) for run in night.runs()] == [
        f"2026-11-{day} 00:00 to 2026-11-{day + 1} 00:00 UTC" for day in (19, 20, 21)
    ]


def test_a_run_without_a_window_fails_at_once_and_holds_none(night: Night) -> None:
    night.fill(RECORDS)

    ended = night.run(night.dag(), {})

    assert (ended.state, ended.ran) == ("failed", {"prepare", "settle"})
    assert ended.tries["prepare"] == 1
    assert (night.runs(), night.batches()) == ([], [])
