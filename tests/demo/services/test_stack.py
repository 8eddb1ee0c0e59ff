"""A whole stack starts, works, loses a part, and is gone with its owner, whatever happens to that."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
import pytest

from nightbatch.demo.services.airflow import AirflowServer
from nightbatch.demo.services.airflow_api import AirflowApi
from nightbatch.demo.services.process import ServiceFailed
from nightbatch.demo.services.stack import ANCESTOR_GONE, FolderInUse, Stack
from nightbatch.demo.services.waiting import monotonic_s, wait_until

GONE_WITHIN_S = 10.0
START_S = 200.0

DAG = """
import os, time
from airflow.sdk import dag, task

@dag(schedule="0 2 * * *", catchup=False)
def small():
    @task
    def double(n):
        print("doubling", n, os.environ["AIRFLOW_CONN_WAREHOUSE"][:8])
        return 2 * n
    double.expand(n=[1, 2, 3])

@dag(schedule=None)
def slow():
    @task
    def sleep(): time.sleep(600)
    sleep()

small(), slow()
"""

OWNER = """
import json, os, sys, time
from pathlib import Path
from nightbatch.demo.services.stack import Stack

folder, dags, kinds, end_with = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(","), sys.argv[4:]
with Stack(folder, end_with=[int(pid) for pid in end_with]) as stack:
    postgres, *_ = stack.start_stores_and_sinks() if "s3" in kinds else [stack.start_postgres()]
    if "airflow" in kinds:
        airflow = stack.start_airflow(postgres, dags_folder=dags, connections={"warehouse": postgres.url()})
        airflow.api.wait_for_dag("slow")
        airflow.api.unpause("slow")
        run = airflow.api.trigger("slow")["dag_run_id"]
        while airflow.api.task_instances("slow", run)[0]["state"] != "running":
            time.sleep(0.2)
    if "busy" in kinds:
        import psycopg
        with psycopg.connect(postgres.url()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        connection = psycopg.connect(postgres.url())
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000)")
    print(json.dumps(stack.pids()), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "small.py").write_text(DAG)
    return folder


def start_owner(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", OWNER, *arguments], stdout=subprocess.PIPE, text=True)


def pids_of(owner: subprocess.Popen[str]) -> list[int]:
    assert owner.stdout is not None
    told: list[int] = json.loads(owner.stdout.readline())
    return told


def seconds_until_gone(pids: list[int]) -> float:
    start = monotonic_s()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), what=f"{pids} to end", timeout_s=GONE_WITHIN_S)
    return monotonic_s() - start


def run_to_its_end(api: AirflowApi, dag_id: str) -> str:
    api.wait_for_dag(dag_id)
    api.unpause(dag_id)
    run = api.trigger(dag_id)["dag_run_id"]
    assert api.wait_for_run(dag_id, run, timeout_s=90)["state"] == "success"
    return str(run)


@pytest.mark.stack
@pytest.mark.timeout(400)
def test_airflow_works_dies_with_its_owner_and_comes_back(tmp_path: Path, dags: Path) -> None:
    """One story, because each start of Airflow takes its time."""
    with start_owner(str(tmp_path / "data"), str(dags), "s3,airflow") as owner:
        pids = pids_of(owner)
        commands = " ".join(part for pid in pids for part in psutil.Process(pid).cmdline())
        owner.kill()
    assert all(name in commands for name in ("postgres", "weed", "airflow", "guard"))
    print(f"\n{len(pids)} processes gone {seconds_until_gone(pids):.1f} s after kill -9")

    with Stack(tmp_path / "data") as stack:
        postgres = stack.start_postgres()
        start = monotonic_s()
        airflow = stack.start_airflow(postgres, dags_folder=dags, connections={"warehouse": postgres.url()})
        print(f"second start of Airflow: {monotonic_s() - start:.1f} s")
        check_a_run(airflow.api)
        check_killed_parts_can_be_started_again(airflow)
        pids = stack.pids()
    assert len(pids) > 8
    assert not any(psutil.pid_exists(pid) for pid in pids)


def check_a_run(api: AirflowApi) -> None:
    run = run_to_its_end(api, "small")
    instances = api.mapped_instances("small", run, "double")
    assert [instance["state"] for instance in instances] == ["success"] * 3
    assert sorted(api.xcom("small", run, "double", map_index=index) for index in range(3)) == [2, 4, 6]
    assert "doubling 3 postgres" in api.log("small", run, "double", map_index=2)
    assert api.import_errors() == []
    check_a_backfill(api)
    api.clear_run("small", run)
    assert api.wait_for_run("small", run, timeout_s=60)["state"] == "success"
    assert {instance["try_number"] for instance in api.mapped_instances("small", run, "double")} == {2}


