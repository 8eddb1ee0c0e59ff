"""
Ten cells on one running Airflow: each process of it dies, its stores go away, and people clear and backfill.

Each cell is a night of a job of its own, at a vendor of its own, compared with a calm twin. Cells that hurt only
themselves run side by side; those that hurt all of Airflow follow, one at a time. Heartbeats are shortened, so that
the dead are missed within half a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from nightbatch.demo.installation import install
from nightbatch.demo.services.airflow_supervisor import COMPONENTS
from nightbatch.demo.services.family import runs
from nightbatch.demo.services.stack import Stack
from nightbatch.demo.services.waiting import monotonic_s, pause, wait_until
from tests.e2e.stand import DAYS, Stand, job, write_dags
from tests.faults.airflow_stand import DRIP, IN_CREATE, LONG_S, SHARDS, TWIN, Night, check, strike, worker_of
from tests.faults.conftest import Cell

pytestmark = pytest.mark.timeout(2400)

AWAY_S = 60.0
SLOW_S = 90.0
"""How long a batch takes where all shards must wait at one moment: longer than their tasks need to start in turn."""

SHORTENED = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    # Not less: a scheduler that a busy machine keeps waiting would take itself for dead, and its tasks for orphans.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "45",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    "NIGHTBATCH_SEND_DEADLINE_S": "60",
    "NIGHTBATCH_REQUEST_TIMEOUT_S": "90",
    "NIGHTBATCH_LISTING_LAG_S": "5",
}
"""Airflow looks for the dead every few seconds; seconds."""

LOCAL = ["task_process", "worker", "cleared", "reprocessed"]
NAMES = [TWIN, *LOCAL, "triggerer", "scheduler", "api_server", "all_at_once", "postgres", "s3"]


def night_job(name: str) -> dict[str, Any]:
    """Describe a night's job: 756 rows in three shards, one more round, and a report by mail and in Slack."""
    told = {"mail": ["night@example.com"], "slack_connection": "slack_alerts", "on": ["report", "late", "failed"]}
    schedule = {"schedule": "0 0 * * *"} if name == "reprocessed" else {}
    return job(name, shard={"max_rows": 260}, notify=told, **schedule)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Everything, started once."""
    folder = tmp_path_factory.mktemp("cells")
    dags = write_dags(folder / "dags", [night_job(name) for name in NAMES])
    with Stack(folder / "data") as stack:
        stand = Stand(stack, install(stack, is_real=False, faults={}, dags_folder=dags, extra=SHORTENED))
        stand.make_table()
        for name in NAMES:
            stand.api.wait_for_dag(name)
        assert stand.api.import_errors() == []
        yield stand


Local = dict[str, Future[Night]]


@pytest.fixture(scope="module", autouse=True)
def local(stand: Stand, request: pytest.FixtureRequest) -> Iterator[Local]:
    """Let the twin, and those cells of this session that hurt only themselves, run side by side."""
    scripts: dict[str, Callable[[Stand], Night]] = {
        TWIN: calm_night,
        "task_process": kill_task_processes,
        "worker": kill_workers,
        "cleared": clear_one_index,
        "reprocessed": reprocess_by_backfill,
    }
    chosen = [item for item in request.session.items if "test_on_airflow_with" in item.name]
    wanted = [TWIN, *(name for name in LOCAL if any(f"[{name}]" in item.name for item in chosen))]
    with ThreadPoolExecutor(len(scripts)) as pool:
        yield {name: pool.submit(scripts[name], stand) for name in wanted}


@pytest.fixture(autouse=True)
def timed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Say how long each cell was waited for."""
    began = monotonic_s()
    yield
    print(f"\n{request.node.name}: {monotonic_s() - began:.1f} s")


def calm_night(stand: Stand) -> Night:
    """Let a night go by."""
    night = Night.begin(stand, TWIN)
    assert night.end() == "success"
    return night


def kill_task_processes(stand: Stand) -> Night:
    """Kill a task's process while the reply to its create call is in flight, and one in the middle of a download."""
    night = Night.begin(stand, "task_process", **IN_CREATE)
    strike(night.until_in_create())
    night.vendor.change_faults(**DRIP)
    strike(night.until_downloading())
    assert night.end() == "success"
    return night


def kill_workers(stand: Stand) -> Night:
    """Kill a worker alone, whose task lives on and wakes up late; then one with its task, as when a host goes."""
    night = Night.begin(stand, "worker", **IN_CREATE)
    task = night.until_in_create()
    strike(worker_of(task))
    assert runs(task), "the task should live on without its worker"
    night.vendor.change_faults(**DRIP)
    other = night.until_downloading()
    strike(worker_of(other), other)
    assert night.end() == "success"
    return night


def clear_one_index(stand: Stand) -> Night:
    """Clear one shard's square while its batch is open, when all is loaded, and once more with what follows it."""
    night = Night.begin(stand, "cleared", batch_seconds=SLOW_S)
    night.until_waiting()
    stand.api.clear_task(night.job, night.run, "round_0.batch", map_index=1)
    assert night.end() == "success"
    for downstream in (False, True):
        stand.api.clear_task(night.job, night.run, "round_0.batch", map_index=1, downstream=downstream)
        assert night.end() == "success"
    return night


