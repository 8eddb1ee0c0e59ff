"""The dags folder as Airflow reads it: no connection, no network, no database, no SDK, and no job file hidden."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization

from nightbatch.airflow_dags import dags_from
from nightbatch.orchestration.dag import RETRIES, build_dags
from nightbatch.orchestration.tasks import BatchLink
from tests.orchestration.night import drive, known, new_run

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "include" / "jobs"
HEAVY = ("openai", "anthropic", "boto3", "botocore", "pandas", "psycopg", "psycopg2", "obstore", "duckdb", "pyarrow")
"""What only a task needs. Airflow itself is measured beside ours, so that what it imports is not held against us."""

PARSE = """
import json, socket, sys, time

def refuse(*where, **_):
    raise AssertionError(f"the network was touched: {where}")

import airflow.sdk, airflow.dag_processing.dagbag, airflow.serialization.serialized_objects
airflow.sdk.Asset("any", uri="any://asset/with/an/address")  # Airflow then imports every provider's hooks, boto3 too
before = set(sys.modules)
began = time.process_time()
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import sqlalchemy
sqlalchemy.event.listen(sqlalchemy.pool.Pool, "connect", refuse)
from importlib.util import module_from_spec, spec_from_file_location
for path in sys.argv[1:]:
    spec = spec_from_file_location(path.rsplit("/", 1)[1].removesuffix(".py"), path)
    spec.loader.exec_module(module_from_spec(spec))
print(json.dumps({"seconds": time.process_time() - began, "modules": sorted(set(sys.modules) - before)}))
"""


@pytest.fixture(scope="module")
def bag(airflow: None) -> DagBag:
    """The project's Dags, read as Airflow does."""
    return DagBag(str(ROOT / "dags"), collect_dags=True)


def test_every_dag_imports_without_a_connection(bag: DagBag) -> None:
    assert not [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]
    assert bag.import_errors == {}
    assert {
        "review_sentiment",
        "review_topics",
        "review_urgency",
        "nightbatch_housekeeping",
        "nightbatch_watchdog",
    } <= set(bag.dags)


def test_every_dag_survives_being_written_to_airflows_database(bag: DagBag) -> None:
    for dag in bag.dags.values():
        there = DagSerialization.to_dict(dag)
        back = DagSerialization.from_dict(json.loads(json.dumps(there)))
        assert set(back.task_dict) == set(dag.task_dict)
        assert {name: task.downstream_task_ids for name, task in back.task_dict.items()} == {
            name: task.downstream_task_ids for name, task in dag.task_dict.items()
        }


def test_the_scheduler_makes_the_same_deadline_of_what_was_written_down(bag: DagBag) -> None:
    """Our reference is found again through the plugin."""
    from airflow.serialization.decoders import decode_deadline_alert
    from airflow.serialization.encoders import encode_deadline_alert

    alerts = {dag_id: list(dag.deadline or []) for dag_id, dag in bag.dags.items()}

    assert len(alerts["review_sentiment"]) == len(alerts["review_topics"]) == 2
    for alert in [alert for found in alerts.values() for alert in found]:
        back = decode_deadline_alert(json.loads(json.dumps(encode_deadline_alert(alert))))
        assert type(back.reference.inner_ref).__name__ == "JobDeadline"
        assert back.reference.serialize_reference() == alert.reference.serialize_reference()
        assert (back.interval, back.name) == (alert.interval, alert.name)
        assert back.callback.path == "nightbatch.orchestration.deadlines.tell_deadline"


def test_the_ui_knows_the_button_of_a_shard_without_importing_ours(bag: DagBag) -> None:
    back = DagSerialization.from_dict(DagSerialization.to_dict(bag.dags["review_topics"]))

    (button,) = back.task_dict["round_0.batch"].operator_extra_links

    assert (button.name, button.xcom_key) == ("Batch at the vendor", BatchLink().xcom_key)


