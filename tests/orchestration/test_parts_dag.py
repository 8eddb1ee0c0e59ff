"""A job that is read in parts: two more tasks before `prepare`, and the same answers as in one."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG

from nightbatch import flow
from nightbatch.errors import StorageUnavailable
from nightbatch.orchestration.dag import build_dag
from tests.memory_stack import job_of
from tests.orchestration.night import NIGHT, QUERY, Night

RECORDS = [(f"k{n:02d}", f"text {n % 45}", "2026-11-20") for n in range(60)]
ALL = {key: text for key, text, _ in RECORDS}
SOURCE: dict[str, Any] = {"query": QUERY, "connection": "warehouse", "key": "id", "parts": 3}


def dag_of(night: Night, **changes: Any) -> DAG:
    return night.dag(**{"source": SOURCE, "rounds": 0, "shard": {"max_rows": 100}, **changes})


def test_parts_are_cut_then_read_then_put_together() -> None:
    dag = build_dag(job_of(rounds=0, source={**SOURCE, "connection": "c"}))

    after = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}

    assert after == {
        "parts": ["read"],
        "read": ["sort"],
        "sort": ["mend"],
        "mend": ["prepare"],
        "prepare": ["round_0.batch"],
        "round_0.batch": ["round_0.retry"],
        "round_0.retry": ["settle"],
        "settle": [],
    }
    assert {dag.task_dict[name].trigger_rule.value for name in ("sort", "prepare")} == {"none_failed"}


def test_a_night_in_parts_asks_each_question_once_and_clearing_it_changes_nothing(night: Night) -> None:
    night.fill(RECORDS)

    ended = night.run(dag_of(night, shard={"max_rows": 10}))

    assert ended.state == "success"
    assert {name for name in ended.ran if not name.startswith("round")} == {
        "parts", "read[0]", "read[1]", "read[2]", "sort", "mend[0]", "mend[1]", "prepare", "settle",
    }  # fmt: skip
    assert night.answers() == ALL
    assert night.vendor_state()["rows"]["good"] == 45

    night.fill([("k00", "changed", "2026-11-20")])
    again = night.clear(ended, "parts", "read", "sort", "mend", "prepare")

    assert again.state == "success"
    assert night.answers() == ALL
    assert night.vendor_state()["rows"]["good"] == 45
    assert [run.generation for run in night.runs()] == [1]


def test_a_part_that_fails_stops_the_plan_and_cleared_with_parts_all_is_read(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.fill(RECORDS)
    real = flow.read_part

    def fails(ports: Any, job: Any, errand: flow.Errand, *args: Any, **kwargs: Any) -> None:
        if errand.number == 1:
            raise StorageUnavailable("the source", cause="it is away")
        real(ports, job, errand, *args, **kwargs)

    monkeypatch.setattr(flow, "read_part", fails)
    dag = dag_of(night)
    ended = night.run(dag)
    assert (ended.state, ended.tasks["prepare"]) == ("failed", "upstream_failed")
    assert night.batches() == []

    monkeypatch.setattr(flow, "read_part", real)
    again = night.clear(ended)

    assert again.state == "success"
    assert night.answers() == ALL


def test_a_dry_run_reads_no_part_and_says_what_it_would_cost(night: Night) -> None:
    night.fill(RECORDS)

    ended = night.run(dag_of(night), {**NIGHT, "dry_run": True})

    assert {ended.tasks[name] for name in ("read", "mend", "prepare")} == {"skipped"}
    assert ended.xcoms["prepare", "dry_run"] == {"requests": 45, "shards": 1}
