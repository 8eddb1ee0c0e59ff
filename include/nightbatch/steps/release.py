"""What a person decides about a run that a gate stopped: let it go, or discard what was held back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from nightbatch.errors import RunFailed
from nightbatch.job import Job
from nightbatch.ports import Gate, Ledger, Run

CANARY, QUALITY = "canary", "quality"
NAMES = {QUALITY: "quality gate", CANARY: "canary"}
"""What people call each gate, the one that a person looks at first before the other."""


def stopped(ledger: Ledger, run: str) -> list[Gate]:
    """Give the gates that stopped a run and wait for a person; empty for any other run."""
    found = (ledger.gate(run, kind) for kind in NAMES)
    return [gate for gate in found if gate is not None and gate.state == "stopped"]


def stands_still(ledger: Ledger, job: Job, run: str) -> bool:
    """Say whether the quality gate stopped a run: nothing of it is sent, loaded or sorted until a person decides."""
    gate = ledger.gate(run, QUALITY) if job.quality is not None else None
    return gate is not None and gate.state == "stopped"


def decided(ledger: Ledger, job: Job, run: str) -> str:
    """Give what a person decided about a run that the quality gate stopped: `released`, `discarded`, or nothing yet."""
    gate = ledger.gate(run, QUALITY) if job.quality is not None else None
    return gate.state if gate is not None and gate.decided_by else ""


def why(gate: Gate) -> str:
    """Say in words why a gate stopped a run."""
    return f"the {NAMES[gate.kind]} stopped the run: {'; '.join(gate.facts['breaches'])}"


def let_go(ledger: Ledger, run: Run, *, by: str, now: datetime) -> list[Gate]:
    """
    Release what gates hold back: answers that wait are loaded, and a canary's followers are sent. Twice is fine.

    A run that was released is held to no bound any more. Raises RunFailed where nothing is held back.
    """
    gates = _waiting(ledger, run, NAMES, then="released")
    if not gates:
        remedy = "`nightbatch status` names the runs that wait for a person."
        raise RunFailed(run.run, problem="neither a quality gate nor a canary holds anything back", remedy=remedy)
    return [ledger.decide_gate(run.run, gate.kind, "released", {}, by=by, now=now) for gate in gates]


def discard(ledger: Ledger, run: Run, *, by: str, now: datetime) -> list[Gate]:
    """
    Discard the answers that the quality gate holds back: they become dead letters. Twice is fine.

    Raises RunFailed where it holds none back.
    """
    gates = _waiting(ledger, run, (QUALITY,), then="discarded")
    if not gates:
        remedy = (
            "What a canary held back was never sent: run the window with force, which plans it anew. `nightbatch "
            "status` names the runs that wait for a person."
        )
        raise RunFailed(run.run, problem="the quality gate holds no answers back", remedy=remedy)
    return [ledger.decide_gate(run.run, gate.kind, "discarded", {}, by=by, now=now) for gate in gates]


def _waiting(ledger: Ledger, run: Run, kinds: Iterable[str], *, then: str) -> list[Gate]:
    found = (ledger.gate(run.run, kind) for kind in kinds)
    return [gate for gate in found if gate is not None and gate.state in ("stopped", then)]
