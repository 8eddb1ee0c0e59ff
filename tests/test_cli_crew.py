"""`nightbatch run` reads parts in processes of their own, and does without those that die."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nightbatch import flow
from nightbatch.cli_crew import _side_by_side, crew_of
from nightbatch.cli_frame import ports_of
from nightbatch.core.window import ANY
from nightbatch.job import Job
from nightbatch.steps.parquet import read_rows
from tests.memory_stack import job_of


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Two files of records; one question in both."""
    monkeypatch.setenv("NIGHTBATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIGHTBATCH_PART_BYTES", "1")
    monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps({"conn_type": "openai", "password": "sk-none"}))
    for name in "ab":
        lines = [{"id": f"{name}{number}", "text": f"text {number}"} for number in range(1, 4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"files": f"{tmp_path}/*.jsonl", "key": "id", "parts": 2}
    return job_of(source=source, sink={"files": f"{tmp_path}/answers"})


def dies(*_: object) -> None:
    """Stand for a worker that the kernel kills."""
    os._exit(1)


def keys_of(job: Job, plan: flow.RoundPlan) -> list[str]:
    store = ports_of(job).store
    return [key for shard in plan.shards for (key,) in read_rows(store, shard.index_name, ("key",))]


def test_the_parts_are_read_by_workers_and_make_one_plan(job: Job, tmp_path: Path) -> None:
    read: list[list[str]] = []

    def crew(errands: list[flow.Errand]) -> None:
        _side_by_side(job, 2, errands)
        read.append(sorted(path.name for path in (tmp_path / "home").rglob("part-*.json")))

    plan = flow.prepare(ports_of(job), job, ANY, crew=crew)

    assert read[0] == ["part-000.json", "part-001.json"]
    assert keys_of(job, plan) == ["a1", "a2", "a3"]
    assert (plan.facts["counts"]["pulled"], plan.facts["counts"]["duplicates"]) == (6, 3)


def test_what_a_dead_worker_did_not_read_is_read_all_the_same(
    job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nightbatch.cli_crew._work", dies)

    plan = flow.prepare(ports_of(job), job, ANY, crew=lambda errands: _side_by_side(job, 2, errands))

    assert keys_of(job, plan) == ["a1", "a2", "a3"]
    assert "a part could not be read beside the others: a worker died" in caplog.text


def test_one_core_or_one_part_needs_no_workers(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crew_of(job_of()) is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert crew_of(job) is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert crew_of(job) is not None
