"""A job's Dag, run by `dag.test()` against a warehouse, a ledger and an emulated vendor."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from nightbatch import flow
from nightbatch.adapters.connections import from_environment
from nightbatch.adapters.registry import open_ports, settings_from
from nightbatch.errors import AccountTrouble, StorageUnavailable
from nightbatch.orchestration.tasks import BatchSensor
from nightbatch.steps.release import discard
from tests.orchestration.night import NEXT_NIGHT, NIGHT, WEEK, Night, utc, window

RECORDS = [(f"k{n}", f"text {n}", "2026-11-20") for n in range(8)]
ALL = {f"k{n}": f"text {n}" for n in range(8)}
ROUND_0 = {"prepare", "round_0.batch[0]", "round_0.batch[1]", "round_0.batch[2]", "round_0.retry", "settle"}


def before(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[..., None]) -> None:
    """Let something happen each time before `flow.name` is called; `act` takes its arguments."""
    real = getattr(flow, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        act(*args)
        return real(*args, **kwargs)

    monkeypatch.setattr(flow, name, call)


@pytest.mark.parametrize("ledger", ["sqlite", "postgres"])
def test_a_night_loads_every_record_and_tells_who_waits_for_its_sink(
    make_night: Callable[..., Night], ledger: str
) -> None:
    night = make_night(ledger=ledger)
    night.fill(RECORDS)

    ended = night.test(night.dag())

    assert ended.state == "success"
    assert ended.ran == ROUND_0
    assert night.answers() == ALL
    assert sorted(batch["rows"] for batch in night.batches()) == [2, 3, 3]
    (counts,) = ended.asset_events
    assert (counts["pulled"], counts["good"], counts["merged"], counts["state"]) == (8, 8, 8, "complete")
    assert [run.state for run in night.runs()] == ["complete"]


def test_waiting_holds_no_worker_and_spends_no_try(night: Night) -> None:
    night.fill(RECORDS)

    ended = night.test(night.dag())

    (looks,) = [count for what, count in night.vendor_state()["requests"].items() if "retrieve" in what]
    assert looks > 3
    assert set(ended.tries.values()) <= {0, 1}


def test_shards_that_wait_in_line_at_the_vendor_hold_no_worker_and_spend_no_try(
    make_night: Callable[..., Night], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue takes one batch, and that of another job is in it until one of ours was seen to wait for it."""
    night = make_night(ledger="postgres")
    night.fill(RECORDS)
    vendor = json.loads(night.env["AIRFLOW_CONN_VENDOR"]) | {"extra": {"queue": {"batches": 1}}}
    monkeypatch.setenv("AIRFLOW_CONN_VENDOR", json.dumps(vendor))
    other = night.job(name="other", sink={"table": "others", "connection": "warehouse"}, shard={"max_rows": 8})
    ports = open_ports(other, settings_from(night.env), from_environment(os.environ))
    plan = flow.prepare(ports, other, window(NIGHT))
    flow.advance(ports, other, plan.shards[0].ref)
    defer, batches = BatchSensor.defer, list[int]()

    def deferred(task: BatchSensor, **how: Any) -> None:
        if not batches:
            # Whichever Airflow began with.
            assert [shard.job for shard in night.ledger.queue()] == ["night"]
            batches.append(len(night.batches()))
            flow.run(ports, other, window(NIGHT))
        defer(task, **how)

    monkeypatch.setattr(BatchSensor, "defer", deferred)
    ended = night.test(night.dag())

    assert (batches, len(night.batches())) == ([1], 4)
    assert (ended.state, night.answers(), night.answers("others")) == ("success", ALL, ALL)
    assert set(ended.tries.values()) <= {0, 1}


def test_a_night_without_records_is_green_and_sends_nothing(night: Night) -> None:
    night.fill([("k0", "text", "2026-01-01")])

    ended = night.test(night.dag())

    assert (ended.state, ended.ran) == ("success", {"prepare", "settle"})
    assert (night.answers(), night.batches()) == ({}, [])
    assert [counts["requests"] for counts in ended.asset_events] == [0]


def test_rows_that_fail_are_sent_again_in_the_next_round_and_only_they(make_night: Callable[..., Night]) -> None:
    night = make_night(faults="expired=0.5, fault_attempts=1")
    night.fill(RECORDS)

    ended = night.test(night.dag())

    (counts,) = ended.asset_events
    again = counts["sent_again"]["expired"]
    assert 0 < again < 8
    assert ended.state == "success"
    assert night.answers() == ALL
    assert {"round_1.batch[0]", "round_1.retry"} <= ended.ran
    assert sum(batch["rows"] for batch in night.batches()) == 8 + again