def reprocess_by_backfill(stand: Stand) -> Night:
    """Backfill a window whose manual run is under way; then reprocess it, complete as it is."""
    night = Night.begin(stand, "reprocessed", batch_seconds=SLOW_S)
    night.until_waiting()
    for tries, reprocess in enumerate(("none", "completed"), start=1):
        wait_until(lambda: not has_backfill(stand), what="the backfill before to be closed", timeout_s=LONG_S)
        stand.api.create_backfill(night.job, from_date=DAYS[0], to_date=DAYS[0], reprocess=reprocess)
        wait_until(lambda: settled(stand, tries), what=f"settle number {tries}", timeout_s=LONG_S, every_s=1.0)  # noqa: B023 - at once
    # The third is the scheduled run of a night without records, which began when the Dag was let go.
    assert [stand.end(night.job, run["dag_run_id"]) for run in stand.api.dag_runs(night.job)] == ["success"] * 3
    return night


def has_backfill(stand: Stand) -> bool:
    """Tell whether Airflow still counts a backfill as running."""
    return any(
        each["completed_at"] is None for each in stand.api.pages("/backfills", "backfills", dag_id="reprocessed")
    )


def settled(stand: Stand, tries: int) -> bool:
    """Tell whether the backfill's run has been settled so often."""
    return any(
        run["run_type"] == "backfill" and task["task_id"] == "settle" and task["state"] in ("success", "failed")
        for run in stand.api.dag_runs("reprocessed")
        for task in stand.api.task_instances("reprocessed", run["dag_run_id"])
        if task["try_number"] == tries
    )


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in LOCAL])
def test_on_airflow_with(name: str, local: Local, cell: Cell) -> None:
    """The four cells that hurt only themselves."""
    local[TWIN].result()
    check(local[name].result(), cell)


@pytest.fixture
def quiet(local: Local) -> None:
    """Wait until the cells that hurt only themselves are done: what follows hurts all."""
    for started in local.values():
        started.exception()
    local[TWIN].result()


def test_the_triggerer_dies(stand: Stand, quiet: None, cell: Cell) -> None:
    """Killed while every shard waits in it."""
    night = Night.begin(stand, "triggerer", batch_seconds=SLOW_S)
    night.until_waiting()
    stand.installation.airflow.kill_component("triggerer")
    assert {batch["status"] for batch in night.vendor.state()["batches"]} == {"in_progress"}
    stand.installation.airflow.start_component("triggerer")

    assert night.end() == "success"
    check(night, cell)


def test_the_scheduler_dies(stand: Stand, quiet: None, cell: Cell) -> None:
    """Killed with its workers and their tasks, one of which is in the middle of its create call."""
    night = Night.begin(stand, "scheduler", **IN_CREATE)
    task = night.until_in_create()
    assert task.pid in stand.installation.airflow.kill_component("scheduler")
    stand.installation.airflow.start_component("scheduler")

    assert night.end() == "success"
    check(night, cell)


def test_the_api_server_dies(stand: Stand, quiet: None, cell: Cell) -> None:
    """Killed, and away for so long that a task in the middle of its create call is given up by its worker."""
    night = Night.begin(stand, "api_server", **IN_CREATE)
    task = night.until_in_create()
    stand.installation.airflow.kill_component("api-server")
    assert runs(task)
    wait_until(lambda: not runs(task), what="the task to end with nobody to tell", timeout_s=LONG_S)
    stand.installation.airflow.start_component("api-server")
    stand.installation.airflow.wait_until_healthy(timeout_s=LONG_S)

    assert night.end() == "success"
    check(night, cell)


def test_all_of_airflow_dies_at_once(stand: Stand, quiet: None, cell: Cell) -> None:
    """Every part, worker and task is killed at one moment, and all are started again."""
    night = Night.begin(stand, "all_at_once", **IN_CREATE)
    task = night.until_in_create()
    assert task.pid in stand.installation.airflow.kill_components(list(COMPONENTS))
    assert sorted(stand.installation.airflow.start_ended()) == sorted(COMPONENTS)
    stand.installation.airflow.wait_until_healthy(timeout_s=LONG_S)

    assert night.end() == "success"
    check(night, cell)


def test_postgresql_is_restarted(stand: Stand, quiet: None, cell: Cell) -> None:
    """Ledger, warehouse and Airflow's own database end at once, in the middle of a create call."""
    night = Night.begin(stand, "postgres", **IN_CREATE)
    night.until_in_create()
    stand.installation.postgres.crash()
    stand.installation.postgres.start_again()

    assert end_with_a_service_manager(night) == "success"
    check(night, cell)


def end_with_a_service_manager(night: Night) -> str:
    """Wait for the end of a run, and start again whatever part of Airflow ends by itself."""
    airflow, restarted = night.stand.installation.airflow, []

    def ended() -> str:
        restarted.extend(airflow.start_ended())
        return night.state_if_told() if airflow.api.health() else ""

    state = wait_until(ended, what=f"the run of {night.job} to end", timeout_s=LONG_S, every_s=1.0)
    print(f"\nended by themselves and were started again: {', '.join(restarted) or 'none'}")
    return state


def test_s3_is_away_for_a_minute(stand: Stand, quiet: None, cell: Cell) -> None:
    """Batches end while nothing can be stored: no answer is lost, and nobody spins."""
    night = Night.begin(stand, "s3", batch_seconds=45)  # ends while S3 is away
    night.until_waiting()
    stand.installation.s3.go_away()
    began = monotonic_s()
    wait_until(
        lambda: {task["state"] for task in night.tasks()} <= {"deferred", "up_for_retry"},
        what="all tasks to give their workers back",
        timeout_s=AWAY_S,
    )
    pause(max(0.0, AWAY_S - (monotonic_s() - began)))  # the cell is about so long an absence
    stand.installation.s3.start_again()

    assert night.end() == "success"
    assert len(night.tasks()) == SHARDS
    check(night, cell)