def check_a_backfill(api: AirflowApi) -> None:
    first_day, last_day = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    backfill = api.create_backfill("small", from_date=first_day, to_date=last_day)
    assert api.backfill(backfill["id"])["dag_id"] == "small"

    def states() -> list[str]:
        return [run["state"] for run in api.dag_runs("small") if run["run_type"] == "backfill"]

    wait_until(lambda: states() == ["success", "success"], what="the backfill's runs", timeout_s=60)


def check_killed_parts_can_be_started_again(airflow: AirflowServer) -> None:
    for name in ("triggerer", "scheduler"):
        killed = airflow.kill_component(name)
        with pytest.raises(ServiceFailed, match=f"{name} .*exit code -9"):
            airflow.check()
        assert airflow.components()[name]["exit_code"] == -signal.SIGKILL
        wait_until(lambda pids=killed: not any(map(psutil.pid_exists, pids)), what=f"{name}'s children", timeout_s=10)
        assert airflow.start_component(name) not in killed
    run_to_its_end(airflow.api, "small")


@pytest.mark.stack
@pytest.mark.timeout(400)
def test_airflow_starts_fast(tmp_path: Path, dags: Path) -> None:
    """From an empty folder; 25 s on two quiet cores is promised, and a busy machine gets four times that."""
    told: list[str] = []
    with Stack(tmp_path / "data", on_progress=told.append) as stack:
        postgres = stack.start_postgres()
        start = monotonic_s()
        airflow = stack.start_airflow(postgres, dags_folder=dags, connections={"warehouse": "http://x"})
        seconds = monotonic_s() - start
        print(f"\nfirst start of Airflow: {seconds:.1f} s")
        assert airflow.login.password not in (tmp_path / "data/airflow/api-server.log").read_text()
    assert seconds < 100
    assert "airflow: waiting for api-server" in told


@pytest.fixture
def owner(tmp_path: Path, dags: Path) -> Iterator[subprocess.Popen[str]]:
    """An owner of a small stack, whose database works on a query that would take days."""
    with start_owner(str(tmp_path / "data"), str(dags), "busy") as process:
        yield process
        process.kill()


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_busy_database(owner: subprocess.Popen[str], with_signal: signal.Signals) -> None:
    """Each PostgreSQL backend has a session of its own, and a busy one does not see that its client is gone."""
    pids = pids_of(owner)
    assert len({os.getsid(pid) for pid in pids}) > 5

    owner.send_signal(with_signal)

    seconds_until_gone(pids)


def test_a_stack_ends_with_the_process_it_was_told_of(tmp_path: Path, dags: Path) -> None:
    """`make`, for example, which people kill instead of us."""
    make = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with start_owner(str(tmp_path / "data"), str(dags), "postgres", str(make.pid)) as owner:
        pids = pids_of(owner)
        make.kill()
        assert owner.wait(10) == ANCESTOR_GONE  # a zombie: nobody has waited for make yet
        assert make.wait(10) == -signal.SIGKILL
    seconds_until_gone(pids)


def test_a_folder_has_one_owner_and_is_free_after_it(tmp_path: Path) -> None:
    with Stack(tmp_path), pytest.raises(FolderInUse, match=re.escape(str(tmp_path))):
        Stack(tmp_path)
    with Stack(tmp_path):
        pass


def test_the_second_stack_on_a_crashed_folder_has_the_data(tmp_path: Path, dags: Path) -> None:
    """It starts at once, while the guards of the first are still at work."""
    with start_owner(str(tmp_path / "data"), str(dags), "busy") as owner:
        pids = pids_of(owner)
        owner.kill()

    with Stack(tmp_path / "data") as stack:
        postgres = stack.start_postgres()
        with psycopg.connect(postgres.url()) as connection:
            assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]
        assert not set(pids) & set(stack.pids())


def test_all_small_services_start_together_and_any_command_can_join(tmp_path: Path) -> None:
    told: list[str] = []
    with Stack(tmp_path, on_progress=told.append) as stack:
        postgres, s3, mail, slack = stack.start_stores_and_sinks()
        web = stack.start_http_command(
            "web", lambda port: [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        )
        assert web.answers("/no-such-page")
        assert mail.port and slack.port and s3.endpoint and postgres.port
        recorded = json.loads((tmp_path / "stack.json").read_text())
        assert recorded["owner"] == os.getpid()
        assert set(recorded["services"]) == {"postgres", "s3", "web"}
        assert {pid for pids in recorded["services"].values() for pid in pids} <= set(stack.pids())
        pids = stack.pids()
    assert told[-5:][0] == "web: stopping"
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_command_that_fails_to_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack, pytest.raises(ServiceFailed, match=r"(?s)web ended with exit code 2.*no such file"):
        stack.start_http_command("web", lambda port: [sys.executable, "/no such file"])