# --- each task's failure --------------------------------------------------------------------------------------


def test_prepare_fails_at_once_where_no_retry_can_help_and_goes_on_when_it_is_mended(night: Night) -> None:
    night.fill(RECORDS)
    night.sql("alter table records rename column body to text")

    ended = night.test(night.dag())

    assert (ended.state, ended.ran) == ("failed", {"prepare", "settle"})
    assert ended.tries["prepare"] == 1
    assert (night.answers(), night.batches(), ended.asset_events) == ({}, [], [])

    night.sql("alter table records rename column text to body")
    cleared = night.clear(ended)

    assert cleared.state == "success"
    assert night.answers() == ALL
    assert [run.state for run in night.runs()][-1] == "complete"


def test_a_plan_of_more_shards_than_airflow_maps_says_what_to_do(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.fill(RECORDS)
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")

    ended = night.run(night.dag())

    assert (ended.state, ended.ran, ended.tries["prepare"]) == ("failed", {"prepare", "settle"}, 1)
    assert night.batches() == []

    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "3")
    assert night.clear(ended).state == "success"
    assert night.answers() == ALL


def test_a_connection_that_is_not_there_fails_at_once(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.fill(RECORDS)
    monkeypatch.delenv("AIRFLOW_CONN_WAREHOUSE")

    ended = night.run(night.dag())

    assert (ended.state, ended.ran, ended.tries["prepare"]) == ("failed", {"prepare", "settle"}, 1)


def test_one_shard_that_fails_for_good_stops_no_other_and_the_run_is_red(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changes a sealed file: that shard is never sent; mended and cleared, the run goes on with it alone."""
    night.fill(RECORDS)
    sealed: dict[str, bytes] = {}

    def tamper(ports: Any, _job: Any, ref: Any) -> None:
        if ref.shard == 1 and not sealed:
            name = ports.ledger.shard(ref).plan.requests_name
            sealed[name] = ports.store.read(name)
            ports.store.write(name, sealed[name] + b"\n")

    before(monkeypatch, "advance", tamper)

    ended = night.test(night.dag())

    assert (ended.state, ended.ran) == ("failed", ROUND_0)
    failed = {name for name, state in ended.tasks.items() if state == "failed"}
    assert failed == {"round_0.batch[1]", "settle"}
    assert ended.tries["round_0.batch[1]"] == 1
    assert set(night.answers()) == set(ALL) - {"k3", "k4", "k5"}
    assert ended.asset_events == []

    for name, content in sealed.items():
        (night.folder / "staging" / name).write_bytes(content)
    cleared = night.clear(ended, *failed)

    assert cleared.state == "success"
    assert night.answers() == ALL
    assert sorted(batch["rows"] for batch in night.batches()) == [2, 3, 3]


def test_clearing_only_what_failed_sends_the_late_rows_again_and_turns_the_run_green(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard's task fails while the others go on; its rows expire, and the round that took the others' is closed."""
    night.faults(expired=1, fault_attempts=1)
    night.fill(RECORDS)
    is_down = True

    def fail(ports: Any, _job: Any, ref: Any) -> None:
        if is_down and (ref.round, ref.shard) == (0, 1):
            raise AccountTrouble("openai", code="401", message="this key may not read it")

    before(monkeypatch, "advance", fail)
    ended = night.run(night.dag())
    assert ended.state == "failed"
    assert set(night.answers()) == set(ALL) - {"k3", "k4", "k5"}

    is_down = False
    cleared = night.clear(ended, *(name for name, state in ended.tasks.items() if state == "failed"))

    assert cleared.state == "success"
    assert night.answers() == ALL
    assert [run.state for run in night.runs()] == ["complete"]
    assert sorted(batch["rows"] for batch in night.batches()) == [2, 2, 3, 3, 3, 3]


def test_a_retry_that_fails_makes_the_run_red_and_loses_no_dead_letter(
    make_night: Callable[..., Night], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of dead letters breaks: nothing is lost, and the run goes on when it is there again."""
    night = make_night(faults="permanent=0.4")
    night.fill(RECORDS)
    broken: list[str] = []

    def break_dead_letters(*_: Any) -> None:
        if not broken:
            broken.append("answers_dead_letters")
            night.sql("alter table answers_dead_letters rename to away; create table answers_dead_letters (x int)")

    before(monkeypatch, "close_round", break_dead_letters)

    ended = night.test(night.dag())

    failed = {name for name, state in ended.tasks.items() if state == "failed"}
    assert (ended.state, failed) == ("failed", {"round_0.retry", "settle"})
    assert ended.tries["round_0.retry"] == 1
    good = night.answers()
    assert 0 < len(good) < 8
    assert ended.asset_events == []

    night.sql("drop table answers_dead_letters; alter table away rename to answers_dead_letters")
    cleared = night.clear(ended, "round_0.retry", "round_1.batch", "round_1.retry", "settle")

    assert cleared.state == "success"
    assert night.answers() == good
    assert set(night.dead()) == set(ALL) - set(good)
    assert sum(batch["rows"] for batch in night.batches()) == 8


def test_a_load_that_fails_keeps_its_answers_and_they_are_not_paid_again(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sink is away when one shard comes: what was loaded stays, the rest is loaded once it is back."""
    night.fill(RECORDS)

    def take_sink_away(_ports: Any, _job: Any, shard: Any) -> None:
        is_away = night.sql("select to_regclass('away')") != [(None,)]
        if shard.plan.ref.shard == 1 and not is_away and not mended:
            night.sql("alter table answers rename to away; create table answers (x int)")
        elif is_away:
            night.sql("drop table answers; alter table away rename to answers")

    mended: list[bool] = []
    before(monkeypatch, "load", take_sink_away)

    ended = night.test(night.dag())

    failed = {name for name, state in ended.tasks.items() if state == "failed"}
    assert (ended.state, failed) == ("failed", {"round_0.batch[1]", "settle"})
    assert ended.tries["round_0.batch[1]"] == 1
    assert ended.asset_events == []

    mended.append(True)
    cleared = night.clear(ended, *failed)

    assert cleared.state == "success"
    assert night.answers() == ALL
    assert len(night.batches()) == 3


def test_rows_that_nobody_answers_are_pending_and_settle_fails(make_night: Callable[..., Night]) -> None:
    night = make_night(faults="expired=0.5, fault_attempts=0")
    night.fill(RECORDS)

    ended = night.test(night.dag())

    failed = {name for name, state in ended.tasks.items() if state == "failed"}
    assert (ended.state, failed) == ("failed", {"settle"})
    assert ended.tries["settle"] == 1
    loaded = night.answers()
    assert 0 < len(loaded) < 8
    assert ended.asset_events == []
    (run,) = night.runs()
    assert (run.state, run.books["pending"]) == ("incomplete", {"expired": 8 - len(loaded)})  # type: ignore[index]

    night.faults()
    cleared = night.clear(ended)

    assert cleared.state == "success"
    assert night.answers() == ALL
    assert sum(batch["good_rows"] for batch in night.batches()) == 8


def test_what_may_pass_is_tried_again(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.fill(RECORDS[:1])
    failures = iter([True])

    def fail_once(*_: Any) -> None:
        if next(failures, False):
            raise StorageUnavailable("the ledger", cause="it restarts")

    before(monkeypatch, "advance", fail_once)

    ended = night.test(night.dag())

    assert (ended.state, ended.tries["round_0.batch[0]"]) == ("success", 2)


# --- dry runs, overlaps, force --------------------------------------------------------------------------------


def test_a_dry_run_plans_and_stops(night: Night) -> None:
    night.fill(RECORDS)

    ended = night.run(night.dag(), {**NIGHT, "dry_run": True})

    assert (ended.state, ended.ran) == ("success", set())
    assert (night.batches(), night.vendor_state()["files"], night.runs()) == ([], 0, [])
    assert night.sql("select to_regclass('answers')") == [(None,)]
    assert ended.asset_events == []
    assert not list((night.folder / "staging").rglob("*.jsonl"))


def test_a_dry_run_that_cannot_plan_is_red(night: Night) -> None:
    ended = night.run(night.dag(), {**NIGHT, "dry_run": True})

    assert ended.state == "failed"
    assert (night.batches(), night.runs()) == ([], [])


def test_a_run_waits_for_an_overlapping_one_without_a_worker(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    night.fill(RECORDS)
    clock = window(WEEK).end
    other = night.ledger.open_run("night", window(WEEK), now=clock)
    looks: list[str] = []

    def settle_at_the_third_look(ports: Any, *_: Any) -> None:
        looks.append(ports.ledger.run(other.run).state)
        if len(looks) == 3:
            ports.ledger.settle(other.run, state="complete", books={}, now=clock)

    before(monkeypatch, "prepare", settle_at_the_third_look)

    ended = night.run(night.dag())

    assert looks == ["open", "open", "open"]
    assert (ended.state, ended.tries["prepare"]) == ("success", 1)
    assert night.answers() == ALL


def test_clearing_a_forced_run_does_not_pay_again(night: Night) -> None:
    night.fill(RECORDS)
    dag = night.dag()
    night.run(dag)
    forced = night.run(dag, {**NIGHT, "force": True, "refresh": True})
    assert (forced.state, len(night.batches())) == ("success", 6)

    cleared = night.clear(forced)

    assert (cleared.state, len(night.batches())) == ("success", 6)
    assert [run.generation for run in night.runs()] == [1, 2]


def test_clearing_a_forced_run_that_ended_incomplete_pays_for_the_pending_rows_alone(night: Night) -> None:
    night.fill(RECORDS)
    dag = night.dag()
    night.faults(expired=0.5, fault_attempts=0)
    forced = night.run(dag, {**NIGHT, "force": True, "refresh": True})
    assert forced.state == "failed"
    night.faults()

    cleared = night.clear(forced)

    assert cleared.state == "success"
    assert night.answers() == ALL
    assert sum(batch["good_rows"] for batch in night.batches()) == 8


def test_what_the_quality_gate_holds_back_goes_on_in_the_same_run_once_the_form_releases_it(night: Night) -> None:
    night.fill(RECORDS)
    dag = night.dag(quality={"min_rows": 2, "ranges": {"answer": {"max": 3}}})

    stopped = night.run(dag)

    assert (stopped.state, night.answers()) == ("failed", {})
    assert {name for name, state in stopped.tasks.items() if state == "failed"} == {"settle"}
    assert [run.state for run in night.runs()] == ["open"]

    released = night.run(dag, {**NIGHT, "release": True})

    assert (released.state, night.answers()) == ("success", ALL)
    assert [run.state for run in night.runs()] == ["complete"]
    assert sum(batch["rows"] for batch in night.batches()) == 8


def test_what_the_form_discards_is_dead_letters_when_settle_alone_is_cleared(night: Night) -> None:
    night.fill(RECORDS)
    dag = night.dag(quality={"min_rows": 2, "ranges": {"answer": {"max": 3}}})
    stopped = night.run(dag)
    (run,) = night.runs()
    discard(night.ledger, run, by="a person", now=utc(2026, 11, 22))

    cleared = night.clear(stopped, "settle")

    assert (cleared.state, night.answers()) == ("failed", {})
    assert night.dead() == dict.fromkeys(ALL, "discarded")
    assert [run.state for run in night.runs()] == ["failed"]


def test_clearing_an_older_forced_run_does_not_pay_again_either(night: Night) -> None:
    night.fill(RECORDS)
    dag = night.dag()
    anew = {**NIGHT, "force": True, "refresh": True}
    older, _newer = night.run(dag, anew), night.run(dag, anew)
    paid = len(night.batches())

    night.clear(older)

    assert len(night.batches()) == paid


def test_the_next_night_takes_the_pending_rows_first(night: Night) -> None:
    night.fill([*RECORDS, ("new", "new text", "2026-11-21")])
    dag = night.dag()
    night.faults(expired=0.5, fault_attempts=0)
    night.run(dag)
    night.faults()

    ended = night.run(dag, NEXT_NIGHT)

    assert ended.state == "success"
    assert night.answers() == {**ALL, "new": "new text"}


# --- what Airflow keeps ---------------------------------------------------------------------------------------


def test_airflow_holds_references_and_counts_and_no_text_of_a_record_or_an_answer(
    make_night: Callable[..., Night],
) -> None:
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session
    from sqlalchemy import select

    night = make_night(faults="expired=0.3, permanent=0.3")
    night.fill([(f"secret-key-{n}", f"secret text {n}", "2026-11-20") for n in range(8)])

    ended = night.run(night.dag())

    assert night.answers()
    with create_session() as session:
        fields = [row.rendered_fields for row in session.scalars(select(RenderedTaskInstanceFields))]
    kept = json.dumps([list(ended.xcoms.values()), fields, ended.asset_events])
    assert "round_0.batch[0]" in {task for task, _ in ended.xcoms}
    assert "secret" not in kept
    assert max(len(json.dumps(value)) for value in ended.xcoms.values()) < 2_000


def test_the_button_of_a_shard_leads_to_its_batch(night: Night) -> None:
    night.fill(RECORDS[:1])

    ended = night.run(night.dag())

    (link,) = {value for (task, key), value in ended.xcoms.items() if key == "_link_BatchLink"}
    assert link.startswith("http")


def test_a_shard_is_called_by_its_name_in_the_grid(night: Night) -> None:
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    night.fill(RECORDS[:4])

    ended = night.run(night.dag())

    with create_session() as session:
        here = (TaskInstance.run_id == ended.run_id, TaskInstance.map_index >= 0)
        names = session.scalars(select(TaskInstance.rendered_map_index).where(*here)).all()
    assert sorted(names) == ["r0-s000 · 3 rows · gpt-5-mini", "r0-s001 · 1 rows · gpt-5-mini"]
