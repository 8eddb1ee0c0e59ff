"""The Dag does what `flow.run` does, in the same order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG

from nightbatch import flow
from nightbatch.core.result import Outcome, Result
from nightbatch.orchestration import tasks
from nightbatch.orchestration.dag import build_dag
from tests.memory_stack import NIGHT, Stack, job_of
from tests.orchestration.night import Night

STEPS = ("prepare", "advance", "close_round", "finish")
"""The functions of `flow` that both runners call."""
OPERATORS: dict[type, str] = {
    tasks.PrepareOperator: "prepare",
    tasks.BatchSensor: "advance",
    tasks.RetryOperator: "close_round",
    tasks.SettleOperator: "finish",
}


def calls_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which steps are called; calls of one step in a row are one."""
    made: list[str] = []

    def recorded(name: str) -> Callable[..., Any]:
        real = getattr(flow, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if made[-1:] != [name]:
                made.append(name)
            return real(*args, **kwargs)

        return call

    for name in STEPS:
        monkeypatch.setattr(flow, name, recorded(name))
    return made


def in_order(dag: DAG) -> list[str]:
    """Name the steps of a Dag's tasks in the order in which they can run."""
    return [OPERATORS[_kind(dag, task.task_id)] for task in dag.topological_sort()]


def _kind(dag: DAG, task_id: str) -> type:
    task = dag.task_dict[task_id]
    return getattr(task, "operator_class", type(task))


@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
def test_the_tasks_of_a_dag_stand_in_the_order_in_which_flow_calls_its_steps(
    rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows expire until the last round, so that every round is run."""
    stack = Stack([("k0", "text")])
    stack.vendor.answer = lambda messages, times: (
        Result("", Outcome.EXPIRED) if times < rounds else Result("", Outcome.ANSWERED, messages.user)
    )
    made = calls_of(monkeypatch)
    flow.run(stack.ports(), job_of(rounds=rounds), NIGHT)

    assert in_order(build_dag(job_of(rounds=rounds))) == made


def test_each_task_calls_its_own_step_and_no_other(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.faults(expired=1, fault_attempts=1)
    night.fill([("k0", "text", "2026-11-20")])
    dag = night.dag()
    made = calls_of(monkeypatch)

    assert night.run(dag).state == "success"

    assert made == in_order(dag)


def test_a_round_follows_the_one_before_and_settle_follows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    dag = build_dag(job_of(rounds=2))

    after = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}

    assert after == {
        "prepare": ["round_0.batch"],
        "round_0.batch": ["round_0.retry"],
        "round_0.retry": ["round_1.batch", "settle"],
        "round_1.batch": ["round_1.retry"],
        "round_1.retry": ["round_2.batch", "settle"],
        "round_2.batch": ["round_2.retry"],
        "round_2.retry": ["settle"],
        "settle": [],
    }


def test_the_trigger_rules_are_those_that_were_tried_out() -> None:
    dag = build_dag(job_of(rounds=1))

    rules = {task.task_id: task.trigger_rule.value for task in dag.tasks}

    assert rules == {
        "prepare": "all_success",
        "round_0.batch": "all_success",
        "round_0.retry": "all_done_min_one_success",
        "round_1.batch": "all_success",
        "round_1.retry": "all_done_min_one_success",
        "settle": "all_done",
    }
