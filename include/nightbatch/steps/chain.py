"""Which generations of a window belong together: one goes on from the pending rows, or the dead letters, of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nightbatch.ports import Ledger, Ports, RoundPlan, Run


def earlier_of(ledger: Ledger, run: Run) -> list[Run]:
    """
    Give the generations that a run goes on from, newest first.

    A plan that read the source ends the chain: it asked every record of the window anew.
    """
    found: list[Run] = []
    plan = run.plan
    same = ledger.runs(job=run.job, window=run.window, limit=1_000)
    for other in sorted(same, key=lambda one: one.generation, reverse=True):
        if other.plan is not None and other.generation < run.generation and _goes_on(plan):
            found.append(other)
            plan = other.plan
    return found


def _goes_on(plan: Mapping[str, Any] | None) -> bool:
    return plan is not None and bool(plan.get("goes_on") or plan.get("retries"))


def retried_reasons(plan: Mapping[str, Any] | None) -> frozenset[str]:
    """Give the reasons of the dead letters that a plan sends again; empty for any other plan."""
    retries = (plan or {}).get("retries") or {}
    return frozenset(retries.get("reasons", ()))


def rounds_of(ports: Ports, run: str) -> list[RoundPlan]:
    """List the sealed rounds of a run in order."""
    rounds: list[RoundPlan] = []
    while (plan := ports.ledger.sealed(run, len(rounds))) is not None:
        rounds.append(plan)
    return rounds


def left_pending(ports: Ports, run: Run, before: Sequence[Run]) -> int:
    """
    Count the pending rows that a run which sends dead letters again left to others.

    It takes none of them, so that they still wait, and its window is not done.
    """
    if not retried_reasons(run.plan):
        return 0
    names = {one.run for one in before}
    return sum(file.rows for file in ports.ledger.pending(run.job) if file.run in names)