def test_parsing_touches_no_network_and_no_database_and_imports_nothing_that_only_tasks_need() -> None:
    files = [str(path) for path in sorted((ROOT / "dags").glob("*.py"))]
    done = subprocess.run([sys.executable, "-c", PARSE, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    print(
        f"\nparsing {len(files)} Dag files for the first time costs {found['seconds']:.2f} CPU s beyond Airflow's own"
    )
    assert [name for name in found["modules"] if name.partition(".")[0] in HEAVY] == []
    only_tasks = ("nightbatch.flow", "nightbatch.ports", "nightbatch.adapters", "nightbatch.orchestration.trigger")
    assert [name for name in found["modules"] if name.startswith(only_tasks)] == []
    # Generous: what is guarded against is an SDK or a query at parse, which cost many times more on a busy machine.
    assert found["seconds"] < 20


def test_every_task_is_tried_again_and_no_default_of_airflow_makes_it_wait_minutes(bag: DagBag) -> None:
    assert RETRIES["retries"] >= 3
    ours = ("review_sentiment", "review_topics", "review_urgency", "nightbatch_housekeeping", "nightbatch_watchdog")
    for dag_id in ours:
        for task in bag.dags[dag_id].tasks:
            assert task.retries >= 3, task.task_id
            assert task.retry_delay.total_seconds() <= 30, task.task_id


def test_every_dag_tells_its_reader_what_it_does_and_whose_it_is(bag: DagBag) -> None:
    for dag_id in ("review_sentiment", "review_topics", "review_urgency"):
        dag = bag.dags[dag_id]
        assert "Red?" in (dag.doc_md or "")
        assert "nightbatch" in dag.tags
        assert {task.owner for task in dag.tasks} == {"data-team"}
        assert all(task.doc_md for task in dag.tasks)


# --- a bad job file -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project's job files, and a bad one."""
    for path in [*JOBS.glob("*.yaml"), *(ROOT / "include" / "prompts").iterdir()]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "Bad Job.yaml").write_text("name: bad\nsource: {files: in/, kye: id}\nmodels: []\nrounds: nine\n")
    return tmp_path


def test_a_bad_job_file_becomes_a_dag_that_says_all_that_is_wrong_and_the_good_ones_stay(folder: Path) -> None:
    dags = build_dags(folder)

    assert set(dags) == {"review_sentiment", "review_topics", "bad_job__invalid"}
    said = dags["bad_job__invalid"].doc_md or ""
    assert "kye" in said
    assert "rounds" in said
    assert "models" in said
    assert "invalid job file" in dags["bad_job__invalid"].tags
    assert DagSerialization.from_dict(DagSerialization.to_dict(dags["bad_job__invalid"]))


def test_the_dag_of_a_bad_job_file_fails_with_what_is_wrong(folder: Path, airflow: None) -> None:
    from airflow.utils.types import DagRunType

    dag = known(build_dags(folder)["bad_job__invalid"])

    run = drive(dag, new_run(dag, DagRunType.MANUAL, None))

    assert _state(dag, run) == "failed"
    with pytest.raises(AirflowFailException, match="kye"):
        dag.task_dict["read_the_docs_of_this_dag"].execute({})


def test_two_files_with_one_sink_do_not_both_run(folder: Path) -> None:
    text = (folder / "review_topics.yaml").read_text()
    (folder / "z_copy.yaml").write_text(text.replace("name: review_topics", "name: copy"))

    dags = build_dags(folder)

    assert "copy" not in dags
    assert "s3://reviews/topics" in (dags["z_copy__invalid"].doc_md or "")


def _state(dag: DAG, run_id: str) -> Any:
    from tests.orchestration.night import Ended

    return Ended(dag, run_id).state


def test_airflow_finds_one_plugin_where_the_package_is_installed_and_the_folder_too_is_read() -> None:
    """Two of one name would be an import error on the plugins page."""
    from airflow import plugins_manager

    plugins, errors = plugins_manager._get_plugins()

    assert [str(one.source).split(":")[0] for one in plugins if one.name == "nightbatch"] == [
        f"nightbatch=={version('nightbatch')}"
    ]
    assert errors == {}


def test_two_lines_give_all_dags_of_a_folder_and_the_one_that_tidies_up(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text((JOBS / "review_sentiment.yaml").read_text().replace("_file:", "_no:"))

    assert set(dags_from(tmp_path)) == {
        "good__invalid",
        "nightbatch_housekeeping",
        "nightbatch_watchdog",
    }
    assert set(dags_from(tmp_path, housekeeping=False)) == {"good__invalid"}
    assert set(dags_from(JOBS, housekeeping=False)) == {"review_sentiment", "review_topics"}
