"""The watchdog Dag inside Airflow: what is missing is told with Airflow's own word why; and how windows are cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.models import DagModel
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.timetables.base import TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType

from nightbatch.core.schedule import Schedule
from nightbatch.core.window import Window
from nightbatch.demo.services.mail import MailSink
from nightbatch.job_file import load_job
from nightbatch.orchestration.dag import FIRST_NIGHT, build_dag
from nightbatch.orchestration.watchdog import AirflowScheduler, watchdog_dag
from tests.orchestration.night import IMPATIENT, Night, known, new_run

JOB = """
name: {name}
source:
  query: select id, body from records where changed_at >= :window_start and changed_at < :window_end
  connection: warehouse
  key: id
prompt: {{user: "{{{{ body }}}}"}}
models: [{{provider: openai, model: gpt-5-mini, connection: vendor, max_output_tokens: 100}}]
sink: {{table: {name}_answers, connection: warehouse}}
schedule: "0 0 * * *"
start: {start}
notify: {{mail: {mail}}}
"""
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    return tmp_path / "jobs"


def write(folder: Path, name: str, *, mail: str = "team@example.com", days: int = 4, more: str = "") -> Path:
    start = (TODAY - timedelta(days=days)).date()
    file = folder / f"{name}.yaml"
    file.write_text(JOB.format(name=name, start=start, mail=f"[{mail}]" if mail else "[]") + more)
    return file


def let_go(dag: DAG, *, is_paused: bool) -> None:
    with create_session() as session:
        found = session.get(DagModel, dag.dag_id)
        assert found is not None
        found.is_paused = is_paused


def window(days_ago: int) -> Window:
    return Window(TODAY - timedelta(days=days_ago), TODAY - timedelta(days=days_ago - 1))


def test_windows_without_a_run_are_told_once_with_airflows_word_why(
    night: Night, mail_sink: MailSink, folder: Path
) -> None:
    """One job is paused, one has a run under way and one that failed, and one is unknown to Airflow."""
    paused, alive = (known(build_dag(load_job(write(folder, name)))) for name in ("paused", "alive"))
    write(folder, "stranger")
    let_go(paused, is_paused=True)
    let_go(alive, is_paused=False)
    under_way = window(2)
    new_run(alive, DagRunType.SCHEDULED, (under_way.start, under_way.end))
    mail_sink.clear()

    dag = known(watchdog_dag(folder, default_args=IMPATIENT))
    first = night.run(dag, {})
    second = night.run(dag, {})

    # An hour after midnight the last window is missing too.
    due = 4 if datetime.now(UTC) > TODAY + timedelta(hours=1) else 3
    assert [ended.state for ended in (first, second)] == ["success", "success"]
    assert first.xcoms["look", "return_value"] == {"missing": 3 * due - 1, "told": 1}
    assert second.xcoms["look", "return_value"]["told"] == 0
    (mail,) = mail_sink.mails()
    text = " ".join(mail.text.split())
    assert f"3 jobs: {3 * due - 1} windows have no run" in text
    assert "its Dag is paused" in text
    assert "Airflow made no Dag run of it" in text
    assert "Airflow has no Dag of this name" in text


def test_it_is_red_where_nobody_could_be_told(night: Night, folder: Path) -> None:
    write(folder, "lonely", mail="")
    dag = known(watchdog_dag(folder, default_args=IMPATIENT))

    assert night.run(dag, {}).state == "failed"
    assert night.run(dag, {}).state == "success", "it is told once"


@pytest.mark.parametrize(("status", "said"), [(404, "Airflow has no Dag of this name"), (503, "could not be asked")])
def test_what_a_worker_hears_of_airflows_api_keeps_nobody_from_hearing_of_the_window(status: int, said: str) -> None:
    """In a worker the error comes through its supervisor, in other words than in `dag.test()`."""

    class Task:
        def get_dag(self, dag_id: str) -> Any:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": status}))

    assert said in AirflowScheduler(Task()).why("any", window(1))


def test_the_dag_watches_as_soon_as_it_is_there(folder: Path) -> None:
    assert watchdog_dag(folder).is_paused_upon_creation is False


# --- catch_up -------------------------------------------------------------------------------------------------


def next_runs(dag: DAG, last: Window | None, count: int) -> list[Window]:
    """Ask the Dag's timetable, as the scheduler does, which runs come next after the last one."""
    timetable = core_timetable(dag)
    restriction = TimeRestriction(pendulum.instance(dag.start_date), None, dag.catchup)  # type: ignore[arg-type]
    found: list[Window] = []
    while len(found) < count:
        info = timetable.next_dagrun_info(last_automated_data_interval=_interval(last), restriction=restriction)
        if info is None or info.run_after > pendulum.now("UTC"):
            break
        last = Window(info.data_interval.start, info.data_interval.end)
        found.append(last)
    return found


def core_timetable(dag: DAG) -> Any:
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable


def _interval(window: Window | None) -> Any:
    from airflow.timetables.base import DataInterval

    return window and DataInterval(pendulum.instance(window.start), pendulum.instance(window.end))


def test_a_job_that_catches_up_runs_every_window_since_its_last_run_and_one_that_reports_only_the_latest(
    airflow: None, folder: Path
) -> None:
    runs = build_dag(load_job(write(folder, "runs", days=9, more="catch_up: run\n")))
    reports = build_dag(load_job(write(folder, "reports", days=9)))

    assert (runs.catchup, runs.start_date) == (True, TODAY - timedelta(days=9))
    assert (reports.catchup, reports.start_date) == (False, FIRST_NIGHT)
    assert next_runs(runs, None, 20) == [window(days) for days in range(9, 0, -1)]
    assert next_runs(runs, window(5), 20) == [window(days) for days in range(4, 0, -1)]
    assert next_runs(reports, window(5), 20) == [window(1)]


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 * * * *", "0 6 * * 1-5", "15 */4 * * *", "0 0 1 * *"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("day", ["2026-03-08", "2026-03-29", "2026-10-25", "2026-11-01"])
def test_our_windows_are_those_that_airflow_cuts(cron: str, zone: str, day: str) -> None:
    """Over clock changes too, so that no window is called missing that Airflow never makes."""
    changes = datetime.fromisoformat(day).replace(tzinfo=UTC)
    since, until = changes - timedelta(days=3, minutes=11), changes + timedelta(days=3)
    timetable = CronDataIntervalTimetable(cron, timezone=zone)
    restriction = TimeRestriction(pendulum.instance(since), None, catchup=True)
    theirs: list[Window] = []
    last: Any = None
    while last is None or last.end <= until:
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        assert info is not None
        last = info.data_interval
        theirs.append(Window(last.start, last.end))

    assert list(Schedule(cron, zone).windows(since, until)) == theirs[:-1]
