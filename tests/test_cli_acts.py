"""`nightbatch retry` and `nightbatch cancel` say what they cost before they do it, in words to act on."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from nightbatch import cli_cancel, cli_retry, flow
from nightbatch.cli import app
from tests.memory_stack import NIGHT, Stack, job_of
from tests.steps.test_cancel import begun
from tests.steps.test_second_chance import BAD, CUT, after


def type_(monkeypatch: pytest.MonkeyPatch, stack: Stack, vendor: Any, *words: str, says: str = "") -> Any:
    """Type a command over an installation in memory, and answer its question."""
    ports = stack.ports(provider=lambda *_: vendor)
    for module in (cli_cancel, cli_retry):
        monkeypatch.setattr(module, "ledger_of_environment", lambda: stack.ledger)
        monkeypatch.setattr(module, "ports_of", lambda _job: ports)
    return CliRunner().invoke(app, list(words), input=says)


def test_a_cancel_says_what_it_costs_and_keeps_and_does_nothing_without_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, vendor, run = begun()

    for says in ("n\n", ""):
        told = type_(monkeypatch, stack, vendor, "cancel", "reviews", says=says)

        assert told.exit_code == 0, told.output
        words = " ".join(told.output.replace("│", " ").split())
        assert "openai batch_1: 1 of 3 rows done, at most" in words
        assert "rows done, 2 so far; their answers are loaded" in words
        assert "up to 6 rows become dead letters (cancelled), and nothing sends them on its own" in words
        assert f"nightbatch retry {run} --reason cancelled" in words
        assert "run reviews --from 2026-11-20T00:00:00Z --to 2026-11-21T00:00:00Z --force" in words
        assert "nothing was cancelled" in told.output
    assert (vendor.cancelled, stack.ledger.run(run).cancelled_utc) == ([], None)


def test_a_cancel_that_is_wanted_is_carried_out_and_typed_again_there_is_nothing_left_to_cancel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack, vendor, run = begun()

    done = type_(monkeypatch, stack, vendor, "cancel", run, says="y\n")
    again = type_(monkeypatch, stack, vendor, "cancel", run, says="y\n")

    assert (done.exit_code, len(vendor.cancelled)) == (0, 2)
    assert "2 answers are loaded" in done.output
    assert again.exit_code == 2
    assert "Only a run that is open has anything to cancel" in again.output


def test_a_cancel_that_died_goes_on_without_asking_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, vendor, run = begun()
    stack.ledger.cancel(run, drops=True, now=stack.clock.now())

    done = type_(monkeypatch, stack, vendor, "cancel", run)

    assert (done.exit_code, len(vendor.cancelled), stack.ledger.run(run).state) == (0, 2, "failed")


def test_a_retry_without_a_reason_only_shows_what_it_would_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = after(t1=BAD, t2=CUT)

    told = type_(monkeypatch, stack, stack.provider, "retry", "reviews")

    assert told.exit_code == 0, told.output
    assert "2 rows (1 requests); a retry costs" in told.output
    assert "1 rows; never sent, so a retry cannot help: mend the data, run the window with force" in told.output
    assert len(stack.ledger.runs()) == 1


def test_a_retry_typed_again_while_it_is_under_way_goes_on_and_another_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = after(t1=BAD, t2=CUT)
    (run,) = (one.run for one in stack.ledger.runs())
    asker = flow.Ask(("truncated",), f"cli {run} truncated  ")
    flow.prepare(stack.ports(), job_of(rounds=1), NIGHT, flow.Options(retry=asker))

    other = type_(monkeypatch, stack, stack.provider, "retry", "reviews", "--reason", "all")
    same = type_(monkeypatch, stack, stack.provider, "retry", "reviews", "--reason", "truncated")

    assert other.exit_code == 2
    assert "is still open" in other.output
    assert same.exit_code == 0, same.output
    assert stack.answers()["k2"] == "text 2"
    assert len(stack.ledger.runs()) == 2
