"""Dead letters get their second chance from the trigger form: they alone, once, in a generation of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.orchestration.night import NIGHT, Ended, Night
from tests.orchestration.test_runs import before

RECORDS = [(f"k{n}", f"text {n}", "2026-11-20") for n in range(8)]
ALL = {f"k{n}": f"text {n}" for n in range(8)}


def bury_some(make_night: Callable[..., Night]) -> tuple[Night, Any, dict[str, str]]:
    """Give a night after which some records, and not all, are dead letters."""
    night = make_night(faults="permanent=0.4")
    night.fill(RECORDS)
    dag = night.dag()
    assert night.test(dag).state == "success"
    dead = night.dead()
    assert 0 < len(dead) < 8
    night.faults()
    return night, dag, dead


def again(night: Night, dag: Any, **more: Any) -> Ended:
    return night.run(dag, {**NIGHT, "retry": ["invalid_request"], **more})


def test_the_trigger_form_sends_dead_letters_again_and_they_alone(make_night: Callable[..., Night]) -> None:
    night, dag, dead = bury_some(make_night)

    ended = again(night, dag)

    assert ended.state == "success"
    assert (night.answers(), night.dead()) == (ALL, {})
    assert sum(batch["rows"] for batch in night.batches()) == 8 + len(dead)
    (counts,) = ended.asset_events
    assert (counts["from_dead"], counts["pulled"], counts["good"]) == (len(dead), 0, len(dead))
    assert [run.generation for run in night.runs()] == [1, 2]


def test_clearing_a_retry_does_not_pay_again(make_night: Callable[..., Night]) -> None:
    night, dag, _ = bury_some(make_night)
    ended = again(night, dag)
    sent = len(night.batches())

    cleared = night.clear(ended)

    assert (cleared.state, len(night.batches())) == ("success", sent)
    assert [run.generation for run in night.runs()] == [1, 2]


def test_a_reason_of_which_no_letter_stands_fails_at_once_and_force_beside_it_too(
    make_night: Callable[..., Night],
) -> None:
    night, dag, dead = bury_some(make_night)

    ended = night.run(dag, {**NIGHT, "retry": ["truncated"]})
    both = again(night, dag, force=True)

    assert [(one.state, one.ran, one.tries["prepare"]) for one in (ended, both)] == [
        ("failed", {"prepare", "settle"}, 1)
    ] * 2
    assert night.dead() == dead
    assert [run.generation for run in night.runs()] == [1]


def test_a_dry_run_says_what_a_retry_would_send_and_sends_nothing(make_night: Callable[..., Night]) -> None:
    night, dag, dead = bury_some(make_night)
    sent = len(night.batches())

    ended = again(night, dag, dry_run=True)

    assert ended.xcoms["prepare", "dry_run"] == {"requests": len(dead), "shards": -(-len(dead) // 3)}
    assert (len(night.batches()), [run.generation for run in night.runs()]) == (sent, [1])


def test_a_run_that_is_cancelled_ends_red_sends_nothing_and_may_be_sent_later(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person cancels when one of three shards is at the vendor: the command's one commit is all that the Dag sees."""
    night.fill(RECORDS)
    met: set[int] = set()

    def cancel(ports: Any, _job: Any, ref: Any) -> None:
        is_second = bool(met) and ref.shard not in met
        met.add(ref.shard)
        if is_second and len(met) == 2:
            ports.ledger.cancel(ref.run, drops=True, now=ports.clock.now())

    before(monkeypatch, "advance", cancel)
    dag = night.dag()

    ended = night.test(dag)

    assert (ended.state, {name for name, state in ended.tasks.items() if state == "failed"}) == ("failed", {"settle"})
    # Whichever of the three came first was at the vendor: 3, 3 or 2 rows.
    (batch,) = night.batches()
    assert len(night.answers()) == batch["rows"]
    assert set(night.dead().values()) == {"cancelled"}

    later = night.run(dag, {**NIGHT, "retry": ["cancelled"]})

    assert (later.state, night.answers(), night.dead()) == ("success", ALL, {})
    assert sum(batch["rows"] for batch in night.batches()) == 8
